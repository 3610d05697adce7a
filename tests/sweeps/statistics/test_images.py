"""McNemar's test against scipy; the two-level interval against its definition and simulations."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from sweeps.statistics import TwoLevel, mcnemar, two_level

_BOTH = arrays(np.bool_, st.tuples(st.just(2), st.integers(0, 60)))
_ANSWERS = arrays(np.bool_, st.tuples(st.just(2), st.integers(2, 6), st.integers(2, 30)))


@given(both=_BOTH)
def test_mcnemars_test_is_scipys_binomial_one(both: np.ndarray) -> None:
    a, b = both
    found = mcnemar(a, b)
    assert (found.n, found.only_a, found.only_b) == (len(a), (a > b).sum(), (b > a).sum())
    different = found.only_a + found.only_b
    exact = stats.binomtest(found.only_a, different).pvalue if different else 1.0
    assert found.p == pytest.approx(exact, rel=1e-9)
    chance = stats.binom.pmf(found.only_a, different, 0.5)
    mid = 1.0 if found.only_a == found.only_b else exact - chance
    assert found.mid_p == pytest.approx(mid, rel=1e-9)


@given(both=_BOTH)
def test_mcnemars_test_does_not_mind_which_is_a(both: np.ndarray) -> None:
    forth, back = mcnemar(both[0], both[1]), mcnemar(both[1], both[0])
    assert (forth.p, forth.mid_p) == (back.p, back.mid_p)
    assert (forth.only_a, forth.only_b) == (back.only_b, back.only_a)
    assert 0 < forth.mid_p <= forth.p <= 1


def test_mcnemars_test_of_20_000_images_by_hand() -> None:
    a, b = np.ones(20_000, bool), np.ones(20_000, bool)
    b[:9] = False
    a[9:10] = False
    found = mcnemar(a, b)
    assert (found.only_a, found.only_b) == (9, 1)
    assert found.p == pytest.approx(2 * (1 + 10) / 2**10)
    assert found.mid_p == pytest.approx(2 * (1 + 10 / 2) / 2**10)


def test_equal_networks_are_told_apart_by_mcnemars_test_no_more_often_than_alpha() -> None:
    a, b = np.random.default_rng(0).random((2, 4000, 300)) < 0.9
    found = [mcnemar(x, y) for x, y in zip(a, b, strict=True)]
    assert 0.02 < np.mean([f.p <= 0.05 for f in found]) <= 0.05
    assert np.mean([f.mid_p <= 0.05 for f in found]) == pytest.approx(0.05, abs=0.012)


def test_other_images_are_refused() -> None:
    with pytest.raises(ValueError, match="not the same images"):
        mcnemar(np.ones(3, bool), np.ones(4, bool))
    with pytest.raises(ValueError, match="not the same runs"):
        two_level(np.ones((2, 3), bool), np.ones((2, 4), bool), np.random.default_rng(0))


def found_of(a: np.ndarray, b: np.ndarray | None = None, resamples: int = 999) -> TwoLevel:
    return two_level(a, b, np.random.default_rng(0), resamples)


def variances(scores: np.ndarray) -> tuple[float, float]:
    """Of the mean: from seeds, and from images and the rest; by components of variance."""
    seeds, images = scores.shape
    residual = scores - scores.mean(1, keepdims=True) - scores.mean(0) + scores.mean()
    rest = (residual**2).sum() / ((seeds - 1) * (images - 1))
    of_seeds = scores.mean(1).var(ddof=1) - rest / images
    of_images = scores.mean(0).var(ddof=1) - rest / seeds
    return max(of_seeds, 0.0) / seeds, of_images / images + rest / (seeds * images)


@given(answers=_ANSWERS)
def test_the_seeds_share_is_that_of_the_components_of_variance(answers: np.ndarray) -> None:
    scores = answers[0].astype(float) - answers[1]
    found = found_of(answers[0], answers[1])
    assert found.mean == pytest.approx(scores.mean())
    of_seeds, of_images = variances(scores)
    if of_seeds + of_images < 1e-15:
        assert found.seed_share is None
    else:
        assert found.seed_share == pytest.approx(of_seeds / (of_seeds + of_images), abs=1e-9)


@given(answers=_ANSWERS)
def test_the_mean_lies_in_its_interval_and_the_interval_in_the_possible(
    answers: np.ndarray,
) -> None:
    single, both = found_of(answers[0]), found_of(answers[0], answers[1])
    assert 0 <= single.low <= single.mean <= single.high <= 1  # type: ignore[operator]
    assert -1 <= both.low <= both.mean <= both.high <= 1  # type: ignore[operator]


@given(answers=_ANSWERS, random=st.randoms(use_true_random=False))
def test_the_order_of_seeds_and_of_images_changes_nothing(
    answers: np.ndarray, random: object
) -> None:
    seeds, images = (list(range(size)) for size in answers.shape[1:])
    random.shuffle(seeds)  # type: ignore[attr-defined]
    random.shuffle(images)  # type: ignore[attr-defined]
    other = answers[:, seeds][:, :, images]
    assert found_of(other[0], other[1]) == found_of(answers[0], answers[1])


def test_runs_that_answer_alike_have_the_interval_of_their_images() -> None:
    right = np.arange(2000) < 1800
    found = found_of(np.tile(right, (6, 1)), resamples=9999)
    half = 1.96 * np.sqrt(0.9 * 0.1 / 2000)
    assert (found.low, found.high) == pytest.approx((0.9 - half, 0.9 + half), abs=0.05 * half)
    assert found.seed_share == 0


def test_where_images_make_no_difference_the_interval_is_that_of_the_seeds() -> None:
    rng = np.random.default_rng(0)
    scores = np.asarray([0.86, 0.88, 0.89, 0.9, 0.91, 0.92])
    right = rng.random((6, 200_000)) < scores[:, np.newaxis]
    found = found_of(right, resamples=9999)
    low, high = stats.ttest_1samp(right.mean(1), 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.06 * (high - low))
    assert found.seed_share > 0.99  # type: ignore[operator]


def test_a_config_against_itself_differs_by_nothing() -> None:
    right = np.random.default_rng(0).random((4, 50)) < 0.8
    found = found_of(right, right)
    assert (found.mean, found.low, found.high, found.seed_share) == (0, 0, 0, None)


@pytest.mark.parametrize(("seeds", "images"), [(1, 5), (4, 1), (0, 5), (3, 0)])
def test_one_seed_or_one_image_has_no_interval(seeds: int, images: int) -> None:
    found = found_of(np.ones((seeds, images), bool))
    assert (found.seeds, found.images) == (seeds, images)
    assert found.mean == (1.0 if seeds * images else None)
    assert (found.low, found.high, found.seed_share) == (None, None, None)


def simulated(
    seeds: int, images: int, spread: float, own: float, repeats: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Answers of pairs of runs: right where the sum of config, seed, image and chance is above 0.

    Args:
        seeds: of each config.
        images: that all judge.
        spread: standard deviation of the seeds of a config.
        own: standard deviation of what is peculiar to a run and an image; that of images is 1.
        repeats: how many pairs.
    """
    rng = np.random.default_rng(seeds)
    for _ in range(repeats):
        difficulty = rng.normal(size=images)
        yield tuple(  # type: ignore[misc]
            level
            + rng.normal(0, spread, (seeds, 1))
            + difficulty
            + rng.normal(0, own, (seeds, images))
            > 0
            for level in (1.3, 1.2)
        )


@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize(("images", "spread", "own"), [(400, 0.1, 0.5), (600, 0.2, 0.3)])
@pytest.mark.parametrize(
    ("repeats", "tolerance"), [(700, 0.028), pytest.param(7000, 0.015, marks=pytest.mark.long)]
)
def test_the_interval_covers_the_true_value_as_often_as_it_says(
    seeds: int, images: int, spread: float, own: float, repeats: int, tolerance: float
) -> None:
    scale = np.sqrt(1 + spread**2 + own**2)
    level = stats.norm.cdf(1.3 / scale)
    difference = level - stats.norm.cdf(1.2 / scale)
    rng = np.random.default_rng(1)
    covered = []
    for a, b in simulated(seeds, images, spread, own, repeats):
        alone, both = two_level(a, None, rng, 499), two_level(a, b, rng, 499)
        covered.append(
            (alone.low <= level <= alone.high, both.low <= difference <= both.high)  # type: ignore[operator]
        )
    assert np.mean(covered, axis=0) == pytest.approx([0.95, 0.95], abs=tolerance)


@given(both=_ANSWERS)
def test_runs_of_a_seed_that_answer_alike_are_as_one(both: np.ndarray) -> None:
    a, b = both
    one = two_level(a, b, np.random.default_rng(0), 200)
    alike = (np.stack([answers] * 3, axis=1) for answers in (a, b))
    same = two_level(*alike, np.random.default_rng(0), 200)
    assert (same.seeds, same.images) == (one.seeds, one.images)
    assert same.seed_share == pytest.approx(one.seed_share)
    for name in ("mean", "low", "high"):
        assert getattr(same, name) == pytest.approx(getattr(one, name))


def test_a_seed_has_the_mean_of_its_runs() -> None:
    rng = np.random.default_rng(5)
    answers = rng.random((2, 6, 2, 40)) < 0.8
    found = two_level(answers[0], answers[1], np.random.default_rng(0))
    differences = (answers[0].astype(float) - answers[1]).mean(axis=(1, 2))
    assert (found.seeds, found.mean) == (6, pytest.approx(differences.mean()))
    # Twelve runs taken for seeds would make it shorter where the two of a seed go together.
    answers[:, :, 1] = answers[:, :, 0]
    as_seeds = two_level(*(each.reshape(12, 40) for each in answers), np.random.default_rng(0))
    as_runs = two_level(answers[0], answers[1], np.random.default_rng(0))
    assert as_runs.high - as_runs.low > as_seeds.high - as_seeds.low
