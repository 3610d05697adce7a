"""What Ray, Tune and all else of `sweeps run` cost on top of the stacks that they have trained.

The bare trainer is `run_stack`, the function that a trial is, called in as many processes as trials
run at once: it trains, evaluates and writes every epoch, as a sweep's trials do. What a sweep adds
is its start, planning, Ray, Tune, reports of every epoch, the summary and the report.

python -m tests.benchmarks.orchestration TASKS WORKERS      the bare trainer
"""

from __future__ import annotations

import json
import math
import multiprocessing
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from rich.console import Console

from sweeps.plan import Plan
from sweeps.run_grid import plan_grid
from sweeps.store import Store
from sweeps.sweep import Sweep, open_sweep, read_spec
from sweeps.trial import Report, Task, run_stack
from tests.benchmarks.measure import Outcome, Timed
from tests.benchmarks.processes import apart, on_cores, run

CORES = 2
_AT_MOST = 1.04
_TASKS = TypeAdapter(list[Task])
_SWEEP = "orchestration"


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is trained: models with learning rates with seeds, so long that it takes a while."""

    attention: tuple[str, ...] = ("none", "srm")
    rates: tuple[float, ...] = (5e-4, 1e-3, 2e-3, 4e-3)
    seeds: int = 5
    train_images: int = 10_000
    validation: int = 500
    predicted: float = 360.0
    """Seconds that a sweep is predicted to take; its epochs follow."""

    least: float = 300.0
    """Seconds that a sweep must take to be measured."""

    def specification(self, epochs: int) -> dict[str, Any]:
        """The stacks as a sweep."""
        return {
            "name": _SWEEP,
            "question": "What do Ray and orchestration cost?",
            "data": {
                "train": "cifake",
                "train_images": self.train_images,
                "validation": self.validation,
            },
            "scientific": {
                "attention": list(self.attention),
                "placement": ["after_pool1"],
                "optimizer.lr": list(self.rates),
                "epochs": [epochs],
            },
            "nuisance": {"seed": self.seeds},
        }


def orchestration(
    source: Path, scratch: Path, size: Size | None = None, repeats: int = 2
) -> Outcome:
    """Compare a sweep with the bare trainer on the same stacks; who goes first changes by turns.

    Args:
        source: CIFAKE, packed already or to be packed now.
        scratch: an empty folder.
        size: how much is trained.
        repeats: turns.

    Raises:
        ValueError: the sweep did not take as long as it should.
    """
    size = size or Size()
    scratch.mkdir()
    sweeps: list[Timed] = []
    bare: list[Timed] = []
    with on_cores(CORES):
        specification = _sized(scratch / f"{_SWEEP}.yaml", source, size)
        for turn in range(repeats):
            sides = [(_sweep, sweeps), (_bare, bare)]
            for way, found in sides if turn % 2 else sides[::-1]:
                folder = scratch / f"{turn}{way.__name__}"
                folder.mkdir()
                found.append(way(specification, source, folder))
            check_long(sweeps[-1], size.least)
            check_same(scratch / f"{turn}_sweep" / "store", scratch / f"{turn}_bare" / "store")
    return Outcome(
        "a sweep of 5 minutes or more, vs the same stacks by the bare trainer in two processes",
        "s",
        [each.wall for each in sweeps],
        "ratio at most",
        _AT_MOST,
        [each.wall for each in bare],
        [a.cpu / b.cpu for a, b in zip(sweeps, bare, strict=True)],
    )


def _sized(path: Path, source: Path, size: Size) -> Path:
    """Write a specification with as many epochs as its sweep should take."""
    few = 10
    path.write_text(json.dumps(size.specification(few)))
    store = path.parent / "planned"
    _, plan = _planned(path, source, Store.open(str(store), create=True))
    if plan.predicted_seconds is None:
        raise ValueError("the speed of the networks is not known")
    epochs = math.ceil(few * size.predicted / plan.predicted_seconds)
    path.write_text(json.dumps(size.specification(epochs)))
    return path


def _planned(specification: Path, source: Path, store: Store) -> tuple[Sweep, Plan]:
    """A sweep and its plan in an empty store: all seeds of a configuration are one stack.

    The choice is written into the store, so that `sweeps run` makes the same stacks.
    """
    spec = read_spec(str(specification), [])
    sweep = open_sweep(spec, [f"cifake={source}"], Console(stderr=True))
    configs = {cell.variant.config.config_id for cell in sweep.cells()}
    store.write_stacks(spec.name, {each: [tuple(spec.seeds)] for each in configs})
    return sweep, plan_grid(sweep, store, CORES)


def _sweep(specification: Path, source: Path, folder: Path) -> Timed:
    store = Store.open(str(folder / "store"), create=True)
    _, plan = _planned(specification, source, store)
    options = ["--store", store.address, "--data", f"cifake={source}"]
    command = [sys.executable, "-m", "sweeps", "run", str(specification), *options]
    with apart() as environment:
        return run(plan.epochs_to_train, command, environment, folder)


def _bare(specification: Path, source: Path, folder: Path) -> Timed:
    store = Store.open(str(folder / "store"), create=True)
    sweep, plan = _planned(specification, source, store)
    tasks = [sweep.task(stack, store, None, width=len(stack.seeds)) for stack in plan.stacks]
    told = folder / "tasks.json"
    told.write_bytes(_TASKS.dump_json(tasks))
    command = [sys.executable, "-m", "tests.benchmarks.orchestration", str(told), str(CORES)]
    with apart() as environment:
        return run(plan.epochs_to_train, command, environment, folder)


def train_bare(tasks: Sequence[Task], workers: int) -> None:
    """Train stacks in processes; each takes the next one as soon as it is free."""
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for _ in pool.imap_unordered(_train, tasks, chunksize=1):
            pass


def _train(task: Task) -> None:
    run_stack(task, _unheard)


def _unheard(report: Report) -> None:
    del report


def check_long(sweep: Timed, least: float) -> None:
    """Check that a sweep took some seconds at least.

    Raises:
        ValueError: it did not.
    """
    if sweep.wall < least:
        raise ValueError(f"a sweep of {sweep.wall:.0f} s is too short: it must take {least:.0f} s")


def check_same(one: Path, other: Path) -> None:
    """Check that two stores hold the same runs, bit for bit.

    Raises:
        ValueError: they do not.
    """
    sides = [Store.open(str(store), create=False) for store in (one, other)]
    states = [side.run_states() for side in sides]
    if states[0].keys() != states[1].keys():
        raise ValueError(f"{len(states[0])} runs and {len(states[1])} are not the same")
    for name in states[0]:
        rows = [side.read(name, "evaluations") for side in sides]
        if not rows[0].equals(rows[1]):
            raise ValueError(f"run {name} has other scores when it is trained by a sweep")


if __name__ == "__main__":
    train_bare(_TASKS.validate_json(Path(sys.argv[1]).read_bytes()), int(sys.argv[2]))
