"""Stratified draws of rows: the validation split, and smaller training sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cifake.config import DataSettings
from cifake.data.pack import Pack
from cifake.errors import InputError, Mistake

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Rows of the training pack by use; ascending, disjoint."""

    train: Rows
    validation: Rows


def split_rows(pack: Pack, settings: DataSettings, where: str = "spec") -> Split:
    """Set validation images aside and draw the training subset.

    Raises:
        InputError: more images are asked for than there are.
    """
    rows = pack.rows("train")
    left = len(rows) - settings.validation
    mistakes = []
    if left < 2:
        mistakes.append(
            Mistake(
                where=where,
                field="data.validation",
                value=settings.validation,
                problem=f"must leave at least 2 of the {len(rows):,} training images",
            )
        )
    elif settings.train_images is not None and settings.train_images > left:
        mistakes.append(
            Mistake(
                where=where,
                field="data.train_images",
                value=settings.train_images,
                problem=f"must be at most the {left:,} images left after validation",
            )
        )
    if mistakes:
        raise InputError(mistakes)
    strata = _strata(pack, rows)
    order = np.random.default_rng(settings.validation_seed).permutation(len(rows))
    validation = stratified(strata, settings.validation, order)
    remaining = np.setdiff1d(np.arange(len(rows)), validation)
    if settings.train_images is None:
        return Split(rows[remaining], rows[validation])
    drawn = stratified(strata[remaining], settings.train_images, _rank(order, remaining))
    return Split(rows[remaining[drawn]], rows[validation])


def stratified(
    strata: npt.NDArray[np.int64], count: int, order: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Draw `count` positions so that each stratum gives its share, within one.

    Args:
        strata: shape (n,), the stratum of each position, numbered from 0.
        count: positions to draw.
        order: shape (n,), a permutation; earlier positions are drawn first.

    Returns:
        Positions drawn, ascending.
    """
    sizes = np.bincount(strata)
    quotas = _largest_remainder(sizes, count)
    chosen = []
    for stratum, quota in enumerate(quotas):
        members = order[strata[order] == stratum]
        chosen.append(members[:quota])
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)


def _largest_remainder(sizes: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Whole quotas in proportion to sizes that sum to count (Hamilton's method)."""
    exact = sizes * (count / max(1, sizes.sum()))
    quotas: npt.NDArray[np.int64] = np.floor(exact).astype(np.int64)
    short = count - int(quotas.sum())
    by_remainder = np.argsort(-(exact - quotas), kind="stable")
    quotas[by_remainder[:short]] += 1
    return quotas


def _rank(order: npt.NDArray[np.int64], kept: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """A permutation of all positions, restricted to the kept ones and renumbered among them."""
    renumbered = np.full(len(order), -1)
    renumbered[kept] = np.arange(len(kept))
    restricted = renumbered[order]
    return np.asarray(restricted[restricted >= 0], np.int64)


def _strata(pack: Pack, rows: Rows) -> npt.NDArray[np.int64]:
    """Number every combination of label and content class."""
    classes = [name or "" for name in pack.words("content_class", rows)]
    keys = list(zip(pack.labels[rows].tolist(), classes, strict=True))
    numbers = {key: number for number, key in enumerate(sorted(set(keys)))}
    return np.asarray([numbers[key] for key in keys], np.int64)
