"""Stratified draws of rows: the validation split, and smaller training sets."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cifake.config import DataSettings
from cifake.data.pack import Pack
from cifake.data.raw import LABELS
from cifake.errors import InputError, Mistake, refuse

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Rows of the training pack by use; ascending, disjoint."""

    train: Rows
    validation: Rows


def split_rows(pack: Pack, settings: DataSettings, where: str = "spec") -> Split:
    """Set validation images aside and draw the training subset. The test split is not looked at.

    Raises:
        InputError: more images are asked for than there are, or a content class without any.
    """
    rows = _restricted(pack, pack.rows("train"), settings, where)
    strata = _strata(pack, rows)
    _check_sizes(len(rows), settings, where)
    order = np.random.default_rng(settings.validation_seed).permutation(len(rows))
    validation = stratified(strata, settings.validation, order)
    remaining = np.setdiff1d(np.arange(len(rows)), validation)
    drawn = np.arange(len(remaining))
    if settings.train_images is not None:
        rank = _rank(order, remaining)
        drawn = stratified(strata[remaining], settings.train_images, rank)
    elif settings.images_per_class is not None:
        _check_classes(pack, rows, rows[remaining], settings.images_per_class, where)
        drawn = _each(strata[remaining], settings.images_per_class, _rank(order, remaining))
    return Split(rows[remaining[drawn]], rows[validation])


def _restricted(pack: Pack, rows: Rows, settings: DataSettings, where: str) -> Rows:
    """The rows of the content classes that are trained on."""
    kind = "leave_out" if settings.only is None else "only"
    name = getattr(settings, kind)
    if name is None:
        return rows
    words = np.asarray(pack.words("content_class", rows), object)
    valid = {word for word in words if word is not None}
    if name not in valid:
        problem = f"no content class of the training images; {_listed(valid)}"
        refuse(where, problem, field=f"data.{kind}", value=name)
    kept: Rows = rows[(words == name) == (kind == "only")]
    if len(np.unique(pack.labels[kept])) < len(np.unique(pack.labels[rows])):
        problem = "leaves training images of one label only; both are needed"
        refuse(where, problem, field=f"data.{kind}", value=name)
    return kept


def _listed(names: set[str]) -> str:
    return f"valid: {', '.join(sorted(names))}" if names else "they have none"


def _check_sizes(images: int, settings: DataSettings, where: str) -> None:
    left = images - settings.validation
    if left < 2:
        refuse(
            where,
            f"must leave at least 2 of the {images:,} training images",
            field="data.validation",
            value=settings.validation,
        )
    if settings.train_images is not None and settings.train_images > left:
        refuse(
            where,
            f"must be at most the {left:,} images left after validation",
            field="data.train_images",
            value=settings.train_images,
        )


def _check_classes(pack: Pack, rows: Rows, left: Rows, wanted: int, where: str) -> None:
    """Every label and content class of some rows has as many left as are wanted of each."""
    names = {label: name for name, label in LABELS.items()}
    sizes = Counter(_keys(pack, left))
    mistakes = [
        Mistake(
            where=where,
            field="data.images_per_class",
            value=wanted,
            problem=f"{names[label]} {word or 'of no class'} has {sizes[label, word]:,} "
            "left after validation; ask for at most that many",
        )
        for label, word in sorted(set(_keys(pack, rows)))
        if sizes[label, word] < wanted
    ]
    if mistakes:
        raise InputError(mistakes)


def _each(
    strata: npt.NDArray[np.int64], count: int, order: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """The first `count` positions of every stratum, in the given order; returned ascending."""
    chosen = [order[strata[order] == stratum][:count] for stratum in np.unique(strata)]
    return np.sort(np.concatenate(chosen))


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
    """Number every combination of label and content class, in their order."""
    ranks = pack.ranks("content_class")
    keys = pack.labels.astype(np.int64) * (ranks.max() + 1) + ranks
    return np.unique(keys[rows], return_inverse=True)[1]


def _keys(pack: Pack, rows: Rows) -> list[tuple[int, str]]:
    """Label and content class of each row, the class empty where none is known."""
    classes = [name or "" for name in pack.words("content_class", rows)]
    return list(zip(pack.labels[rows].tolist(), classes, strict=True))
