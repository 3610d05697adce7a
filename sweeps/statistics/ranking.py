"""How sure a ranking is: who is first, which places are possible, who cannot be told apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import nctdtr, stdtrit

_RESAMPLES = 9_999
_CONFIDENCE = 0.95

_SIGNS_AT_ONCE = 2_000_000
"""Comparisons of two configs in one resample that are held in memory together."""

_SIGNS = 20_000_000
"""Comparisons that Kendall's tau is given; with hundreds of configs it sees fewer resamples."""

_DIGITS = 12
"""Means that agree to so many digits of the largest are a tie: sums are rounded in some order."""

_MOST_SEEDS = 1_000_000
"""No number of seeds above this is given."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The places of some configs; arrays are of shape (configs,), NaN where a config has no run."""

    n: npt.NDArray[np.int64]
    """Runs with a value."""

    mean: npt.NDArray[np.float64]

    rank: npt.NDArray[np.float64]
    """By mean, 1 is the best; ties share the mean of their places."""

    p_best: npt.NDArray[np.float64]
    """Share of the widened resamples in which it is first; k that tie for it have 1/k each."""

    rank_low: npt.NDArray[np.float64]
    """The 2.5 % quantile of its places in the resamples."""

    rank_high: npt.NDArray[np.float64]
    """The 97.5 % quantile."""

    tau: float | None
    """Kendall's tau-b of a resampled ranking and the observed one, its mean over the resamples;
    null where it is undefined in each: below two configs, or all tied."""

    tau_low: float | None
    """Its 2.5 % quantile."""

    tau_high: float | None
    """Its 97.5 % quantile."""


def rank_stability(
    values: npt.NDArray[np.float64],
    rng: np.random.Generator,
    *,
    higher_is_better: bool,
    resamples: int = _RESAMPLES,
) -> Ranking:
    """Rank configs by their mean over seeds, and again in bootstrap resamples of the seeds.

    The same seeds are drawn for all configs, since runs of one seed are paired. The order of the
    seeds changes nothing, nor that of the configs unless two seeds hold the same values.

    Means of resamples of few seeds spread too little, and as if that spread were known. So how far
    a resample takes a mean of n runs from the one observed is multiplied by √(n / χ²), with χ² of
    n − 1 degrees of freedom drawn for each resample, of all configs together: the resampled mean is
    distributed about as Student's t says, and of two configs one is first as often as one minus the
    one-sided p of their paired t test.

    So `p_best` is the probability of being the best for whoever knew nothing of the configs. Who
    knew that they hardly differ would be less sure. In simulated sweeps of 2 to 8 configs and 3 to
    10 seeds the leader's `p_best` on average and the share of sweeps in which it was truly the best
    agree to 0.04 where configs spread as much as runs of one do, or twice as much. Where they
    spread by 0.3 of that it is too high: 0.64 on average for 0.50 with 4 configs and 6 seeds, and
    0.94 for 0.76 where it is 0.9 or more. Of four equal configs one has 0.95 or more in 1 % of
    sweeps, of two in 10 %. Shares of plain resamples (Efron & Tibshirani 1993, chapter 6) would
    say 0.84 for 0.80 even where configs spread as runs do.

    A missing run, NaN, is left out of the means of its config: one that lacks a hard seed looks
    better than it is. In a resample in which none of a config's runs is drawn it has no place; the
    others are ranked without it, and it is not first. With one seed every resample is the
    observation, so that nothing is learnt: intervals, `p_best` and tau are then undefined (NaN and
    null) unless there is but one config.

    Args:
        values: shape (configs, seeds).
        rng: of the resamples.
        higher_is_better: whether place 1 is that of the largest mean.
        resamples: how many.
    """
    sign = 1 if higher_is_better else -1
    scores = _in_seed_order(sign * values)
    there = ~np.isnan(scores)
    counts = there.sum(axis=1)
    configs, seeds = scores.shape
    ranked = counts > 0
    mean = _means(np.ones((1, seeds)), scores)[0]
    rank = _places(mean[np.newaxis])[0]
    nothing = np.full(configs, np.nan)
    observed = {"n": counts, "mean": sign * mean, "rank": rank}
    if ranked.sum() == 1:
        alone = np.where(ranked, 1.0, np.nan)
        return Ranking(
            **observed, p_best=alone, rank_low=alone, rank_high=alone,
            tau=None, tau_low=None, tau_high=None,
        )  # fmt: skip
    if not ranked.any() or seeds < 2:
        return Ranking(
            **observed, p_best=nothing, rank_low=nothing, rank_high=nothing,
            tau=None, tau_low=None, tau_high=None,
        )  # fmt: skip
    drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples).astype(np.float64)
    places = _places(_widened(_means(drawn, scores), mean, counts, rng))
    first = places == np.fmin.reduce(places, axis=1)[:, np.newaxis]
    shared = first / first.sum(axis=1)[:, np.newaxis]
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.full((2, configs), np.nan)
    low[ranked], high[ranked] = np.nanquantile(
        places[:, ranked], [tail, 1 - tail], axis=0, method="inverted_cdf"
    )
    taus = np.concatenate([*_taus(places, rank)])
    taus = taus[~np.isnan(taus)]
    tau_low, tau_high = np.quantile(taus, [tail, 1 - tail]) if len(taus) else (None, None)
    return Ranking(
        **observed,
        p_best=np.where(ranked, shared.mean(axis=0), np.nan),
        rank_low=low,
        rank_high=high,
        tau=float(taus.mean()) if len(taus) else None,
        tau_low=None if tau_low is None else float(tau_low),
        tau_high=None if tau_high is None else float(tau_high),
    )


def _in_seed_order(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Seeds with a run, in an order that depends on what they hold alone.

    Seeds that hold the same in other configs are in the order of the first config that differs.
    """
    kept = scores[:, ~np.isnan(scores).all(axis=0)]
    if not kept.size:
        return kept
    keys = np.nan_to_num(np.vstack([kept, np.sort(kept, axis=0)]), nan=np.inf)
    return kept[:, np.lexsort(keys)]


def _means(
    drawn: npt.NDArray[np.float64], scores: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Mean of each config in each resample; NaN where none of its runs was drawn.

    Args:
        drawn: how often each seed was drawn: (resamples, seeds).
        scores: shape (configs, seeds).

    Returns:
        Shape (resamples, configs).
    """
    there = ~np.isnan(scores)
    # Sums about the middle lose no digits of what differs.
    middle = np.nanmedian(scores) if there.any() else 0.0
    sums = drawn @ np.where(there, scores - middle, 0.0).T
    counts = drawn @ there.T.astype(np.float64)
    means = np.full(sums.shape, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    scale = np.abs(scores - middle)[there].max(initial=0.0)
    if scale > 0:
        means = np.round(means / scale, _DIGITS) * scale
    return means + middle


def _widened(
    means: npt.NDArray[np.float64],
    observed: npt.NDArray[np.float64],
    counts: npt.NDArray[np.int64],
    rng: np.random.Generator,
) -> npt.NDArray[np.float64]:
    """Resampled means as far from the observed ones as so few runs ask for.

    Args:
        means: shape (resamples, configs), NaN where none of its runs was drawn.
        observed: shape (configs,), NaN without a run.
        counts: runs of each config, of the same shape; one run has no spread to widen.
        rng: of the draws of χ².
    """
    wider = np.ones(means.shape)
    chi, freedom = np.zeros(len(means)), 0
    for n in np.unique(counts[counts > 1]).tolist():
        # What fewer runs draw is part of what more runs do: a resample is as far off for all.
        chi += rng.chisquare(n - 1 - freedom, len(means))
        freedom = n - 1
        wider[:, counts == n] = np.sqrt(n / chi)[:, np.newaxis]
    found: npt.NDArray[np.float64] = observed + (means - observed) * wider
    return found


def _places(means: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Places of each row's values, 1 for the largest, ties sharing; NaN has none."""
    losses = np.where(np.isnan(means), np.inf, -means)
    order = np.argsort(losses, axis=1, kind="stable")
    ordered = np.take_along_axis(losses, order, axis=1)
    positions = np.broadcast_to(np.arange(means.shape[1]), means.shape)
    starts = np.ones(means.shape, np.bool_)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    ends = np.ones(means.shape, np.bool_)
    ends[:, :-1] = starts[:, 1:]
    first = np.maximum.accumulate(np.where(starts, positions, 0), axis=1)
    last = np.where(ends, positions, means.shape[1])
    last = np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
    places = np.empty(means.shape)
    np.put_along_axis(places, order, (first + last) / 2 + 1, axis=1)
    places[np.isnan(means)] = np.nan
    return places


def _taus(
    places: npt.NDArray[np.float64], observed: npt.NDArray[np.float64]
) -> Iterator[npt.NDArray[np.float64]]:
    """Kendall's tau-b of rankings, (resamples, configs), with one, (configs,), in parts.

    NaN where it is undefined. Configs without a place in a ranking are left out there.
    """
    ranked = ~np.isnan(observed)
    # Places are halves of whole numbers: single precision holds them, and counts of pairs, exactly.
    own = observed[ranked].astype(np.float32)
    sign = np.sign(own[:, np.newaxis] - own).reshape(-1)  # every pair twice, which cancels out
    seen = places[: max(10, _SIGNS // max(1, len(sign))), ranked].astype(np.float32)
    step = max(1, _SIGNS_AT_ONCE // max(1, len(sign)))
    for start in range(0, len(seen), step):
        part = seen[start : start + step]
        signs = np.sign(part[:, :, np.newaxis] - part[:, np.newaxis, :]).reshape(len(part), -1)
        untied_observed = np.full(len(part), np.count_nonzero(sign), np.float64)
        if np.isnan(part).any():
            missing = np.isnan(signs)
            untied_observed -= missing @ np.abs(sign)
            signs[missing] = 0
        both = signs @ sign
        untied = np.einsum("ij,ij->i", signs, signs).astype(np.float64)  # signs are −1, 0 or 1
        product = np.sqrt(untied * untied_observed)
        tau = np.full(len(part), np.nan)
        np.divide(both, product, out=tau, where=product > 0)
        yield tau


def cd_groups(
    different: npt.NDArray[np.bool_], rank: npt.NDArray[np.float64] | None = None
) -> list[str]:
    """Letters by which configs that were not told apart are known: a compact letter display.

    Two configs share a letter if, and only if, they are not known to differ. Found by inserting the
    differences one by one and absorbing what is contained in another (Piepho 2004, J. Comput.
    Graph. Stat. 13(2), section 2); a letter that is not needed for any pair is then dropped
    (section 4, sweeping).

    Which differences are known is the caller's to say, such as by Holm's correction of an exact
    test; what was not compared is not known to differ.

    Args:
        different: symmetric, shape (configs, configs).
        rank: shape (configs,); the letter `a` goes to the group of the best. By default the order
            of the configs.

    Returns:
        For each config its letters in order: `a` to `z`, then `a1` to `z1`, `a2` and so on.

    Raises:
        ValueError: not symmetric, or a config that differs from itself.
    """
    if not np.array_equal(different, different.T) or np.diag(different).any():
        raise ValueError("must be symmetric, and no config differs from itself")
    configs = len(different)
    groups = [frozenset(range(configs))] if configs else []
    for one, other in np.argwhere(np.triu(different)).tolist():
        groups = _insert(groups, one, other)
    places = np.arange(configs, dtype=np.float64) if rank is None else rank
    order = np.argsort(places, kind="stable").tolist()
    position = {config: place for place, config in enumerate(order)}
    groups = _swept(groups, ~different)
    groups.sort(key=lambda group: sorted(position[config] for config in group))
    return [
        "".join(_letter(number) for number, group in enumerate(groups) if config in group)
        for config in range(configs)
    ]


def _insert(groups: Sequence[frozenset[int]], one: int, other: int) -> list[frozenset[int]]:
    """Split the groups that hold both of two configs that differ, and absorb what is contained."""
    kept = [group for group in groups if not {one, other} <= group]
    for group in groups:
        if {one, other} <= group:
            for left_out in (one, other):
                part = group - {left_out}
                if not any(part <= each for each in kept):
                    kept = [each for each in kept if not each <= part]
                    kept.append(part)
    return kept


def _swept(groups: Sequence[frozenset[int]], alike: npt.NDArray[np.bool_]) -> list[frozenset[int]]:
    """Drop groups whose every pair, and every config, is in another group as well."""
    shared = np.zeros(alike.shape, np.int64)
    for group in groups:
        members = sorted(group)
        shared[np.ix_(members, members)] += 1
    kept = []
    # The smallest are the likeliest to be dispensable.
    for group in sorted(groups, key=lambda each: (len(each), sorted(each))):
        members = sorted(group)
        block = np.ix_(members, members)
        if (shared[block] > 1).all():
            shared[block] -= 1
        else:
            kept.append(group)
    return kept


def _letter(number: int) -> str:
    round_, letter = divmod(number, 26)
    return chr(ord("a") + letter) + (str(round_) if round_ else "")


def seeds_needed_each(
    differences: npt.NDArray[np.float64], *, power: float = 0.8, alpha: float = 0.05
) -> list[int | None]:
    """The least numbers of seeds by which a paired t test would find the differences seen.

    Exact for normal differences: by the noncentral t distribution, both tails counted. Their
    spread is taken as known from the pairs there are; of few pairs it is a rough guess.

    Args:
        differences: shape (rows, n), each row paired by seed; NaN is left out.
        power: the probability of finding one.
        alpha: of the two-sided test. Of a comparison that is corrected for others, Bonferroni's
            share: Holm's is that for the least p, and laxer for the others.

    Returns:
        Of each row at least 2; null below two pairs, where there is no difference to find, and
        above a million.
    """
    sizes = np.full(len(differences), np.nan)
    for row, values in enumerate(differences):
        kept = values[~np.isnan(values)]
        wanted = abs(float(kept.mean())) if len(kept) >= 2 else 0.0
        if wanted != 0 and math.isfinite(wanted):
            spread = 0.0 if np.ptp(kept) == 0 else float(kept.std(ddof=1))
            sizes[row] = wanted / spread if spread > 0 else math.inf
    return [n or None for n in _least_pairs(sizes, power, alpha).tolist()]


def _least_pairs(
    sizes: npt.NDArray[np.float64], power: float, alpha: float
) -> npt.NDArray[np.int64]:
    """The least n with which a paired t test has some power, at least 2; 0 where there is none.

    Args:
        sizes: differences over their standard deviation; NaN where there is none to find.
        power: that is wanted.
        alpha: of the test.
    """
    found = np.where(sizes > 1e6, 2, 0)
    rows = np.flatnonzero(sizes <= 1e6)
    most = np.full(len(rows), _MOST_SEEDS)
    rows = rows[_powers(sizes[rows], most, alpha) >= power]
    low, high = np.ones(len(rows), np.int64), np.full(len(rows), 2)
    while (short := _powers(sizes[rows], high, alpha) < power).any():
        low = np.where(short, high, low)
        high = np.where(short, np.minimum(2 * high, _MOST_SEEDS), high)
    while (high - low > 1).any():
        middle = np.maximum(2, (low + high) // 2)
        few = _powers(sizes[rows], middle, alpha) < power
        low, high = np.where(few, middle, low), np.where(few, high, middle)
    found[rows] = high
    return found


def paired_t_power(size: float, n: int, alpha: float = 0.05) -> float:
    """The probability that a two-sided paired t test of n pairs finds a difference.

    Args:
        size: the difference over its standard deviation, at least 0.
        n: pairs, at least 2.
        alpha: of the test.
    """
    return float(_powers(np.asarray([size]), np.asarray([n]), alpha)[0])


def _powers(
    sizes: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], alpha: float
) -> npt.NDArray[np.float64]:
    """The same of several sizes and numbers of pairs, shape (rows,) each."""
    freedom = counts - 1
    critical = stdtrit(freedom, 1 - alpha / 2)
    shift = sizes * np.sqrt(counts)
    # So far out that it is 0 in double precision, scipy has NaN.
    inside, beyond = np.nan_to_num(nctdtr(freedom, shift, np.stack([critical, -critical])))
    power: npt.NDArray[np.float64] = 1 - inside + beyond
    return power
