"""What is left to train, in which stacks and order, is a function of the cells and the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifake.config import TRAINER_VERSION, Config, run_id
from cifake.runs import RunState
from sweeps.balance import makespan
from sweeps.plan import Cell, Cost, Plan, Stack, finished, make_cells, make_plan
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
    stack: Sequence[int] | None = None,
) -> dict[str, RunState]:
    """A run that was begun alone, or in a stack; one without epochs was not begun."""
    of = config(batch_size)
    config_id = of.config_id
    state = RunState(
        run_id=run_id(config_id, seed),
        config_id=config_id,
        seed=seed,
        status=status,
        epochs_done=epochs_done,
        evaluated=evaluated,
        images_per_second=None,
        stack_width=None,
        stack=tuple(stack if stack is not None else [seed] if epochs_done else []),
        row={**of.flat(), "trainer_version": TRAINER_VERSION},
    )
    return {state.run_id: state}


@dataclass(frozen=True)
class SameCost:
    """Every config as fast as every other, in stacks as wide as they are said to be."""

    second: float | None = 1.0
    widest: int = 100
    evaluating: float = 0.0

    def seconds(self, config: Config, width: int) -> float | None:
        del config, width
        return self.second

    def milestone(self, config: Config, width: int) -> float:
        del config, width
        return self.evaluating

    def width(self, config: Config, runs: int) -> int:
        del config
        return min(runs, self.widest)


def planned(
    asked: Sequence[Cell],
    store: dict[str, RunState] | None = None,
    workers: int = 1,
    cost: Cost = SameCost(),
    decided: Mapping[str, Sequence[Sequence[int]]] | None = None,
    width: int | None = None,
) -> Plan:
    known = store or {}
    return make_plan(
        asked, known, EVALUATIONS, workers=workers, cost=cost, decided=decided, width=width
    )


def test_milestones_of_one_run_are_trained_once() -> None:
    plan = planned(cells([5, 10, 20, 30]))
    assert plan.epochs_to_train == 30
    assert plan.epochs_saved == 35
    assert (plan.runs_new, len(plan.cells), len(plan.stacks)) == (1, 4, 1)
    assert plan.stacks[0].milestones == (5, 10, 20, 30)


@pytest.mark.parametrize(
    ("store", "ended"),
    [
        ({}, False),
        (known(10, evaluated_at(5, 10)), True),
        (known(30, evaluated_at(5, 10, 30)), True),
        (known(10, evaluated_at(10)), False),
        (known(7, evaluated_at(5), status="running"), False),
        (known(7, evaluated_at(5), status="failed"), False),
        (known(7, evaluated_at(5), status="diverged"), True),
        (known(10, evaluated_at(5, 10), seed=1), False),
    ],
)
def test_cells_are_finished_where_a_plan_has_nothing_to_train(
    store: dict[str, RunState], ended: bool
) -> None:
    asked = cells([5, 10])
    assert finished(asked, store, EVALUATIONS) == ended
    assert (planned(asked, store).stacks == []) == ended


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
    assert plan.runs_failed == anew.runs_failed == (status == "failed")
    assert planned(cells([2]), known(2, evaluated_at(2), status=status)).runs_failed == 0


# What it costs and saves.


def test_milestones_cost_their_evaluations() -> None:
    cost = SameCost(1.0, evaluating=0.25)
    plan = planned(cells([2, 5], seeds=range(3)), workers=1, cost=cost)
    assert plan.predicted_seconds == 3 * (5 + 2 * 0.25)
    continued = planned(cells([2, 5]), known(2, evaluated_at(2)), workers=1, cost=cost)
    assert continued.predicted_seconds == 3 + 0.25
    evaluated_only = planned(cells([2, 5]), known(5, evaluated_at(2)), workers=1, cost=cost)
    assert evaluated_only.predicted_seconds == 2 * 0.25


def test_what_is_saved_is_told_in_seconds_of_one_worker() -> None:
    new = planned(cells([1, 2, 4], seeds=range(3)), workers=2, cost=SameCost(2.0))
    assert (new.epochs_saved, new.seconds_saved) == (9, 18.0)
    begun = known(4, evaluated_at(4))
    (state,) = begun.values()
    begun[state.run_id] = replace(state, stack_width=1)
    done = planned(cells([4]), begun, cost=SameCost(2.0))
    assert (done.epochs_saved, done.seconds_saved) == (4, 8.0)
    assert planned(cells([1, 2]), cost=SameCost(None)).seconds_saved is None
    assert planned(cells([4]), known(4, evaluated_at(4))).seconds_saved is None


@pytest.mark.parametrize("name", ["cosine", "one_cycle"])
def test_a_schedule_with_a_horizon_is_said_to_share_no_epoch(name: str) -> None:
    def variant(epochs: int, horizon: int) -> Variant:
        schedule = {"name": name, "horizon": horizon}
        return Variant({}, {}, Config.model_validate({"schedule": schedule}), epochs)

    apart = planned(make_cells([variant(n, n) for n in (1, 2)], range(6)))
    (note,) = apart.notes
    assert note.startswith(f"schedule {name}: each length is a run of its own")
    assert apart.epochs_saved == 0
    together = planned(make_cells([variant(n, 2) for n in (1, 2)], range(6)))
    assert (together.notes, together.epochs_saved) == ((), 6)
    assert planned(cells([1, 2], seeds=range(6))).notes == ()


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


def test_an_unknown_speed_predicts_no_time_but_still_orders() -> None:
    plan = planned(
        cells([1, 9], batch_sizes=[32]) + cells([3], batch_sizes=[64]), cost=SameCost(None)
    )
    assert plan.predicted_seconds is None
    assert [stack.epochs for stack in plan.stacks] == [9, 3]


def test_an_idle_worker_is_given_part_of_a_stack() -> None:
    one = planned(cells([4], seeds=range(6)), workers=1)
    three = planned(cells([4], seeds=range(6)), workers=3)
    assert [len(stack.seeds) for stack in one.stacks] == [6]
    assert [len(stack.seeds) for stack in three.stacks] == [2, 2, 2]
    assert (one.predicted_seconds, three.predicted_seconds) == (24, 8)


def test_workers_without_a_stack_are_noted() -> None:
    def noted(asked: Sequence[Cell], workers: int) -> list[str]:
        return [note for note in planned(asked, workers=workers).notes if "nothing to do" in note]

    (note,) = noted(cells([4], seeds=range(6)), 8)
    assert note == "2 of 8 workers have nothing to do: there are 6 stacks to train"
    (note,) = noted(cells([4], seeds=[0]), 2)
    assert note == "1 of 2 workers have nothing to do: there is 1 stack to train"
    assert noted(cells([4], seeds=range(6)), 6) == []
    done = planned(cells([4]), known(4, evaluated_at(4)), workers=8)
    assert (done.stacks, done.notes) == ([], ()), "nothing is left for anybody"


def test_a_stack_that_ends_last_is_split_and_the_others_keep_their_width() -> None:
    asked = cells([4], seeds=range(6), batch_sizes=[16, 32, 64])
    plan = planned(asked, workers=2, cost=SameCost(widest=6))
    assert [len(stack.seeds) for stack in plan.stacks] == [6, 6, 3, 3]
    assert len({stack.config.batch_size for stack in plan.stacks[2:]}) == 1
    assert plan.predicted_seconds == 36


def test_a_split_that_gains_nothing_is_not_made() -> None:
    plan = planned(cells([4], seeds=range(3), batch_sizes=range(2, 12)), workers=2)
    assert [len(stack.seeds) for stack in plan.stacks] == [3] * 10


# Which runs are trained as one network.


@dataclass(frozen=True)
class WidthByModel:
    """Widths as costs would say them: every architecture has its own."""

    widest: Mapping[str, int]

    def seconds(self, config: Config, width: int) -> float | None:
        del config
        return 1 / width

    def milestone(self, config: Config, width: int) -> float:
        del config, width
        return 0.0

    def width(self, config: Config, runs: int) -> int:
        return min(runs, self.widest[config.model])


def cells_of(*models: str, seeds: Sequence[int] = range(6), epochs: int = 2) -> list[Cell]:
    variants = [Variant({"model": model}, {}, Config(model=model), epochs) for model in models]
    return make_cells(variants, seeds)


def seeds_by_model(plan: Plan) -> dict[str, list[tuple[int, ...]]]:
    found: dict[str, list[tuple[int, ...]]] = {}
    for stack in plan.stacks:
        found.setdefault(stack.config.model, []).append(stack.seeds)
    return {model: sorted(stacks) for model, stacks in found.items()}


def test_every_architecture_has_stacks_of_the_width_that_costs_say() -> None:
    cost = WidthByModel({"base": 3, "linear": 6, "resnet": 1})
    plan = planned(cells_of("base", "linear", "resnet"), cost=cost)
    assert seeds_by_model(plan) == {
        "base": [(0, 1, 2), (3, 4, 5)],
        "linear": [(0, 1, 2, 3, 4, 5)],
        "resnet": [(0,), (1,), (2,), (3,), (4,), (5,)],
    }
    assert plan.as_dict()["stack_widths"] == [1, 3, 6]
    assert plan.predicted_seconds == pytest.approx(2 * (2 * 3 * 1 / 3 + 6 * 1 / 6 + 6))


@given(runs=st.integers(1, 40), widest=st.integers(1, 12))
def test_the_stacks_of_a_config_are_as_few_as_its_width_allows_and_nearly_equal(
    runs: int, widest: int
) -> None:
    plan = planned(cells(seeds=range(runs)), cost=SameCost(widest=widest))
    widths = [len(stack.seeds) for stack in plan.stacks]
    assert len(widths) == -(-runs // widest)
    assert max(widths) - min(widths) <= 1
    assert sorted(seed for stack in plan.stacks for seed in stack.seeds) == list(range(runs))


def begun(stack: Sequence[int], *done: int, status: str = "running") -> dict[str, RunState]:
    """Runs of one stack with so many epochs each."""
    store: dict[str, RunState] = {}
    for seed, epochs in zip(stack, done, strict=True):
        store |= known(epochs, evaluated_at(epochs), seed, status, stack=stack)
    return store


def test_runs_begun_together_go_on_together_though_workers_idle() -> None:
    cost = SameCost(widest=1)
    plan = planned(cells([6], seeds=range(4)), begun((0, 1, 2), 2, 2, 2), workers=8, cost=cost)
    assert [(s.seeds, s.start) for s in plan.stacks] == [((0, 1, 2), 2), ((3,), 0)]
    assert plan.epochs_to_train == 3 * 4 + 6


def test_a_run_that_a_kill_left_an_epoch_ahead_repeats_it_with_its_stack() -> None:
    plan = planned(cells([3], seeds=(0, 1)), begun((0, 1), 3, 2))
    assert (plan.runs_done, plan.runs_continued) == (1, 1)
    (stack,) = plan.stacks
    assert (stack.seeds, stack.start, stack.repeated) == ((0, 1), 2, 1)
    assert plan.epochs_to_train == 1, "what is repeated is not what was lacking"


def test_a_run_that_is_further_ahead_is_not_brought_back() -> None:
    plan = planned(cells([6], seeds=(0, 1)), begun((0, 1), 4, 2))
    assert {(stack.seeds, stack.start) for stack in plan.stacks} == {((0,), 4), ((1,), 2)}


def test_a_run_that_will_diverge_again_is_company_for_the_epoch_that_lost_it() -> None:
    lost = known(2, seed=1, status="diverged", stack=(0, 1))
    plan = planned(cells([6], seeds=(0, 1)), begun((0,), 2) | lost)
    assert [stack.seeds for stack in plan.stacks] == [(0,)], "the others had gone on without it"
    killed = known(2, seed=0, status="running", stack=(0, 1))
    plan = planned(cells([6], seeds=(0, 1)), killed | lost)
    assert [stack.seeds for stack in plan.stacks] == [(0, 1)]
    assert plan.epochs_to_train == 4


def test_a_stack_that_was_half_begun_is_begun_whole() -> None:
    for first in range(3):
        store = known(0, seed=first, status="running", stack=(0, 1, 2))
        plan = planned(cells([2], seeds=range(4)), store, cost=SameCost(widest=1))
        assert {stack.seeds for stack in plan.stacks} == {(0, 1, 2), (3,)}


def test_stacks_planned_before_are_kept_as_long_as_none_of_their_runs_was_begun() -> None:
    decided = {config().config_id: [[0, 1], [2, 3]], config(64).config_id: [[0, 1, 2, 3]]}
    asked = cells([2], seeds=range(5))
    plan = planned(asked, decided=decided)
    assert {stack.seeds for stack in plan.stacks} == {(0, 1), (2, 3), (4,)}
    plan = planned(asked, known(2, evaluated_at(2), seed=3), decided=decided)
    assert {stack.seeds for stack in plan.stacks} == {(0, 1), (2, 4)}
    plan = planned(cells([2], seeds=(0, 1, 2)), decided=decided)
    assert {stack.seeds for stack in plan.stacks} == {(0, 1), (2,)}


@given(
    seeds=st.lists(st.integers(0, 30), min_size=1, max_size=12, unique=True),
    widths=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    workers=st.tuples(st.integers(1, 8), st.integers(1, 8)),
)
def test_a_plan_made_again_has_the_stacks_of_the_first_whatever_is_measured_then(
    seeds: list[int], widths: tuple[int, int], workers: tuple[int, int]
) -> None:
    asked = cells([2], seeds, batch_sizes=[16, 32])
    first = planned(asked, workers=workers[0], cost=SameCost(widest=widths[0]))
    again = planned(
        asked, workers=workers[1], cost=SameCost(3.0, widths[1]), decided=first.new_stacks()
    )
    assert again.new_stacks().keys() == first.new_stacks().keys()
    for config_id, stacks in first.new_stacks().items():
        assert sorted(again.new_stacks()[config_id]) == sorted(stacks)


@dataclass(frozen=True)
class Untimed(WidthByModel):
    """Costs that know nothing of one architecture."""

    unknown: str = "statistics"

    def seconds(self, config: Config, width: int) -> float | None:
        return None if config.model == self.unknown else super().seconds(config, width)


def test_a_time_that_is_predicted_in_part_says_of_what_nothing_is_known() -> None:
    cost = Untimed({"base": 6, "statistics": 1})
    plan = planned(cells_of("base", "statistics", epochs=1), cost=cost)
    (note,) = guess_notes(plan)
    assert note.startswith("statistics: how long an epoch takes is not known")
    # Six seeds of base side by side take a second, and each of the others as long as one of base.
    assert plan.predicted_seconds == pytest.approx(1 + 6 / 6)
    assert guess_notes(planned(cells_of("base", epochs=1), cost=cost)) == []
    nothing = planned(cells_of("statistics", epochs=1), cost=cost)
    assert (nothing.predicted_seconds, guess_notes(nothing)) == (None, [])


def guess_notes(plan: Plan) -> list[str]:
    return [note for note in plan.notes if "is not known before" in note]


# Which are, where the specification gives a width.


@dataclass(frozen=True)
class Unasked:
    """Speeds, of which nobody may want to know which width is fastest."""

    def seconds(self, config: Config, width: int) -> float | None:
        del config
        return 1 / width

    def milestone(self, config: Config, width: int) -> float:
        del config, width
        return 0.0

    def width(self, config: Config, runs: int) -> int:
        raise AssertionError(config, runs)


@given(
    seeds=st.lists(st.integers(0, 30), min_size=1, max_size=12, unique=True),
    width=st.integers(1, 14),
    workers=st.integers(1, 9),
)
def test_a_given_width_makes_the_same_stacks_whatever_the_machine(
    seeds: list[int], width: int, workers: int
) -> None:
    asked = cells([2], seeds, batch_sizes=[16, 32])
    decided = {config().config_id: [seeds[:1], seeds[1:]]}
    plan = planned(asked, workers=workers, cost=Unasked(), decided=decided, width=width)
    stacks = sorted(tuple(seeds[n : n + width]) for n in range(0, len(seeds), width))
    assert {each: sorted(found) for each, found in plan.new_stacks().items()} == {
        config(size).config_id: stacks for size in (16, 32)
    }
    assert plan.as_dict()["width"] == plan.width == width


def test_a_kill_anywhere_leaves_the_stacks_of_a_given_width() -> None:
    asked = cells([2], range(7))
    whole = planned(asked, cost=Unasked(), width=3).stacks
    assert sorted(stack.seeds for stack in whole) == [(0, 1, 2), (3, 4, 5), (6,)]
    for ended in whole:
        store = begun(ended.seeds, *(2 for _ in ended.seeds))
        again = planned(asked, store, cost=Unasked(), width=3)
        assert sorted(s.seeds for s in (*again.stacks, ended)) == sorted(s.seeds for s in whole)
        assert not width_notes(again)


def test_seeds_added_to_a_given_width_have_the_company_of_a_larger_sweep() -> None:
    store = begun((0, 1), 2, 2)
    plan = planned(cells([2], range(6)), store, cost=Unasked(), width=4)
    assert sorted(stack.seeds for stack in plan.stacks) == [(2, 3), (4, 5)]
    (note,) = width_notes(plan)
    assert note.startswith("2 runs of the store were begun in other stacks than `resources.width: ")


def test_a_given_width_stacks_nothing_that_cannot_be_stacked() -> None:
    plan = planned(cells_of("base", "statistics", epochs=1), cost=Unasked(), width=4)
    assert seeds_by_model(plan) == {
        "base": [(0, 1, 2, 3), (4, 5)],
        "statistics": [(seed,) for seed in range(6)],
    }
    (note,) = stacking_notes(plan)
    assert note.startswith("statistics: ")


def test_a_stack_that_lost_a_run_is_still_of_the_width_given() -> None:
    lost = known(1, seed=1, status="diverged", stack=(1,))
    store = begun((0, 2), 2, 2) | lost
    assert width_notes(planned(cells([4], range(3)), store, cost=Unasked(), width=3)) == []
    assert len(width_notes(planned(cells([4], range(3)), store, cost=Unasked(), width=2))) == 1
    assert width_notes(planned(cells([4], range(3)), store)) == []


def width_notes(plan: Plan) -> list[str]:
    return [note for note in plan.notes if "resources.width" in note]


def stacking_notes(plan: Plan) -> list[str]:
    return [note for note in plan.notes if "one seed is trained after another" in note]


def test_a_note_says_which_models_are_trained_seed_by_seed_and_why() -> None:
    cost = WidthByModel({"base": 6, "statistics": 1})
    (note,) = stacking_notes(planned(cells_of("base", "statistics", epochs=1), cost=cost))
    assert note.startswith("statistics: ")
    assert "trees are fitted at once" in note
    frozen = Config(shuffle="frozen_batches", data_order="per_seed")
    asked = make_cells([Variant({}, {}, frozen, 1)], range(2))
    (note,) = stacking_notes(planned(asked, cost=SameCost(widest=1)))
    assert note.startswith("base: ")
    assert "frozen_batches" in note


def test_no_note_speaks_of_stacks_where_they_would_change_nothing() -> None:
    assert stacking_notes(planned(cells_of("base"))) == []
    assert stacking_notes(planned(cells_of("statistics", seeds=[0], epochs=1))) == []
    fitted = Config(model="statistics")
    store: dict[str, RunState] = {}
    for seed in range(2):
        identity = run_id(fitted.config_id, seed)
        (state,) = known(1, seed=seed).values()
        store[identity] = replace(state, run_id=identity, config_id=fitted.config_id)
    plan = planned(cells_of("statistics", seeds=range(2), epochs=1), store)
    assert (plan.epochs_to_train, len(plan.stacks)) == (0, 2), "only evaluations are left"
    assert stacking_notes(plan) == []


# Whatever is asked for.


_ASKED = st.lists(
    st.tuples(st.integers(1, 5), st.integers(1, 12)), min_size=1, max_size=8, unique=True
)
_KNOWN = st.dictionaries(
    st.tuples(st.integers(1, 5), st.integers(0, 4)),
    st.tuples(
        st.integers(0, 12),
        st.sampled_from(["complete", "running", "failed", "pruned", "diverged"]),
        st.sets(st.integers(1, 12)),
        st.sets(st.integers(0, 4)),
    ),
    max_size=12,
)
"""By batch size and seed: epochs done, status, milestones evaluated, seeds it was begun with."""


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
    history: dict[tuple[int, int], tuple[int, str, set[int], set[int]]],
    workers: int,
    seconds: float | None,
) -> None:
    variants = [Variant({"batch_size": size}, {}, config(size), n) for size, n in asked]
    wanted = make_cells(variants, seeds)
    store: dict[str, RunState] = {}
    for (size, seed), (done, status, lengths, mates) in history.items():
        reached = evaluated_at(*(n for n in lengths if n <= done))
        stack = sorted({seed, *mates}) if done or mates else []
        store |= known(done, reached, seed, status, size, stack)
    plan = planned(wanted, store, workers, SameCost(seconds))
    trained = [run for stack in plan.stacks for run in stack.run_ids]
    assert len(set(trained)) == len(trained), "a run lies in one stack"
    assert set(trained) <= {cell.run_id for cell in wanted}
    runs = [run for run in trained if lacks_something(run, wanted, store)]
    assert len(runs) == plan.runs_new + plan.runs_continued
    assert plan.runs == len({cell.run_id for cell in wanted})
    longest = {c.run_id: 0 for c in wanted}
    for cell in wanted:
        longest[cell.run_id] = max(longest[cell.run_id], cell.variant.epochs)
    left = sum(max(0, longest[r] - (store[r].epochs_done if r in store else 0)) for r in runs)
    assert plan.epochs_to_train == left
    assert plan.epochs_to_train + plan.epochs_saved == plan.epochs_asked
    assert plan.epochs_asked == sum(cell.variant.epochs for cell in wanted)
    durations = [
        (stack.epochs - stack.start) * len(stack.seeds) * (seconds or 1) for stack in plan.stacks
    ]
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
        assert stack.epochs >= max(lengths)
    lacking = [lacks_something(identity, wanted, store) for identity in stack.run_ids]
    done = [store[run].epochs_done if run in store else 0 for run in stack.run_ids]
    assert min(done) >= stack.start
    if stack.epochs > stack.start:
        assert stack.start == min(n for n, lacks in zip(done, lacking, strict=True) if lacks)
        assert max(done) <= stack.start + 1, "at most the epoch in flight is repeated"
    else:
        assert all(lacking), "nobody needs company where nothing is trained"


def lacks_something(identity: str, wanted: list[Cell], store: dict[str, RunState]) -> bool:
    """Whether a run is short of an epoch that it can still train, or of an evaluation."""
    if identity not in store:
        return True
    state = store[identity]
    lengths = {cell.variant.epochs for cell in wanted if cell.run_id == identity}
    if state.epochs_done < max(lengths):
        return state.status != "diverged"
    return not evaluated_at(*lengths) <= state.evaluated


@given(seed=st.randoms(use_true_random=False))
def test_the_order_of_cells_changes_no_number(seed: object) -> None:
    wanted = cells([1, 3], seeds=range(4), batch_sizes=[16, 32, 64])
    shuffled = list(wanted)
    seed.shuffle(shuffled)  # type: ignore[attr-defined]
    assert planned(shuffled, workers=3).as_dict() == planned(wanted, workers=3).as_dict()
