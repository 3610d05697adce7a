"""Paired comparisons against scipy, against counting, and how often they are wrong."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from sweeps.statistics import (
    EXACT_UP_TO,
    FLIPS,
    Paired,
    holm,
    paired,
    paired_each,
    seeds_to_reach,
    smallest_p,
)

_PAIRS = arrays(
    np.float64,
    st.tuples(st.just(2), st.integers(2, 12)),
    elements=st.integers(0, 20).map(lambda right: right / 20),
)


def by_counting(whole: np.ndarray) -> float:
    """P of the sign-flip test of whole-numbered differences, from the distribution of their sum."""
    span = int(np.abs(whole).sum())
    ways = np.zeros(2 * span + 1)
    ways[span] = 1
    for size in np.abs(whole).tolist():
        ways = np.roll(ways, size) + np.roll(ways, -size)  # no way is ever moved beyond the span
    far = np.abs(np.arange(-span, span + 1)) >= abs(int(whole.sum()))
    return float(ways[far].sum() / 2.0 ** len(whole))


@pytest.mark.parametrize(
    ("differences", "expected"),
    [([1, 2, 3], 0.25), ([1, -1], 1.0), ([3, 1, -1], 0.75), ([5, 5, 5, 5, -1], 0.125), ([2], 1.0)],
)
def test_p_is_the_share_of_flips_that_are_as_far_from_zero(
    differences: list[int], expected: float
) -> None:
    found = paired(np.asarray(differences, np.float64), np.zeros(len(differences)))
    assert found.p == expected


@pytest.mark.parametrize("n", [2, 3, 5, 6, 9, 12])
def test_p_and_interval_are_scipys(n: int) -> None:
    rng = np.random.default_rng(n)
    for shift in (0.0, 0.01, 0.03):
        a, b = rng.normal(0.9 + shift, 0.01, n), rng.normal(0.9, 0.02, n)
        found = paired(a, b)
        permuted = stats.permutation_test(
            (a, b),
            lambda x, y, axis: np.mean(x - y, axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=2**n,
        )
        assert found.p == permuted.pvalue
        student = stats.ttest_rel(a, b)
        assert (found.low, found.high) == pytest.approx(tuple(student.confidence_interval()))
        assert found.cohens_d == pytest.approx(student.statistic / np.sqrt(n))


@pytest.mark.parametrize("n", [13, 14, 20, 21, 25, EXACT_UP_TO])
def test_p_is_exact_up_to_its_limit(n: int) -> None:
    rng = np.random.default_rng(n)
    for shift in (0, 30):
        whole = rng.integers(-100, 101, n) + shift
        assert paired(whole / 1.0, np.zeros(n)).p == by_counting(whole)


@pytest.mark.parametrize("n", [EXACT_UP_TO + 1, 50])
def test_p_above_the_limit_is_near_the_exact_one_and_never_zero(n: int) -> None:
    rng = np.random.default_rng(n)
    for shift in (0, 20):
        whole = rng.integers(-100, 101, n) + shift
        exact = by_counting(whole)
        error = 4 * np.sqrt(exact * (1 - exact) / FLIPS) + 2 / FLIPS
        assert paired(whole / 1.0, np.zeros(n)).p == pytest.approx(exact, abs=error)
    assert paired(np.ones(n), np.zeros(n)).p == smallest_p(n) == 1 / (FLIPS + 1)


@given(
    right=arrays(np.int64, st.tuples(st.just(2), st.integers(1, 12)), elements=st.integers(0, 9))
)
def test_p_of_shares_of_images_is_that_of_the_counts(right: np.ndarray) -> None:
    for images in (3, 7, 10, 20_000):
        shares = (
            0.9 - right / images
        )  # rounded: equal differences of counts differ in the last digit
        assert paired(shares[0], shares[1]).p == by_counting(right[0] - right[1])


@given(pairs=_PAIRS)
def test_the_probability_of_improvement_is_counted_over_all_pairs_of_runs(
    pairs: np.ndarray,
) -> None:
    found = paired(pairs[0], pairs[1])
    wins = [
        Fraction(1 if a > b else 0) + Fraction(1 if a == b else 0, 2)
        for a, b in product(pairs[0].tolist(), pairs[1].tolist())
    ]
    share = sum(wins, Fraction(0)) / len(wins)
    assert found.probability_of_improvement == pytest.approx(float(share))
    assert found.cliffs_delta == pytest.approx(float(2 * share - 1))
    statistic = stats.mannwhitneyu(pairs[0], pairs[1]).statistic
    assert found.probability_of_improvement == pytest.approx(statistic / len(wins))


@given(pairs=_PAIRS, random=st.randoms(use_true_random=False))
def test_the_order_and_the_names_of_seeds_change_nothing(pairs: np.ndarray, random: object) -> None:
    order = list(range(pairs.shape[1]))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert paired(*pairs[:, order]) == paired(*pairs)


def numbers(found: Paired) -> list[float]:
    return [np.nan if value is None else value for value in vars(found).values()]


@given(pairs=_PAIRS)
def test_a_and_b_change_sides_with_their_signs(pairs: np.ndarray) -> None:
    forth, back = paired(pairs[0], pairs[1]), paired(pairs[1], pairs[0])
    assert (back.n, back.p) == (forth.n, forth.p)
    mirrored = Paired(
        n=forth.n,
        mean_a=forth.mean_b,
        mean_b=forth.mean_a,
        difference=-forth.difference,  # type: ignore[operator]
        std=forth.std,
        low=-forth.high,  # type: ignore[operator]
        high=-forth.low,  # type: ignore[operator]
        p=forth.p,
        smallest_p=forth.smallest_p,
        probability_of_improvement=1 - forth.probability_of_improvement,  # type: ignore[operator]
        cohens_d=None if forth.cohens_d is None else -forth.cohens_d,
        cliffs_delta=-forth.cliffs_delta,  # type: ignore[operator]
    )
    assert numbers(back) == pytest.approx(numbers(mirrored), abs=1e-12, nan_ok=True)


@given(pairs=_PAIRS)
def test_the_difference_lies_in_its_interval_and_p_in_its_bounds(pairs: np.ndarray) -> None:
    found = paired(pairs[0], pairs[1])
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.difference <= found.high  # type: ignore[operator]
    assert found.smallest_p == 2.0 ** (1 - found.n)
    assert found.smallest_p <= found.p <= 1  # type: ignore[operator]


@given(pairs=_PAIRS, holes=st.sets(st.integers(0, 11)), side=st.integers(0, 1))
def test_a_pair_that_lacks_a_run_is_left_out(pairs: np.ndarray, holes: set[int], side: int) -> None:
    holed = pairs.copy()
    places = sorted(hole for hole in holes if hole < pairs.shape[1])
    holed[side, places] = np.nan
    kept = np.delete(pairs, places, axis=1)
    assert paired(*holed) == paired(*kept)
    assert paired(*holed).n == kept.shape[1]


@given(
    both=arrays(
        np.float64,
        st.tuples(st.just(2), st.integers(1, 6), st.integers(1, 8)),
        elements=st.integers(0, 20).map(lambda right: right / 20) | st.just(np.nan),
    )
)
def test_comparisons_made_at_once_are_those_made_one_by_one(both: np.ndarray) -> None:
    a, b = both
    assert paired_each(a, b) == [paired(x, y) for x, y in zip(a, b, strict=True)]


def test_without_a_pair_everything_is_undefined() -> None:
    for a, b in (([], []), ([0.5, np.nan], [np.nan, 0.5])):
        found = dict(vars(paired(np.asarray(a, np.float64), np.asarray(b, np.float64))))
        assert found.pop("n") == 0
        assert set(found.values()) == {None}


def test_one_pair_has_a_difference_and_nothing_that_it_cannot_tell() -> None:
    found = paired(np.asarray([0.9]), np.asarray([0.8]))
    assert found.difference == pytest.approx(0.1)
    assert (found.std, found.low, found.high, found.cohens_d) == (None,) * 4
    assert (found.p, found.smallest_p) == (1.0, 1.0)


@given(value=st.floats(0.5, 1), step=st.floats(0, 0.1), n=st.integers(2, 12))
def test_equal_differences_have_no_effect_size_by_their_spread(
    value: float, step: float, n: int
) -> None:
    a = np.linspace(0.5, value, n)
    found = paired(a + step, a)
    assert found.cohens_d is None
    assert found.std == pytest.approx(0, abs=1e-15)
    assert (found.low, found.high) == pytest.approx((step, step), abs=1e-15)
    assert found.p in (1.0, smallest_p(n))


def test_sides_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 2\) and \(1, 3\)"):
        paired(np.zeros(2), np.zeros(3))


@pytest.mark.parametrize("n", [5, 10])
def test_the_interval_of_a_difference_covers_it_as_often_as_it_says(n: int) -> None:
    rng = np.random.default_rng(n)
    seeds = rng.normal(0, 0.03, (10_000, n))  # what the two runs of a seed share
    a, b = (seeds + rng.normal(mean, 0.01, seeds.shape) for mean in (0.91, 0.905))
    found = paired_each(a, b)
    covered = np.mean([f.low <= 0.005 <= f.high for f in found])  # type: ignore[operator]
    assert covered == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize("n", [5, 6, 10])
@pytest.mark.parametrize("shape", ["normal", "heavy-tailed", "skewed"])
def test_configs_that_do_not_differ_are_told_apart_no_more_often_than_alpha(
    n: int, shape: str
) -> None:
    rng = np.random.default_rng(n)
    draw = {"normal": rng.normal, "heavy-tailed": rng.standard_cauchy, "skewed": rng.exponential}
    a, b = (draw[shape](size=(10_000, n)) for _ in range(2))
    false = np.mean([f.p <= 0.05 for f in paired_each(a, b)])  # type: ignore[operator]
    steps = 2 ** (n - 1)
    size = np.floor(0.05 * steps) / steps  # the levels that so few flips can have
    assert false == pytest.approx(size, abs=4 * np.sqrt(size / 10_000))


def test_holms_correction_by_hand() -> None:
    assert holm(np.asarray([0.01, 0.04, 0.03, 0.005])).tolist() == pytest.approx(
        [0.03, 0.06, 0.06, 0.02]
    )
    assert holm(np.asarray([0.6, 0.5])).tolist() == [1.0, 1.0]
    assert holm(np.asarray([])).tolist() == []


@given(
    p=arrays(np.float64, st.integers(0, 12), elements=st.floats(0, 1)),
    alpha=st.floats(0.001, 0.999),
)
def test_holms_correction_is_below_alpha_where_stepping_down_rejects(
    p: np.ndarray, alpha: float
) -> None:
    rejected = set()
    for left, index in enumerate(np.argsort(p, kind="stable").tolist()):
        if p[index] * (len(p) - left) > alpha:
            break
        rejected.add(index)
    assert set(np.flatnonzero(holm(p) <= alpha).tolist()) == rejected


@given(p=arrays(np.float64, st.integers(0, 12), elements=st.floats(0, 1) | st.just(np.nan)))
def test_a_comparison_without_p_is_none_of_the_family(p: np.ndarray) -> None:
    found, known = holm(p), ~np.isnan(p)
    assert np.array_equal(np.isnan(found), ~known)
    assert found[known].tolist() == holm(p[known]).tolist()
    assert np.all(found[known] >= p[known])


def test_a_family_of_equal_configs_has_a_false_difference_no_more_often_than_alpha() -> None:
    runs = np.random.default_rng(1).normal(size=(4, 2000, 10))
    pairs = [(i, j) for i in range(4) for j in range(i)]
    p = np.asarray([[f.p for f in paired_each(runs[i], runs[j])] for i, j in pairs], np.float64)
    wrong = np.mean([np.any(holm(family) <= 0.05) for family in p.T])
    assert 0.005 < wrong <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)


@pytest.mark.parametrize(("comparisons", "seeds"), [(1, 6), (2, 7), (10, 9), (45, 11), (190, 13)])
def test_seeds_to_reach_are_the_fewest_with_which_one_of_a_family_can_be_significant(
    comparisons: int, seeds: int
) -> None:
    assert seeds_to_reach(0.05, comparisons) == seeds
    for n, possible in ((seeds, True), (seeds - 1, False)):
        p = np.ones(comparisons)
        p[0] = paired(np.arange(1.0, n + 1), np.zeros(n)).p
        assert bool(holm(p)[0] <= 0.05) is possible


def test_a_level_that_is_none_is_refused() -> None:
    for alpha, comparisons in ((0.0, 1), (1.5, 1), (0.05, 0)):
        with pytest.raises(ValueError, match="no level"):
            seeds_to_reach(alpha, comparisons)
