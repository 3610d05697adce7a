"""Rankings under resampled seeds, letters of groups, and seeds needed."""

from __future__ import annotations

import itertools
import random
import re

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from statsmodels.stats.power import TTestPower

from sweeps.statistics.ranking import (
    Ranking,
    _taus,
    cd_groups,
    paired_t_power,
    rank_stability,
    seeds_needed_each,
)

_SCORES = arrays(
    np.float64,
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    elements=st.sampled_from([0.0, 0.25, 0.5, 0.75]) | st.just(np.nan),
)


def ranked(values: np.ndarray, *, higher: bool = True, resamples: int = 500) -> Ranking:
    rng = np.random.default_rng(7)
    return rank_stability(values, rng, higher_is_better=higher, resamples=resamples)


def scores(configs: int, seeds: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 0.9 + 0.02 * rng.normal(size=(configs, 1)) + 0.02 * rng.normal(size=(configs, seeds))


# Places.


@given(values=_SCORES)
def test_the_place_is_that_of_the_mean_and_ties_share_theirs(values: np.ndarray) -> None:
    found = ranked(values, resamples=5)
    kept = ~np.isnan(values).all(axis=1)
    means = np.asarray([np.nanmean(row) for row in values[kept]])
    expected = stats.rankdata(-np.round(means, 9))
    np.testing.assert_array_equal(found.rank[kept], expected)
    np.testing.assert_allclose(found.mean[kept], means, atol=1e-12)
    assert np.isnan(found.rank[~kept]).all()
    np.testing.assert_array_equal(found.n, (~np.isnan(values)).sum(axis=1))


@given(values=_SCORES)
def test_places_are_possible_and_the_shares_of_the_first_add_up(values: np.ndarray) -> None:
    found = ranked(values, resamples=50)
    kept = ~np.isnan(found.p_best)
    if kept.any():
        assert found.p_best[kept].sum() == pytest.approx(1)
        assert (found.rank_low[kept] >= 1).all()
        assert (found.rank_low[kept] <= found.rank_high[kept]).all()
        assert (found.rank_high[kept] <= kept.sum()).all()
    if found.tau is not None:
        assert found.tau_low is not None
        assert found.tau_high is not None
        assert -1 - 1e-12 <= found.tau_low <= found.tau_high <= 1 + 1e-12


@given(values=_SCORES, random=st.randoms(use_true_random=False))
def test_the_order_of_seeds_changes_nothing(values: np.ndarray, random: random.Random) -> None:
    seeds = [*range(values.shape[1])]
    random.shuffle(seeds)
    found, other = ranked(values, resamples=50), ranked(values[:, seeds], resamples=50)
    for name in ("rank", "p_best", "rank_low", "rank_high"):
        np.testing.assert_array_equal(getattr(other, name), getattr(found, name))
    assert (other.tau, other.tau_low) == (found.tau, found.tau_low)


@given(seed=st.integers(0, 2**32), holes=st.integers(0, 8))
def test_the_order_of_configs_changes_nothing(seed: int, holes: int) -> None:
    rng = np.random.default_rng(seed)
    values = scores(5, 4, seed)
    values.flat[rng.permutation(20)[:holes]] = np.nan
    configs = rng.permutation(5)
    found, other = ranked(values, resamples=50), ranked(values[configs], resamples=50)
    for name in ("n", "rank", "p_best", "rank_low", "rank_high"):
        np.testing.assert_allclose(getattr(other, name), getattr(found, name)[configs], atol=1e-12)
    assert (other.tau, found.tau) == (None, None) or other.tau == pytest.approx(found.tau)


def test_less_is_better_where_it_is_said() -> None:
    values = scores(5, 6)
    found, mirrored = ranked(values, higher=False), ranked(-values)
    np.testing.assert_array_equal(found.rank, mirrored.rank)
    np.testing.assert_array_equal(found.p_best, mirrored.p_best)
    np.testing.assert_allclose(found.mean, values.mean(axis=1))


def test_what_a_seed_gives_all_configs_alike_changes_no_ranking() -> None:
    values = scores(4, 6)
    # The draws are of other seeds, since seeds are put in order by what they hold.
    found = ranked(values, resamples=20_000)
    moved = ranked(values + np.random.default_rng(1).normal(size=6), resamples=20_000)
    np.testing.assert_array_equal(moved.rank, found.rank)
    np.testing.assert_allclose(moved.p_best, found.p_best, atol=0.015)


def test_shares_are_those_of_every_resample_there_is() -> None:
    values = np.asarray([[0.9, 0.7, 0.8], [0.8, 0.85, 0.7], [0.6, 0.8, 0.84]])
    observed = values.mean(axis=1)
    wider = np.sqrt(3 / stats.chi2.ppf((np.arange(400) + 0.5) / 400, 2))
    shares, places = np.zeros(3), []
    for draw in itertools.product(range(3), repeat=3):
        moved = values[:, draw].mean(axis=1) - observed
        means = np.round(observed + np.outer(wider, moved), 12)
        first = means == means.max(axis=1, keepdims=True)
        shares += (first / first.sum(axis=1, keepdims=True)).mean(axis=0) / 27
        places.append(stats.rankdata(-means, axis=1))
    found = ranked(values, resamples=40_000)
    np.testing.assert_allclose(found.p_best, shares, atol=0.01)
    whole = np.concatenate(places)
    low, high = np.quantile(whole, [0.025, 0.975], axis=0, method="inverted_cdf")
    np.testing.assert_array_equal(found.rank_low, low)
    np.testing.assert_array_equal(found.rank_high, high)


@pytest.mark.parametrize("seeds", [4, 6, 12])
def test_of_two_configs_one_is_first_as_often_as_their_paired_t_test_says(seeds: int) -> None:
    bell = stats.norm.ppf((np.arange(seeds) + 0.5) / seeds)
    for lead in (0.1, 0.4, 1.0):
        values = np.stack([np.zeros(seeds), lead + bell])
        p = stats.ttest_1samp(values[1], 0, alternative="greater").pvalue
        assert ranked(values, resamples=40_000).p_best[1] == pytest.approx(1 - p, abs=0.02)


def test_equal_configs_are_first_equally_often() -> None:
    found = ranked(np.tile(scores(1, 6), (4, 1)))
    np.testing.assert_allclose(found.p_best, 0.25)
    np.testing.assert_array_equal(found.rank, 2.5)
    assert found.tau is None, "the observed ranking is all one tie"


def test_configs_far_apart_keep_their_places() -> None:
    values = np.arange(5)[:, np.newaxis] + 0.01 * scores(5, 6)
    found = ranked(values)
    np.testing.assert_array_equal(found.p_best, [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(found.rank_low, found.rank)
    np.testing.assert_array_equal(found.rank_high, found.rank)
    assert (found.tau, found.tau_low, found.tau_high) == (1, 1, 1)


def test_kendalls_tau_is_that_of_scipy() -> None:
    rng = np.random.default_rng(3)
    places = rng.integers(1, 5, (200, 7)).astype(np.float64)
    places[rng.random(places.shape) < 0.1] = np.nan
    observed = np.asarray([1, 2.5, 2.5, 4, 5, 6, 7.0])
    found = np.concatenate([*_taus(places, observed)])
    for row, tau in zip(places, found, strict=True):
        kept = ~np.isnan(row)
        expected = stats.kendalltau(row[kept], observed[kept]).statistic
        assert tau == pytest.approx(expected, nan_ok=True)


# What is missing.


def test_a_config_without_a_run_takes_no_place_from_others() -> None:
    values = scores(4, 6)
    holed = np.vstack([values[:2], np.full((1, 6), np.nan), values[2:]])
    found, without = ranked(holed), ranked(values)
    kept = [0, 1, 3, 4]
    for name in ("rank", "p_best", "rank_low", "rank_high"):
        np.testing.assert_array_equal(getattr(found, name)[kept], getattr(without, name))
        assert np.isnan(getattr(found, name)[2])
    assert found.tau == without.tau


def test_a_config_of_which_no_run_was_drawn_is_not_first_in_that_resample() -> None:
    values = scores(2, 3)
    values[0] = [10, np.nan, np.nan]
    found = ranked(values, resamples=40_000)
    assert found.p_best[0] == pytest.approx(1 - (2 / 3) ** 3, abs=0.01), "its one run is as it is"
    assert (found.rank_low[0], found.rank_high[0]) == (1, 1)


@pytest.mark.parametrize("values", [np.ones((3, 1)), np.asarray([[1, np.nan], [2, np.nan]])])
def test_of_one_seed_nothing_is_learnt(values: np.ndarray) -> None:
    found = ranked(values)
    assert not np.isnan(found.rank).any()
    assert np.isnan(found.p_best).all()
    assert np.isnan(found.rank_low).all()
    assert (found.tau, found.tau_low, found.tau_high) == (None, None, None)


def test_a_config_alone_is_the_best_of_all() -> None:
    found = ranked(scores(1, 6))
    assert (found.rank.item(), found.p_best.item(), found.rank_high.item()) == (1, 1, 1)
    assert found.tau is None


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_without_a_value_there_is_no_place(shape: tuple[int, int]) -> None:
    found = ranked(np.full(shape, np.nan))
    assert len(found.rank) == shape[0]
    assert np.isnan(found.rank).all()
    assert np.isnan(found.p_best).all()


# How far the shares can be believed.


def _leaders(sweeps: int, seeds: int, spread: float, configs: int = 4) -> np.ndarray:
    """What sweeps say of their leader: its `p_best`, and whether it is truly the best.

    Args:
        sweeps: how many are simulated.
        seeds: of each config.
        spread: of the configs' true means, in spreads of one config's runs.
        configs: of each sweep.
    """
    rng = np.random.default_rng(2026)
    found = []
    for _ in range(sweeps):
        truth = spread * rng.normal(size=(configs, 1))
        values = truth + rng.normal(size=(configs, seeds))
        shares = rank_stability(values, rng, higher_is_better=True, resamples=499).p_best
        found.append((shares.max(), shares.argmax() == truth.argmax()))
    return np.asarray(found, np.float64).T


def test_of_equal_configs_each_is_first_as_often_and_few_look_sure_with_six_seeds() -> None:
    rng = np.random.default_rng(5)
    shares = np.mean(
        [ranked(rng.normal(size=(4, 6)), resamples=200).p_best for _ in range(300)], axis=0
    )
    np.testing.assert_allclose(shares, 0.25, atol=0.06)
    assert (_leaders(300, 6, 0.0)[0] >= 0.95).mean() <= 0.03


def test_the_leader_is_the_best_as_often_as_is_said_where_configs_spread_as_runs_do() -> None:
    stated, true = _leaders(600, 6, 1.0)
    assert stated.mean() == pytest.approx(true.mean(), abs=0.05)
    assert stated[stated >= 0.9].mean() <= true[stated >= 0.9].mean() + 0.04


@pytest.mark.long
@pytest.mark.parametrize("seeds", [3, 6, 10])
@pytest.mark.parametrize(("configs", "sure"), [(2, 0.1), (4, 0.01), (8, 0.0)])
def test_how_sure_a_leader_looks_is_what_is_documented(
    seeds: int, configs: int, sure: float
) -> None:
    for spread in (1.0, 2.0):
        stated, true = _leaders(2000, seeds, spread, configs)
        assert stated.mean() == pytest.approx(true.mean(), abs=0.05)
    stated, true = _leaders(2000, seeds, 0.3, configs)
    assert stated.mean() > true.mean() + 0.03, "it is too sure where configs hardly differ"
    equal = _leaders(2000, seeds, 0.0, configs)[0]
    assert (equal >= 0.95).mean() == pytest.approx(sure, abs=0.02)


def test_the_better_a_config_is_the_surer_it_is_first_and_its_place_is_in_the_interval() -> None:
    rng = np.random.default_rng(11)
    truth = np.asarray([0.0, 0.4, 1.2])
    shares, inside = [], []
    for _ in range(200):
        found = ranked(truth[:, np.newaxis] + rng.normal(size=(3, 8)), resamples=200)
        shares.append(found.p_best)
        inside.append((found.rank_low <= [3, 2, 1]) & (found.rank_high >= [3, 2, 1]))
    first = np.mean(shares, axis=0)
    assert first[0] < first[1] < first[2]
    assert np.mean(inside) >= 0.9


# Letters.


def _matrix(size: int, pairs: list[tuple[int, int]]) -> np.ndarray:
    different = np.zeros((size, size), np.bool_)
    for one, other in pairs:
        different[one, other] = different[other, one] = True
    return different


@st.composite
def _decisions(draw: st.DrawFn) -> np.ndarray:
    size = draw(st.integers(0, 9))
    pairs = [*itertools.combinations(range(size), 2)]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    return _matrix(size, chosen)


def _letters(text: str) -> set[str]:
    return set(re.findall(r"[a-z]\d*", text))


@given(different=_decisions())
def test_two_configs_share_a_letter_exactly_if_they_were_not_told_apart(
    different: np.ndarray,
) -> None:
    found = [_letters(text) for text in cd_groups(different)]
    assert all(found)
    for one, other in itertools.combinations(range(len(found)), 2):
        assert bool(found[one] & found[other]) != different[one, other]


@given(different=_decisions())
def test_no_letter_can_be_spared(different: np.ndarray) -> None:
    found = [_letters(text) for text in cd_groups(different)]
    for letter in set().union(*found):
        less = [letters - {letter} for letters in found]
        lost = any(not letters for letters in less) or any(
            bool(found[i] & found[j]) and not less[i] & less[j]
            for i, j in itertools.combinations(range(len(found)), 2)
        )
        assert lost


def test_a_ladder_of_overlaps_has_a_letter_for_each_step() -> None:
    # Neighbours are not told apart, all others are.
    different = _matrix(5, [(i, j) for i in range(5) for j in range(i + 2, 5)])
    assert cd_groups(different) == ["a", "ab", "bc", "cd", "d"]


def test_the_best_has_the_first_letter() -> None:
    different = _matrix(3, [(0, 2)])
    rank = np.asarray([3, 2, 1])
    assert cd_groups(different) == ["a", "ab", "b"]
    assert cd_groups(different, rank) == ["b", "ab", "a"]


def test_configs_that_were_not_told_apart_at_all_share_one_letter() -> None:
    assert cd_groups(_matrix(4, [])) == ["a"] * 4
    assert cd_groups(_matrix(1, [])) == ["a"]
    assert cd_groups(_matrix(0, [])) == []


def test_more_groups_than_letters_are_numbered() -> None:
    found = cd_groups(_matrix(54, [*itertools.combinations(range(54), 2)]))
    assert (found[0], found[25], found[26], found[53]) == ("a", "z", "a1", "b2")


@pytest.mark.parametrize("different", [np.eye(2, dtype=np.bool_), np.triu(_matrix(3, [(0, 1)]))])
def test_decisions_that_contradict_themselves_are_refused(different: np.ndarray) -> None:
    with pytest.raises(ValueError, match="symmetric"):
        cd_groups(different)


# Seeds needed.


def seeds_needed(
    differences: npt.NDArray[np.float64], delta: float | None = None, **asked: float
) -> int | None:
    """Of one row of differences, moved to a mean where one is given."""
    if delta is not None and len(differences):
        differences = differences - np.nanmean(differences) + delta
    (found,) = seeds_needed_each(differences[np.newaxis], **asked)
    return found


@pytest.mark.parametrize("size", [0.05, 0.3, 1.0, 1.4])
@pytest.mark.parametrize("n", [2, 3, 6, 20])
def test_power_is_that_of_statsmodels(size: float, n: int) -> None:
    assert paired_t_power(size, n) == pytest.approx(TTestPower().power(size, n, 0.05), abs=1e-8)


@given(size=st.floats(0.02, 8), power=st.floats(0.5, 0.99))
@settings(max_examples=50)
def test_so_many_seeds_suffice_and_one_fewer_does_not(size: float, power: float) -> None:
    differences = np.asarray([-1.0, 1.0, 0.0])  # of standard deviation 1
    n = seeds_needed(differences, size, power=power)
    assert n is not None
    assert n >= 2
    assert paired_t_power(size, n) >= power
    assert n == 2 or paired_t_power(size, n - 1) < power


def test_power_is_certain_where_it_is_too_near_to_one_to_be_computed() -> None:
    assert paired_t_power(2.5, 20) == paired_t_power(1, 1000) == 1


def test_the_difference_to_find_is_by_default_the_one_observed() -> None:
    differences = np.asarray([0.3, -0.1, 0.4, 0.2, np.nan])
    kept = differences[:4]
    size = kept.mean() / kept.std(ddof=1)
    n = seeds_needed(differences)
    assert n == int(np.ceil(TTestPower().solve_power(size, power=0.8, alpha=0.05)))
    assert seeds_needed(-differences) == n
    corrected = seeds_needed(differences, alpha=0.05 / 28)
    assert corrected == int(np.ceil(TTestPower().solve_power(size, power=0.8, alpha=0.05 / 28)))


def test_so_many_seeds_find_the_difference_as_often_as_wanted() -> None:
    n = seeds_needed(np.asarray([-1.0, 1.0, 0.0]), 0.9)
    assert n is not None
    draws = np.random.default_rng(4).normal(0.9, 1, (4000, n))
    found = stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize(
    ("differences", "delta", "expected"),
    [
        ([0.1], None, None),
        ([], 0.1, None),
        ([0.1, np.nan], None, None),
        ([0.1, -0.1], None, None),
        ([0.1, 0.2], 0.0, None),
        ([0.0, 0.0], None, None),
        ([0.1, 0.1, 0.1], None, 2),
        ([0.0, 0.0], 0.1, 2),
        ([1.0, -1.0], 1e-5, None),
    ],
)
def test_where_there_is_no_number_none_is_given(
    differences: list[float], delta: float | None, expected: int | None
) -> None:
    assert seeds_needed(np.asarray(differences, np.float64), delta) == expected
