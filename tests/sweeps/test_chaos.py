"""A sweep whose processes are killed at random instants ends with the rows of one that was not.

`make chaos` kills a hundred times; here it is `CHAOS_KILLS`, by default ten.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cifake.places import LocalPlace
from sweeps.store import STACKS, Store
from sweeps.upkeep import verify
from tests.sweeps.drivers import Driver, command_line, launch

pytestmark = pytest.mark.heavy

Command = Callable[..., subprocess.CompletedProcess[str]]
StoreRows = Callable[[Path], dict[str, dict[str, list[dict[str, Any]]]]]

KILLS = int(os.environ.get("CHAOS_KILLS", "10"))
SEED = int(os.environ.get("CHAOS_SEED", "0"))

SLOW = 300.0
"""Seconds within which a sweep that was started ends an epoch, on a machine that is busy."""

VICTIMS = {
    "driver": "-m sweeps run",
    "raylet": "raylet/raylet ",
    "control store": "gcs_server ",
    "trial": "ray::ResourceTrainable",
    "worker": "ray::",
}
"""Kinds of processes, and what the command line of one begins with or holds."""

WORKERS = {"trial", "worker"}
"""Kinds of which there must have been one: of few kills, the machine's speed says which."""

SWEEP = (
    "demo",
    "--set",
    f"epochs=[2,{40 + 2 * KILLS}]",
    "--set",
    "seed=2",
    "--set",
    "attention=[none,srm]",
    "--set",
    "placement=[after_pool1]",
    "--set",
    "data.validation=100",
)
"""Long enough to be hit so often, on all training images of the demo set."""


class Chaos:
    """Start a sweep, kill one of its processes now and then, and start it again when it ended."""

    def __init__(self, store: Path, environment: dict[str, str], log: Path) -> None:
        self.store, self.environment, self.log = store, environment, log
        self.rng = random.Random(SEED)  # noqa: S311 - instants, not secrets
        self.killed: Counter[str] = Counter()
        self.starts = 0
        self.done: dict[str, int] = {}
        self.driver: Driver | None = None

    def kill(self) -> None:
        """Wait for a random instant and kill a random process."""
        driver = self._running()
        self._wait(driver)
        found: dict[str, list[int]] = {}
        for pid in driver.relatives():
            line = command_line(pid)
            kind = next((kind for kind, sign in VICTIMS.items() if sign in line), None)
            if kind is not None:
                found.setdefault(kind, []).append(pid)
        if driver.process.poll() is None and found:
            # Kinds that were seldom hit come first: there is one driver, and many workers.
            kind = min(found, key=lambda kind: (self.killed[kind], self.rng.random()))
            with ignored_if_gone():
                os.kill(self.rng.choice(found[kind]), signal.SIGKILL)
                self.killed[kind] += 1
        self._check()

    def finish(self) -> int:
        """Let the sweep end; its exit code."""
        code = self._running().process.wait(timeout=60 * KILLS)
        return code if code == 0 else self._running().process.wait(timeout=60 * KILLS)

    def end(self) -> None:
        """Kill whatever is left."""
        if self.driver is not None:
            self.driver.end()

    def _running(self) -> Driver:
        if self.driver is None or self.driver.process.poll() is not None:
            ended = self.driver is not None and self.driver.process.returncode == 0
            assert not ended, f"the sweep ended after {self.killed.total()} kills: make it longer"
            arguments = [*SWEEP, "--store", str(self.store)]
            self.driver = launch(arguments, self.environment, self.log)
            self.starts += 1
        return self.driver

    def _wait(self, driver: Driver) -> None:
        """For an instant around its start, or after an epoch that ends."""
        if self.rng.random() < 0.5:
            before = sum(self._epochs().values())
            end = time.monotonic() + SLOW
            while sum(self._epochs().values()) == before and time.monotonic() < end:
                if driver.process.poll() is not None:
                    return
                time.sleep(0.02)
            time.sleep(self.rng.uniform(0, 1))
        else:
            time.sleep(self.rng.uniform(0, 10))

    def _epochs(self) -> dict[str, int]:
        states = Store(LocalPlace(self.store)).run_states()
        return {run_id: state.epochs_done for run_id, state in states.items()}

    def _check(self) -> None:
        done = self._epochs()
        lost = {run: (n, done.get(run)) for run, n in self.done.items() if done.get(run, 0) < n}
        assert not lost, f"finished epochs were lost: {lost}"
        self.done = done


@contextmanager
def ignored_if_gone() -> Iterator[None]:
    try:
        yield
    except ProcessLookupError:
        return


@pytest.mark.timeout(600 + 60 * KILLS)
def test_rows_are_those_of_an_undisturbed_sweep_whatever_is_killed_when(
    command: Command, environment: dict[str, str], store_rows: StoreRows, tmp_path: Path
) -> None:
    whole, store = tmp_path / "whole", tmp_path / "killed"
    undisturbed = command("run", *SWEEP, "--store", whole, timeout=60 * KILLS + 120)
    assert undisturbed.returncode == 0, undisturbed.stdout + undisturbed.stderr
    # Which runs are trained together is measured, and equal bits need equal stacks.
    Store.open(str(store), create=True)
    stacks = whole / "sweeps" / "demo" / STACKS
    (store / "sweeps" / "demo").mkdir(parents=True)
    shutil.copy(stacks, store / "sweeps" / "demo")
    chaos = Chaos(store, environment, tmp_path / "driver.log")
    try:
        while chaos.killed.total() < KILLS:
            chaos.kill()
        print(f"killed {json.dumps(chaos.killed)} in {chaos.starts} starts; epochs {chaos.done}")
        assert chaos.finish() == 0, chaos.log.read_text()[-5000:]
    finally:
        chaos.end()
    assert set(chaos.killed) >= set(VICTIMS) - WORKERS
    assert set(chaos.killed) & WORKERS
    assert store_rows(store) == store_rows(whole)
    opened = Store(LocalPlace(store))
    assert list(verify(opened, repair=False, advance=lambda _: None)) == []
