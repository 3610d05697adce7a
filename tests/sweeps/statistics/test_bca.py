"""BCa intervals against every resample there is and against scipy's, and how often they are right.

`interval` is Efron's, `widened` the one that summaries have.
"""

from __future__ import annotations

from itertools import combinations_with_replacement, product
from math import factorial, prod

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from sweeps.statistics import mean_interval, summarise, summarise_each
from sweeps.statistics.bca import bca_each

_VALUES = arrays(np.float64, st.integers(3, 12), elements=st.floats(-1e3, 1e3))


def interval(values: np.ndarray) -> tuple[float, float]:
    (low,), (high,) = bca_each(np.sort(values)[np.newaxis], 0.95)
    return float(low), float(high)


def widened(values: np.ndarray) -> tuple[float, float]:
    found = summarise(values)
    assert found.bca_low is not None
    assert found.bca_high is not None
    return found.bca_low, found.bca_high


def by_definition(values: np.ndarray, sums: np.ndarray, chances: np.ndarray) -> tuple[float, float]:
    """Efron's formulas on a distribution of whole-numbered sums of resamples."""
    n, total = len(values), values.sum()
    order = np.argsort(sums, kind="stable")
    sums, cumulated = sums[order], np.cumsum(chances[order])
    below, equal = chances[order][sums < total].sum(), chances[order][sums == total].sum()
    bias = stats.norm.ppf(below + equal / 2)
    left_out = (total - values) / (n - 1)
    moved = left_out.mean() - left_out
    acceleration = (moved**3).sum() / (6 * (moved**2).sum() ** 1.5)
    ends = []
    for z in stats.norm.ppf([0.025, 0.975]):
        share = stats.norm.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))
        ends.append(sums[np.searchsorted(cumulated, share)] / n)
    return ends[0], ends[1]


@pytest.mark.parametrize("n", [3, 4, 5, 6])
def test_up_to_six_values_the_interval_is_that_of_all_resamples(n: int) -> None:
    rng = np.random.default_rng(n)
    resamples = np.asarray(list(product(range(n), repeat=n)))
    for highest in (2, 5, 1000, 1000, 1000):
        values = rng.integers(0, highest + 1, n)
        values[0] = highest + 1  # not all are equal
        sums = values[resamples].sum(axis=1)
        expected = by_definition(values, sums, np.full(len(sums), 1 / len(sums)))
        assert interval(values.astype(np.float64)) == pytest.approx(expected, rel=1e-12)


def listed(n: int) -> tuple[np.ndarray, np.ndarray]:
    drawn = np.asarray(list(combinations_with_replacement(range(n), n)))
    counts = np.stack([(drawn == value).sum(axis=1) for value in range(n)], axis=1)
    ways = [factorial(n) / prod(map(factorial, row)) for row in counts.tolist()]
    return counts, np.asarray(ways) / n**n


@pytest.mark.parametrize(
    ("n", "shape", "tolerance"),
    [
        (7, "normal", 0.03),
        (8, "normal", 0.03),
        (10, "normal", 0.007),
        (7, "exponential", 0.08),
        (10, "exponential", 0.04),
        (7, "few values", 0.12),
        (10, "few values", 0.1),
        (7, "one far off", 0.15),
        (10, "one far off", 0.15),
    ],
)
def test_above_six_the_interval_is_near_that_of_all_resamples(
    n: int, shape: str, tolerance: float
) -> None:
    rng = np.random.default_rng(n)
    counts, chances = listed(n)
    draws = {
        "normal": lambda: rng.normal(0, 1e5, n),
        "exponential": lambda: rng.exponential(1e5, n),
        "few values": lambda: rng.integers(0, 5, n),
        "one far off": lambda: rng.normal(0, 1e5, n) + 1.5e6 * (np.arange(n) == 0),
    }
    for _ in range(8):
        values = draws[shape]().astype(np.int64)
        expected = np.asarray(by_definition(values, counts @ values, chances))
        found = np.asarray(interval(values.astype(np.float64)))
        assert np.abs(found - expected).max() <= tolerance * (expected[1] - expected[0])


@pytest.mark.parametrize("n", [8, 10, 25])  # with fewer, a rare draw more moves an end far
def test_the_interval_is_scipys_but_for_what_drawing_adds(n: int) -> None:
    values = np.random.default_rng(n).beta(45, 5, n)
    drawn = stats.bootstrap(
        (values,), np.mean, n_resamples=100_000, batch=10_000, rng=np.random.default_rng(0)
    ).confidence_interval
    assert interval(values) == pytest.approx(tuple(drawn), abs=0.02 * (drawn.high - drawn.low))


@given(values=_VALUES)
def test_the_mean_lies_in_the_interval_and_the_interval_among_the_values(
    values: np.ndarray,
) -> None:
    low, high = interval(values)
    found = summarise(values)
    assert found.mean is not None
    slack = 1e-12 * np.abs(values).max()
    assert values.min() <= low <= found.mean + slack
    assert found.mean - slack <= high <= values.max()


@given(values=_VALUES)
def test_the_interval_of_a_summary_is_wider_as_students_t_is(values: np.ndarray) -> None:
    n, mean = len(values), values.mean()
    wider = np.sqrt(n / (n - 1)) * stats.t.ppf(0.975, n - 1) / stats.norm.ppf(0.975)
    expected = [mean + wider * (end - mean) for end in interval(values)]
    assert widened(values) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_of_values_like_a_bell_it_is_nearly_students_interval_and_of_skewed_ones_it_leans() -> None:
    bell = stats.norm.ppf((np.arange(12) + 0.5) / 12)
    low, high = mean_interval(bell)
    assert widened(bell) == pytest.approx((low, high), rel=0.02)
    low, high = widened(np.exp(bell))
    mean = np.exp(bell).mean()
    assert high - mean > 1.3 * (mean - low)


@given(values=_VALUES, random=st.randoms(use_true_random=False))
def test_neither_the_order_of_runs_nor_another_metric_changes_a_digit(
    values: np.ndarray, random: object
) -> None:
    shuffled = values.tolist()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    others = np.random.default_rng(0).normal(size=(50, len(values)))
    found = summarise_each(np.stack([*others, np.asarray(shuffled)]))[-1]
    assert found == summarise(values)


@given(
    values=arrays(np.float64, st.integers(3, 12), elements=st.integers(-50, 50)),
    shift=st.floats(-1e3, 1e3),
    scale=st.floats(0.1, 10) | st.floats(-10, -0.1),
)
def test_the_interval_moves_stretches_and_turns_with_the_values(
    values: np.ndarray, shift: float, scale: float
) -> None:
    ends = [end * scale + shift for end in interval(values)]
    moved = interval(values * scale + shift)
    assert moved == pytest.approx((min(ends), max(ends)), abs=1e-4)


@given(value=st.floats(-1e6, 1e6), n=st.integers(3, 20))
def test_the_interval_of_equal_values_is_that_value(value: float, n: int) -> None:
    assert interval(np.full(n, value)) == (value, value)
    assert widened(np.full(n, value)) == (value, value)


@given(values=arrays(np.float64, st.integers(0, 2), elements=st.floats(0, 1)))
def test_below_three_values_there_is_no_interval(values: np.ndarray) -> None:
    found = summarise(values)
    assert (found.bca_low, found.bca_high) == (None, None)


@given(
    values=arrays(np.float64, st.integers(3, 12), elements=st.floats(0, 1)), holes=st.integers(1, 4)
)
def test_missing_values_are_left_out(values: np.ndarray, holes: int) -> None:
    assume(np.ptp(values) > 0)
    assert summarise(np.append(values, [np.nan] * holes)) == summarise(values)


@given(base=st.floats(-1, 1), step=st.floats(0, 1e-12), n=st.integers(3, 12))
def test_values_that_differ_by_rounding_give_finite_ends(base: float, step: float, n: int) -> None:
    values = base + step * np.arange(n)
    low, high = interval(values)
    assert values.min() <= low <= high <= values.max()


LAWS = {
    "normal": (lambda rng, size: rng.normal(size=size), 0.0),
    "gamma": (lambda rng, size: rng.gamma(4, size=size), 4.0),
    "exponential": (lambda rng, size: rng.exponential(size=size), 1.0),
}
"""What is drawn, and its mean."""


@pytest.mark.parametrize(
    ("n", "law", "expected", "as_drawn"),
    [
        (3, "normal", 93.5, 72.4),
        (3, "gamma", 92.4, 71.5),
        (3, "exponential", 88.1, 67.9),
        (5, "normal", 94.4, 84.2),
        (5, "gamma", 93.3, 83.1),
        (5, "exponential", 89.7, 79.9),
        (10, "normal", 94.6, 90.1),
        (10, "gamma", 94.1, 89.6),
        (10, "exponential", 92.3, 87.6),
        (20, "normal", 94.8, 92.7),
        (30, "normal", 95.2, 93.8),
    ],
)
def test_the_intervals_cover_the_mean_as_often_as_is_documented(
    n: int, law: str, expected: float, as_drawn: float
) -> None:
    draw, mean = LAWS[law]
    values = np.sort(draw(np.random.default_rng(n), (10_000, n)), axis=1)
    found = summarise_each(values)
    covered = [s.bca_low <= mean <= s.bca_high for s in found]  # type: ignore[operator]
    assert 100 * np.mean(covered) == pytest.approx(expected, abs=1)
    low, high = bca_each(values, 0.95)
    assert 100 * np.mean((low <= mean) & (mean <= high)) == pytest.approx(as_drawn, abs=1.3)


@pytest.mark.parametrize("n", [5, 10])
def test_the_interval_of_a_summary_covers_the_mean_of_normal_scores_as_often_as_it_says(
    n: int,
) -> None:
    values = np.random.default_rng(2026).normal(0.9, 0.02, (20_000, n))
    found = summarise_each(values)
    covered = np.mean([s.bca_low <= 0.9 <= s.bca_high for s in found])  # type: ignore[operator]
    assert 0.935 <= covered <= 0.965
