"""What the parameters of a grid make of a score: effects of their values, shares of its variance.

The model is that of a factorial design in randomised blocks: parameters alone and by twos, what
all of them make together beyond that, and a seed's own level, which is the same for every config
that is trained with it. What is left is noise between runs.

Sums of squares are of Type II: each term beside all others that do not contain it (Langsrud 2003,
Stat. Comput. 13, section 3). `a × b` contains `a`, and so does a parameter that has a meaning at
some values of `a` alone, as the placement of attention has where there is attention. In a design
without gaps they are the classical ones and their shares, eta squared, add up to 1; in one with
gaps they need not.

Nothing of the tests and intervals leans on equal variances or on independent milestones. The runs
of one seed are correlated, and the epochs of one run are so all the more; after one epoch scores
vary several times as much as after ten. So a whole seed is the one unit: each gives its own
estimate of an effect, from its own cells, and the estimates are what is averaged and tested.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sweeps.statistics.design import (
    Codes,
    Columns,
    Design,
    Floats,
    Normal,
    design_of,
    pseudo_inverse,
)
from sweeps.statistics.paired import paired
from sweeps.statistics.summary import CONFIDENCE, t_quantile

Kind = Literal["main", "interaction", "seed", "residual"]

EXACT_FLIPS_UP_TO = 16
"""Seeds up to which every flip is gone through; above, some are drawn."""

_FLIPS = 20_000
"""Flips that are drawn, the observed one besides."""

_SEED = 20_260_102
"""Of those flips: a p-value depends on the values alone."""

_ROUNDING = 1e-12
"""Share of the largest value below which an effect is none."""

_TIE = 1e-9
"""Share by which flips that are as far out as the observed one can differ from it by rounding."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """What one value of a parameter, or one combination of two, makes."""

    values: Mapping[str, Any]
    n: int
    """Cells that it rests on."""

    effect: float
    """Of one parameter: the mean at this value minus that of all its values, each counted once,
    and beside the other parameters where the grid has gaps. Of two: what the mean of the
    combination has beyond the sum of their own effects. The mean over seeds."""

    low: float | None
    """Lower end of the 95 % interval over seeds (Student's t); null below two seeds."""

    high: float | None


@dataclass(frozen=True, kw_only=True)
class Term:
    """One part of the variance."""

    kind: Kind
    parameters: tuple[str, ...]
    """One, two, or all of them for what goes beyond twos; none for the seed and the residual."""

    n: int
    """Cells that it rests on: those in which its parameters have a meaning."""

    df: int
    """Degrees of freedom; 0 where the grid cannot tell it from other terms."""

    sum_of_squares: float | None
    """Null without degrees of freedom."""

    share: float | None
    """Of the sum of squares about the mean (eta squared); null where all values are equal. Noise
    alone gives a term a share of its degrees of freedom over those of all, and not 0."""

    seeds: int
    """Seeds with an estimate of it. One whose missing runs leave some part of it open has none."""

    p: float | None
    """Of the sign-flip test: the estimates of a seed, over all levels, are flipped together, and
    the statistic is the sum of the squared mean effects. Exact, for any correlation between cells
    of a seed, if a seed's estimates are as likely as their opposites where the term makes nothing.
    With one degree of freedom it is the paired test. Below 6 seeds it cannot reach 0.05; null
    below two, and where no single term is tested: beyond twos, seed and residual."""

    levels: Sequence[Level]
    """Empty for the seed and the residual, for what goes beyond twos, and where the grid does not
    tell each level from the others."""


def decompose(
    labels: Sequence[Mapping[str, Any]], values: Floats, units: Sequence[int] | None = None
) -> list[Term]:
    """Split the variance of a score over the cells of a grid.

    A parameter of one value makes nothing and is left out. One that is null in some cells has no
    meaning there; where others decide that, it is nested in them, and else null is a value.

    Args:
        labels: the parameters of each cell, length among them: (cells,).
        values: shape (cells, seeds), a column for each block of runs that belong together; NaN
            where a run is missing. Cells without a value are left out.
        units: of each column what it is independent of others by, the seed where it has several
            nuisance values: their estimates are averaged before they are tested. By default each
            column is one.

    Returns:
        Parameters in the order in which labels name them; pairs; what goes beyond; seed; residual.
        What has no degrees of freedom is left out, parameters excepted. Empty where no parameter
        has two values.
    """
    there = ~np.isnan(values)
    kept = there.any(axis=1)
    grid = values[kept][:, there.any(axis=0)]
    given = np.arange(values.shape[1]) if units is None else np.asarray(units)
    design = design_of([labels[cell] for cell in np.flatnonzero(kept).tolist()])
    return [*_terms(design, grid, given[there.any(axis=0)])] if design.terms else []


# The split.


def _terms(design: Design, grid: Floats, units: Codes) -> Iterator[Term]:
    """Every term of a design, from values of shape (cells, seeds) and the unit of each column."""
    data = _Data.of(grid)
    coded = [(data.seeds, grid.shape[1])]
    coded += [(term.codes[data.cells], term.levels) for term in design.terms]
    normal = Normal(coded, data.values[:, np.newaxis])
    by_seed = _BySeed(design, grid, units)
    for number, term in enumerate(design.terms, start=1):
        _, (explained,), df = normal.added(number, design.beside(number))
        alone = number <= len(design.mains)
        if df or alone:
            codes = term.codes[data.cells]
            sizes = np.bincount(codes[codes >= 0], minlength=term.levels)
            yield Term(
                kind="main" if alone else "interaction",
                parameters=term.names,
                n=int(sizes.sum()),
                df=df,
                sum_of_squares=float(explained) if df else None,
                share=data.share(float(explained)) if df else None,
                **by_seed.judged(number, df, sizes),
            )
    yield from _rest(design, normal, data)


@dataclass(frozen=True)
class _Data:
    """Values one after another, about their mean, each with its cell and its seed."""

    cells: Codes
    seeds: Codes
    values: Floats

    @classmethod
    def of(cls, grid: Floats) -> _Data:
        """From values of shape (cells, seeds)."""
        cells, seeds = np.nonzero(~np.isnan(grid))
        given = grid[cells, seeds]
        # The mean of equal values can miss them by a rounding error.
        centred = np.zeros(len(given)) if np.ptp(given) == 0 else given - given.mean()
        return cls(cells, seeds, centred)

    @cached_property
    def total(self) -> float:
        """Sum of squares about the mean."""
        return float(self.values @ self.values)

    def share(self, squares: float) -> float | None:
        """Part of that; null where all values are equal."""
        return squares / self.total if self.total > 0 else None

    def seeds_beside_cells(self) -> tuple[float, int, float]:
        """Seeds, beside cells that have a level each.

        Returns:
            Their sum of squares, their degrees of freedom, and what neither explains.
        """
        counts = np.bincount(self.cells)
        means = np.bincount(self.cells, weights=self.values) / counts
        centred = self.values - means[self.cells]
        there = np.zeros((len(counts), int(self.seeds.max()) + 1))
        there[self.cells, self.seeds] = 1
        of_seeds = there.sum(axis=0)
        left = np.diag(of_seeds) - (there / counts[:, np.newaxis]).T @ there
        sums = np.bincount(self.seeds, weights=centred)
        inverse, df = pseudo_inverse(left, float(of_seeds.max()))
        explained = max(0.0, float(sums @ inverse @ sums))
        return explained, df, max(0.0, float(centred @ centred) - explained)


def _rest(design: Design, normal: Normal, data: _Data) -> Iterator[Term]:
    """What goes beyond twos, the seed, and the residual."""
    n = len(data.values)
    numbers = list(range(len(design.terms) + 1))
    (explained,), rank = normal.fitted(numbers)
    unexplained = max(0.0, data.total - float(explained))
    by_seed, seed_df, noise = data.seeds_beside_cells()
    df = n - len(np.unique(data.cells)) - seed_df
    beyond = n - rank - df
    if not df:
        # Without a second run of any cell, noise and what goes beyond twos are one.
        _, (squares,), seed_df = normal.added(0, numbers[1:])
        by_seed, noise, df, beyond = float(squares), unexplained, n - rank, 0
    parts: list[tuple[Kind, tuple[str, ...], int, float]] = [
        ("interaction", design.names, beyond, max(0.0, unexplained - noise)),
        ("seed", (), seed_df, by_seed),
        ("residual", (), df, noise),
    ]
    for kind, parameters, freedom, squares in parts:
        if freedom:
            yield Term(
                kind=kind,
                parameters=parameters,
                n=n,
                df=freedom,
                sum_of_squares=squares,
                share=data.share(squares),
                seeds=len(normal.spans[0]),
                p=None,
                levels=(),
            )


# Seeds as the units of tests and intervals.


class _BySeed:
    """Estimates of every term from the cells of each seed alone.

    Args:
        design: the terms.
        grid: shape (cells, seeds).
        units: of each seed what it is averaged within.
    """

    def __init__(self, design: Design, grid: Floats, units: Codes) -> None:
        self.design = design
        self.rounding = _ROUNDING * float(np.nanmax(np.abs(grid)))
        self.parts: list[tuple[Normal, Codes]] = []
        there = ~np.isnan(grid)
        patterns, which = np.unique(there, axis=1, return_inverse=True)
        for number in range(patterns.shape[1]):
            seeds = np.flatnonzero(which == number)
            rows = np.flatnonzero(patterns[:, number])
            own = grid[np.ix_(rows, seeds)]
            constant = (np.zeros(len(rows), np.int64), 1)
            coded = [constant, *((t.codes[rows], t.levels) for t in design.terms)]
            # Of equal values the mean is taken exactly, so that nothing is left of them.
            about = np.where(np.ptp(own, axis=0) == 0, own[0], own.mean(axis=0))
            self.parts.append((Normal(coded, own - about), units[seeds]))

    def judged(self, number: int, df: int, sizes: npt.NDArray[np.int64]) -> dict[str, Any]:
        """Seeds, p and levels of a term by its number, as fields of `Term`.

        Args:
            number: of the term.
            df: its degrees of freedom in the whole grid.
            sizes: cells of each of its levels.
        """
        term = self.design.terms[number - 1]
        found, units = [], []
        for normal, of_part in self.parts if df else ():
            estimates, _, rank = normal.added(number, self.design.beside(number))
            if rank == df:
                found.append(estimates.T)
                units.append(of_part)
        each = np.concatenate([np.zeros((0, term.levels)), *found])
        each = np.where(np.abs(each) > self.rounding, each, 0.0)
        each = _averaged(each, np.concatenate([np.zeros(0, np.int64), *units]))
        each = each[np.lexsort(each.T[::-1])] if len(each) else each
        told_apart = len(term.factors) > 1 or df == term.levels - 1
        return {
            "seeds": len(each),
            "p": _p(each, df) if len(each) > 1 else None,
            "levels": _levels(term, each, sizes) if told_apart and len(each) else (),
        }


def _averaged(each: Floats, units: Codes) -> Floats:
    """Means of the rows of each unit, whatever their order."""
    if not len(each):
        return each
    order = np.lexsort((*each.T[::-1], units))
    _, starts, counts = np.unique(units[order], return_index=True, return_counts=True)
    means: Floats = np.add.reduceat(each[order], starts, axis=0) / counts[:, np.newaxis]
    return means


def _p(each: Floats, df: int) -> float | None:
    """Of a term, from estimates of shape (seeds, levels)."""
    if df == 1:
        # All levels that have a part in it say the same, and pairs are tested exactly up to more.
        told = each[:, np.abs(each).max(axis=0).argmax()]
        return paired(told, np.zeros(len(each))).p
    return flip_p(each)


def _levels(term: Columns, each: Floats, sizes: npt.NDArray[np.int64]) -> list[Level]:
    """The levels of a term from estimates of shape (seeds, levels)."""
    n = len(each)
    half: list[float | None] = [None] * term.levels
    if n > 1:
        quantile = t_quantile(n - 1, (1 + CONFIDENCE) / 2)
        half = (quantile * each.std(axis=0, ddof=1) / np.sqrt(n)).tolist()
    return [
        Level(
            values=term.values(level),
            n=int(sizes[level]),
            effect=effect,
            low=None if width is None else effect - width,
            high=None if width is None else effect + width,
        )
        for level, (effect, width) in enumerate(zip(each.mean(axis=0).tolist(), half, strict=True))
    ]


def flip_p(each: Floats) -> float:
    """The sign-flip test of whether the mean of some vectors is zero.

    Every flip of whole vectors is gone through up to 16 of them; above, 20,000 are drawn, and the
    observed one counts as one more (Phipson & Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9, 39).

    Args:
        each: shape (n, k): a vector for each independent unit.

    Returns:
        The share of flips in which the sum is as long as the observed one, or longer.
    """
    products = each @ each.T
    n = len(each)
    observed = float(products.sum())
    if observed <= _TIE * float(np.trace(products)) or observed <= 0:
        return 1.0
    least = observed * (1 - _TIE)
    if n <= EXACT_FLIPS_UP_TO:
        # A flip and its opposite are as long: the last keeps its sign.
        bits = np.arange(2 ** (n - 1))[:, np.newaxis] >> np.arange(n)
        signs = (1 - 2 * (bits & 1)).astype(np.float64)
        return float(np.mean(_lengths(signs, products) >= least))
    rng = np.random.default_rng((_SEED, n))
    signs = (1 - 2 * rng.integers(0, 2, (_FLIPS, n))).astype(np.float64)
    return float((1 + np.count_nonzero(_lengths(signs, products) >= least)) / (1 + _FLIPS))


def _lengths(signs: Floats, products: Floats) -> Floats:
    """Squared lengths of flipped sums, (flips,)."""
    lengths: Floats = ((signs @ products) * signs).sum(axis=1)
    return lengths
