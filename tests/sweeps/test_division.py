"""Stacks that wait are divided for a cluster that has grown, and stay divided after a kill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cifake.config import Config
from sweeps.division import Division
from sweeps.plan import Stack, divided
from sweeps.store import Store
from sweeps.trial import Task
from tests.sweeps.trials import ran

MakeTask = Callable[..., Task]

FIRST = Stack(Config(), seeds=(0, 1, 2, 3, 4, 5), start=0, epochs=4, milestones=(4,))
SECOND = replace(FIRST, config=Config(batch_size=16), seeds=(0, 1, 2))


class Cost:
    """A run takes a second an epoch, and runs side by side take no longer."""

    def seconds(self, config: Config, width: int) -> float:
        del config
        return 1 / width

    def milestone(self, config: Config, width: int) -> float:
        del config, width
        return 0.0

    def width(self, config: Config, runs: int) -> int:
        del config
        return runs


class Even(Cost):
    """Runs side by side take as long as one after another."""

    def seconds(self, config: Config, width: int) -> float:
        del config, width
        return 1.0


def seeds(parts: dict[int, list[Stack]]) -> dict[int, list[tuple[int, ...]]]:
    return {place: sorted(part.seeds for part in each) for place, each in parts.items()}


def test_stacks_are_divided_so_that_workers_end_sooner() -> None:
    assert seeds(divided([FIRST], Even(), workers=3)) == {0: [(0, 1), (2, 3), (4, 5)]}
    both = seeds(divided([FIRST, SECOND], Even(), workers=3))
    assert both == {0: [(0, 1, 2), (3, 4, 5)]}


def test_stacks_that_would_end_no_sooner_stay_whole() -> None:
    assert divided([FIRST], Cost(), workers=6) == {}
    assert divided([FIRST, SECOND], Even(), workers=1) == {}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"), create=True)


@pytest.fixture
def division(store: Store, make_task: MakeTask) -> Division:
    def made(stack: Stack) -> Task:
        task = make_task(Path(store.address), seeds=stack.seeds, milestones=(1,))
        return replace(task, config=stack.config.model_dump())

    return Division(store, "a", Even(), made)


def test_the_parts_of_a_task_train_its_runs(division: Division) -> None:
    tasks = division.tasks([FIRST, SECOND])
    parts = division.divide(tasks, 3)
    assert {p: [task.seeds for task in each] for p, each in parts.items()} == {
        0: [(0, 1, 2), (3, 4, 5)]
    }
    again = division.divide([tasks[1], *parts[0]], 9)
    assert sum(len(each) for each in again.values()) == 9


def test_what_is_divided_is_written_down(division: Division, store: Store) -> None:
    """The next plan makes the same stacks, also those of the config that were begun meanwhile."""
    begun = [7, 8]
    store.write_stacks("a", {FIRST.config_id: [[*FIRST.seeds], begun], "other": [[0]]})
    division.divide(division.tasks([FIRST]), 2)
    found = store.read_stacks("a")
    assert found["other"] == [[0]]
    assert found[FIRST.config_id][0] == begun
    assert sorted(found[FIRST.config_id][1:]) == [[0, 1, 2], [3, 4, 5]]


def test_a_stack_that_was_begun_stays_whole(
    division: Division, store: Store, make_task: MakeTask
) -> None:
    """Its runs go on together, whoever trained them before."""
    first = make_task(Path(store.address), seeds=(0, 1), milestones=(1,))
    ran(first)
    config = Config.model_validate(first.config)
    stack = Stack(config, seeds=(0, 1), start=0, epochs=2, milestones=(2,))
    assert division.divide(division.tasks([stack]), 2) == {}
    assert store.read_stacks("a") == {}
