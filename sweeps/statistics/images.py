"""What the images of a test set add to the uncertainty: they too are a sample."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, ndtri, stdtrit

from sweeps.statistics.summary import CONFIDENCE

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

RESAMPLES = 9_999
"""Draws of seeds and images that an interval rests on."""


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """Two networks on the same images."""

    n: int
    """Images."""
    only_a: int
    """Images that a has right and b has wrong."""
    only_b: int
    """Images that b has right and a has wrong."""
    p: float
    """Exact and two-sided; 1 where the two are wrong on the same images. Never too small."""
    mid_p: float
    """With half the chance of the very count seen: closer to the level on average, and at times a
    little too small (Fagerland, Lydersen and Laake 2013)."""


def mcnemar(correct_a: Bools, correct_b: Bools) -> McNemar:
    """Test whether two networks are right equally often on images of this kind.

    Images on which both are right or both are wrong say nothing. Each of the others is as likely to
    be a's as b's if the networks are equally good (McNemar 1947). It speaks of these two runs alone:
    seeds of one config may differ by more.

    Args:
        correct_a: shape (images,), whether a is right.
        correct_b: the same of b, in the same order.

    Raises:
        ValueError: the shapes differ.
    """
    if correct_a.shape != correct_b.shape:
        raise ValueError(f"not the same images: {correct_a.shape} and {correct_b.shape}")
    only_a = int(np.count_nonzero(correct_a & ~correct_b))
    only_b = int(np.count_nonzero(correct_b & ~correct_a))
    fewer, both = min(only_a, only_b), only_a + only_b
    upto = float(bdtr(fewer, both, 0.5)) if both else 1.0
    below = float(bdtr(fewer - 1, both, 0.5)) if fewer else 0.0
    return McNemar(
        n=len(correct_a),
        only_a=only_a,
        only_b=only_b,
        p=min(1.0, 2 * upto),
        mid_p=min(1.0, upto + below),
    )


@dataclass(frozen=True, kw_only=True)
class TwoLevel:
    """An accuracy, or a difference of two, over seeds and images; what is undefined is None."""

    seeds: int
    """Runs, or pairs of runs."""
    images: int
    """Images that each of them judged."""
    mean: float | None
    """Share of right answers, or a's minus b's; None without an image or a seed."""
    low: float | None
    """Lower end of its 95 % interval; None below two seeds or images."""
    high: float | None
    """Upper end of it."""
    seed_share: float | None
    """Of the variance of the mean, the part that no number of images would lower, from 0 to 1. None
    where nothing varies, or below two seeds or images."""


def two_level(
    correct_a: Bools,
    correct_b: Bools | None,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> TwoLevel:
    """The interval of an accuracy, or of a difference, for other seeds and other images.

    Every seed judges the same images, so that seeds and images are crossed. The answers are split
    into a part of the seed, a part of the image and a rest (Hoeffding's decomposition), and seeds
    and images are drawn again, each on their own. A seed's mean is shrunk to what is the seed's: it
    varies by the rest too, which drawing plain answers counts three times (Owen 2007, *The
    pigeonhole bootstrap*). The distances of the 2.5 % and 97.5 % quantiles from the mean are
    stretched by how much wider Student's t is than the normal distribution, with Satterthwaite's
    degrees of freedom: few seeds know their variance badly.

    In simulations the interval covers the true value in 94 to 96 % at 5 and at 10 seeds, where
    plain quantiles have 88 % at 5, and in 98 % where seeds make no difference of their own. At 3
    seeds it is 92 to 98 %.

    Args:
        correct_a: shape (seeds, images), whether each run is right.
        correct_b: the same of another config, paired by seed and image; None for one config alone.
        rng: of the draws; the same answers and generator give the same interval.
        resamples: how many draws.

    Raises:
        ValueError: the shapes differ.
    """
    if correct_b is not None and correct_a.shape != correct_b.shape:
        raise ValueError(f"not the same runs: {correct_a.shape} and {correct_b.shape}")
    scores = correct_a.astype(np.int8)
    if correct_b is not None:
        scores -= correct_b.astype(np.int8)
    seeds, images = scores.shape
    basis = TwoLevel(
        seeds=seeds,
        images=images,
        mean=float(scores.mean()) if scores.size else None,
        low=None,
        high=None,
        seed_share=None,
    )
    if basis.mean is None or seeds < 2 or images < 2:
        return basis
    found = _decomposed(scores)
    total = found.of_seeds + found.of_images
    if not total:
        return replace(basis, low=basis.mean, high=basis.mean)
    drawn = _drawn(scores, found.of_seeds, rng, resamples)
    tail = (1 - CONFIDENCE) / 2
    stretch = float(stdtrit(found.freedom, tail) / ndtri(tail))
    low, high = (
        float(np.clip(basis.mean + stretch * end, -1.0, 1.0))
        for end in np.quantile(drawn, (tail, 1 - tail))
    )
    if correct_b is None:
        low = max(low, 0.0)
    return replace(basis, low=low, high=high, seed_share=found.of_seeds / total)


@dataclass(frozen=True, kw_only=True)
class _Decomposed:
    """The variance of a mean over seeds and images."""

    of_seeds: float
    """What would stay with endlessly many images."""
    of_images: float
    """What would stay if the seeds did not differ as such: images, and the rest."""
    freedom: float
    """Satterthwaite's degrees of freedom of the two together."""


def _decomposed(scores: npt.NDArray[np.int8]) -> _Decomposed:
    """Analysis of variance of two crossed random effects, without replicates.

    Args:
        scores: shape (seeds, images), of −1, 0 and 1, at least two of each.
    """
    seeds, images = scores.shape
    size = seeds * images
    by_seed = scores.sum(axis=1, dtype=np.int64)
    by_image = scores.sum(axis=0, dtype=np.int64)
    # Whole numbers, `size` times the sums of squares: what cancels does so without a rest.
    whole = int(by_seed.sum()) ** 2
    seed_squares = seeds * int((by_seed**2).sum()) - whole
    image_squares = images * int((by_image**2).sum()) - whole
    rest_squares = size * np.count_nonzero(scores) - whole - seed_squares - image_squares
    # Mean squares over `size`, as the variance of the mean has them.
    of_seed = seed_squares / (seeds - 1) / size**2
    of_image = image_squares / (images - 1) / size**2
    rest = rest_squares / ((seeds - 1) * (images - 1)) / size**2
    own = float(max(of_seed - rest, 0.0))
    uncertainty = (
        of_seed**2 / (seeds - 1)
        + of_image**2 / (images - 1)
        + rest**2 / ((seeds - 1) * (images - 1))
    )
    freedom = (own + of_image) ** 2 / uncertainty if uncertainty else np.inf
    return _Decomposed(of_seeds=own, of_images=of_image, freedom=freedom)


def _drawn(
    scores: npt.NDArray[np.int8], of_seeds: float, rng: np.random.Generator, resamples: int
) -> Floats:
    """How far the mean is from the one seen, in each of so many draws of seeds and images."""
    seeds, images = scores.shape
    by_seed = np.sort(scores.mean(axis=1))  # neither the order of seeds nor that of images matters
    parts = by_seed - by_seed.mean()
    scale = np.sqrt(np.mean(parts**2))
    if of_seeds:
        parts *= np.sqrt(of_seeds * seeds) / scale
    else:
        parts[:] = 0
    # Images with the same sum over seeds are alike: how many of each are drawn is all that counts.
    sums, counts = np.unique(scores.sum(axis=0, dtype=np.int64), return_counts=True)
    of_images = rng.multinomial(counts.sum(), counts / images, size=resamples) @ sums
    drawn: Floats = of_images / scores.size - scores.mean()
    drawn += parts[rng.integers(0, seeds, (resamples, seeds))].mean(axis=1)
    return drawn
