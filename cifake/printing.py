"""What `cifake evaluate` and `cifake predict` say to a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

_MISSING = "–"

_SCORES = {
    "accuracy": "accuracy, %",
    "accuracy_deduplicated": "  deduplicated, %",
    "balanced_accuracy": "balanced accuracy, %",
    "precision": "precision of REAL, %",
    "recall": "recall of REAL, %",
    "f1": "F1 of REAL, %",
    "precision_fake": "precision of FAKE, %",
    "recall_fake": "recall of FAKE, %",
    "f1_fake": "F1 of FAKE, %",
    "auroc": "AUROC, %",
    "average_precision": "average precision, %",
    "tpr_at_5_fpr": "recall of REAL with 5 % of FAKE called so, %",
    "brier": "Brier score",
    "ece": "calibration error, %",
}
"""Rows of the table, by column of the `evaluations` table."""

_KINDS = {"content_class": "class", "coarse_class": "coarse class", "generator": "generator"}


def print_evaluation(console: Console, facts: Mapping[str, Any]) -> None:
    """Scores with a column for each data set; groups and a comparison below where there are."""
    rows = facts["evaluations"]
    console.print(Text(_headline(facts["model"], rows[0])))
    table = Table("", *(escape(row["dataset"]) for row in rows))
    table.add_row("images", *(f"{row['n']:,}" for row in rows))
    table.add_row("  deduplicated", *(f"{row['n_deduplicated']:,}" for row in rows))
    if any(row["n_unreadable"] for row in rows):
        table.add_row("  unreadable, left out", *(f"{row['n_unreadable']:,}" for row in rows))
    for name, text in _SCORES.items():
        percent = text.endswith("%")
        table.add_row(text, *(_number(row[name], percent=percent) for row in rows))
    _align_right(table, 1)
    console.print(table)
    for row in rows:
        if row.get("classes"):
            console.print(_classes_table(row))
    if facts["against"] is not None:
        console.print(_comparison_table(facts, rows))


def print_predictions(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    """A line for each image that could be read."""
    table = Table("image", "REAL, %", "called")
    table.columns[0].overflow = "fold"
    for row in found:
        if row["problem"] is None:
            table.add_row(
                Text(row["file"]), _number(row["probability"], percent=True), row["label"]
            )
    _align_right(table, 1, 2)
    console.print(table)


def print_problems(console: Console, found: Sequence[Mapping[str, Any]]) -> int:
    """A line for each image that could not be read; returns their number."""
    bad = [row for row in found if row["problem"] is not None]
    for row in bad:
        console.print(Text(f"cifake: error: {row['file']}: {row['problem']}"), soft_wrap=True)
    return len(bad)


def _headline(model: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    epoch = "" if model["epoch"] is None else f", epoch {model['epoch']}"
    attention = "" if model["attention"] == "none" else f" with {model['attention']}"
    placement = "" if model["placement"] == "none" else f" {model['placement']}"
    what = f"{model['model']}{attention}{placement}"
    where = f"{row['split']} images, REAL from {row['threshold']:g}"
    return f"{model['name']}{epoch}: {what}; {where}"


def _classes_table(row: Mapping[str, Any]) -> Table:
    title = Text(f"{row['dataset']}: images told right")
    table = Table("", "", "images", "REAL, %", "FAKE, %", "all, %", title=title)
    table.columns[1].no_wrap = True
    last = None
    for group in row["classes"]:
        kind = "" if group["kind"] == last else _KINDS[group["kind"]]
        last = group["kind"]
        scores = [_number(group[n], percent=True) for n in ("recall_real", "recall_fake")]
        table.add_row(
            kind,
            Text(group["name"]),
            f"{group['n']:,}",
            *scores,
            _number(group["accuracy"], percent=True),
        )
    _align_right(table, 2)
    return table


def _comparison_table(facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Table:
    first, second = facts["model"]["name"], facts["against"]["name"]
    table = Table(
        "right", *(escape(row["dataset"]) for row in rows), title=Text(f"{first} against {second}")
    )
    for name, text in (
        ("both_right", "both"),
        ("only_first", "only the first"),
        ("only_second", "only the second"),
        ("both_wrong", "neither"),
    ):
        table.add_row(text, *(f"{row['against'][name]:,}" for row in rows))
    table.add_row("p (exact McNemar)", *(f"{row['against']['p']:.3g}" for row in rows))
    _align_right(table, 1)
    return table


def _number(value: float | None, *, percent: bool) -> str:
    if value is None:
        return _MISSING
    return f"{100 * value:.2f}" if percent else f"{value:.4f}"


def _align_right(table: Table, first: int, last: int | None = None) -> None:
    for column in table.columns[first:last]:
        column.justify = "right"
