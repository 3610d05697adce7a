"""Stacks are split so that the workers end together, and only where that ends a sweep sooner."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from functools import partial

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sweeps.balance import ENOUGH, SHORT, SPLIT_GAIN, Divisible, makespan, split

# When the last worker is free.

_DURATIONS = st.lists(st.just(0.0) | st.floats(1e-9, 1e6), max_size=20)
"""Half of the least number above 0 is 0, so durations stay away from it."""


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


# Which stacks are split.

PER_RUN = (1.0, 0.80, 0.75, 0.72, 0.70, 0.69, 0.685, 0.68, 0.68, 0.68)
"""Seconds of an epoch of one run by the width of its stack, as measured on the 61,241-parameter
network."""

Shape = tuple[int, int, float]
"""Runs of a config, epochs of each, and how much slower it is than the network above."""


def seconds(epochs: int, factor: float, width: int) -> float:
    return epochs * width * PER_RUN[width - 1] * factor


def stacks(shapes: Sequence[Shape], fixed: Sequence[float], workers: int) -> list[float]:
    """Seconds of every stack of the plan, once every run is known to be in it once."""
    divisible = [Divisible(runs, runs, partial(seconds, n, f)) for runs, n, f in shapes]
    widths = split(divisible, fixed, workers)
    assert [sum(each) for each in widths] == [runs for runs, _, _ in shapes]
    assert all(width > 0 for each in widths for width in each)
    return [*fixed, *timed(shapes, widths)]


def timed(shapes: Sequence[Shape], widths: Sequence[Sequence[int]]) -> list[float]:
    return [
        seconds(epochs, factor, width)
        for (_, epochs, factor), each in zip(shapes, widths, strict=True)
        for width in each
    ]


def ends(durations: Sequence[float], workers: int) -> float:
    """The makespan, worked out without a heap."""
    free = [0.0] * workers
    for each in sorted(durations, reverse=True):
        free[free.index(min(free))] += each
    return max(free)


def evenly(runs: int, width: int) -> list[int]:
    """As few stacks of at most some width as there can be, nearly equal."""
    parts = -(-runs // width)
    return [runs // parts + (number < runs % parts) for number in range(parts)]


def bound(shapes: Sequence[Shape], fixed: Sequence[float], workers: int) -> float:
    """No plan ends before: all work at its fastest on all workers, or the longest run."""
    work = sum(timed(shapes, [[runs] for runs, _, _ in shapes])) + sum(fixed)
    return max([work / workers, *fixed, *(seconds(n, f, 1) for _, n, f in shapes)])


SHAPES = st.one_of(
    st.builds(
        lambda count, runs, epochs: [(runs, epochs, 1.0)] * count,
        st.integers(1, 12),
        st.integers(3, 10),
        st.integers(1, 30),
    ),
    st.lists(
        st.tuples(
            st.integers(3, 10), st.integers(1, 30), st.sampled_from([1.0, 1.1, 1.3, 2.0, 3.0])
        ),
        min_size=1,
        max_size=12,
    ),
)
"""Configs alike, as of one architecture and length, or each of its own."""

MANY = st.lists(
    st.tuples(st.integers(6, 10), st.integers(20, 30), st.sampled_from([1.0, 1.1, 1.3])),
    min_size=8,
    max_size=40,
)

FIXED = st.lists(
    st.builds(seconds, st.integers(1, 30), st.just(1.0), st.integers(1, 10)), max_size=4
)
"""Stacks that were begun."""

WORKERS = st.integers(1, 16)


@settings(max_examples=200)
@given(shapes=SHAPES, fixed=FIXED, workers=WORKERS)
def test_a_plan_ends_no_later_than_whole_stacks_or_stacks_of_one_width(
    shapes: list[Shape], fixed: list[float], workers: int
) -> None:
    found = stacks(shapes, fixed, workers)
    length = ends(found, workers)
    assert length == pytest.approx(makespan(found, workers))
    whole = ends([*fixed, *timed(shapes, [[runs] for runs, _, _ in shapes])], workers)
    uniform = min(
        ends([*fixed, *timed(shapes, [evenly(runs, width) for runs, _, _ in shapes])], workers)
        for width in range(1, 11)
    )
    least = bound(shapes, fixed, workers)
    assert length <= whole * (1 + 1e-9)
    work = sum((*fixed, *timed(shapes, [[runs] for runs, _, _ in shapes])))
    longest = max(seconds(epochs, factor, 1) for _, epochs, factor in shapes)
    gain = SPLIT_GAIN if longest <= SHORT * work / workers else ENOUGH
    assert length <= max(uniform * (1 + gain), least * (1 + ENOUGH)) * (1 + 1e-9)
    assert length >= max(sum(found) / workers, *found) * (1 - 1e-9)
    assert length >= least * (1 - 1e-9)


@settings(max_examples=200)
@given(shapes=MANY, share=st.floats(0, 1))
def test_a_plan_ends_within_a_tenth_of_work_over_workers_where_no_run_is_longer_than_that(
    shapes: list[Shape], share: float
) -> None:
    """Feasible is a shape whose longest run takes a tenth of work over workers, or less.

    Work is that of the fastest stacks: narrower ones have more.
    """
    longest = max(seconds(epochs, factor, 1) for _, epochs, factor in shapes)
    work = sum(timed(shapes, [[runs] for runs, _, _ in shapes]))
    most = int(work / longest / 10)
    assume(most >= 2)
    workers = 2 + int(share * (most - 2))
    found = stacks(shapes, (), workers)
    assert ends(found, workers) <= 1.1 * work / workers <= 1.1 * sum(found) / workers


@pytest.mark.parametrize(("factor", "kept"), [(1.1, True), (1.3, True), (3.0, False)])
def test_two_stacks_of_long_runs_stay_whole_unless_much_is_gained(
    factor: float, kept: bool
) -> None:
    """With one and a third times the work in one of them, splitting gains less than is known."""
    shapes = [(5, 30, 1.0), (5, 30, factor)]
    whole = timed(shapes, [[5], [5]])
    found = stacks(shapes, (), 2)
    assert (found == whole) is kept
    if not kept:
        assert ends(found, 2) < ends(whole, 2) * (1 - ENOUGH)


def partitions(runs: int, most: int) -> Iterator[tuple[int, ...]]:
    """Every way to put runs into stacks of at most so many."""
    if runs == 0:
        yield ()
    for first in range(min(runs, most), 0, -1):
        for rest in partitions(runs - first, first):
            yield (first, *rest)


@settings(max_examples=100, deadline=None)
@given(
    shapes=st.lists(
        st.tuples(st.integers(2, 5), st.integers(1, 30), st.sampled_from([1.0, 1.1, 2.0])),
        min_size=1,
        max_size=3,
    ),
    fixed=FIXED,
    workers=st.integers(1, 6),
)
def test_of_all_ways_to_put_runs_into_stacks_none_ends_much_sooner(
    shapes: list[Shape], fixed: list[float], workers: int
) -> None:
    ways = itertools.product(*(partitions(runs, runs) for runs, _, _ in shapes))
    best = min(ends([*fixed, *timed(shapes, widths)], workers) for widths in ways)
    assert ends(stacks(shapes, fixed, workers), workers) <= 1.2 * best


@pytest.mark.parametrize(
    ("configs", "runs", "workers", "parts"),
    [
        (1, 10, 1, 1),
        (4, 6, 4, 4),
        (30, 10, 4, 30),
        (9, 10, 4, 12),
        (1, 6, 3, 3),
        (1, 6, 16, 6),
        (3, 6, 2, 4),
        (5, 10, 4, 8),
        (2, 4, 3, 4),
    ],
)
def test_only_as_many_stacks_are_split_as_it_takes(
    configs: int, runs: int, workers: int, parts: int
) -> None:
    found = split([Divisible(runs, runs, partial(seconds, 10, 1.0))] * configs, (), workers)
    assert sum(map(len, found)) == parts


def test_a_worker_that_has_a_begun_stack_gets_less_of_the_rest() -> None:
    each = Divisible(6, 6, partial(seconds, 10, 1.0))
    begun = seconds(10, 1.0, 6)
    assert split([each, each], [begun], 3) == [(6,), (6,)]
    assert split([each], [begun], 2) == [(6,)]
    assert sorted(*split([each], [begun / 2], 2)) == [1, 5]


@given(shapes=SHAPES, fixed=FIXED, workers=WORKERS, order=st.randoms(use_true_random=False))
def test_the_order_of_configs_changes_no_stack(
    shapes: list[Shape], fixed: list[float], workers: int, order: object
) -> None:
    shuffled = list(shapes)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    found, again = (sorted(stacks(each, fixed, workers)) for each in (shapes, shuffled))
    assert found == again


@pytest.mark.parametrize(("configs", "runs", "workers"), [(1000, 10, 700), (20, 500, 64)])
def test_ten_thousand_runs_are_put_into_stacks_within_seconds(
    configs: int, runs: int, workers: int
) -> None:
    """Shapes that are out of balance, so that splits are looked for."""

    def slow(factor: float, width: int) -> float:
        return factor * (1 + 0.7 * width)

    asked = [Divisible(runs, runs, partial(slow, 1 + n % 7 / 7)) for n in range(configs)]
    begun = time.process_time()
    found = split(asked, (), workers)
    assert time.process_time() - begun < 10
    assert sum(map(sum, found)) == configs * runs
