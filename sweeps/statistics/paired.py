"""Two configs compared over runs that are paired by seed.

Runs of one seed share what the seed decides (order of the images, augmentation, initial weights of
layers they have in common), so that the difference of a pair varies less than its two runs do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sweeps.statistics.summary import CONFIDENCE, t_quantile

Floats = npt.NDArray[np.float64]

EXACT_UP_TO = 30
"""Pairs up to which the sign-flip test goes through every one of its 2ⁿ flips."""

FLIPS = 100_000
"""Flips that are drawn above that."""

_SEED = 20_260_101
"""Of those flips: a p-value depends on the differences alone."""

_ROUNDING = 8 * np.finfo(np.float64).eps
"""Share of a score by which equal differences can differ: scores are rounded shares of images."""

_BLOCK = 4_000_000
"""Numbers held at once."""


@dataclass(frozen=True, kw_only=True)
class Paired:
    """What n pairs of runs say about configs a and b; what is undefined is None."""

    n: int
    """Pairs of which both runs have a value."""
    mean_a: float | None
    """Of a, over the pairs."""
    mean_b: float | None
    """Of b, over the pairs."""
    difference: float | None
    """Mean of a − b."""
    std: float | None
    """Sample standard deviation of a − b; None below two pairs."""
    low: float | None
    """Lower end of Student's t interval of the difference, 95 %; None below two pairs."""
    high: float | None
    """Upper end of it."""
    p: float | None
    """Two-sided, of the sign-flip permutation test of the mean difference."""
    smallest_p: float | None
    """The least that p can be with n pairs, whatever their values."""
    probability_of_improvement: float | None
    """P(a > b) + ½ P(a = b) over all n² pairs of a run of a with one of b (Agarwal et al., NeurIPS
    2021, section 4.3): seeds are not matched in it."""
    cohens_d: float | None
    """d_z, the difference over its standard deviation; None where that is not above rounding."""
    cliffs_delta: float | None
    """P(a > b) − P(a < b) over the same pairs."""


_NOTHING = Paired(
    n=0,
    mean_a=None,
    mean_b=None,
    difference=None,
    std=None,
    low=None,
    high=None,
    p=None,
    smallest_p=None,
    probability_of_improvement=None,
    cohens_d=None,
    cliffs_delta=None,
)


def paired(a: Floats, b: Floats) -> Paired:
    """Compare two configs over runs paired by seed.

    The p-value is that of the sign-flip test: if the configs do not differ, each difference is as
    likely to have the other sign, and p is the share of all 2ⁿ choices of signs whose mean is at
    least as far from zero as the one seen (Fisher 1935, *The Design of Experiments*, section 21).
    Above `EXACT_UP_TO` pairs, `FLIPS` choices are drawn and the one seen is counted among them
    (Phipson and Smyth 2010). It needs no normal distribution, the interval does.

    Args:
        a: shape (n,), a value for each seed.
        b: shape (n,), of the same seeds in the same order. Pairs with a NaN are left out.

    Raises:
        ValueError: the shapes differ.
    """
    return paired_each(a[np.newaxis], b[np.newaxis])[0]


def paired_each(a: Floats, b: Floats) -> list[Paired]:
    """Make many comparisons at once, each as `paired` does.

    Args:
        a: shape (comparisons, n).
        b: the same shape. Pairs with a NaN are left out, so that n may differ by comparison.

    Raises:
        ValueError: the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"pairs need as many values on both sides, not {a.shape} and {b.shape}")
    together = ~(np.isnan(a) | np.isnan(b))
    counts = np.count_nonzero(together, axis=1)
    found = [_NOTHING] * len(a)
    for n in np.unique(counts[counts > 0]):
        chosen = np.flatnonzero(counts == n)
        kept = together[chosen]
        shape = (len(chosen), int(n))
        complete = _of_complete(a[chosen][kept].reshape(shape), b[chosen][kept].reshape(shape))
        for row, comparison in zip(chosen, complete, strict=True):
            found[row] = comparison
    return found


def _of_complete(a: Floats, b: Floats) -> Iterator[Paired]:
    """Of pairs without NaN, shape (comparisons, n)."""
    n = a.shape[1]
    differences = np.sort(a - b, axis=1)  # the order of seeds must not reach the last digit
    difference = _mean(differences)
    rounding = _ROUNDING * np.maximum(np.abs(a), np.abs(b)).max(axis=1)
    chances = _sign_flips(differences, n * rounding)
    better, equal = _wins(a, b)
    improvement = (better + 0.5 * equal) / n**2
    deltas = (2 * better + equal - n**2) / n**2
    basis = Paired(**{**vars(_NOTHING), "n": n, "smallest_p": smallest_p(n)})
    columns = [
        column.tolist()
        for column in (
            *(_mean(np.sort(values, axis=1)) for values in (a, b)),
            difference,
            chances,
            improvement,
            deltas,
        )
    ]
    names = ("mean_a", "mean_b", "difference", "p", "probability_of_improvement", "cliffs_delta")
    spread = _spread(differences, difference, rounding)
    for values, (std, low, high, d) in zip(zip(*columns, strict=True), spread, strict=True):
        yield replace(
            basis, std=std, low=low, high=high, cohens_d=d, **dict(zip(names, values, strict=True))
        )


def _mean(ordered: Floats) -> Floats:
    """Of values ascending in each row; that of equal values must not leave them by rounding."""
    found: Floats = np.clip(ordered.mean(axis=1), ordered[:, 0], ordered[:, -1])
    return found


def _spread(
    differences: Floats, difference: Floats, rounding: Floats
) -> Iterator[tuple[float | None, float | None, float | None, float | None]]:
    """Standard deviation, interval and Cohen's d of each comparison."""
    n = differences.shape[1]
    if n < 2:
        yield from [(None, None, None, None)] * len(differences)
        return
    std = differences.std(axis=1, ddof=1)
    half = t_quantile(n - 1, (1 + CONFIDENCE) / 2) * std / np.sqrt(n)
    known = std > rounding
    effect = np.divide(difference, std, out=np.zeros_like(std), where=known)
    for s, low, high, d, is_known in zip(
        std.tolist(),
        (difference - half).tolist(),
        (difference + half).tolist(),
        effect.tolist(),
        known.tolist(),
        strict=True,
    ):
        yield s, low, high, d if is_known else None


def _wins(a: Floats, b: Floats) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """How many of the n² pairs of runs a wins, and in how many the two are equal."""
    better, equal = (np.empty(len(a), np.int64) for _ in range(2))
    rows = max(1, _BLOCK // a.shape[1] ** 2)
    for start in range(0, len(a), rows):
        block = slice(start, start + rows)
        left, right = a[block, :, np.newaxis], b[block, np.newaxis, :]
        better[block] = np.count_nonzero(left > right, axis=(1, 2))
        equal[block] = np.count_nonzero(left == right, axis=(1, 2))
    return better, equal


def _sign_flips(differences: Floats, rounding: Floats) -> Floats:
    """The sign-flip test's p of each row; sums that differ by less than `rounding` are ties."""
    n = differences.shape[1]
    # Flips are the same for d and −d: sizes alone matter, and a and b may change sides.
    sizes = np.sort(np.abs(differences), axis=1)
    thresholds = np.abs(differences.sum(axis=1)) - rounding
    if n <= EXACT_UP_TO:
        chances = 2 * _reached(sizes, thresholds) / 2.0**n
    else:
        chances = (1 + _reached_by_drawn(sizes, thresholds)) / (1 + FLIPS)
    found: Floats = np.where(thresholds <= 0, 1.0, np.minimum(chances, 1.0))
    return found


def _reached(sizes: Floats, thresholds: Floats) -> Floats:
    """How many of the 2ⁿ signed sums of each row are at least its threshold.

    A sum is one of the first half of the row plus one of the second. With the second's in order, it
    is looked up how many of them are large enough for each of the first's: 2 × 2^(n/2) sums.
    """
    middle = sizes.shape[1] // 2
    first, second = (_signs(count) for count in (middle, sizes.shape[1] - middle))
    found = np.empty(len(sizes), np.float64)
    rows = max(1, _BLOCK // len(second))
    for start in range(0, len(sizes), rows):
        block = slice(start, start + rows)
        needed = thresholds[block, np.newaxis] - sizes[block, :middle] @ first.T
        needed.sort(axis=1)
        sums = sizes[block, middle:] @ second.T
        sums.sort(axis=1)
        for row, (own, wanted) in enumerate(zip(sums, needed, strict=True), start):
            found[row] = own.size * wanted.size - own.searchsorted(wanted).sum()
    return found


def _signs(count: int) -> Floats:
    """Every choice of signs, shape (2^count, count)."""
    bits = np.arange(2**count)[:, np.newaxis] >> np.arange(count)
    return (1 - 2 * (bits & 1)).astype(np.float64)


def _reached_by_drawn(sizes: Floats, thresholds: Floats) -> Floats:
    """How many of `FLIPS` drawn signed sums of each row are as far from zero as its threshold."""
    n = sizes.shape[1]
    rng = np.random.default_rng((_SEED, n))
    found = np.zeros(len(sizes))
    at_once = 1000
    rows = max(1, _BLOCK // at_once)
    for _ in range(0, FLIPS, at_once):
        signs = 1.0 - 2.0 * rng.integers(0, 2, (n, at_once))
        for start in range(0, len(sizes), rows):
            block = slice(start, start + rows)
            reached = np.abs(sizes[block] @ signs) >= thresholds[block, np.newaxis]
            found[block] += np.count_nonzero(reached, axis=1)
    return found


def smallest_p(n: int) -> float:
    """The least p of the sign-flip test of n pairs: all differences of one sign, 2 flips of 2ⁿ.

    With fewer than 6 pairs it is above 0.05, however large the differences are.
    """
    return 2.0 ** (1 - n) if n <= EXACT_UP_TO else 1 / (1 + FLIPS)


def seeds_to_reach(alpha: float, comparisons: int = 1) -> int:
    """The fewest seeds with which one of so many comparisons can be significant after Holm.

    Args:
        alpha: the level, above 0.
        comparisons: size of the family, at least 1.

    Returns:
        The least n with comparisons × 2^(1−n) ≤ alpha. That all differences have one sign is needed
        then; to be likely to find a difference takes more.

    Raises:
        ValueError: either is out of range.
    """
    if not 0 < alpha <= 1 or comparisons < 1:
        raise ValueError(f"no level and family: {alpha}, {comparisons}")
    n = 1
    while comparisons * 2.0 ** (1 - n) > alpha:
        n += 1
    return n


def holm(p: Floats) -> Floats:
    """Correct the p-values of a family so that a false one among them is as rare as alpha says.

    Holm 1979, *A simple sequentially rejective multiple test procedure*: the i-th smallest of m is
    multiplied by m − i + 1, none is less than one before it, and none is above 1. Nothing is
    assumed about how the comparisons depend on each other.

    Args:
        p: shape (m,). NaN stays NaN and does not count as a comparison.
    """
    corrected = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return corrected
