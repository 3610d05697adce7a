"""How many epochs are trained again when the command of a sweep is killed half way."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from cifake.stacks import Standing, begun_stacks
from sweeps.store import Store
from tests.benchmarks.grids import Grid
from tests.benchmarks.measure import Outcome
from tests.benchmarks.processes import apart, on_cores, run
from tests.sweeps.drivers import Driver, command_line, start

CORES = 2
_SWEEP = "killed"
_POLL = 0.05
_LATER = 0.5
"""Seconds by which each kill hits its sweep later than the one before, within an epoch or two."""

_GONE_WITHIN = 180.0
_TRAINED = re.compile(r"epochs (\d+)/\d+")


@dataclass(frozen=True)
class Left:
    """What a killed sweep has left in its store."""

    done: int
    """Epochs, over all runs, that all runs of a stack have committed."""

    in_flight: int
    """The epochs after those, one for each run of a stack that was begun and had more to train."""


def kill(
    source: Path, scratch: Path, grid: Grid | None = None, order: str = "per_seed", repeats: int = 3
) -> Outcome:
    """Kill the command when half of the epochs are committed, give it again, count epochs.

    Epochs trained are those before the kill, each epoch in flight counted whole, and those that the
    second command counts; what they are more than the plan's was trained again.

    Args:
        source: CIFAKE's images, as a file or folder that a sweep takes.
        scratch: an empty folder.
        grid: what is trained.
        order: a value of `data_order`.
        repeats: sweeps killed, each a little later than the one before.

    Raises:
        ValueError: the second command did not finish the sweep.
    """
    grid = grid or Grid(epochs=(5, 20), train_images=4_000, validation=200, test=800)
    scratch.mkdir()
    again: list[int] = []
    in_flight: list[int] = []
    with on_cores(CORES):
        for turn in range(repeats):
            folder = scratch / str(turn)
            folder.mkdir()
            left, second = _killed(source, folder, grid, order, turn * _LATER)
            again.append(left.done + left.in_flight + second - grid.epochs_of_runs)
            in_flight.append(left.in_flight)
    return Outcome(
        "epochs trained again after SIGKILL of the driver half way, vs epochs in flight",
        "epochs",
        again,
        "ratio at most",
        1.0,
        in_flight,
    )


def _killed(source: Path, folder: Path, grid: Grid, order: str, later: float) -> tuple[Left, int]:
    """Kill a sweep half way and let it end; what the kill left, and the epochs trained after it."""
    specification = folder / f"{_SWEEP}.yaml"
    specification.write_text(json.dumps(grid.specification(_SWEEP, order)))
    store = folder / "store"
    options = [str(specification), "--store", str(store), "--data", f"cifake={source}"]
    command = [sys.executable, "-m", "sweeps", "run", *options]
    with apart() as environment:
        driver = start(command, environment, folder / "killed")
        try:
            _await(driver, store, grid.epochs_of_runs // 2)
            time.sleep(later)
            os.kill(driver.process.pid, signal.SIGKILL)
            driver.process.wait()
            if not driver.gone(_GONE_WITHIN):
                raise ValueError(f"the killed sweep lives on: {_names(driver)}")
        finally:
            driver.end()
        left = what_is_left(store, max(grid.epochs))
        run(grid.epochs_of_runs, command, environment, folder)
    if committed(store) != grid.epochs_of_runs:
        raise ValueError(f"{committed(store)} epochs of {grid.epochs_of_runs} are committed")
    return left, int(_TRAINED.findall((folder / "log").read_text())[-1])


def _names(driver: Driver) -> str:
    return "; ".join(command_line(process)[:80] for process in driver.relatives())


def _await(driver: Driver, store: Path, epochs: int) -> None:
    """Wait until a running sweep has committed some epochs."""
    while committed(store) < epochs:
        if driver.process.poll() is not None:
            raise ValueError(f"the sweep ended before {epochs} epochs were committed")
        time.sleep(_POLL)


def committed(store: Path) -> int:
    """Epochs of a store over all runs; 0 before there is one."""
    if not (store / "store.json").exists():
        return 0
    states = Store.open(str(store), create=False).run_states().values()
    return sum(state.epochs_done for state in states)


def what_is_left(store: Path, length: int) -> Left:
    """What a store of a sweep that was killed holds.

    Args:
        store: its folder.
        length: epochs of every run of the sweep.

    Raises:
        ValueError: the sweep was not training.
    """
    configs: dict[str, list[Standing]] = defaultdict(list)
    for state in Store.open(str(store), create=False).run_states().values():
        configs[state.config_id].append(state.standing)
    stacks = [stack for standings in configs.values() for stack in begun_stacks(standings)]
    done = sum(stack.start * len(stack.seeds) for stack in stacks)
    in_flight = sum(len(stack.seeds) for stack in stacks if stack.start < length)
    if not in_flight:
        raise ValueError("no stack was being trained")
    return Left(done, in_flight)
