"""Which configs a report shows, under which names, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import pyarrow.compute as pc

from cifake.tables import higher_is_better
from sweeps.aggregate import frame
from sweeps.report.content import Content
from sweeps.report.headline import config_names

MAX_COLOURED = 8
"""Configs that a figure tells apart by colour: as many as Okabe and Ito's palette has."""

_WORDS = {"auroc": "AUROC", "f1": "F1", "ece": "ECE", "tpr": "recall", "fpr": "% false positives"}


def in_words(metric: str) -> str:
    """A score as a reader knows it."""
    return " ".join(_WORDS.get(word, word) for word in metric.split("_"))


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a report is made of, and how its configs stand."""

    content: Content

    metric: str
    """The foremost score, by which configs are ordered."""

    asked: pd.DataFrame
    """Cells of the stage that is shown: `label`, `epochs`, `seed`, `run_id`, `config_id`."""

    names: dict[str, str]
    """Short names of configs by label, all distinct, the best first; those without a score last."""

    coloured: tuple[str, ...]
    """Names of those that are told apart by colour: all in the order of the specification where
    they are few enough, else the best, best first."""

    datasets: tuple[tuple[str, str], ...]
    """`(dataset, split)` evaluated at the lengths asked for; what configs are ordered by first."""

    @cached_property
    def ends(self) -> pd.DataFrame:
        """The cells of each config's longest length."""
        longest = self.asked.groupby("label")["epochs"].transform("max")
        return self.asked[self.asked["epochs"] == longest]

    @cached_property
    def lengths(self) -> dict[str, int]:
        """The longest length of each config, by label."""
        longest = self.asked.groupby("label")["epochs"].max()
        return {str(label): int(epochs) for label, epochs in longest.items()}

    def place(self, names: pd.Series[str]) -> pd.Series[int]:
        """Places of names among the coloured, from 0; -1 for all others."""
        places = {name: place for place, name in enumerate(self.coloured)}
        return names.map(lambda name: places.get(name, -1)).astype("int64")

    def best(self, count: int) -> list[str]:
        """Labels of the best configs, and of all where they are fewer."""
        return list(self.names)[:count]

    def runs_of(self, labels: Sequence[str], *, ends: bool = False) -> list[str]:
        """The runs of some configs, at their longest length only if so wanted."""
        cells = self.ends if ends else self.asked
        return sorted(set(cells[cells["label"].isin(labels)]["run_id"]))


def shown(content: Content) -> Shown:
    """How the configs of a report stand, by the mean of its foremost score at their longest."""
    asked = frame(content.cells.filter(pc.field("stage") == content.stage))
    asked = asked[["label", "epochs", "seed", "run_id", "config_id"]]
    metric = _metric(content)
    datasets = _datasets(content)
    labels = list(dict.fromkeys(asked["label"]))
    scores = _scores(content, metric, datasets[:1])
    sign = -1 if higher_is_better(metric) else 1
    ordered = sorted(labels, key=lambda label: sign * scores.get(label, float("inf") * sign))
    names = config_names(labels)
    few = len(labels) <= MAX_COLOURED
    return Shown(
        content=content,
        metric=metric,
        asked=asked,
        names={label: names[label] for label in ordered},
        coloured=tuple(names[label] for label in (labels if few else ordered[:MAX_COLOURED])),
        datasets=datasets,
    )


def _metric(content: Content) -> str:
    """The score that a search optimises, else the foremost that is compared."""
    search = None if content.spec is None else content.spec.search
    scores = [m.partition(".")[2] for m in (search.metric if search else []) if "." in m]
    return [*scores, *content.compare.metrics][0]


def _datasets(content: Content) -> tuple[tuple[str, str], ...]:
    """Test before validation, and the training set before others."""
    rows = content.summary.filter(pc.field("stage") == content.stage)
    found = set(zip(rows["dataset"].to_pylist(), rows["split"].to_pylist(), strict=True))
    own = "" if content.spec is None else content.spec.data.train
    order = {"test": 0, "validation": 1}
    return tuple(sorted(found, key=lambda at: (order.get(at[1], 2), at[0] != own, at[0])))


def _scores(content: Content, metric: str, where: Sequence[tuple[str, str]]) -> dict[str, float]:
    if not where:
        return {}
    ((dataset, split),) = where
    rows = frame(
        content.summary.filter(
            (pc.field("stage") == content.stage)
            & (pc.field("metric") == metric)
            & (pc.field("dataset") == dataset)
            & (pc.field("split") == split)
        ).select(["label", "epochs", "mean"])
    ).dropna()
    last = rows.sort_values("epochs").groupby("label")["mean"].last()
    return {str(label): float(score) for label, score in last.items()}
