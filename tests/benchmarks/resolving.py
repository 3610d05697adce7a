"""Simulated sweeps until they are resolved: false winners, seeds saved, and other rules.

python -m tests.benchmarks.resolving          false winners and seeds saved: minutes
python -m tests.benchmarks.resolving rules    other rules with the same guarantee

Scores are drawn with the spread over seeds that CIFAKE's runs had (`results/placements`: validation
accuracy, 6 seeds), rounded to images, and go through the rule as those of a sweep do. No network is
trained. Everything is seeded.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri, stdtr

from sweeps.statistics.sequential import Rule, follow, nominal_levels, seeds_wanted

Floats = npt.NDArray[np.float64]

LOOKS = (6, 12, 18, 24, 30)
"""Of a study with 6 seeds and the default budget."""

CONFIGS = (2, 4, 12)
IMAGES = 5_000
ALPHA = 0.05

_SUMMARY = Path(__file__).parents[2] / "results" / "placements" / "summary.parquet"


@cache
def spreads(epochs: int) -> tuple[float, ...]:
    """Standard deviations over seeds of validation accuracy, of each config of `placements`."""
    rows = pq.read_table(_SUMMARY).to_pylist()
    return tuple(
        row["std"]
        for row in rows
        if (row["metric"], row["split"], row["epochs"]) == ("accuracy", "validation", epochs)
    )


def _typical(epochs: int = 10) -> float:
    return math.sqrt(sum(std**2 for std in spreads(epochs)) / len(spreads(epochs)))


def _own(configs: int, epochs: int) -> Floats:
    """A spread for each config, (configs, 1): those that were measured, in turns."""
    return np.resize(spreads(epochs), configs)[:, np.newaxis]


def normal(rng: np.random.Generator, configs: int, seeds: int) -> Floats:
    """The same spread for every config."""
    return _typical() * rng.standard_normal((configs, seeds))


def heavy(rng: np.random.Generator, configs: int, seeds: int) -> Floats:
    """The same spread, of Student's t with 3 degrees of freedom."""
    return _typical() * rng.standard_t(3, (configs, seeds)) / math.sqrt(3)


def uneven(rng: np.random.Generator, configs: int, seeds: int) -> Floats:
    """The spread of each config as it was after 10 epochs, and part of it common to a seed."""
    common = 0.5 * _typical() * rng.standard_normal(seeds)
    return common + _own(configs, 10) * rng.standard_normal((configs, seeds))


def uneven_heavy(rng: np.random.Generator, configs: int, seeds: int) -> Floats:
    """The spread of each config as it was after 1 epoch, 3.5 to 12 points, of t with 3 degrees."""
    return _own(configs, 1) * rng.standard_t(3, (configs, seeds)) / math.sqrt(3)


def ruined(rng: np.random.Generator, configs: int, seeds: int) -> Floats:
    """Every other config loses 20 points with one seed in ten, and is better with the others.

    What the rule does not promise anything for: the mean of such a config depends on rare seeds,
    which the first ones may not show.
    """
    share, fall = 0.1, 0.2
    lost = (rng.random((configs, seeds)) < share) - share
    concerned = np.arange(configs)[:, np.newaxis] % 2
    return normal(rng, configs, seeds) - fall * concerned * lost


Noise = Callable[[np.random.Generator, int, int], Floats]

NOISES: Mapping[str, Noise] = {
    "normal": normal,
    "heavy tails": heavy,
    "uneven": uneven,
    "uneven, heavy tails": uneven_heavy,
}

OUTSIDE: Mapping[str, Noise] = {"rare ruin": ruined}
"""What no promise is made for."""


def all_tied(configs: int) -> Floats:
    """Every config is as good."""
    return np.zeros(configs)


def two_tied(configs: int) -> Floats:
    """Two are as good, and the others worse by up to four spreads."""
    return np.concatenate([[0.0, 0.0], -_typical() * np.linspace(1, 4, configs - 2)])


def one_best(configs: int, ahead: float = 0.5) -> Floats:
    """One is ahead of all others, which are tied, by some spreads."""
    return np.where(np.arange(configs) == 0, _typical() * ahead, 0.0)


def fanned(configs: int, ahead: float = 0.5) -> Floats:
    """One is ahead of the next by some spreads, and the others are up to six spreads worse."""
    others = np.linspace(ahead, max(6, ahead), configs - 1)
    return np.concatenate([[0.0], -_typical() * others])


Truth = Callable[[int], Floats]

TRUTHS: Mapping[str, Truth] = {
    "all tied": all_tied,
    "two tied": two_tied,
    "one best": one_best,
    "fanned out": fanned,
}


@dataclass(frozen=True)
class Outcome:
    """What some simulated sweeps came to."""

    sweeps: int
    right: int
    """Sweeps that ended with the best config as the winner."""

    false: int
    """Sweeps that ended with another winner, or with one among ties."""

    equivalent: int
    false_equivalent: int
    """Sweeps that ended as a tie though the configs left differ by more."""

    seeds: float
    """Mean over sweeps of the seeds of all configs."""

    def share(self, count: int) -> float:
        """Of the sweeps."""
        return count / self.sweeps


def simulate(
    rule: Rule, truth: Floats, noise: Noise, sweeps: int, rng: np.random.Generator
) -> Outcome:
    """Run sweeps whose configs have true means, shape (configs,), until they are resolved."""
    configs, most = len(truth), rule.looks[-1]
    best = np.flatnonzero(truth == truth.max())
    right = false = equivalent = false_equivalent = seeds = 0
    for _ in range(sweeps):
        exact = 0.9 + truth[:, np.newaxis] + noise(rng, configs, most)
        looks = follow(np.round(exact * IMAGES) / IMAGES, rule)
        seeds += sum(seeds_wanted(looks, rule))
        last = looks[-1]
        left = np.flatnonzero(last.racing)
        if last.verdict == "winner":
            is_right = len(best) == 1 and left[0] == best[0]
            right += is_right
            false += not is_right
        elif last.verdict == "equivalent":
            equivalent += 1
            false_equivalent += bool(np.ptp(truth[left]) >= (rule.delta or 0))
    return Outcome(sweeps, right, false, equivalent, false_equivalent, seeds / sweeps)


def rule_for(configs: int, looks: tuple[int, ...] = LOOKS, delta: float | None = None) -> Rule:
    """The rule of a sweep with the default budget."""
    return Rule(configs=configs, looks=looks, alpha=ALPHA, delta=delta, resolution=1 / IMAGES)


def fixed(configs: int, seeds: int) -> Rule:
    """A design without looks: so many seeds for every config, compared once."""
    return rule_for(configs, looks=(seeds,))


def false_winners(sweeps: int, seed: int = 0) -> Iterator[tuple[str, str, int, Outcome]]:
    """Noise, truth and number of configs of some simulated sweeps, and what they came to."""
    for name, noise in {**NOISES, **OUTSIDE}.items():
        for case, truth in TRUTHS.items():
            for configs in CONFIGS:
                rng = np.random.default_rng([seed, configs])
                yield (
                    name,
                    case,
                    configs,
                    simulate(rule_for(configs), truth(configs), noise, sweeps, rng),
                )


DELTA = 0.005
"""Half a point: a smallest difference that matters."""


def equivalences(sweeps: int, seed: int = 3) -> Iterator[tuple[str, str, int, Outcome]]:
    """The rule with a smallest difference, where configs are tied and where one is as far ahead."""
    for name, noise in NOISES.items():
        for case, gap in (("all tied", 0.0), ("one ahead by delta", DELTA)):
            for configs in CONFIGS:
                rng = np.random.default_rng([seed, configs])
                truth = gap * (np.arange(configs) == 0)
                rule = rule_for(configs, delta=DELTA)
                yield name, case, configs, simulate(rule, truth, noise, sweeps, rng)


@dataclass(frozen=True)
class Saving:
    """The rule against a fixed design of the same guarantee and at least its power."""

    configs: int
    case: str
    ahead: float
    power: float
    """Share of sweeps with the right winner."""

    seeds: float
    """Mean over sweeps, of all configs."""

    fixed_seeds: int
    """Of each config, in the least fixed design with that power, or 99 % where that is less."""

    @property
    def saved(self) -> float:
        """Share of the fixed design's seeds."""
        return 1 - self.seeds / (self.fixed_seeds * self.configs)


def savings(sweeps: int, seed: int = 1) -> Iterator[Saving]:
    """The rule and fixed designs on the same kinds of sweeps, with normal noise."""
    for configs in CONFIGS:
        for case, truth in (("one best", one_best), ("fanned out", fanned)):
            for ahead in (0.7, 1.0, 1.5, 3.0):
                means = truth(configs, ahead)
                draw = partial(np.random.default_rng, [seed, configs])
                found = simulate(rule_for(configs), means, normal, sweeps, draw())
                power = found.share(found.right)
                needed = _least_fixed(configs, means, min(power, 0.99), sweeps, draw)
                yield Saving(configs, case, ahead, power, found.seeds, needed)


def _least_fixed(
    configs: int,
    means: Floats,
    power: float,
    sweeps: int,
    draw: Callable[[], np.random.Generator],
) -> int:
    """Seeds of each config in the least fixed design with a power, by bisection."""
    low, high = 2, 60
    while low < high:
        middle = (low + high) // 2
        found = simulate(fixed(configs, middle), means, normal, sweeps, draw())
        low, high = (low, middle) if found.share(found.right) >= power else (middle + 1, high)
    return low


@dataclass(frozen=True, kw_only=True)
class Spending(Rule):
    """The rule with another spending of its level."""

    spend: Callable[[float, float], float]
    """From the share of the seeds and the level to what is spent by then."""

    @cached_property
    def nominal(self) -> tuple[float, ...]:
        """The one-sided level of a comparison, at each look."""
        shares = (n / self.looks[-1] for n in self.looks)
        return nominal_levels(self.looks, tuple(self.spend(t, self.level) for t in shares))


@dataclass(frozen=True, kw_only=True)
class Anytime(Rule):
    """An anytime-valid t test: a mixture over effects of variance g has the evidence of 1 / level.

    Rouder et al. (Psychonomic Bulletin & Review 16, 2009) have the ratio; with the right Haar prior
    on the variance it is a martingale under the null (Wang and Ramdas, 2023).
    """

    g: float = 1.0

    @cached_property
    def nominal(self) -> tuple[float, ...]:
        """The one-sided level of a comparison, at each look."""
        return tuple(self._level(n) for n in self.looks)

    def _level(self, n: int) -> float:
        def surplus(t: float) -> float:
            ratio = 1 + n * self.g
            evidence = -math.log(ratio) / 2 + n / 2 * (
                math.log1p(t**2 / (n - 1)) - math.log1p(t**2 / (n - 1) / ratio)
            )
            return evidence + math.log(2 * self.level)

        return 0.0 if surplus(1e6) < 0 else float(stdtr(n - 1, -brentq(surplus, 0, 1e6)))


def obrien_fleming(share: float, level: float) -> float:
    """Lan and DeMets' function for the boundary of O'Brien and Fleming, one-sided."""
    return float(2 * ndtr(ndtri(level / 2) / math.sqrt(share)))


def pocock(share: float, level: float) -> float:
    """Lan and DeMets' function for the boundary of Pocock."""
    return level * math.log1p((math.e - 1) * share)


def rules(configs: int) -> Mapping[str, Rule]:
    """The rule, and others with the same guarantee."""
    own = rule_for(configs)
    looks, resolution = own.looks, own.resolution
    brien = Spending(configs=configs, looks=looks, resolution=resolution, spend=obrien_fleming)
    return {
        "spent as (n/N)²": own,
        "as O'Brien and Fleming": brien,
        "as Pocock": replace(brien, spend=pocock),
        "anytime-valid": Anytime(configs=configs, looks=looks, resolution=resolution),
    }


def compare_rules(sweeps: int, seed: int = 2) -> Iterator[tuple[int, float, str, Outcome]]:
    """Configs, spreads that one is ahead, rule, and what it comes to."""
    for configs in CONFIGS:
        for ahead in (0.0, 0.7, 1.0, 1.5, 3.0):
            for name, rule in rules(configs).items():
                rng = np.random.default_rng([seed, configs])
                means = one_best(configs, ahead)
                yield configs, ahead, name, simulate(rule, means, normal, sweeps, rng)


def _markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def main() -> None:
    """Print tables."""
    parser = argparse.ArgumentParser(description="Simulate sweeps run with --until-resolved.")
    parser.add_argument("what", nargs="?", default="sweeps", choices=["sweeps", "rules"])
    parser.add_argument("--sweeps", type=int, default=2_000, help="simulated, of each kind")
    asked = parser.parse_args()
    if asked.what == "rules":
        lines = [
            [configs, ahead, name, f"{100 * o.share(o.right):.1f}", f"{o.seeds / configs:.1f}"]
            for configs, ahead, name, o in compare_rules(asked.sweeps)
        ]
        print(_markdown(["configs", "ahead", "rule", "power, %", "seeds a config"], lines))
        return
    lines = [
        [noise, case, configs, f"{100 * o.share(o.false):.1f}", f"{100 * o.share(o.right):.1f}"]
        for noise, case, configs, o in false_winners(asked.sweeps)
    ]
    print(_markdown(["noise", "truth", "configs", "false winners, %", "right, %"], lines))
    print()
    ties = [
        [
            noise,
            case,
            configs,
            f"{100 * o.share(o.equivalent):.1f}",
            f"{100 * o.share(o.false_equivalent):.1f}",
            f"{o.seeds / configs:.1f}",
        ]
        for noise, case, configs, o in equivalences(asked.sweeps)
    ]
    header = ["noise", "truth", "configs", "called a tie, %", "falsely, %", "seeds a config"]
    print(_markdown(header, ties))
    print()
    saved = [
        [
            s.configs,
            s.case,
            s.ahead,
            f"{100 * s.power:.1f}",
            f"{s.seeds / s.configs:.1f}",
            s.fixed_seeds,
            f"{100 * s.saved:.0f}",
        ]
        for s in savings(asked.sweeps)
    ]
    header = ["configs", "truth", "ahead", "power, %", "seeds a config", "fixed", "saved, %"]
    print(_markdown(header, saved))


if __name__ == "__main__":
    main()
