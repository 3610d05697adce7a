"""The results of a report as they are printed."""

from __future__ import annotations

import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from sweeps.report.content import Results
from sweeps.report.findings import answer, marks
from sweeps.report.headline import (
    Row,
    header_text,
    headline,
    label_cells,
    score_text,
    short_names,
)
from sweeps.report.tried import print_proposals

_PRINTED = 100
"""Rows up to which a console is given a table; the report has them all."""


def print_results(results: Results, console: Console) -> None:
    """Print what a search tried, the table of configs, the answer, and its notes."""
    search = results.search
    if search is not None:
        print_proposals(search, list(results.proposals), results.held, console)
    summary = results.summary.filter(pc.field("stage") != "search")
    rows = headline(summary, results.compare.metrics)
    if rows:
        print_headline(rows, results, console)
        console.print()
    if search is None or rows:
        console.print(answer(results), highlight=False, markup=False)
    for note in results.notes:
        console.print(f"note: {note}", highlight=False, markup=False)


def print_headline(rows: list[Row], results: Results, console: Console) -> None:
    """Print the headline rows as a table: on test where it was evaluated, else on validation."""
    shown = [row for row in rows if row.split == "test"] or rows
    marked = marks(results, splits=sorted({row.split for row in shown}))
    names, labels = label_cells(shown)
    metrics = results.compare.metrics
    seeds = "seeds" if results.search is None else "fresh seeds"
    table = Table(title=f"mean over {seeds}, ± 95 % interval", title_justify="left")
    for name in (*short_names(names), "epochs", "evaluated on"):
        table.add_column(name, overflow="fold")  # rather than that a number is cut
    for name in (*map(header_text, metrics), "seeds"):
        table.add_column(name, justify="right", no_wrap=True)
    for row, label in zip(shown[:_PRINTED], labels, strict=False):
        values = [
            score_text(row.metrics[metric], marked.of(row.metrics[metric])) for metric in metrics
        ]
        missing = f" ({row.n_missing} missing)" if row.n_missing else ""
        table.add_row(*label, str(row.epochs), row.where, *values, f"{row.n}{missing}")
    console.print(table)
    if len(shown) > _PRINTED:
        console.print(f"and {len(shown) - _PRINTED:,} rows more in the report", highlight=False)
    if marked.legend:
        console.print(marked.legend, highlight=False)
