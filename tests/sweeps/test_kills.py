"""Processes killed while they train: what the store has then, and what the next one makes of it."""

from __future__ import annotations

import multiprocessing
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from cifake.places import open_place
from sweeps.store import Store
from sweeps.trial import Report, Task, run_stack

pytestmark = pytest.mark.heavy

MakeTask = Callable[..., Task]
StoreRows = Callable[[Path], dict[str, dict[str, list[dict[str, Any]]]]]


class Child:
    """A process that runs a stack; it is forked from one that has imported everything."""

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cifake.evaluation", "cifake.training", "sweeps.trial"])

    def __init__(self, task: Task) -> None:
        self.reports: Connection
        self.reports, theirs = self.context.Pipe(duplex=False)
        self.process: ForkServerProcess = self.context.Process(
            target=run_stack, args=(task, theirs.send)
        )
        self.process.start()
        theirs.close()

    def ends(self, within: float) -> bool:
        """Whether it ends by itself in so many seconds."""
        self.process.join(within)
        return self.process.exitcode is not None

    def kill(self) -> None:
        """End it as the system does that is out of memory."""
        self.process.kill()
        self.process.join()
        self.reports.close()


def epochs_done(task: Task) -> list[int]:
    states = Store(open_place(task.store)).run_states().values()
    return sorted(state.epochs_done for state in states)


@pytest.fixture(scope="module")
def reference(make_task: MakeTask, tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, float]:
    """Seeds 0 and 1 for six epochs, evaluated at the second and the sixth; and how long it took."""
    task = make_task(tmp_path_factory.mktemp("reference"), milestones=(2, 6))
    Child(make_task(tmp_path_factory.mktemp("first"), milestones=(1,))).process.join()
    begun = time.monotonic()
    child = Child(task)
    assert child.ends(within=120)
    assert child.process.exitcode == 0
    return task, time.monotonic() - begun


@pytest.mark.parametrize("draw", range(3))
def test_a_stack_killed_at_any_instant_ends_with_the_rows_of_one_that_was_not(
    reference: tuple[Task, float],
    make_task: MakeTask,
    store_rows: StoreRows,
    tmp_path: Path,
    draw: int,
) -> None:
    whole, seconds = reference
    rng = random.Random(draw)  # noqa: S311 - instants, not secrets
    task = make_task(tmp_path, milestones=(2, 6))
    lengths = kill_again_and_again(task, seconds, rng)
    assert any(0 < length < 12 for length in lengths), "a kill hits the stack half way"
    assert lengths == sorted(lengths), "no finished epoch is lost"
    assert store_rows(Path(task.store)) == store_rows(Path(whole.store))


def kill_again_and_again(task: Task, seconds: float, rng: random.Random) -> list[int]:
    """Kill a stack around its start and its epochs, then let it end; epochs stored after each.

    Instants count from the start or from an epoch that ends, and the next end of an epoch is the
    last of them: on a machine whose speed changes, others would come before the first epoch each
    time, or after all of them.
    """
    lengths: list[int] = []
    for epochs in (0, 1, 0, 1):
        if lengths[-1:] == [12]:
            break
        child = Child(task)
        for _ in range(epochs):
            child.reports.recv()
        child.reports.poll(rng.uniform(0, seconds / (6 if epochs else 2)))
        child.kill()
        lengths.append(sum(epochs_done(task)))
    last = Child(task)
    assert last.ends(within=120)
    assert last.process.exitcode == 0
    return lengths


@pytest.mark.parametrize("after", [1, 3])
def test_a_stack_killed_after_an_epoch_repeats_no_finished_one(
    reference: tuple[Task, float],
    make_task: MakeTask,
    store_rows: StoreRows,
    tmp_path: Path,
    after: int,
) -> None:
    task = make_task(tmp_path, milestones=(2, 6))
    child = Child(task)
    assert [child.reports.recv().epoch for _ in range(after)] == list(range(1, after + 1))
    child.kill()
    behind, ahead = epochs_done(task)
    assert after <= behind <= ahead <= behind + 1
    reports: list[Report] = []
    run_stack(task, reports.append)
    assert sum(report.epochs_trained for report in reports) == 2 * (6 - behind)
    assert store_rows(tmp_path) == store_rows(Path(reference[0].store))


def test_runs_that_two_processes_want_at_once_are_trained_once(
    reference: tuple[Task, float], make_task: MakeTask, store_rows: StoreRows, tmp_path: Path
) -> None:
    """Each waits for the runs that the other has, and finds them there."""
    task = make_task(tmp_path, milestones=(2, 6))
    children = [Child(task), Child(replace(task, seeds=task.seeds[::-1]))]
    assert all(child.ends(within=120) for child in children)
    assert [child.process.exitcode for child in children] == [0, 0]
    epochs = [sum(each.epochs_trained for each in said(child)) for child in children]
    assert sorted(epochs) == [0, 2 * 6]
    if epochs[0]:  # the other order of seeds is another stack
        assert store_rows(tmp_path) == store_rows(Path(reference[0].store))


def said(child: Child) -> list[Report]:
    """All reports of a process that has ended."""
    reports = []
    while child.reports.poll():
        try:
            reports.append(child.reports.recv())
        except EOFError:
            break
    return reports


BETWEEN_COMMITS = """
import os, signal, sys
from cifake.record import Record
from cifake.places import open_place
from sweeps.trial import Task, run_stack

commit = Record.commit

def commit_and_die(record, **changes):
    commit(record, **changes)
    if record.seed == 0 and record.epochs_done == 3:
        os.kill(os.getpid(), signal.SIGKILL)

Record.commit = commit_and_die
run_stack(Task(**eval(sys.argv[1])), lambda report: None)
"""


def test_a_stack_killed_between_the_commits_of_its_runs_trains_that_epoch_with_all_of_them(
    reference: tuple[Task, float], make_task: MakeTask, store_rows: StoreRows, tmp_path: Path
) -> None:
    task = make_task(tmp_path, milestones=(2, 6))
    arguments = [sys.executable, "-c", BETWEEN_COMMITS, repr(asdict(task))]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
    assert epochs_done(task) == [2, 3]
    reports: list[Report] = []
    run_stack(task, reports.append)
    assert [report.epoch for report in reports] == [2, 3, 4, 5, 6]
    assert reports[1].epochs_trained == 2
    assert store_rows(tmp_path) == store_rows(Path(reference[0].store))
