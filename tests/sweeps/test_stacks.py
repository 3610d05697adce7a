"""Runs trained as one network: which they are, how they go on, and what a lost one costs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save

from cifake import places, speed
from cifake.files import write_aside
from cifake.places import LocalPlace, open_place
from cifake.runs import RunFolder, RunState
from sweeps.store import Store
from sweeps.trial import Task
from tests.sweeps.trials import ran, run_of, trained

MakeTask = Callable[..., Task]
Rows = dict[str, list[dict[str, Any]]]
RunRows = Callable[..., Rows]
StoreRows = Callable[[Path], dict[str, Rows]]
Near = Callable[[Rows, Rows], None]

TINY = {
    "model": "paper",
    "model_options__conv_layers": 1,
    "model_options__filters": 2,
    "model_options__neurons": 8,
    "data__train_images": 64,
    "data__validation": 20,
    "evaluate": (),
}


@pytest.fixture(scope="session")
def tiny(make_task: MakeTask) -> MakeTask:
    """A task with a network of some hundred weights on 64 images."""

    def made(store: Path, seeds: Sequence[int], epochs: int, **settings: Any) -> Task:
        return make_task(store, seeds=seeds, milestones=(epochs,), **{**TINY, **settings})

    return made


def state_of(task: Task, seed: int) -> RunState:
    state = Store(open_place(task.store)).run_state(run_of(task, seed))
    assert state is not None
    return state


def stacks_of(task: Task) -> list[tuple[int, ...]]:
    """By seed, the stack that each run's row names."""
    return [state_of(task, seed).stack for seed in task.seeds]


# Which runs are trained together


def test_a_run_in_a_stack_is_nearly_the_run_alone(
    make_task: MakeTask, store_rows: StoreRows, assert_near: Near, tmp_path: Path
) -> None:
    settings = {"milestones": (1, 2), "attention": "srm", "placement": "both"}
    ran(make_task(tmp_path / "stack", seeds=(0, 1, 2), **settings))
    for seed in (2, 0, 1):
        ran(make_task(tmp_path / "alone", seeds=(seed,), **settings))
    together, alone = store_rows(tmp_path / "stack"), store_rows(tmp_path / "alone")
    assert together.keys() == alone.keys()
    for run, rows in alone.items():
        assert_near(together[run], rows)


def test_a_width_of_one_gives_each_run_as_it_is_alone_bit_for_bit(
    tiny: MakeTask, store_rows: StoreRows, tmp_path: Path
) -> None:
    ran(tiny(tmp_path / "apart", (0, 1), 2, width=1))
    for seed in (1, 0):
        ran(tiny(tmp_path / "alone", (seed,), 2))
    assert store_rows(tmp_path / "apart") == store_rows(tmp_path / "alone")


def test_the_rows_say_which_runs_were_trained_together(tiny: MakeTask, tmp_path: Path) -> None:
    task = tiny(tmp_path, range(5), 1, width=2)
    ran(task)
    assert stacks_of(task) == [(0, 1), (0, 1), (2, 3), (2, 3), (4,)]
    assert [state_of(task, seed).stack_width for seed in range(5)] == [2, 2, 2, 2, 1]


def test_a_width_gives_a_seed_the_same_company_whoever_is_there_already(
    tiny: MakeTask, run_rows: RunRows, tmp_path: Path
) -> None:
    task = tiny(tmp_path / "at-once", range(5), 1, width=2)
    ran(task)
    ran(tiny(tmp_path / "later", (0,), 1))
    later = replace(task, store=str(tmp_path / "later"))
    ran(later)
    assert stacks_of(later) == [(0,), (1,), (2, 3), (2, 3), (4,)]
    for seed in (2, 3, 4):
        run = run_of(task, seed)
        assert run_rows(tmp_path / "later", run) == run_rows(tmp_path / "at-once", run)


@pytest.mark.parametrize(
    ("fastest", "stacks"),
    [(1, [(0,), (1,), (2,), (3,)]), (2, [(0, 1)] * 2 + [(2, 3)] * 2), (4, [(0, 1, 2, 3)] * 4)],
)
def test_a_task_without_a_width_makes_its_stacks_as_wide_as_is_fastest(
    tiny: MakeTask,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    fastest: int,
    stacks: list[tuple[int, ...]],
) -> None:
    def images_per_second(_: speed.Speed, width: int) -> float:
        return 1e6 if width == fastest else 0.9e6

    monkeypatch.setattr(speed.Speed, "__call__", images_per_second)
    task = replace(tiny(tmp_path, range(4), 1), width=None)
    ran(task)
    assert stacks_of(task) == stacks


@pytest.mark.parametrize("width", [None, 2])
def test_what_cannot_be_stacked_is_trained_run_by_run(
    tiny: MakeTask, tmp_path: Path, width: int | None
) -> None:
    model = {"model": "statistics", "model_options__trees": 2}
    left_out = dict.fromkeys(name for name in TINY if name.startswith("model_options"))
    task = tiny(tmp_path, (0, 1), 1, **{**left_out, **model})
    ran(replace(task, width=width))
    assert [state_of(task, seed).stack_width for seed in task.seeds] == [1, 1]


# How they go on


def test_runs_begun_in_a_stack_go_on_in_it_whatever_width_is_asked_for_later(
    tiny: MakeTask, store_rows: StoreRows, tmp_path: Path
) -> None:
    ran(tiny(tmp_path / "at-once", (0, 1, 2), 3))
    ran(tiny(tmp_path / "later", (0, 1, 2), 1))
    longer = tiny(tmp_path / "later", (0, 1, 2), 3, width=1)
    ran(replace(longer, milestones=(1, 3)))
    ran(replace(tiny(tmp_path / "at-once", (0, 1, 2), 3), milestones=(1, 3)))
    assert stacks_of(longer) == [(0, 1, 2)] * 3
    assert store_rows(tmp_path / "later") == store_rows(tmp_path / "at-once")


def test_a_new_seed_does_not_change_the_stack_of_those_begun(
    tiny: MakeTask, run_rows: RunRows, tmp_path: Path
) -> None:
    ran(tiny(tmp_path / "two", (0, 1), 2))
    ran(tiny(tmp_path / "more", (0, 1), 2))
    more = tiny(tmp_path / "more", (2, 0, 3, 1), 3)
    assert trained(ran(more)) == 1 + 3 + 1 + 3
    assert stacks_of(more) == [(2, 3), (0, 1), (2, 3), (0, 1)]
    two = tiny(tmp_path / "two", (0, 1), 3)
    ran(two)
    for seed in two.seeds:
        identity = run_of(two, seed)
        assert run_rows(tmp_path / "more", identity) == run_rows(tmp_path / "two", identity)


def test_runs_begun_apart_catch_up_and_stay_apart(
    tiny: MakeTask, store_rows: StoreRows, tmp_path: Path
) -> None:
    ran(tiny(tmp_path / "s", (0,), 3))
    ran(tiny(tmp_path / "s", (1,), 1))
    task = replace(tiny(tmp_path / "s", (0, 1), 4), milestones=(1, 3, 4))
    reports = ran(task)
    assert trained(reports) == 1 + 3
    assert [report.epoch for report in reports] == [1, 2, 3, 4]
    for seed in (0, 1):
        ran(replace(task, store=str(tmp_path / "alone"), seeds=(seed,)))
    assert store_rows(tmp_path / "s") == store_rows(tmp_path / "alone")


def test_a_stack_goes_on_without_a_seed_that_is_not_asked_for_any_more(
    tiny: MakeTask, run_rows: RunRows, assert_near: Near, tmp_path: Path
) -> None:
    ran(tiny(tmp_path / "whole", (0, 1, 2), 2))
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    whole, part = tiny(tmp_path / "whole", (0, 1, 2), 3), tiny(tmp_path / "part", (0, 2), 3)
    ran(whole)
    assert trained(ran(part)) == 2
    assert stacks_of(part) == [(0, 2)] * 2
    assert state_of(whole, 1).epochs_done == 3
    assert state_of(replace(part, seeds=(1,)), 1).stack == (0, 1, 2), "left as it was"
    for seed in part.seeds:
        rows = run_rows(tmp_path / "part", run_of(part, seed))
        assert_near(rows, run_rows(tmp_path / "whole", run_of(part, seed)))


# A member that is lost


def poisoned(task: Task, seed: int) -> None:
    """Make a run's weights NaN after its first epoch, as a bad update would."""
    folder = Store(open_place(task.store)).run(run_of(task, seed))
    weights = folder.read_weights(1)
    list(weights.values())[-1].fill_(float("nan"))
    folder.commit(folder.head().row, {"weights-0001.safetensors": save(weights)})


def test_a_run_that_diverges_says_where_and_costs_the_others_nothing(
    tiny: MakeTask, run_rows: RunRows, assert_near: Near, tmp_path: Path
) -> None:
    first = tiny(tmp_path / "lost", (0, 1, 2), 1)
    ran(first)
    before = run_rows(tmp_path / "lost", run_of(first, 1))
    shutil.copytree(tmp_path / "lost", tmp_path / "sound")
    poisoned(first, 1)
    task, sound = (tiny(tmp_path / name, (0, 1, 2), 3) for name in ("lost", "sound"))
    reports = ran(task)
    ran(sound)
    assert [(report.epoch, report.diverged, report.width) for report in reports[1:]] == [
        (2, (1,), 2),
        (3, (), 2),
    ]
    lost = state_of(task, 1)
    assert (lost.status, lost.epochs_done) == ("diverged", 1)
    assert lost.row["error"] == "loss became nan in epoch 2, batch 1"
    after = run_rows(tmp_path / "lost", lost.run_id)
    assert {**after, "runs": []} == {**before, "runs": []}, "the epoch is given up"
    for seed in (0, 2):
        state = state_of(task, seed)
        assert (state.status, state.row["error"], state.stack) == ("complete", None, (0, 2))
        rows, undisturbed = (run_rows(tmp_path / n, state.run_id) for n in ("lost", "sound"))
        assert rows["epochs"][:2] == undisturbed["epochs"][:2], "bit for bit beside the lost one"
        assert_near(rows, undisturbed)


def test_a_diverged_run_is_not_retried_with_those_of_its_stack(
    tiny: MakeTask, tmp_path: Path
) -> None:
    first = tiny(tmp_path, (0, 1, 2), 1)
    ran(first)
    poisoned(first, 1)
    ran(tiny(tmp_path, (0, 1, 2), 2))
    kept = state_of(first, 1)
    assert trained(ran(tiny(tmp_path, (0, 1, 2), 2))) == 0
    assert trained(ran(tiny(tmp_path, (0, 1, 2), 3))) == 2
    assert state_of(first, 1) == kept


def test_a_stack_ends_when_its_last_run_diverges(tiny: MakeTask, tmp_path: Path) -> None:
    first = tiny(tmp_path, (0, 1), 1)
    ran(first)
    for seed in first.seeds:
        poisoned(first, seed)
    task = tiny(tmp_path, (0, 1), 3)
    reports = ran(task)
    assert [(report.epoch, report.width, report.diverged) for report in reports[1:]] == [
        (2, 0, (0, 1))
    ]
    assert [state_of(task, seed).status for seed in task.seeds] == ["diverged"] * 2
    assert trained(ran(task)) == 0


# Killed at any instant


class Killed(BaseException):
    """The process ends here: nothing catches it, and nothing is tidied up."""


@contextmanager
def killed_at(instant: int | None) -> Iterator[list[str]]:
    """Die before the file of that number is written or removed; the files before it."""
    done: list[str] = []

    def before(what: str) -> None:
        if len(done) == instant:
            raise Killed
        done.append(what)

    def write(path: Path, content: bytes) -> None:
        before(path.name)
        write_aside(path, content)

    def drop(folder: RunFolder, epoch: int) -> None:
        before("drop")
        drop_old_optimizers(folder, epoch)

    drop_old_optimizers = RunFolder.drop_old_optimizers
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(places, "write_aside", write)
        patch.setattr(RunFolder, "drop_old_optimizers", drop)
        yield done


def dies(task: Task, instant: int) -> None:
    with killed_at(instant), pytest.raises(Killed):
        ran(task)


def instants(writes: list[str]) -> list[int]:
    """Those before and after each head that makes an epoch count, and each removal.

    What is written between them does not count without it.
    """
    return [
        instant
        for instant, name in enumerate(writes)
        if {"run.json", "drop"} & set(writes[max(0, instant - 1) : instant + 1])
    ]


def states(task: Task) -> dict[str, bytes]:
    """All weights, and the optimisers' states of the last epoch; a kill can leave older ones."""
    files = [
        *Path(task.store).rglob("weights-*.safetensors"),
        *Path(task.store).rglob(f"optimizer-{task.epochs:04}.safetensors"),
    ]
    return {str(path.relative_to(task.store)): path.read_bytes() for path in sorted(files)}


def unfinished_epochs(task: Task) -> int:
    """Epochs to be trained, over all runs, with those ahead of their stack repeating one."""
    states = Store(open_place(task.store)).run_states()
    done = {seed: states[run_of(task, seed)] for seed in task.seeds if run_of(task, seed) in states}
    return sum(task.epochs - (done[s].epochs_done if s in done else 0) for s in task.seeds)


@pytest.mark.parametrize("width", [3, 2])
def test_a_stack_killed_around_any_commit_ends_with_the_rows_of_one_that_was_not(
    tiny: MakeTask, store_rows: StoreRows, tmp_path: Path, width: int
) -> None:
    """With a width of 2 there is a stack of one run and a stack of two."""
    task = tiny(tmp_path / "whole", (0, 1, 2), 2, width=width)
    with killed_at(None) as writes:
        ran(task)
    expected = store_rows(tmp_path / "whole"), states(task)
    apart = 0
    for instant in instants(writes):
        store = tmp_path / f"killed-{instant}"
        again = replace(task, store=str(store))
        dies(again, instant)
        done = [state.epochs_done for state in Store(LocalPlace(store)).run_states().values()]
        apart += len(set(done)) > 1
        left = unfinished_epochs(again)
        repeated = trained(ran(again)) - left
        assert 0 <= repeated <= 2, "at most the epoch in flight"
        assert (store_rows(store), states(again)) == expected, (instant, writes[instant])
    assert apart >= 4, "kills that left a run an epoch ahead of another"


def test_a_stack_killed_while_it_loses_a_run_ends_like_one_that_was_not(
    tiny: MakeTask, store_rows: StoreRows, tmp_path: Path
) -> None:
    first = tiny(tmp_path / "begun", (0, 1, 2), 1)
    ran(first)
    poisoned(first, 0)
    shutil.copytree(tmp_path / "begun", tmp_path / "whole")
    task = tiny(tmp_path / "whole", (0, 1, 2), 3)
    with killed_at(None) as writes:
        ran(task)
    expected = store_rows(tmp_path / "whole"), states(task)
    for instant in instants(writes):
        store = tmp_path / f"killed-{instant}"
        shutil.copytree(tmp_path / "begun", store)
        again = replace(task, store=str(store))
        dies(again, instant)
        ran(again)
        assert (store_rows(store), states(again)) == expected, (instant, writes[instant])
