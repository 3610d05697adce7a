"""What a search tried, best first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from sweeps.aggregate import frame
from sweeps.report.headline import cell_text
from sweeps.spec import Search

_SHOWN = 10


@dataclass(frozen=True)
class Proposal:
    """One proposal at the last epoch that all its seeds reached."""

    label: Mapping[str, Any]
    epochs: int
    stopped: bool
    """Whether it ended before the length asked for."""

    seeds: int
    mean: float
    """Of the search's metric, over seeds."""

    low: float
    """Worst seed."""

    high: float
    """Best seed."""


def proposals(search: Search, cells: pa.Table, evaluations: pa.Table) -> list[Proposal]:
    """Every proposal with a value: those of full length first, each part best first."""
    metric = search.metric.partition(".")[2]
    runs = frame(cells)[["label", "run_id", "epochs"]]
    asked = runs.groupby("label")["epochs"].max()
    rows = (
        frame(evaluations)
        .query("split == 'validation'")
        .merge(runs[["label", "run_id"]].drop_duplicates(), on="run_id")
    )
    found = []
    for label, group in rows.groupby("label"):
        reached = int(group.groupby("run_id")["epoch"].max().min())
        values = group[group["epoch"] == reached][metric].dropna()
        if len(values):
            found.append(
                Proposal(
                    label=json.loads(str(label)),
                    epochs=reached,
                    stopped=reached < asked[str(label)],
                    seeds=len(values),
                    mean=float(values.mean()),
                    low=float(values.min()),
                    high=float(values.max()),
                )
            )
    sign = -1 if search.mode == "max" else 1
    return sorted(found, key=lambda proposal: (-proposal.epochs, sign * proposal.mean))


def proposal_table(search: Search, tried: list[Proposal]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of proposals, as text."""
    names = list(dict.fromkeys(name for proposal in tried for name in proposal.label))
    header = [*names, "epochs", search.metric, "over seeds", "seeds"]
    rows = [
        [
            *(cell_text(proposal.label.get(name)) for name in names),
            f"{proposal.epochs}{' (stopped)' if proposal.stopped else ''}",
            f"{proposal.mean:.4f}",
            f"{proposal.low:.4f} – {proposal.high:.4f}",
            str(proposal.seeds),
        ]
        for proposal in tried
    ]
    return header, rows


def best_sentence(search: Search, tried: list[Proposal]) -> str:
    """The best proposal and what it is worth, in two sentences."""
    if not tried:
        return "No proposal has a value yet."
    best = tried[0]
    values = ", ".join(f"{k} = {cell_text(v)}" for k, v in best.label.items() if v is not None)
    return (
        f"Best of {len(tried)} proposals after {best.epochs} epochs: {search.metric} "
        f"{best.mean:.4f} with {values}. The best of many is the best by luck in part, and it was "
        "chosen on validation; the test split was not looked at."
    )


def print_proposals(search: Search, tried: list[Proposal], console: Console) -> None:
    """Print the best proposals as a table, a parameter a line where they are many."""
    console.print(best_sentence(search, tried), highlight=False)
    header, rows = proposal_table(search, tried[:_SHOWN])
    table = Table(title=f"the best {len(rows)}", title_justify="left")
    for name in header:
        table.add_column(name.rpartition(".")[2] if name != search.metric else name)
    for row in rows:
        table.add_row(*row)
    console.print(table)
