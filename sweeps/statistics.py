"""Arrays in, numbers out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

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
    kept = np.sort(values[~np.isnan(values)])
    n = len(kept)
    if n == 0:
        return Summary(0, None, None, None, None, None, None, None)
    # The mean of equal values can leave their range by a rounding error.
    mean = float(np.clip(kept.mean(), kept[0], kept[-1]))
    low, high = mean_interval(kept)
    return Summary(
        n=n,
        mean=mean,
        std=float(kept.std(ddof=1)) if n > 1 else None,
        low=low,
        high=high,
        median=float(np.median(kept)),
        min=float(kept[0]),
        max=float(kept[-1]),
    )


def mean_interval(
    values: npt.NDArray[np.float64], confidence: float = CONFIDENCE
) -> tuple[float | None, float | None]:
    """Student's t interval of the mean of independent values, shape (n,); None below two."""
    n = len(values)
    if n < 2:
        return None, None
    mean = float(np.clip(values.mean(), values.min(), values.max()))
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return mean - half, mean + half
