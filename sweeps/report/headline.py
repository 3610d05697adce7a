"""The few numbers that every form of the report opens with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cifake.tables import score_unit
from sweeps.aggregate import label_order

HEADLINE_METRICS = ("accuracy", "auroc")

MOST_PARAMETERS = 6
"""Columns of parameters that a table has at most."""


@dataclass(frozen=True)
class Row:
    """One config at one length on one split."""

    label: Mapping[str, Any]
    epochs: int
    dataset: str
    split: str
    n: int
    n_missing: int
    metrics: Mapping[str, Mapping[str, float | None]]
    """By metric: mean, low, high and the rest of the summary's columns."""

    @property
    def where(self) -> str:
        """Data set and split."""
        return f"{self.dataset} {self.split}"


def headline(summary: pa.Table, metrics: Sequence[str] | None = None) -> list[Row]:
    """The headline rows of a `summary` table, test splits first, then by label and length.

    Args:
        summary: of any stages.
        metrics: the only ones that the rows need to have; by default all, which takes seconds for
            thousands of configs.
    """
    if metrics is not None:
        wanted = pa.array(["accuracy", *metrics])
        summary = summary.filter(pc.is_in(summary["metric"], value_set=wanted))
    grouped: dict[tuple[str, int, str, str], dict[str, dict[str, Any]]] = {}
    for row in summary.to_pylist():
        key = (row["label"], row["epochs"], row["dataset"], row["split"])
        grouped.setdefault(key, {})[row["metric"]] = row
    rows = [
        Row(
            label=json.loads(label),
            epochs=epochs,
            dataset=dataset,
            split=split,
            n=metrics["accuracy"]["n"],
            n_missing=metrics["accuracy"]["n_missing"],
            metrics=metrics,
        )
        for (label, epochs, dataset, split), metrics in grouped.items()
    ]
    return sorted(
        rows, key=lambda r: (r.split != "test", r.dataset, label_order(r.label), r.epochs)
    )


def label_columns(rows: list[Row]) -> list[str]:
    """Parameters that tell the rows apart; where none does, the first."""
    labels = [row.label for row in rows]
    return varying(labels) or list(labels[0] if labels else ())[:1]


def label_cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """What tells rows apart: heads, and the cells of each row.

    A column a parameter; where they are many, one for all.
    """
    names = label_columns(list(rows))
    if len(names) <= MOST_PARAMETERS:
        return names, [[cell_text(row.label.get(name)) for name in names] for row in rows]
    labels = [json.dumps(row.label) for row in rows]
    named = config_names(list(dict.fromkeys(labels)))
    return ["config"], [[named[label]] for label in labels]


def varying(labels: Sequence[Mapping[str, Any]]) -> list[str]:
    """Parameters with more than one value among some labels."""
    names = dict.fromkeys(name for label in labels for name in label)
    return [n for n in names if len({json.dumps(label.get(n)) for label in labels}) > 1]


def short_names(parameters: Sequence[str]) -> list[str]:
    """Parameters without the path to them, where they stay apart."""
    short = [_last(name) for name in parameters]
    return [
        last if short.count(last) == 1 else name
        for name, last in zip(parameters, short, strict=True)
    ]


def meaningful(label: Mapping[str, Any]) -> dict[str, Any]:
    """A label with null for what has no meaning in it."""
    # The one setting whose absence has a name.
    return {name: None if (name, v) == ("placement", "none") else v for name, v in label.items()}


def label_text(label: Mapping[str, Any], telling: Sequence[str] = ()) -> str:
    """A label in a few words, for legends.

    Args:
        label: of a config.
        telling: parameters that tell it from others; where there are none, all are told.
    """
    shown = meaningful({key: label.get(key) for key in telling or label})
    told = [_told(key, v) for key, v in shown.items() if v is not None or _last(key) in _PHRASES]
    return " · ".join(dict.fromkeys(told)) or "all"


_PHRASES = {
    "leave_out": ("with all classes", "without {}"),
    "train_images": ("all images", "{} images"),
}
"""What null and any other value are called, of parameters of which null is one more value."""


def _told(key: str, value: object) -> str:
    """A value in words, with its parameter unless it is a name, which says enough."""
    if _last(key) in _PHRASES:
        nothing, something = _PHRASES[_last(key)]
        return nothing if value is None else something.format(value)
    subject = _subject(key)
    if value is True:
        return subject
    if value is False or value == "none":
        return f"no {subject}"
    return value if isinstance(value, str) else f"{subject} {cell_text(value)}"


def _subject(parameter: str) -> str:
    return _last(parameter).replace("_", " ")


def _last(parameter: str) -> str:
    return parameter.rpartition(".")[2]


def cell_text(value: object) -> str:
    """A value as it stands in a table."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def config_names(labels: Sequence[str]) -> dict[str, str]:
    """The values that tell a config from the others; with the parameters where that is too few."""
    parsed = {label: json.loads(label) for label in labels}
    telling = varying(list(parsed.values()))
    short = {label: label_text(values, telling) for label, values in parsed.items()}
    if "all" not in short.values() and len(set(short.values())) == len(labels):
        return short
    return {
        label: " · ".join(
            f"{_subject(key)} {cell_text(values[key])}"
            for key in telling
            if values.get(key) is not None
        )
        or "all"
        for label, values in parsed.items()
    }


def attainable(low: float, high: float, unit: str | None) -> tuple[float, float]:
    """An interval of a mean cut to what a score can be; the tables keep all of Student's t."""
    return (max(low, 0.0), min(high, 1.0)) if unit == "share" else (low, high)


def percent(metric: Mapping[str, float | None]) -> str:
    """A mean with its interval, in percent; the half width stands in for both sides."""
    mean, low, high = metric["mean"], metric["low"], metric["high"]
    if mean is None:
        return "–"
    if low is None or high is None:
        return f"{100 * mean:.2f}"
    return f"{100 * mean:.2f} ± {50 * (high - low):.2f}"


def header_text(metric: str) -> str:
    """The head of a score's column, with its unit."""
    unit = score_unit(metric)
    return f"{metric}, %" if unit == "share" else f"{metric}, {unit}" if unit else metric


def score_text(summary: Mapping[str, Any], mark: str = "") -> str:
    """A mean with its interval in its unit, and a mark."""
    text = percent(summary) if summary["unit"] == "share" else _plain(summary)
    return f"{text} {mark}".rstrip()


def _plain(metric: Mapping[str, float | None]) -> str:
    mean, low, high = metric["mean"], metric["low"], metric["high"]
    if mean is None:
        return "–"
    if low is None or high is None:
        return f"{mean:.4f}"
    return f"{mean:.4f} ± {(high - low) / 2:.4f}"
