"""What each config is held against: the baseline that is declared, else the best."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pandas as pd
import pyarrow.compute as pc

from sweeps.aggregate import frame
from sweeps.report.shown import Shown, lower_is_better

COLUMNS = ["label", "n", "difference", "low", "high", "p", "p_holm", "significant", "seeds_needed"]


@dataclass(frozen=True)
class Reference:
    """One config, and how the others differ from it at one length on one data set."""

    label: str
    others: pd.DataFrame
    """`COLUMNS` of `comparisons`, a row for each other config; differences are the others' minus
    the reference's, whatever their order in the table."""


def references(shown: Shown, metric: str) -> dict[tuple[int, str, str], Reference]:
    """By epochs, data set and split, what configs are held against on one score.

    Lengths and sets on which nothing was compared are left out.
    """
    content = shown.content
    chosen = (pc.field("stage") == content.stage) & (pc.field("metric") == metric)
    rows = frame(content.comparisons.filter(chosen))
    summarised = frame(content.summary.filter(chosen)).dropna(subset=["mean"])
    means = {
        (row["epochs"], row["dataset"], row["split"], row["label"]): float(row["mean"])
        for row in summarised.to_dict("records")
    }
    found = {}
    for (epochs, dataset, split), group in rows.groupby(["epochs", "dataset", "split"]):
        where = (int(str(epochs)), str(dataset), str(split))
        labels = {*group["label_a"], *group["label_b"]}
        held = {label for label in labels if _is_baseline(label, content.compare.baseline)}
        scores = {label: means[at] for label in held or labels if (at := (*where, label)) in means}
        if scores:
            choose = min if lower_is_better(metric) else max
            label = choose(sorted(scores), key=scores.__getitem__)
            found[where] = Reference(label, _others(group, label))
    return found


def _is_baseline(label: str, baseline: dict[str, object]) -> bool:
    values = json.loads(label)
    return bool(baseline) and all(values.get(key) == value for key, value in baseline.items())


def _others(rows: pd.DataFrame, label: str) -> pd.DataFrame:
    ahead = rows[rows["label_b"] == label].rename(columns={"label_a": "label"})[COLUMNS]
    behind = rows[rows["label_a"] == label].rename(columns={"label_b": "label"})[COLUMNS]
    turned = {"difference": -behind["difference"], "low": -behind["high"], "high": -behind["low"]}
    return pd.concat([ahead, behind.assign(**turned)], ignore_index=True)
