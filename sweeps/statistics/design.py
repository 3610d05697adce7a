"""A grid as a linear model: parameters as factors, terms as columns, and their least squares."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

_MOST_COLUMNS = 600
"""Columns up to which interactions are looked at by twos; larger grids have them in one term."""

_INVERSES = 16
"""Inverses that are kept: as many as the terms of a grid need."""

_TOLERANCE = 1e-9
"""Of eigenvalues against the largest: below, a direction is not there."""


@dataclass(frozen=True)
class Factor:
    """A parameter over cells."""

    name: str
    values: Sequence[Any]
    codes: Codes
    """Place of each cell's value among them; -1 where it has no meaning. Shape (cells,)."""

    parents: frozenset[str] = frozenset()
    """Parameters that decide where it has a meaning, and theirs."""


def _factors(labels: Sequence[Mapping[str, Any]]) -> list[Factor]:
    """Every parameter that makes a difference between cells."""
    names = list(dict.fromkeys(name for label in labels for name in label))
    coded = {name: _coded([label.get(name) for label in labels]) for name in names}
    whole = [name for name in names if (coded[name][1] >= 0).all()]
    done: dict[str, Factor] = {}
    for name in [*whole, *(name for name in names if name not in whole)]:
        values, codes = coded[name]
        parents = _deciding(codes, list(done.values()))
        if parents is None:
            values, codes = [None, *values], codes + 1
        if len(values) > 1:
            done[name] = Factor(name, values, codes, parents or frozenset())
    return [done[name] for name in names if name in done]


def _coded(given: Sequence[Any]) -> tuple[list[Any], Codes]:
    """Distinct values in order, and the place of each; null is -1."""
    keys = [None if value is None else json.dumps(value, sort_keys=True) for value in given]
    distinct = {key: value for key, value in zip(keys, given, strict=True) if key is not None}
    ordered = sorted(distinct, key=lambda key: _order(key, distinct[key]))
    places = {key: place for place, key in enumerate(ordered)}
    return [distinct[key] for key in ordered], np.asarray(
        [-1 if key is None else places[key] for key in keys], np.int64
    )


def _order(key: str, value: Any) -> tuple[int, float, str]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (0, float(value), "") if number else (1, 0.0, key)


def _deciding(codes: Codes, others: Sequence[Factor]) -> frozenset[str] | None:
    """The fewest parameters whose values tell where this one has a meaning; null if none do."""
    present = codes >= 0
    for size in range(min(2, len(others)) + 1):
        for chosen in itertools.combinations(others, size):
            joint = _joint([factor.codes for factor in chosen], len(codes))
            groups = np.bincount(joint)
            inside = np.bincount(joint, weights=present)
            if np.all((inside == 0) | (inside == groups)):
                nested = [{factor.name} | factor.parents for factor in chosen]
                return frozenset().union(*nested)
    return None


def _joint(codes: Sequence[Codes], cells: int) -> Codes:
    """One code, from 0 without gaps, for every combination of codes."""
    joint = np.zeros(cells, np.int64)
    for each in codes:
        joint = np.unique(joint * (each.max() + 2) + each + 1, return_inverse=True)[1]
    return joint


@dataclass(frozen=True)
class Columns:
    """A term as indicator columns over cells."""

    factors: tuple[Factor, ...]
    codes: Codes
    """Of the combination of values; -1 where one has no meaning."""

    levels: int

    @property
    def names(self) -> tuple[str, ...]:
        """Its parameters."""
        return tuple(factor.name for factor in self.factors)

    def values(self, level: int) -> dict[str, Any]:
        """The value of each parameter at a level."""
        cell = int(np.flatnonzero(self.codes == level)[0])
        return {factor.name: factor.values[int(factor.codes[cell])] for factor in self.factors}

    def contains(self, other: Columns) -> bool:
        """Whether the other's effect is part of its own.

        So it is where each parameter of the other is one of its own, or one that a parameter of its
        own is nested in, a different one for each.
        """
        return self is not other and any(
            all(name == factor.name or name in factor.parents for name, factor in matched)
            for matched in (
                [*zip(other.names, chosen, strict=True)]
                for chosen in itertools.permutations(self.factors, len(other.names))
            )
        )


def _columns(factors: tuple[Factor, ...]) -> Columns:
    codes = np.full(len(factors[0].codes), -1, np.int64)
    meant = np.all([factor.codes >= 0 for factor in factors], axis=0)
    if not meant.any():
        return Columns(factors, codes, 0)
    joint = _joint([factor.codes[meant] for factor in factors], int(meant.sum()))
    codes[meant] = joint
    return Columns(factors, codes, int(joint.max()) + 1)


@dataclass(frozen=True)
class Design:
    """Every term of a grid."""

    mains: Sequence[Columns]
    pairs: Sequence[Columns]

    @property
    def names(self) -> tuple[str, ...]:
        """Every parameter that makes a difference between cells."""
        return tuple(name for main in self.mains for name in main.names)

    @cached_property
    def terms(self) -> list[Columns]:
        """Parameters alone and by twos."""
        return [*self.mains, *self.pairs]

    def beside(self, number: int) -> list[int]:
        """Numbers of the terms, from 1, that one is taken beside; 0 is what every row has."""
        own = self.terms[number - 1]
        others = enumerate(self.terms, start=1)
        return [0, *(n for n, term in others if term is not own and not term.contains(own))]


def design_of(labels: Sequence[Mapping[str, Any]]) -> Design:
    """The terms of a grid, from the parameters of each of its cells.

    A parameter of one value makes nothing and is left out. One that is null in some cells has no
    meaning there; where others decide that, it is nested in them, and else null is a value.
    """
    factors = _factors(labels)
    mains = [_columns((factor,)) for factor in factors]
    pairs = [_columns(pair) for pair in itertools.combinations(factors, 2)]
    if sum(each.levels for each in (*mains, *pairs)) > _MOST_COLUMNS:
        pairs = []
    return Design(mains, [pair for pair in pairs if pair.levels])


class Normal:
    """The normal equations of a design: least squares without its columns in memory.

    Args:
        terms: the columns of each, as codes over rows.
        values: shape (rows, columns of values).
    """

    def __init__(self, terms: Sequence[tuple[Codes, int]], values: Floats) -> None:
        ends = np.cumsum([0, *(levels for _, levels in terms)])
        self.spans = [np.arange(a, b) for a, b in itertools.pairwise(ends)]
        self.gram = np.zeros((ends[-1], ends[-1]))
        self.sums = np.zeros((ends[-1], values.shape[1]))
        for i, (one, width) in enumerate(terms):
            for column in range(values.shape[1]):
                self.sums[self.spans[i], column] = _totals(one, width, values[:, column])
            for j, (other, length) in enumerate(terms[: i + 1]):
                both = (one >= 0) & (other >= 0)
                joint = one[both] * length + other[both]
                counts = np.bincount(joint, minlength=width * length).reshape(width, length)
                self.gram[np.ix_(self.spans[i], self.spans[j])] = counts
                self.gram[np.ix_(self.spans[j], self.spans[i])] = counts.T

    def fitted(self, terms: Sequence[int]) -> tuple[Floats, int]:
        """Sum of squares that some terms explain together, of each column of values; their rank."""
        columns = self._of(terms)
        sums = self.sums[columns]
        inverse, rank = pseudo_inverse(self.gram[np.ix_(columns, columns)])
        return np.einsum("ic,ij,jc->c", sums, inverse, sums), rank

    def added(self, term: int, others: Sequence[int]) -> tuple[Floats, Floats, int]:
        """What a term adds to others.

        Returns:
            The coefficients of its columns of the least norm, (levels, columns of values), the sum
            of squares that they explain, (columns of values,), and their rank.
        """
        own, rest = self.spans[term], self._of(others)
        inverse, _ = pseudo_inverse(self.gram[np.ix_(rest, rest)])
        across = self.gram[np.ix_(own, rest)] @ inverse
        left = self.gram[np.ix_(own, own)] - across @ self.gram[np.ix_(rest, own)]
        sums = self.sums[own] - across @ self.sums[rest]
        largest = float(np.diag(self.gram)[own].max(initial=0.0))
        own_inverse, rank = pseudo_inverse(left, largest)
        found = own_inverse @ sums
        return found, np.maximum(0.0, (found * sums).sum(axis=0)), rank

    def _of(self, terms: Sequence[int]) -> npt.NDArray[np.int64]:
        return np.concatenate([np.zeros(0, np.int64), *(self.spans[term] for term in terms)])


def _totals(codes: Codes, levels: int, values: Floats) -> Floats:
    kept = codes >= 0
    return np.bincount(codes[kept], weights=values[kept], minlength=levels).astype(np.float64)


def pseudo_inverse(matrix: Floats, largest: float | None = None) -> tuple[Floats, int]:
    """Pseudo-inverse and rank of a symmetric matrix without negative eigenvalues.

    It is read-only: the scores of one grid share their matrices, and each is inverted once.
    """
    return _inverted(_Matrix(matrix), largest) if matrix.size else (matrix, 0)


@dataclass(frozen=True, eq=False)
class _Matrix:
    """A matrix that is known by what it holds."""

    values: Floats

    @cached_property
    def content(self) -> bytes:
        """What tells it from others."""
        shape = np.asarray(self.values.shape).tobytes()
        return hashlib.blake2b(shape + self.values.tobytes(), digest_size=32).digest()

    def __hash__(self) -> int:
        return hash(self.content)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Matrix) and self.content == other.content


@lru_cache(_INVERSES)
def _inverted(matrix: _Matrix, largest: float | None) -> tuple[Floats, int]:
    found, vectors = np.linalg.eigh((matrix.values + matrix.values.T) / 2)
    kept = found > _TOLERANCE * max(largest or float(found[-1]), np.finfo(np.float64).tiny)
    chosen = vectors[:, kept]
    inverse = (chosen / found[kept]) @ chosen.T
    inverse.flags.writeable = False
    return inverse, int(kept.sum())
