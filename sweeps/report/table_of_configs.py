"""The table of configs on the page: a row for each config, length, data set and split."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow.compute as pc

from cifake.tables import score_unit
from sweeps.aggregate import frame
from sweeps.report.findings import Marks, marks
from sweeps.report.headline import attainable, cell_text, short_names, varying
from sweeps.report.reference import held_against
from sweeps.report.shown import Shown, in_words
from sweeps.words import after

ENOUGH = 6
"""Seeds below which no paired difference can be significant at 5 %."""

MAX_TABLE_ROWS = 2000
"""Rows of the table; of more, those of the best configs."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell: what is read, and what it is sorted by."""

    text: str
    value: float | str | None = None
    whisker: tuple[float, float, float] | None = None
    """Places of low, mean and high in the column, from 0 to 1."""

    mark: str = ""
    """Of a score that differs significantly: `BETTER` or `WORSE`."""

    title: str = ""


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One row."""

    place: int
    epochs: int
    longest: bool
    where: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class ConfigTable:
    """The table of configs."""

    parameters: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    """Names of the columns after the parameters, each with what explains it."""

    rows: tuple[TableRow, ...]
    lengths: tuple[int, ...]
    wheres: tuple[str, ...]
    dropped: int
    """Rows that there was no room for."""

    few: int | None
    """The least number of seeds, where it is too few for any difference to be significant."""

    legend: str
    """What the marks mean, or that there are none; empty where nothing was compared."""

    stability: str
    """How far rankings of other seeds agree with this one; empty where that is not known."""


_Place = tuple[str, int, str, str]
"""Label, epochs, data set and split."""


def config_table(shown: Shown) -> ConfigTable | None:
    """The table of configs; null where nothing was evaluated."""
    scores = _Scores(shown)
    if not scores.places:
        return None
    rows = tuple(_row(shown, scores, place) for place in scores.places[:MAX_TABLE_ROWS])
    least = min((int(row["n"]) for row in scores.foremost if row["n"]), default=0)
    return ConfigTable(
        parameters=tuple(short_names(scores.parameters)),
        columns=tuple(_columns(scores)),
        rows=rows,
        lengths=tuple(sorted({row.epochs for row in rows})),
        wheres=tuple(dict.fromkeys(row.where for row in rows)),
        dropped=len(scores.places) - len(rows),
        few=least if 0 < least < ENOUGH else None,
        legend=scores.marks.legend,
        stability=_stability(shown, scores),
    )


def _stability(shown: Shown, scores: _Scores) -> str:
    """What Kendall's tau says of the ranking on the first data set at the longest lengths."""
    ends = [(label, epochs, *shown.datasets[0]) for label, epochs in shown.lengths.items()]
    here = [scores.ranking[place] for place in ends if place in scores.ranking]
    found = [here[0][name] for name in ("tau", "tau_low", "tau_high")] if here else [None]
    if None in found:
        return ""
    tau, low, high = (f"{value:.2f}".replace("-", "−") for value in found)
    return (
        f"With seeds drawn again, rankings {after(here[0]['epochs'])} agree with this one "
        f"by Kendall’s τ of {tau} on average (95 % of them: {low} to {high})."
    )


class _Scores:
    """What the rows are made of."""

    def __init__(self, shown: Shown) -> None:
        content = shown.content
        self.metrics = list(dict.fromkeys([shown.metric, *content.compare.metrics]))
        told = pc.field("metric").isin(self.metrics) & (pc.field("stage") == content.stage)
        summary = frame(content.summary.filter(told))
        summary = summary[summary["label"].isin(shown.names)]
        # Rows that are looked at together have one scale: the longest of each, else one length.
        longest = summary["epochs"] == summary["label"].map(shown.lengths)
        summary["scale"] = summary["epochs"].mask(longest, 0)
        self.spans = {
            key: (float(group["low"].fillna(group["mean"]).min()), _top(group))
            for key, group in summary.groupby(["metric", "dataset", "split", "scale"])
        }
        self.rows: dict[_Place, dict[str, dict[str, Any]]] = {}
        for row in summary.to_dict("records"):
            place = (row["label"], int(row["epochs"]), row["dataset"], row["split"])
            self.rows.setdefault(place, {})[row["metric"]] = {str(k): v for k, v in row.items()}
        order = {label: number for number, label in enumerate(shown.names)}
        sets = {where: number for number, where in enumerate(shown.datasets)}
        self.places = sorted(self.rows, key=lambda at: (sets[at[2:]], order[at[0]], at[1]))
        self.foremost = [found[shown.metric] for found in self.rows.values()]
        held = held_against(content, shown.metric)
        self.held: dict[_Place, dict[str, Any]] = {
            (row["label"], int(row["epochs"]), row["dataset"], row["split"]): row
            for row in ({str(k): v for k, v in each.items()} for each in held.to_dict("records"))
        }
        self.references = {(row["reference"], *place[1:]) for place, row in self.held.items()}
        self.marks = marks(content.results)
        self.ranking = _ranking(shown)
        self.grouped = any(row["group"] for row in self.ranking.values())
        self.labels: dict[str, dict[str, Any]] = {each: json.loads(each) for each in shown.names}
        every = list(self.labels.values())
        self.parameters = varying(every) or list(every[0])[:1]
        self.lengths = summary["epochs"].nunique() > 1
        self.wheres = len(shown.datasets) > 1
        self.coloured = {name: place for place, name in enumerate(shown.coloured)}


def _row(shown: Shown, scores: _Scores, place: _Place) -> TableRow:
    label, epochs, dataset, split = place
    found = scores.rows[place]
    first = found[shown.metric]
    cells = [_parameter(scores.labels[label].get(name)) for name in scores.parameters]
    if scores.lengths:
        cells.append(Cell(text=str(epochs), value=epochs))
    for metric in scores.metrics:
        place_of = (metric, dataset, split, first["scale"])
        span = scores.spans.get(place_of) if metric == shown.metric else None
        cells.append(_score(found.get(metric), span, metric, scores.marks))
    if scores.held:
        cells += _difference(place, scores, shown)
    if scores.ranking:
        cells += _standing(scores.ranking.get(place))
    if scores.grouped:
        cells += _grouping(scores.ranking.get(place))
    cells.append(_seeds(int(first["n"]), int(first["n_missing"])))
    if scores.wheres:
        cells.append(Cell(text=f"{dataset} {split}"))
    return TableRow(
        place=scores.coloured.get(shown.names[label], -1),
        epochs=epochs,
        longest=epochs == shown.lengths[label],
        where=f"{dataset} {split}",
        cells=tuple(cells),
    )


def _columns(scores: _Scores) -> list[tuple[str, str]]:
    columns = [("epochs", "Length of training.")] if scores.lengths else []
    columns += [(_named(metric), _SCORE) for metric in scores.metrics]
    if scores.held:
        columns += [("difference", _DIFFERENCE), ("p", _P)]
    if scores.ranking:
        columns += [("P(best)", _P_BEST)]
    if scores.grouped:
        columns += [("group", _GROUP)]
    columns.append(("seeds", "Runs with a value."))
    return [*columns, *([("evaluated on", "Data set and split.")] if scores.wheres else [])]


def _seeds(n: int, missing: int) -> Cell:
    if not missing:
        return Cell(text=str(n), value=n)
    title = f"{missing} missing, failed or not yet trained"
    return Cell(text=f"{n} of {n + missing}", value=n, title=title)


_SCORE = "Mean over seeds at threshold 0.5, with its 95 % interval (Student’s t)."
_DIFFERENCE = "In the first score, to the baseline or the best, paired by seed."
_P = "Exact sign-flip permutation test, after Holm’s correction."
_P_BEST = (
    "Probability of being the best: how often it is first when seeds are drawn again, spread as "
    "few seeds ask for. Too high for a leader where configs differ by less than seeds do."
)
_GROUP = "Configs that share a letter are not told apart."


def _ranking(shown: Shown) -> Mapping[_Place, Mapping[str, Any]]:
    content = shown.content
    rows = content.ranking.filter(
        (pc.field("stage") == content.stage) & (pc.field("metric") == shown.metric)
    ).to_pylist()
    ranked = Counter((row["epochs"], row["dataset"], row["split"]) for row in rows)
    # One alone is best and in the first group for certain, which says nothing.
    return {
        (row["label"], epochs, row["dataset"], row["split"]): row
        for epochs, row in content.ends.placed(rows)
        if ranked[row["epochs"], row["dataset"], row["split"]] > 1
    }


def _top(group: pd.DataFrame) -> float:
    return float(group["high"].fillna(group["mean"]).max())


def _parameter(value: Any) -> Cell:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(text=cell_text(value), value=value if number else cell_text(value))


def _score(
    row: Mapping[str, Any] | None,
    span: tuple[float, float] | None,
    metric: str,
    marks: Marks,
) -> Cell:
    if row is None or pd.isna(row["mean"]):
        return Cell(text="–", title="Undefined on these images, or of no run.")
    unit = score_unit(metric)
    share = unit == "share"
    factor = 100 if share else 1
    digits = 2 if share else 4
    mean, low, high = row["mean"], row["low"], row["high"]
    if pd.isna(low):
        return Cell(text=f"{factor * mean:.{digits}f}", value=mean, mark=marks.of(row))
    return Cell(
        text=f"{factor * mean:.{digits}f} ± {factor * (high - low) / 2:.{digits}f}",
        value=mean,
        mark=marks.of(row),
        whisker=None if span is None else _whisker((low, mean, high), span, share=share),
        title=" to ".join(f"{factor * end:.{digits}f}" for end in attainable(low, high, unit)),
    )


def _whisker(
    values: tuple[float, float, float], span: tuple[float, float], *, share: bool
) -> tuple[float, float, float]:
    low, high = (max(0.0, span[0]), min(1.0, span[1])) if share else span
    wide = (high - low) or 1.0
    first, middle, last = (min(1.0, max(0.0, (value - low) / wide)) for value in values)
    return first, middle, last


def _difference(place: _Place, scores: _Scores, shown: Shown) -> list[Cell]:
    row = scores.held.get(place)
    if row is None or pd.isna(row["difference"]):
        reference = row is None and place in scores.references
        return [Cell(text="reference" if reference else "–"), Cell(text="–")]
    factor, digits = (100, 2) if score_unit(shown.metric) == "share" else (1, 4)
    title = f"to {shown.names.get(row['reference'], row['reference'])}, {row['n']} pairs"
    if pd.notna(row["low"]):
        ends = (f"{factor * row[end]:+.{digits}f}" for end in ("low", "high"))
        title = f"95 % interval {' to '.join(ends)}, {title}"
    if pd.notna(row["total_low"]):
        ends = (f"{factor * row[end]:+.{digits}f}" for end in ("total_low", "total_high"))
        title += f"; for other images too {' to '.join(ends)}"
    text = f"{factor * row['difference']:+.{digits}f}".replace("-", "−")
    difference = Cell(text=text, value=float(row["difference"]), title=title)
    p = row["p_holm"]
    if pd.isna(p):
        return [difference, Cell(text="–")]
    return [difference, Cell(text="< 0.001" if p < 0.001 else f"{p:.3f}", value=float(p))]


def _standing(row: Mapping[str, Any] | None) -> list[Cell]:
    best = None if row is None else row["p_best"]
    return [Cell(text="–" if best is None else f"{best:.2f}", value=best)]


def _grouping(row: Mapping[str, Any] | None) -> list[Cell]:
    letters = "" if row is None else row["group"] or ""
    return [Cell(text=letters or "–", value=letters)]


def _named(metric: str) -> str:
    return in_words(metric) + (", %" if score_unit(metric) == "share" else "")
