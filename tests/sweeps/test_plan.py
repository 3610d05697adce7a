"""What is left to train, in which stacks and order, is a function of the cells and the store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifake.config import Config, run_id
from cifake.runs import RunState
from sweeps.plan import Cell, Plan, Stack, make_cells, make_plan, makespan
from sweeps.spec import Variant

EVALUATIONS = (("demo", "validation"), ("demo", "test"))


def config(batch_size: int = 32) -> Config:
    return Config(batch_size=batch_size)


def cells(
    lengths: Iterable[int] = (1,), seeds: Sequence[int] = (0,), batch_sizes: Iterable[int] = (32,)
) -> list[Cell]:
    variants = [
        Variant({"batch_size": size}, {}, config(size), length)
        for size in batch_sizes
        for length in lengths
    ]
    return make_cells(variants, seeds)


def evaluated_at(*lengths: int) -> frozenset[str]:
    return frozenset(f"{n}:{name}:{split}" for n in lengths for name, split in EVALUATIONS)


def known(
    epochs_done: int,
    evaluated: frozenset[str] = frozenset(),
    seed: int = 0,
    status: str = "complete",
    batch_size: int = 32,
) -> dict[str, RunState]:
    config_id = config(batch_size).config_id
    identity = run_id(config_id, seed)
    state = RunState(identity, config_id, seed, status, epochs_done, evaluated, None, None, {})
    return {identity: state}


def planned(
    asked: Sequence[Cell],
    store: dict[str, RunState] | None = None,
    workers: int = 1,
    seconds: float | None = 1.0,
) -> Plan:
    return make_plan(asked, store or {}, EVALUATIONS, workers=workers, cost=lambda _: seconds)


def test_milestones_of_one_run_are_trained_once() -> None:
    plan = planned(cells([5, 10, 20, 30]))
    assert plan.epochs_to_train == 30
    assert plan.epochs_saved == 35
    assert (plan.runs_new, len(plan.cells), len(plan.stacks)) == (1, 4, 1)
    assert plan.stacks[0].milestones == (5, 10, 20, 30)


def test_a_done_run_is_not_planned() -> None:
    plan = planned(cells([5, 10]), known(10, evaluated_at(5, 10)))
    assert plan.stacks == []
    assert (plan.runs_done, plan.epochs_to_train, plan.epochs_saved) == (1, 0, 15)
    assert plan.predicted_seconds == 0


def test_a_run_longer_than_asked_is_done() -> None:
    assert planned(cells([5]), known(30, evaluated_at(5, 30))).runs_done == 1


def test_a_shorter_run_is_continued_from_where_it_stands() -> None:
    plan = planned(cells([5, 20]), known(5, evaluated_at(5)))
    assert (plan.runs_continued, plan.runs_new) == (1, 0)
    assert (plan.stacks[0].start, plan.stacks[0].epochs) == (5, 20)
    assert plan.epochs_to_train == 15


def test_a_milestone_never_evaluated_is_a_stack_without_epochs() -> None:
    plan = planned(cells([2, 5]), known(5, evaluated_at(5)))
    assert plan.runs_continued == 1
    assert plan.epochs_to_train == 0
    assert (plan.stacks[0].start, plan.stacks[0].epochs) == (5, 5)
    assert 2 in plan.stacks[0].milestones


def test_a_data_set_added_later_is_evaluated_without_training() -> None:
    only_validation = frozenset({"5:demo:validation"})
    plan = planned(cells([5]), known(5, only_validation))
    assert (len(plan.stacks), plan.epochs_to_train) == (1, 0)


def test_a_longer_run_is_not_shortened() -> None:
    plan = planned(cells([2]), known(30, evaluated_at(30)))
    assert (plan.stacks[0].start, plan.stacks[0].epochs) == (30, 30)
    assert plan.epochs_to_train == 0


def test_adding_a_seed_plans_the_new_seed_only() -> None:
    store = known(3, evaluated_at(3), seed=0) | known(3, evaluated_at(3), seed=1)
    plan = planned(cells([3], seeds=[0, 1, 2]), store)
    assert [stack.seeds for stack in plan.stacks] == [(2,)]
    assert (plan.runs_done, plan.runs_new, plan.epochs_to_train) == (2, 1, 3)


def test_adding_a_value_plans_the_new_config_only() -> None:
    plan = planned(cells([3], batch_sizes=[32, 64]), known(3, evaluated_at(3)))
    assert [stack.config.batch_size for stack in plan.stacks] == [64]
    assert plan.epochs_to_train == 3


def test_runs_of_one_config_at_different_epochs_make_stacks_of_their_own() -> None:
    plan = planned(cells([6], seeds=[0, 1, 2]), known(4, seed=1, status="running"))
    found = {(stack.seeds, stack.start) for stack in plan.stacks}
    assert found == {((0, 2), 0), ((1,), 4)}
    assert plan.epochs_to_train == 6 * 2 + 2


def test_a_diverged_run_is_not_retried() -> None:
    plan = planned(cells([6], seeds=[0, 1]), known(2, seed=1, status="diverged"))
    assert [stack.seeds for stack in plan.stacks] == [(0,)]
    assert (plan.runs_diverged, plan.runs_new) == (1, 1)
    assert any("1 run diverged" in note for note in plan.notes)


def test_a_milestone_that_a_diverged_run_reached_counts_as_done() -> None:
    plan = planned(cells([2]), known(2, evaluated_at(2), status="diverged"))
    assert (plan.runs_done, plan.runs_diverged) == (1, 0)


def test_a_milestone_before_the_divergence_is_still_evaluated() -> None:
    plan = planned(cells([2]), known(5, status="diverged"))
    assert [(stack.start, stack.epochs) for stack in plan.stacks] == [(5, 5)]
    assert plan.epochs_to_train == 0


@pytest.mark.parametrize("status", ["failed", "running", "pruned"])
def test_a_run_that_failed_or_was_stopped_is_taken_up_again(status: str) -> None:
    plan = planned(cells([6]), known(2, status=status))
    assert (plan.runs_continued, plan.epochs_to_train) == (1, 4)
    anew = planned(cells([6]), known(0, status=status))
    assert (anew.runs_new, anew.epochs_to_train) == (1, 6)


def test_two_labels_of_one_run_are_trained_once() -> None:
    variants = [Variant({"model": name}, {}, config(), 1) for name in ("base", "mini")]
    plan = planned(make_cells(variants, [0, 1]))
    assert (len(plan.cells), plan.runs, plan.epochs_to_train) == (4, 2, 2)
    assert plan.epochs_saved == 2


def test_the_plan_as_json_has_the_numbers_promised() -> None:
    numbers = planned(cells([1, 2], seeds=range(6))).as_dict()
    promised = {
        "cells": 12,
        "runs_done": 0,
        "runs_continued": 0,
        "runs_new": 6,
        "epochs_to_train": 12,
        "epochs_saved": 6,
        "predicted_seconds": 12.0,
    }
    assert promised.items() <= numbers.items()


@pytest.mark.parametrize(("seeds", "noted"), [(1, True), (5, True), (6, False), (7, False)])
def test_fewer_than_six_seeds_are_noted(seeds: int, *, noted: bool) -> None:
    notes = planned(cells(seeds=range(seeds))).notes
    assert any("fewer than 6" in note for note in notes) == noted


def test_an_unknown_speed_predicts_no_time_but_still_orders() -> None:
    plan = planned(cells([1, 9], batch_sizes=[32]) + cells([3], batch_sizes=[64]), seconds=None)
    assert plan.predicted_seconds is None
    assert [stack.epochs for stack in plan.stacks] == [9, 3]


def test_an_idle_worker_is_given_part_of_a_stack() -> None:
    one = planned(cells([4], seeds=range(6)), workers=1)
    three = planned(cells([4], seeds=range(6)), workers=3)
    assert [len(stack.seeds) for stack in one.stacks] == [6]
    assert [len(stack.seeds) for stack in three.stacks] == [2, 2, 2]
    assert (one.predicted_seconds, three.predicted_seconds) == (24, 8)


def test_a_split_that_gains_nothing_is_not_made() -> None:
    plan = planned(cells([4], seeds=range(3), batch_sizes=range(2, 12)), workers=2)
    assert [len(stack.seeds) for stack in plan.stacks] == [3] * 10


_DURATIONS = st.lists(st.floats(0, 1e6), max_size=20)


@given(durations=_DURATIONS, workers=st.integers(1, 10))
def test_a_makespan_lies_within_its_bounds(durations: list[float], workers: int) -> None:
    length = makespan(durations, workers)
    total = sum(durations)
    tolerance = 1e-9 * total
    assert length >= max([*durations, total / workers], default=0) - tolerance
    assert length <= total + tolerance


@given(durations=_DURATIONS)
def test_one_worker_takes_the_sum_and_many_take_the_longest(durations: list[float]) -> None:
    assert makespan(durations, 1) == pytest.approx(sum(durations))
    assert makespan(durations, max(1, len(durations))) == max(durations, default=0)


@given(durations=_DURATIONS, workers=st.integers(1, 8))
def test_no_worker_idles_while_another_has_more_than_one_left(
    durations: list[float], workers: int
) -> None:
    # Graham 1966: list scheduling ends by total / m + (1 - 1 / m) * longest.
    longest = max(durations, default=0)
    bound = sum(durations) / workers + (1 - 1 / workers) * longest
    assert makespan(durations, workers) <= bound * (1 + 1e-9)


_ASKED = st.lists(
    st.tuples(st.integers(1, 5), st.integers(1, 12)), min_size=1, max_size=8, unique=True
)
_KNOWN = st.dictionaries(
    st.tuples(st.integers(1, 5), st.integers(0, 4)),
    st.tuples(
        st.integers(0, 12),
        st.sampled_from(["complete", "running", "failed", "pruned", "diverged"]),
        st.sets(st.integers(1, 12)),
    ),
    max_size=8,
)


@given(
    asked=_ASKED,
    seeds=st.lists(st.integers(0, 4), min_size=1, max_size=5, unique=True),
    history=_KNOWN,
    workers=st.integers(1, 6),
    seconds=st.none() | st.floats(0.01, 100),
)
def test_a_plan_accounts_for_every_run_and_epoch_once(
    asked: list[tuple[int, int]],
    seeds: list[int],
    history: dict[tuple[int, int], tuple[int, str, set[int]]],
    workers: int,
    seconds: float | None,
) -> None:
    variants = [Variant({"batch_size": size}, {}, config(size), n) for size, n in asked]
    wanted = make_cells(variants, seeds)
    store: dict[str, RunState] = {}
    for (size, seed), (done, status, lengths) in history.items():
        reached = evaluated_at(*(n for n in lengths if n <= done))
        store |= known(done, reached, seed, status, size)
    plan = planned(wanted, store, workers, seconds)
    runs = [run for stack in plan.stacks for run in stack.run_ids]
    assert len(set(runs)) == len(runs), "a run lies in one stack"
    assert len(runs) == plan.runs_new + plan.runs_continued
    assert plan.runs == len({cell.run_id for cell in wanted})
    longest = {c.run_id: 0 for c in wanted}
    for cell in wanted:
        longest[cell.run_id] = max(longest[cell.run_id], cell.variant.epochs)
    left = sum(max(0, longest[r] - (store[r].epochs_done if r in store else 0)) for r in runs)
    assert plan.epochs_to_train == left
    assert plan.epochs_to_train + plan.epochs_saved == plan.epochs_asked
    assert plan.epochs_asked == sum(cell.variant.epochs for cell in wanted)
    durations = [stack.epochs_to_train * (seconds or 1) for stack in plan.stacks]
    assert durations == sorted(durations, reverse=True)
    if plan.predicted_seconds is not None:
        assert plan.predicted_seconds == pytest.approx(makespan(durations, workers))
        assert plan.predicted_seconds >= max([*durations, sum(durations) / workers]) * (1 - 1e-9)
    for stack in plan.stacks:
        assert_of(stack, wanted, store)


def assert_of(stack: Stack, wanted: list[Cell], store: dict[str, RunState]) -> None:
    for identity in stack.run_ids:
        lengths = {cell.variant.epochs for cell in wanted if cell.run_id == identity}
        assert lengths <= set(stack.milestones)
        assert stack.start == (store[identity].epochs_done if identity in store else 0)
        assert stack.epochs >= max(lengths)


@given(seed=st.randoms(use_true_random=False))
def test_the_order_of_cells_changes_no_number(seed: object) -> None:
    wanted = cells([1, 3], seeds=range(4), batch_sizes=[16, 32, 64])
    shuffled = list(wanted)
    seed.shuffle(shuffled)  # type: ignore[attr-defined]
    assert planned(shuffled, workers=3).as_dict() == planned(wanted, workers=3).as_dict()
