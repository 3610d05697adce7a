"""Arrays in, numbers out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

CONFIDENCE = 0.95

INTERVAL = "t"
"""How intervals of a mean are made: Student's t over runs."""


@dataclass(frozen=True)
class Summary:
    """Location and spread of one metric over runs; what is undefined is None."""

    n: int
    mean: float | None
    std: float | None
    low: float | None
    high: float | None
    median: float | None
    min: float | None
    max: float | None


def summarise(values: npt.NDArray[np.float64]) -> Summary:
    """Summarise the values of independent runs.

    Args:
        values: shape (n,); NaN is left out. Their order does not matter.

    Returns:
        The sample standard deviation and the t interval of the mean are None below two values.
    """
    return summarise_each(values[np.newaxis])[0]


def summarise_each(values: npt.NDArray[np.float64]) -> list[Summary]:
    """Summarise several metrics of the same runs at once, each as `summarise` does.

    Args:
        values: shape (metrics, runs); NaN is left out.
    """
    ordered = np.sort(values, axis=1)
    counts = np.count_nonzero(~np.isnan(ordered), axis=1)
    found = [Summary(0, None, None, None, None, None, None, None)] * len(values)
    for n in np.unique(counts[counts > 0]):
        chosen = np.flatnonzero(counts == n)
        for row, summary in zip(chosen, _of_complete(ordered[chosen, :n]), strict=True):
            found[row] = summary
    return found


def _of_complete(kept: npt.NDArray[np.float64]) -> Iterator[Summary]:
    """Of values without NaN, ascending in each row."""
    kept = np.ascontiguousarray(kept)  # else sums are rounded in another order
    n = kept.shape[1]
    first, last = kept[:, 0], kept[:, -1]
    # The mean of equal values can leave their range by a rounding error.
    mean = np.clip(kept.mean(axis=1), first, last)
    columns = (mean, np.median(kept, axis=1), first, last)
    if n == 1:
        for middle, median, lowest, highest in zip(*map(_list, columns), strict=True):
            yield Summary(n, middle, None, None, None, median, lowest, highest)
        return
    std = kept.std(axis=1, ddof=1)
    half = t_quantile(n - 1, (1 + CONFIDENCE) / 2) * std / np.sqrt(n)
    spread = (std, mean - half, mean + half)
    for s, low, high, middle, median, lowest, highest in zip(
        *map(_list, (*spread, *columns)), strict=True
    ):
        yield Summary(n, middle, s, low, high, median, lowest, highest)


def _list(values: npt.NDArray[np.float64]) -> list[float]:
    return list(values.tolist())


def mean_interval(
    values: npt.NDArray[np.float64], confidence: float = CONFIDENCE
) -> tuple[float | None, float | None]:
    """Student's t interval of the mean of independent values, shape (n,); None below two."""
    n = len(values)
    if n < 2:
        return None, None
    mean = float(np.clip(values.mean(), values.min(), values.max()))
    half = float(t_quantile(n - 1, (1 + confidence) / 2) * values.std(ddof=1) / np.sqrt(n))
    return mean - half, mean + half


@cache
def t_quantile(freedom: int, probability: float) -> float:
    """Of Student's t; what `scipy.stats` calls as well, whose import takes half a second."""
    return float(stdtrit(freedom, probability))
