"""When a race of configs ends: against scipy, what must hold of any, and simulated sweeps."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from sweeps.statistics import holm
from sweeps.statistics.sequential import Look, Rule, follow, nominal_levels, seeds_wanted
from tests.benchmarks import resolving

LOOKS = (4, 6, 10)

SCORES = arrays(
    np.float64,
    st.tuples(st.integers(2, 5), st.just(LOOKS[-1])),
    elements=st.integers(0, 40).map(lambda count: count / 40),
)
"""Of so few images that ties are frequent."""


def race(values: np.ndarray, **settings_: float) -> list[Look]:
    return follow(values, Rule(configs=len(values), looks=LOOKS, **settings_))


# One look, against scipy.


@pytest.mark.parametrize("configs", [2, 3, 8])
def test_one_look_puts_out_whom_a_paired_t_test_finds_worse_than_another(configs: int) -> None:
    rng = np.random.default_rng(configs)
    out = 0
    for _ in range(30):
        values = rng.normal(0.9, 0.01, (configs, 7)) + rng.normal(0, 0.01, (configs, 1))
        (look,) = follow(values, Rule(configs=configs, looks=(7,)))
        for worse in range(configs):
            p = [
                stats.ttest_rel(values[better], values[worse], alternative="greater").pvalue
                for better in range(configs)
                if better != worse
            ]
            is_out = min(p) < 0.05 / (2 * (configs - 1))
            assert (look.beaten_by[worse] is not None) == is_out
            assert look.racing[worse] != is_out
            out += is_out
    assert 0 < out < 30 * configs, "some are put out, and some stay"


def test_the_interval_of_one_look_is_that_of_scipy() -> None:
    values = np.random.default_rng(3).normal(0.9, 0.01, (3, 9))
    rule = Rule(configs=3, looks=(9,))
    (look,) = follow(values, rule)
    leader = int(values.mean(axis=1).argmax())
    assert look.leader == leader
    for other in set(range(3)) - {leader}:
        found = stats.ttest_rel(values[leader], values[other])
        interval = found.confidence_interval(1 - 2 * rule.level)
        assert look.behind[other] == pytest.approx((values[leader] - values[other]).mean())
        assert (look.low[other], look.high[other]) == pytest.approx(tuple(interval))
        assert look.pairs[other] == 9


# The level of repeated looks.


@pytest.mark.parametrize("looks", [(6, 12, 18, 24, 30), (3, 4, 5, 6), (4, 20)])
@pytest.mark.parametrize("level", [0.025, 0.005])
def test_t_crosses_the_nominal_levels_as_often_as_is_spent(
    looks: tuple[int, ...], level: float
) -> None:
    """200,000 series of normal differences: within three standard errors of what was asked for."""
    spent = tuple(level * (n / looks[-1]) ** 2 for n in looks)
    nominal = nominal_levels(looks, spent)
    paths = 200_000
    x = np.random.default_rng(0).standard_normal((paths, looks[-1]))
    crossed = np.zeros(paths, np.bool_)
    for n, level_now, by_now in zip(looks, nominal, spent, strict=True):
        part = x[:, :n]
        t = part.mean(axis=1) / part.std(axis=1, ddof=1) * np.sqrt(n)
        crossed |= t > stats.t.isf(level_now, n - 1)
        error = np.sqrt(by_now / paths)
        # The cells smear the distribution a little, to the safe side.
        assert 0.97 * by_now - 3 * error < crossed.mean() < by_now + 3 * error


def test_one_look_has_all_of_the_level() -> None:
    assert nominal_levels((8,), (0.01,)) == (0.01,)


@given(first=st.integers(3, 8), steps=st.lists(st.integers(1, 6), min_size=1, max_size=4))
@settings(max_examples=20, deadline=None)
def test_levels_grow_from_look_to_look_and_stay_below_what_is_spent(
    first: int, steps: list[int]
) -> None:
    looks = tuple(np.cumsum([first, *steps]).tolist())
    rule = Rule(configs=3, looks=looks)
    increments = np.diff([0, *(rule.level * (n / looks[-1]) ** 2 for n in looks)])
    for nominal, increment in zip(rule.nominal, increments, strict=True):
        # What crosses now mostly crossed before, so more is allowed than is newly spent.
        assert 0.97 * increment < nominal <= rule.level


# What must hold of any race.


@given(values=SCORES, delta=st.sampled_from([None, 0.05, 0.5]))
@settings(deadline=None)
def test_who_is_out_stays_out_and_one_verdict_ends_the_race(
    values: np.ndarray, delta: float | None
) -> None:
    looks = race(values, delta=delta, resolution=1 / 40)
    for before, after in itertools.pairwise(looks):
        assert before.verdict is None
        assert not any(
            now and not then for now, then in zip(after.racing, before.racing, strict=True)
        )
    last = looks[-1]
    assert (last.verdict == "winner") == (sum(last.racing) == 1)
    assert last.leader is not None
    assert last.racing[last.leader], "the leader is never out"
    assert len(looks) == len(LOOKS) or last.verdict is not None


@given(values=SCORES, data=st.data())
@settings(deadline=None)
def test_the_order_of_configs_and_of_seeds_between_looks_decides_nothing(
    values: np.ndarray, data: st.DataObject
) -> None:
    configs = data.draw(st.permutations(range(len(values))))
    bounds = (0, *LOOKS)
    seeds = [
        seed
        for start, end in itertools.pairwise(bounds)
        for seed in data.draw(st.permutations(range(start, end)))
    ]
    first = race(values, resolution=1 / 40)
    second = race(values[configs][:, seeds], resolution=1 / 40)
    assert [look.verdict for look in first] == [look.verdict for look in second]
    for a, b in zip(first, second, strict=True):
        assert [a.racing[config] for config in configs] == list(b.racing)


@given(values=SCORES, shift=arrays(np.float64, LOOKS[-1], elements=st.integers(-8, 8)))
@settings(deadline=None)
def test_what_a_seed_adds_to_every_config_decides_nothing(
    values: np.ndarray, shift: np.ndarray
) -> None:
    found, shifted = race(values, resolution=0.01), race(values + shift, resolution=0.01)
    assert [look.racing for look in found] == [look.racing for look in shifted]


@given(values=SCORES)
@settings(deadline=None)
def test_seeds_behind_a_look_and_those_of_whom_is_out_are_not_read(values: np.ndarray) -> None:
    whole = race(values, resolution=1 / 40)
    wanted = seeds_wanted(whole, Rule(configs=len(values), looks=LOOKS))
    hidden = values.copy()
    for row, count in enumerate(wanted):
        hidden[row, count:] = np.nan
    assert race(hidden, resolution=1 / 40) == whole


# Ties, gaps and rounding.


def test_equal_scores_are_never_a_winner_and_with_a_delta_a_tie_at_once() -> None:
    values = np.tile(np.linspace(0.8, 0.9, LOOKS[-1]), (3, 1))
    assert [look.verdict for look in race(values)] == [None] * len(LOOKS)
    (look,) = race(values, delta=0.001)
    assert look.verdict == "equivalent"


def test_differences_that_are_equal_by_rounding_alone_are_not_taken_for_certain() -> None:
    """Four differences of one image of 100 each have no spread, and say little."""
    values = np.tile(np.linspace(0.80, 0.89, LOOKS[-1]), (2, 1))
    values[0] += 0.01
    (certain,) = race(values)
    assert certain.verdict == "winner"
    first, *_ = race(values, resolution=0.01)
    assert first.verdict is None


def test_a_config_without_scores_leaves_and_is_not_called_worse() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0.9, 0.01, (3, LOOKS[-1]))
    values[1] = np.nan
    first, *_ = race(values)
    assert first.without_values == (False, True, False)
    assert first.racing == (True, False, True)
    assert first.beaten_by[1] is None


def test_without_any_rival_nothing_is_won() -> None:
    values = np.full((2, LOOKS[-1]), np.nan)
    assert [look.verdict for look in race(values)] == ["no rival"]
    values[0] = 0.9
    assert [look.verdict for look in race(values)] == ["no rival"]


def test_a_seed_that_one_config_lacks_counts_for_pairs_without_it() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(0.9, 0.01, (2, LOOKS[-1]))
    values[0, 2] = np.nan
    look = race(values)[-1]
    both = np.delete(values, 2, axis=1)
    behind = 1 - int(look.leader or 0)
    assert look.pairs[behind] == LOOKS[-1] - 1
    assert look.behind[behind] == pytest.approx(abs((both[0] - both[1]).mean()))


def test_seeds_are_added_to_those_alone_that_are_undecided() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(0.9, 0.01, (3, LOOKS[-1]))
    values[2] -= 0.5
    rule = Rule(configs=3, looks=LOOKS)
    assert seeds_wanted([], rule) == [4, 4, 4]
    looks = follow(values, rule)
    assert looks[0].racing == (True, True, False)
    assert [seeds_wanted(looks[:number], rule) for number in (1, 2, 3)] == [
        [6, 6, 4],
        [10, 10, 4],
        [10, 10, 4],
    ]


# Simulated sweeps. `python -m tests.benchmarks.resolving` prints all of them.


def test_simulated_sweeps_have_a_false_winner_in_five_percent_at_most() -> None:
    """1,600 sweeps: every noise, 2, 4 and 12 configs, ties of all and of two."""
    found: Counter[str] = Counter()
    for name, noise in resolving.NOISES.items():
        for truth in (resolving.all_tied, resolving.two_tied):
            for configs, sweeps in ((2, 100), (4, 60), (12, 40)):
                rng = np.random.default_rng([11, configs])
                rule = resolving.rule_for(configs)
                outcome = resolving.simulate(rule, truth(configs), noise, sweeps, rng)
                found["sweeps"] += outcome.sweeps
                found[name] += outcome.false
                found["false"] += outcome.false
    assert found["sweeps"] == 1_600
    assert found["false"] / found["sweeps"] <= 0.05


@pytest.mark.parametrize("noise", ["normal", "uneven"])
def test_two_tied_configs_have_a_false_winner_in_five_percent_of_sweeps(noise: str) -> None:
    """The case that uses the promise up: not significantly above it, in 1,000 sweeps."""
    rng = np.random.default_rng(5)
    rule = resolving.rule_for(2)
    found = resolving.simulate(rule, np.zeros(2), resolving.NOISES[noise], 1_000, rng)
    assert stats.binomtest(found.false, 1_000, 0.05, alternative="greater").pvalue > 0.01
    assert found.false > 20, "the promise is not kept by never deciding"


def test_configs_as_far_apart_as_matters_are_called_a_tie_in_five_percent_at_most() -> None:
    rng = np.random.default_rng(6)
    rule = resolving.rule_for(2, delta=resolving.DELTA)
    apart = np.asarray([resolving.DELTA, 0])
    found = resolving.simulate(rule, apart, resolving.normal, 500, rng)
    assert found.false_equivalent <= 0.05 * 500
    tied = resolving.simulate(rule, np.zeros(2), resolving.normal, 200, rng)
    assert tied.equivalent > 0.8 * 200, "a tie is found to be one"
    assert tied.seeds < 2 * 26


def test_a_fixed_design_of_equal_power_needs_more_seeds() -> None:
    """Four configs fanned out from a spread of seeds behind the best: more than a third saved."""
    means = resolving.fanned(4, 1.0)
    ours = resolving.simulate(
        resolving.rule_for(4), means, resolving.normal, 400, np.random.default_rng(7)
    )
    fixed = resolving.simulate(
        resolving.rule_for(4, looks=(25,)), means, resolving.normal, 400, np.random.default_rng(7)
    )
    assert ours.right >= fixed.right
    assert ours.seeds < 0.66 * fixed.seeds


@pytest.mark.long
def test_every_kind_of_simulated_sweep_has_a_false_winner_in_five_percent_at_most() -> None:
    """2,000 sweeps of each: 4 noises, 4 truths, 2, 4 and 12 configs; and ties to find."""
    for name, case, configs, outcome in resolving.false_winners(2_000):
        if name in resolving.NOISES:
            p = stats.binomtest(outcome.false, outcome.sweeps, 0.05, alternative="greater").pvalue
            assert p > 0.001, (name, case, configs)
    for name, case, configs, outcome in resolving.equivalences(2_000):
        assert outcome.share(outcome.false_equivalent) <= 0.05, (name, case, configs)


@pytest.mark.long
def test_other_rules_of_the_same_guarantee_are_weaker_or_take_more_seeds() -> None:
    found = {
        (configs, ahead, name): outcome
        for configs, ahead, name, outcome in resolving.compare_rules(1_000)
    }
    own = "spent as (n/N)²"
    for configs in resolving.CONFIGS:
        narrow, clear = (configs, 1.0), (configs, 3.0)
        assert found[*clear, own].seeds < found[*clear, "as O'Brien and Fleming"].seeds
        assert found[*narrow, own].right > found[*narrow, "as Pocock"].right
        assert found[*narrow, own].right > 1.2 * found[*narrow, "anytime-valid"].right


@pytest.mark.long
@pytest.mark.parametrize(
    ("configs", "validation"), [(2, 0.065), (4, 0.075), (6, 0.095)], ids=["two", "four", "six"]
)
def test_p_values_after_a_race_are_a_little_too_small_as_reports_say(
    configs: int, validation: float
) -> None:
    """All are tied. The test split, of which a race sees nothing, goes with validation by 0.9."""
    rng = np.random.default_rng(configs)
    rule = Rule(configs=configs, looks=(6, 12, 18, 24, 30))
    first, second = np.triu_indices(configs, 1)
    false = np.zeros(2)
    for _ in range(4_000):
        seen = rng.normal(size=(configs, 30))
        unseen = 0.9 * seen + np.sqrt(1 - 0.9**2) * rng.normal(size=seen.shape)
        counts = seeds_wanted(follow(seen, rule), rule)
        there = np.arange(30) < np.asarray(counts)[:, np.newaxis]
        for place, scores in enumerate((unseen, seen)):
            kept = np.where(there, scores, np.nan)
            test = stats.ttest_rel(kept[first], kept[second], axis=1, nan_policy="omit")
            false[place] += bool((holm(np.asarray(test.pvalue)) < 0.05).any())
    assert false / 4_000 == pytest.approx([0.06, validation], abs=0.015)
