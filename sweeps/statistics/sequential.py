"""When to stop adding seeds: which configs are out of the race, looked at again and again.

Every config begins with some seeds. At each look every two configs of the race are compared, paired
by seed, and whoever is worse than another leaves; the rest get more seeds. The race ends when one
is left, when the rest provably differ by no more than matters, or when the seeds are spent.

The rule, for k configs and an error of α:

- The statistic is the paired t of the mean difference.
- *Repeated looks.* The looks are declared beforehand, by their number of seeds n out of at most N.
  By look n a level a (n/N)² is spent (the power family of Kim and DeMets, Biometrika 74, 1987, in
  the spending of Lan and DeMets, Biometrika 70, 1983). The nominal level of each look follows from
  the joint distribution of the successive t statistics, which is exact for normal differences of
  unknown variance, as in Jennison and Turnbull (Biometrika 78, 1991), not from a normal limit.
- *Several configs.* Each ordered pair is tested one-sided with a = α / (2 (k − 1)) in all. Let m of
  the configs be best, tied exactly. One of them is said to be worse than another one wrongly with
  probability (k − 1) a at most, so the expected number of best ones that leave is m (k − 1) a at
  most. With m = 1 the best leaves with probability α/2. With m > 1 a winner needs m − 1 of them to
  leave, and by Markov's inequality that has probability m/(m − 1) · α/2 ≤ α. So the leader may be
  chosen by the data, and all k (k − 1) / 2 pairs need not be corrected for.
- *Equivalence.* With a smallest difference that matters, δ, the rest is equivalent when for each
  ordered pair the same test rejects that the difference is δ or more. That is wrong only if a best
  one left or one of its k − 1 comparisons errs: again α at most.

Chosen by simulation (`python -m tests.benchmarks.resolving rules`): spending as O'Brien and Fleming
do it needs 25 to 40 % more seeds for clear cases, as Pocock does it has 3 to 10 points less power
for narrow ones, and an anytime-valid t test (a mixture martingale), which would need no largest
number of seeds, has 20 to 40 points less there with 30 seeds. A sign-flip test would not need
normal differences, but cannot go below 2⁻ⁿ: at the first looks that is above every nominal level,
so that nothing could be decided there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri, stdtr, stdtrit

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

SPENDING_POWER = 2
"""Of the share of the seeds, in the level that is spent by a look."""

NAME = "paired t, level spent as (n/N)², elimination from the race"
"""The rule in a line."""

_CELLS = 200
_LOWEST, _HIGHEST = -4.5, 7.0
"""Normal scores between which the distribution of t is followed; below it stands in one cell."""

_BLOCK = 64
"""Configs whose differences to all others are held at once."""

Verdict = Literal["winner", "equivalent", "no rival"]
"""The best one is found; the rest differ by less than matters; or all others are without values."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """When a race of several configs is looked at, and what ends it."""

    configs: int
    """How many there are, at least two."""

    looks: tuple[int, ...]
    """Seeds that every config of the race has at each look, ascending; the last is the budget."""

    alpha: float = 0.05
    """Largest probability of a false winner, and of a false equivalence."""

    delta: float | None = None
    """Smallest difference that matters, in units of the score; null asks for a winner alone."""

    resolution: float = 0.0
    """What the scores are rounded to: differences of no spread are given that of the rounding."""

    @property
    def level(self) -> float:
        """Of each ordered pair, over all looks."""
        return self.alpha / (2 * (self.configs - 1))

    @cached_property
    def nominal(self) -> tuple[float, ...]:
        """The one-sided level of a comparison, at each look."""
        spent = (self.level * (n / self.looks[-1]) ** SPENDING_POWER for n in self.looks)
        return nominal_levels(self.looks, tuple(spent))


@dataclass(frozen=True, kw_only=True)
class Look:
    """What is known when every config of the race has some number of seeds.

    Configs are told by their row. Those that left before, and those without values, have None.
    """

    seeds: int
    leader: int | None
    """Best of the race by its mean paired difference to the others; None without any value."""

    racing: tuple[bool, ...]
    """Which configs are in the race after this look."""

    beaten_by: tuple[int | None, ...]
    """For those that this look puts out, a config that is better: the leader where it is, else the
    one that is so with the most certainty."""

    without_values: tuple[bool, ...]
    """Which left because there are less than two values, so that nothing can be said of them."""

    pairs: tuple[int | None, ...]
    """Seeds that the leader and each config share."""

    behind: tuple[float | None, ...]
    """Mean of the leader's score less each config's, over those seeds."""

    low: tuple[float | None, ...]
    """Lower end of its repeated confidence interval: that of two configs covers their difference at
    all looks together in 1 − α / (k − 1) of races at least."""

    high: tuple[float | None, ...]
    """Upper end of it; both are null where there are less than two pairs."""

    verdict: Verdict | None
    """What it comes to; null where the race goes on, or ends with the budget."""


def follow(values: Floats, rule: Rule) -> list[Look]:
    """Look at a race from its start until it is decided, or values end.

    Args:
        values: scores, more is better, shape (configs, seeds) in the order in which seeds are
            added; NaN where a run has none. What lies behind a config's last look is not read.
        rule: of the race.

    Returns:
        The looks that so many seeds allow.
    """
    racing = np.ones(len(values), np.bool_)
    found: list[Look] = []
    for seeds, nominal in zip(rule.looks, rule.nominal, strict=True):
        if seeds > values.shape[1] or (found and found[-1].verdict):
            break
        out = any(one is not None for look in found for one in look.beaten_by)
        found.append(_look(values[:, :seeds], racing, nominal, rule, out_before=out))
        racing = np.asarray(found[-1].racing)
    return found


def seeds_wanted(looks: Sequence[Look], rule: Rule) -> list[int]:
    """How many seeds each config is given until the next look, or was given until it left.

    Args:
        looks: the race so far, as `follow` gives it.
        rule: of the race.

    Returns:
        The number for each config; those of the last look again where the race has ended.
    """
    wanted = [rule.looks[0]] * rule.configs
    for number, look in enumerate(looks):
        if look.verdict is None and number + 1 < len(rule.looks):
            following = rule.looks[number + 1]
            wanted = [
                following if stays else before
                for stays, before in zip(look.racing, wanted, strict=True)
            ]
    return wanted


def _look(values: Floats, racing: Bools, nominal: float, rule: Rule, *, out_before: bool) -> Look:
    """Compare the configs of a race, shape (configs, seeds) with NaN."""
    seen = racing & (np.isfinite(values).sum(axis=1) >= 2)
    rows = np.flatnonzero(seen)
    compared = _compare(values[rows], nominal, rule.resolution)
    worse = compared.low > 0  # [a, b]: b is worse than a
    loses = np.asarray(worse.any(axis=0))
    if loses.all():  # in a circle, which needs missing values: then nobody is out
        loses = np.zeros_like(loses)
    stays = np.flatnonzero(~loses)
    leader = int(stays[np.argmax(_lead(compared.mean[np.ix_(stays, stays)]))]) if len(stays) else 0
    beaten_by: list[int | None] = [None] * len(values)
    for at in np.flatnonzero(loses):
        surest = np.argmax(np.where(worse[:, at], compared.t[:, at], -np.inf))
        beaten_by[rows[at]] = int(rows[leader if worse[leader, at] else surest])
    verdict: Verdict | None = None
    if len(stays) <= 1:
        verdict = "winner" if loses.any() or (out_before and len(stays)) else "no rival"
    elif rule.delta is not None:
        apart = ~np.eye(len(stays), dtype=np.bool_)
        if (compared.high[np.ix_(stays, stays)][apart] < rule.delta).all():
            verdict = "equivalent"

    def against_leader(numbers: Floats) -> tuple[float | None, ...]:
        column: list[float | None] = [None] * len(values)
        for at, row in enumerate(rows.tolist()):
            if at != leader and math.isfinite(numbers[leader, at]):
                column[row] = float(numbers[leader, at])
        return tuple(column)

    return Look(
        seeds=values.shape[1],
        leader=int(rows[leader]) if len(rows) else None,
        racing=tuple(np.isin(np.arange(len(values)), rows[stays]).tolist()),
        beaten_by=tuple(beaten_by),
        without_values=tuple((racing & ~seen).tolist()),
        pairs=tuple(None if n is None else int(n) for n in against_leader(compared.pairs)),
        behind=against_leader(compared.mean),
        low=against_leader(compared.low),
        high=against_leader(compared.high),
        verdict=verdict,
    )


@dataclass(frozen=True, kw_only=True)
class _Compared:
    """Every config against every other, each of shape (configs, configs): row less column."""

    pairs: Floats
    mean: Floats
    t: Floats
    low: Floats
    high: Floats


def _compare(values: Floats, nominal: float, resolution: float) -> _Compared:
    """Paired differences with their t and their interval at a one-sided level.

    Args:
        values: shape (configs, seeds); NaN where a run has none.
        nominal: level of each end of the intervals.
        resolution: what values are rounded to.
    """
    blocks = [
        _paired(values[start : start + _BLOCK], values, resolution)
        for start in range(0, len(values), _BLOCK)
    ]
    empty = np.empty((0, 0))
    pairs, mean, error = (
        (np.concatenate(each) for each in zip(*blocks, strict=True)) if blocks else (empty,) * 3
    )
    some = pairs >= 2
    critical = -stdtrit(np.where(some, pairs - 1, 1), nominal)
    reach = np.where(some, critical * np.where(some, error, 0), np.inf)
    t = np.divide(mean, error, out=np.zeros_like(mean), where=error > 0)
    # Where neither the values nor their rounding leaves room for chance, any difference is certain.
    t = np.where(some & (error == 0) & (mean != 0), np.copysign(np.inf, mean), t)
    return _Compared(pairs=pairs, mean=mean, t=t, low=mean - reach, high=mean + reach)


def _paired(some: Floats, every: Floats, resolution: float) -> tuple[Floats, Floats, Floats]:
    """Pairs, mean difference and its standard error, each of shape (some, every).

    Mean and error are 0 where there are no pairs, and the error is infinite where there is one.
    """
    differences = some[:, np.newaxis] - every[np.newaxis]
    there = np.isfinite(differences)
    pairs = there.sum(axis=2).astype(np.float64)
    at_least_one = np.maximum(pairs, 1)
    mean = np.where(there, differences, 0).sum(axis=2) / at_least_one
    deviations = np.where(there, differences - mean[..., np.newaxis], 0)
    variance = (deviations**2).sum(axis=2) / np.maximum(pairs - 1, 1)
    # The difference of two scores, each rounded, has at least the variance of that rounding.
    variance = np.maximum(variance, resolution**2 / 6)
    return pairs, mean, np.sqrt(variance / at_least_one)


def _lead(mean: Floats) -> Floats:
    """How far each config is ahead of the others on average, of their mean differences."""
    lead: Floats = mean.mean(axis=1)
    return lead


@lru_cache(maxsize=64)
def nominal_levels(looks: tuple[int, ...], spent: tuple[float, ...]) -> tuple[float, ...]:
    """The level of each look, so that the looks up to each have a level together.

    Args:
        looks: pairs at each look, ascending, at least two.
        spent: for each look the one-sided probability that t was above its critical value by then,
            where normal differences have the mean 0.

    Returns:
        For each look the one-sided level of its t test.

    The successive t statistics of normal differences are a Markov chain whose steps do not depend
    on the unknown variance: let u = Σx/√Σx² after n differences, which tells t. The next difference
    over √Σx² is y = T/√n with T of Student's t with n degrees of freedom, independent of u, and the
    next u is (u + y)/√(1 + y²). The distribution of u, without what crossed before, is followed
    step by step in cells of equal width on the scale of normal scores.
    """
    first = looks[0]
    found = [spent[0]]
    centres, edges = _cells(float(-ndtri(spent[0])))
    mass = np.diff(ndtr(edges), prepend=0)[1:]
    mass[0] += ndtr(edges[0])
    for n, target in zip(looks[1:], np.diff(spent).tolist(), strict=True):
        for reached in range(first, n):
            u = _u_of_score(centres, reached)
            highest = _HIGHEST
            if reached + 1 == n:
                highest = _boundary(u, mass, reached, target)
                found.append(float(ndtr(-highest)))
            centres, edges = _cells(highest)
            above = _above(u, _u_of_score(edges[1:], reached + 1), reached)
            kept = mass @ np.concatenate([np.ones((len(u), 1)), above], axis=1)
            mass = -np.diff(kept)
        first = n
    return tuple(found)


def _boundary(u: Floats, mass: Floats, n: int, target: float) -> float:
    """The normal score that the next t is above with a probability, from masses at u after n."""
    from scipy.optimize import brentq  # its import takes long, and most commands need none of it

    def surplus(score: float) -> float:
        c = _u_of_score(np.asarray([score]), n + 1)
        return float(mass @ _above(u, c, n)[:, 0]) - target

    return float(brentq(surplus, _LOWEST, _HIGHEST))


def _cells(highest: float) -> tuple[Floats, Floats]:
    """Centres and edges of the cells up to a normal score."""
    edges = np.linspace(_LOWEST, highest, _CELLS + 1)
    return (edges[:-1] + edges[1:]) / 2, edges


def _u_of_score(score: Floats, n: int) -> Floats:
    """Σx/√Σx² of n differences whose t lies at a normal score of its distribution."""
    t = -np.sign(score) * stdtrit(n - 1, ndtr(-np.abs(score)))
    u: Floats = math.sqrt(n) * t / np.sqrt(n - 1 + t**2)
    return u


def _above(u: Floats, c: Floats, n: int) -> Floats:
    """Probability that u after n + 1 differences is above c, from each u after n.

    Args:
        u: shape (a,).
        c: shape (b,).
        n: differences behind u.

    Returns:
        Shape (a, b).
    """
    negative = c < 0  # which is the opposite tail of the opposite u
    start = np.where(negative, -u[:, np.newaxis], u[:, np.newaxis])
    size = np.broadcast_to(np.abs(c), start.shape)
    inside = 1 + start**2 - size**2
    root = size * np.sqrt(np.maximum(inside, 0))
    scale = math.sqrt(n)
    # (start + y)/√(1 + y²) > size where y lies above a root or, if size > 1, between two.
    one = size < 1
    two = ~one & (inside > 0) & (start > 0)
    tail = np.zeros_like(start)
    tail[one] = stdtr(n, -scale * (root[one] - start[one]) / (1 - size[one] ** 2))
    lead = np.maximum(size[two] ** 2 - 1, 1e-12)
    near, far = (start[two] - root[two]) / lead, (start[two] + root[two]) / lead
    tail[two] = stdtr(n, -scale * near) - stdtr(n, -scale * far)
    return np.where(negative, 1 - tail, tail)
