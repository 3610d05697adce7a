"""One metric of one config over its runs: location, spread, and two intervals of the mean.

How often the 95 % intervals cover the true mean, in simulations of 40,000 samples each; the skewed
values are of a gamma distribution of shape 4 (skewness 1) and of an exponential one (skewness 2):

| runs | normal: t | BCa | as drawn | gamma: t | BCa | as drawn | exponential: t | BCa | as drawn |
|---|---|---|---|---|---|---|---|---|---|
| 3 | 94.7 % | 93.5 % | 72.4 % | 93.6 % | 92.4 % | 71.5 % | 88.6 % | 88.1 % | 67.9 % |
| 5 | 95.0 % | 94.4 % | 84.2 % | 93.2 % | 93.3 % | 83.1 % | 88.1 % | 89.7 % | 79.9 % |
| 6 | 95.0 % | 94.5 % | 86.2 % | 93.4 % | 93.5 % | 85.5 % | 88.7 % | 91.0 % | 83.2 % |
| 10 | 95.0 % | 94.6 % | 90.1 % | 93.7 % | 94.1 % | 89.6 % | 89.9 % | 92.3 % | 87.6 % |
| 20 | 95.0 % | 94.8 % | 92.7 % | 94.1 % | 94.4 % | 92.3 % | 92.0 % | 93.7 % | 91.5 % |
| 30 | 95.3 % | 95.2 % | 93.8 % | 94.4 % | 94.8 % | 93.3 % | 92.7 % | 93.9 % | 92.4 % |

*BCa* is the bootstrap interval that the summary has, widened as Student's t is (`widened_each`);
*as drawn* is that of Efron (`bca_each`), which is too short for the few runs that sweeps have.
Where the two kinds differ, the scores are skewed or a run has gone astray: the widened interval is
about as long as Student's and tells which side is the longer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from sweeps.statistics.bca import FEWEST, widened_each

Column = Sequence[float | None]

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
    bca_low: float | None
    bca_high: float | None
    iqm: float | None
    median: float | None
    min: float | None
    max: float | None


_NOTHING = Summary(0, *[None] * 10)


def summarise(values: npt.NDArray[np.float64]) -> Summary:
    """Summarise the values of independent runs.

    Args:
        values: shape (n,); NaN is left out. Their order does not matter.

    Returns:
        The sample standard deviation and the t interval of the mean are None below two values, the
        widened BCa interval below three. Equal values have both intervals at that value. The
        interquartile mean leaves out the ⌊n/4⌋ smallest and largest values, as
        `scipy.stats.trim_mean(x, 0.25)` and rliable do (Agarwal et al., NeurIPS 2021): below four
        values it is the mean.
    """
    return summarise_each(values[np.newaxis])[0]


def summarise_each(values: npt.NDArray[np.float64]) -> list[Summary]:
    """Summarise several metrics of the same runs at once, each as `summarise` does.

    A metric's numbers depend neither on the other metrics nor on any seed: nothing is drawn.

    Args:
        values: shape (metrics, runs); NaN is left out.
    """
    ordered = np.sort(values, axis=1)
    counts = np.count_nonzero(~np.isnan(ordered), axis=1)
    found = [_NOTHING] * len(values)
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
    mean = _mean(kept)
    spread: tuple[Column, ...] = ([None] * len(kept),) * 3
    if n >= 2:
        std = kept.std(axis=1, ddof=1)
        half = t_quantile(n - 1, (1 + CONFIDENCE) / 2) * std / np.sqrt(n)
        spread = tuple(map(_list, (std, mean - half, mean + half)))
    bca: tuple[Column, ...] = ([None] * len(kept),) * 2
    if n >= FEWEST:
        bca = tuple(map(_list, widened_each(kept, CONFIDENCE)))
    iqm = _mean(np.ascontiguousarray(kept[:, n // 4 : n - n // 4]))
    rest = map(_list, (iqm, np.median(kept, axis=1), first, last))
    for row in zip(_list(mean), *spread, *bca, *rest, strict=True):
        yield Summary(n, *row)


def _mean(ordered: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of values ascending in each row; that of equal values must not leave them by rounding."""
    found: npt.NDArray[np.float64] = np.clip(ordered.mean(axis=1), ordered[:, 0], ordered[:, -1])
    return found


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
