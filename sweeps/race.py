"""A grid whose seeds go where its ranking is undecided: cells and scores in, seeds to add out.

Pure: no files, no clock.
A config here is one combination of scientific values, at its longest length. Its score with a seed
is the mean over the other nuisance values, on the validation split: the test split chooses nothing.
When which seeds are added is the rule of `sweeps.statistics.sequential`, so that the same scores
make the same decisions, whoever asks and however often.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cifake.tables import higher_is_better
from sweeps.aggregate import cells_table, frame
from sweeps.plan import Cell, make_cells
from sweeps.spec import Resolve, Spec, Variant
from sweeps.statistics.sequential import Look, Rule, follow, seeds_wanted


@dataclass(frozen=True, kw_only=True)
class Race:
    """The configs of a sweep, and when they are looked at."""

    spec: Spec
    resolve: Resolve
    variants: dict[str, list[Variant]]
    """By label: every length and every nuisance value."""

    seeds: tuple[int, ...]
    """In the order in which they are added."""

    rule: Rule

    @property
    def labels(self) -> list[str]:
        """The configs, as JSON, in the order of the rule's rows."""
        return list(self.variants)

    @property
    def metric(self) -> str:
        """The score that decides, a column of `evaluations`."""
        return self.spec.compare.metrics[0]

    @cached_property
    def lengths(self) -> list[int]:
        """Epochs at which each config is compared."""
        return [max(variant.epochs for variant in each) for each in self.variants.values()]

    def cells(self, looks: Sequence[Look]) -> list[Cell]:
        """What is asked for until the next look, or was until the race ended."""
        counts = seeds_wanted(looks, self.rule)
        return [
            cell
            for variants, count in zip(self.variants.values(), counts, strict=True)
            for cell in make_cells(variants, self.seeds[:count])
        ]

    def look(self, looks: Sequence[Look], evaluations: pa.Table) -> list[Look]:
        """The race with one look more, from the table `evaluations` of its cells' runs."""
        following = self.rule.looks[len(looks)]
        scores = self._scores(self.cells(looks), evaluations)[:, :following]
        return follow(scores, self.rule)

    def has_ended(self, looks: Sequence[Look]) -> bool:
        """Whether no seed is added any more."""
        return len(looks) == len(self.rule.looks) or bool(looks and looks[-1].verdict)

    def _scores(self, cells: Sequence[Cell], evaluations: pa.Table) -> npt.NDArray[np.float64]:
        """More is better: shape (configs, seeds), NaN where a run has none or there is no run."""
        lengths = dict(zip(self.labels, self.lengths, strict=True))
        asked = frame(cells_table(cells))
        asked = asked[asked["epochs"] == asked["label"].map(lengths)]
        found = frame(evaluations).query("split == 'validation'")
        found = found[found["dataset"] == self.spec.data.train]
        joined = asked.merge(
            found[["run_id", "epoch", self.metric]],
            left_on=["run_id", "epochs"],
            right_on=["run_id", "epoch"],
            how="left",
        )
        # A seed counts where every nuisance value has a score, lest means be of unlike things.
        means = joined.groupby(["label", "seed"])[self.metric].agg(
            lambda each: each.mean(skipna=False)
        )
        whole = means.unstack("seed").reindex(index=self.labels, columns=list(self.seeds))
        scores: npt.NDArray[np.float64] = whole.to_numpy(np.float64)
        return scores if higher_is_better(self.metric) else -scores


def make_race(spec: Spec, resolve: Resolve, fingerprint: str) -> Race:
    """The race of a specification's grid on training data with a fingerprint."""
    variants: dict[str, list[Variant]] = defaultdict(list)
    for variant in spec.variants(fingerprint):
        variants[variant.label_json].append(variant)
    first = len(spec.seeds)
    looks = (*range(first, resolve.max_seeds, resolve.round or first), resolve.max_seeds)
    more = range(max(spec.seeds) + 1, max(spec.seeds) + 1 + resolve.max_seeds - first)
    return Race(
        spec=spec,
        resolve=resolve,
        variants=dict(variants),
        seeds=(*spec.seeds, *more),
        rule=Rule(
            configs=len(variants),
            looks=looks,
            delta=resolve.delta,
            resolution=1 / spec.data.validation,
        ),
    )
