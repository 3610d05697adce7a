"""Who is trained with whom: stacks are as few as can be, and go on as they were after a kill."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cifake.config import Config
from cifake.stacks import Begun, Standing, begun_stacks, best_width, chunks, stacks_of_width

SEEDS = st.lists(st.integers(0, 99), min_size=1, max_size=12, unique=True)


# Chunks


@given(seeds=SEEDS, width=st.integers(1, 15))
def test_chunks_are_the_seeds_in_order_in_as_few_parts_as_can_be(
    seeds: list[int], width: int
) -> None:
    parts = chunks(seeds, width)
    assert [seed for part in parts for seed in part] == seeds
    sizes = [len(part) for part in parts]
    assert max(sizes) <= width
    assert max(sizes) - min(sizes) <= 1
    assert (len(parts) - 1) * width < len(seeds)


def test_no_seed_is_no_chunk() -> None:
    assert chunks([], 3) == []


@given(seeds=SEEDS, width=st.integers(1, 15))
def test_stacks_of_a_width_are_of_exactly_that_and_the_last_has_what_is_left(
    seeds: list[int], width: int
) -> None:
    stacks = stacks_of_width(Config(), seeds, width)
    assert [seed for stack in stacks for seed in stack] == seeds
    assert all(len(stack) == width for stack in stacks[:-1])
    assert 1 <= len(stacks[-1]) <= width
    assert stacks_of_width(Config(model="statistics"), seeds, width) == [(seed,) for seed in seeds]


# Stacks that were begun


@dataclass(frozen=True)
class Killed:
    """Runs as a kill left them."""

    runs: list[Standing]
    expected: list[Begun]
    """The stacks that were in flight, or would have been next."""


@st.composite
def killed(draw: st.DrawFn, first_seed: int = 0) -> Killed:
    """One stack over some epochs: runs diverge, and a kill comes between two commits.

    Those that train on are committed one by one, then those that diverged, as `Session` does.
    """
    seeds = [first_seed + seed for seed in draw(st.permutations(range(draw(st.integers(1, 5)))))]
    stack = tuple(seeds)
    rows = {seed: Standing(seed, 0, stack) for seed in seeds}
    for epoch in range(draw(st.integers(0, 3))):
        lost = draw(st.sets(st.sampled_from(stack))) if stack else set()
        kept = tuple(seed for seed in stack if seed not in lost)
        commits = [(s, Standing(s, epoch + 1, kept)) for s in kept]
        commits += [(s, replace(rows[s], diverged=True)) for s in stack if s in lost]
        done = draw(st.integers(0, len(commits)))
        rows |= dict(commits[:done])
        if done < len(commits):
            return Killed(draw(st.permutations([*rows.values()])), [Begun(stack, epoch)])
        stack = kept
    expected = [Begun(stack, rows[stack[0]].epochs_done)] if stack else []
    return Killed(draw(st.permutations([*rows.values()])), expected)


@settings(deadline=None)
@given(killed())
def test_a_stack_killed_between_any_two_commits_goes_on_with_whom_it_was_trained(
    case: Killed,
) -> None:
    assert begun_stacks(case.runs) == case.expected


@settings(deadline=None)
@given(killed(), killed(first_seed=10), killed(first_seed=20))
def test_stacks_do_not_depend_on_other_stacks(one: Killed, two: Killed, three: Killed) -> None:
    found = begun_stacks([*three.runs, *one.runs, *two.runs])
    starts = [stack.start for stack in found]
    assert starts == sorted(starts)
    expected = [*one.expected, *two.expected, *three.expected]
    assert sorted(found, key=lambda stack: stack.seeds) == sorted(
        expected, key=lambda stack: stack.seeds
    )


@st.composite
def standings(draw: st.DrawFn) -> list[Standing]:
    """Any runs at all, whatever made them so."""
    seeds = draw(SEEDS)

    def standing(seed: int) -> Standing:
        others = draw(st.lists(st.sampled_from(seeds), max_size=5))
        stack = draw(st.permutations(sorted({seed, *others})))
        begun = draw(st.booleans())
        done = draw(st.integers(0, 4)) if begun else 0
        return Standing(seed, done, tuple(stack) if begun else (), begun and draw(st.booleans()))

    return [standing(seed) for seed in seeds]


@settings(deadline=None)
@given(standings())
def test_every_run_that_was_begun_goes_on_in_one_stack(runs: list[Standing]) -> None:
    found = begun_stacks(runs)
    by_seed = {run.seed: run for run in runs}
    together = [seed for stack in found for seed in stack.seeds]
    assert len(set(together)) == len(together)
    assert set(together) >= {run.seed for run in runs if run.stack and not run.diverged}
    for stack in found:
        members = [by_seed[seed] for seed in stack.seeds]
        assert any(not run.diverged for run in members)
        assert all(run.epochs_done in (stack.start, stack.start + 1) for run in members)
        assert any(set(stack.seeds) <= set(run.stack) for run in runs)


def test_runs_that_were_never_begun_are_in_no_stack() -> None:
    assert begun_stacks([Standing(0, 0, ()), Standing(1, 0, ())]) == []


def test_a_run_whose_stack_was_half_written_down_is_in_it() -> None:
    assert begun_stacks([Standing(0, 0, (0, 1)), Standing(1, 0, ())]) == [Begun((0, 1), 0)]


# The best width


class Speeds:
    """A processor with known speeds, which notes what it is asked."""

    def __init__(self, by_width: dict[int, float]) -> None:
        self.by_width = by_width
        self.asked: list[int] = []

    def __call__(self, width: int) -> float:
        self.asked.append(width)
        return self.by_width[width]


SPEEDS = st.lists(st.floats(5_000, 50_000), min_size=12, max_size=12)


@given(runs=st.integers(1, 12), speeds=SPEEDS)
def test_the_best_width_is_the_widest_of_the_fastest_of_few_measured(
    runs: int, speeds: list[float]
) -> None:
    speed = Speeds(dict(enumerate(speeds, 1)))
    best = best_width(Config(), runs, speed)
    assert 1 <= best <= runs
    if runs == 1:
        assert speed.asked == []
        return
    widths = sorted(set(speed.asked))
    assert speed.asked == [1] + widths * 3, "once more, to see whether a step takes long"
    assert widths[-1] <= runs
    assert len(widths) <= 5
    as_good = 0.95 * max(speed(width) for width in widths)
    assert best == max(width for width in widths if speed(width) >= as_good)


@given(runs=st.integers(2, 12), growth=st.floats(1.0, 2.0))
def test_a_stack_that_never_gets_slower_holds_all_runs(runs: int, growth: float) -> None:
    speed = Speeds({width: 5_000 * growth**width for width in range(1, runs + 1)})
    assert best_width(Config(), runs, speed) == runs
    assert speed.asked[-1] == runs


def test_nothing_wider_is_measured_than_what_is_clearly_worse() -> None:
    speed = Speeds({1: 5_000.0, 2: 10_000.0, 3: 7_900.0, 6: 99_000.0, 12: 99_000.0})
    assert best_width(Config(), 12, speed) == 2
    assert speed.asked == [1] + [1, 2, 3] * 3


@given(slow=st.sets(st.integers(1, 13)), quiet=st.integers(1, 3))
def test_a_core_that_is_slow_for_a_while_decides_nothing(slow: set[int], quiet: int) -> None:
    """Whichever measurements it spoils, so long as one turn is left alone."""
    speeds = {1: 5_000.0, 2: 8_000.0, 3: 10_000.0, 5: 11_000.0}
    asked: list[int] = []

    def speed(width: int) -> float:
        asked.append(width)
        spoilt = len(asked) in slow and asked.count(1) != 1 + quiet
        return speeds[width] * (0.6 if spoilt else 1.0)

    assert best_width(Config(), 5, speed) == 5


STACKED = {1: 5_000.0, 2: 7_000.0, 3: 8_500.0, 5: 10_000.0}


@given(st.data())
def test_a_slow_core_that_has_one_quick_moment_decides_nothing(data: st.DataObject) -> None:
    """Nor does a quick one with a slow moment, at whatever it does then."""
    odd = data.draw(st.integers(1, 13))
    usual, for_once = data.draw(st.sampled_from([(0.5, 1.0), (1.0, 0.5)]))
    asked: list[int] = []

    def speed(width: int) -> float:
        asked.append(width)
        return STACKED[width] * (for_once if len(asked) == odd else usual)

    assert best_width(Config(), 5, speed) == 5


def test_widths_are_timed_on_while_the_fastest_moments_and_the_usual_ones_disagree() -> None:
    asked: list[int] = []

    def speed(width: int) -> float:
        asked.append(width)
        turn = asked.count(1) - 1
        return STACKED[width] * (3.0 if width == 1 and turn == 1 else 1.0)

    assert best_width(Config(), 5, speed) == 5
    assert asked.count(1) == 1 + 9, "the fastest moment stays one of a single run"


@given(st.integers(1, 2))
def test_a_core_that_pauses_does_not_make_steps_long(pauses: int) -> None:
    asked: list[int] = []

    def speed(width: int) -> float:
        asked.append(width)
        return 100.0 if len(asked) <= pauses else STACKED[width]

    assert best_width(Config(), 5, speed) == 5


def _unstackable() -> Iterator[Config]:
    yield Config(shuffle="frozen_batches")
    yield Config.model_validate({"execution": {"precision": "fp16"}})
    yield Config(model="statistics")
    yield Config.model_validate(
        {"model": "torchvision", "model_options": {"backbone": "densenet121"}}
    )


@pytest.mark.parametrize("config", [*_unstackable()])
def test_what_cannot_be_stacked_is_not_measured(config: Config) -> None:
    speed = Speeds({})
    assert best_width(config, 6, speed) == 1
    assert speed.asked == []


def test_long_steps_are_not_stacked_on_a_processor() -> None:
    """A step of 32 images that takes 64 ms is all arithmetic; a GPU is another matter."""
    speeds = {1: 500.0, 2: 900.0, 3: 900.0, 6: 900.0}
    assert best_width(Config(), 6, Speeds(speeds)) == 1
    assert best_width(Config(), 6, Speeds(speeds), "cpu:0") == 1
    assert best_width(Config(), 6, Speeds(speeds), "cuda") == 6
