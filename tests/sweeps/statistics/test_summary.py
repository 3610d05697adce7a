"""Intervals and summaries against scipy and numpy, and what must hold of any."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from sweeps.statistics import mean_interval, summarise, summarise_each

_VALUES = arrays(np.float64, st.integers(2, 30), elements=st.floats(-1e6, 1e6))
_SHARES = arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 1))


@pytest.mark.parametrize("n", [2, 3, 6, 50])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_the_interval_is_that_of_scipy(n: int, confidence: float) -> None:
    values = np.random.default_rng(n).normal(0.9, 0.03, n)
    low, high = mean_interval(values, confidence)
    expected = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    assert low == pytest.approx(expected.low, rel=1e-12)
    assert high == pytest.approx(expected.high, rel=1e-12)


@given(values=_VALUES)
def test_a_summary_is_that_of_numpy(values: np.ndarray) -> None:
    found = summarise(values)
    assert found.n == len(values)
    scale = max(1.0, float(np.abs(values).max()))
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9 * scale)
    assert found.std == pytest.approx(np.std(values, ddof=1), abs=1e-9 * scale)
    assert found.median == np.median(values)
    assert found.iqm == pytest.approx(stats.trim_mean(values, 0.25), abs=1e-9 * scale)
    assert (found.min, found.max) == (values.min(), values.max())


@given(
    values=arrays(
        np.float64,
        st.tuples(st.integers(1, 5), st.integers(1, 20)),
        elements=st.floats(-1e6, 1e6) | st.just(np.nan),
    )
)
def test_metrics_summarised_at_once_are_those_summarised_one_by_one(values: np.ndarray) -> None:
    assert summarise_each(values) == [summarise(row) for row in values]
    for row, found in zip(values, summarise_each(values), strict=True):
        kept = row[~np.isnan(row)]
        assert found.n == len(kept)
        assert (found.low, found.high) == (
            mean_interval(np.sort(kept)) if len(kept) else (None, None)
        )


@given(values=_VALUES)
def test_the_mean_lies_in_its_interval_and_range(values: np.ndarray) -> None:
    found = summarise(values)
    assert found.low is not None
    assert found.high is not None
    assert found.mean is not None
    assert found.low <= found.mean <= found.high
    assert values.min() <= found.mean <= values.max()
    assert values.min() <= found.iqm <= values.max()  # type: ignore[operator]


@given(values=_SHARES, random=st.randoms(use_true_random=False))
def test_the_order_of_runs_changes_nothing(values: np.ndarray, random: object) -> None:
    shuffled = values.tolist()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert summarise(np.asarray(shuffled)) == summarise(values)


@given(values=_SHARES, holes=st.integers(0, 5), random=st.randoms(use_true_random=False))
def test_missing_values_are_left_out(values: np.ndarray, holes: int, random: object) -> None:
    holed = [*values.tolist(), *[float("nan")] * holes]
    random.shuffle(holed)  # type: ignore[attr-defined]
    assert summarise(np.asarray(holed)) == summarise(values)


@given(value=st.floats(-1e6, 1e6), n=st.integers(2, 20))
def test_equal_values_have_an_interval_of_no_width(value: float, n: int) -> None:
    found = summarise(np.full(n, value))
    assert found.mean == value
    assert found.std == pytest.approx(0, abs=1e-9 * max(1, abs(value)))
    assert found.low == pytest.approx(value, rel=1e-9, abs=1e-12)
    assert found.high == pytest.approx(value, rel=1e-9, abs=1e-12)


@given(values=_VALUES, shift=st.floats(-1e3, 1e3), scale=st.floats(0.1, 10))
def test_an_interval_moves_and_stretches_with_its_values(
    values: np.ndarray, shift: float, scale: float
) -> None:
    low, high = mean_interval(values)
    moved_low, moved_high = mean_interval(values * scale + shift)
    tolerance = 1e-6 * (1 + float(np.abs(values).max()))
    assert low is not None
    assert high is not None
    assert moved_low == pytest.approx(low * scale + shift, abs=tolerance, rel=1e-9)
    assert moved_high == pytest.approx(high * scale + shift, abs=tolerance, rel=1e-9)


def test_one_value_has_no_spread() -> None:
    found = summarise(np.asarray([0.25]))
    assert (found.n, found.mean, found.median, found.min, found.max) == (1, 0.25, 0.25, 0.25, 0.25)
    assert (found.std, found.low, found.high) == (None, None, None)


@pytest.mark.parametrize("values", [[], [float("nan")], [float("nan")] * 3])
def test_without_a_value_everything_is_null(values: list[float]) -> None:
    found = summarise(np.asarray(values, np.float64))
    assert found.n == 0
    assert {name for name, value in vars(found).items() if value is not None} == {"n"}


@pytest.mark.parametrize("n", [5, 10])
def test_the_interval_covers_the_true_mean_as_often_as_it_says(n: int) -> None:
    draws = np.random.default_rng(2026).normal(0.9, 0.02, (6000, n))
    covered = 0
    for values in draws:
        low, high = mean_interval(values)
        assert low is not None
        assert high is not None
        covered += low <= 0.9 <= high
    assert 0.935 <= covered / len(draws) <= 0.965
