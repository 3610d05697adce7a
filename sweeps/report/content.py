"""Everything that a report is made of, as tables; each of its forms sees this alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cifake.tables import RunTable
from sweeps.forecast import Forecast
from sweeps.proposals import Proposal
from sweeps.report.ends import Ends, ends
from sweeps.resolution import Resolution
from sweeps.spec import Compare, Search, Spec

Row = Mapping[str, Any]

STAGES_SHOWN = ("confirm", "grid")
"""Stages whose scores are results, the first that there is: those of a search chose something."""


PAGE = "report.html"
"""The file of the report as a page."""


@dataclass(frozen=True, kw_only=True)
class Explanations:
    """What the best networks look at, as `sweeps report --explain` left it."""

    sheets: Mapping[str, bytes]
    """Grad-CAM sheets by run, the best first: PNG files of at most 200 KB, about 1,000 pixels wide,
    each with a title of its own and the gates of its attention modules below the images."""

    gates: pa.Table | None
    """Table `gates` of those runs; null where none of them has an attention module with gates."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """What the numbers of a report say: the part of it that is told in a few lines."""

    name: str
    question: str
    search: Search | None
    compare: Compare
    datasets: Sequence[str]
    """The foremost first."""

    summary: pa.Table
    comparisons: pa.Table
    ranking: pa.Table
    ends: Ends
    """How long each config was trained at most."""

    proposals: Sequence[Proposal]
    notes: Sequence[str]
    held: Sequence[str] = ()
    """Parameters of which each combination of values has a study of its own."""

    resolution: Resolution | None = None
    """What `--until-resolved` decided; null where seeds were not added so."""


def foremost(rows: Sequence[Row], results: Results) -> list[Row]:
    """What answers first, of rows of `ranking` or `comparisons`.

    Of results rather than what chose them, on test rather than validation, of the foremost data set
    and score, at the longest length: of each where those differ.
    """
    kept = list(rows)
    orders: list[tuple[str, Sequence[Any]]] = [
        ("stage", STAGES_SHOWN),
        ("split", ("test", "validation")),
        ("dataset", results.datasets),
        ("metric", results.compare.metrics),
        ("epochs", sorted({row["epochs"] for row in rows}, key=_longest_first)),
    ]
    for name, order in orders:
        there = {row[name] for row in kept}
        chosen = next((value for value in order if value in there), None)
        kept = [row for row in kept if row[name] == chosen]
    return kept


def _longest_first(epochs: int | None) -> tuple[bool, int]:
    return epochs is not None, -(epochs or 0)


@dataclass(frozen=True, kw_only=True)
class Content:
    """One report: a sweep, several sweeps together, or all runs of a store.

    The tables have the schemas of `cifake/tables/`. Where a column `sweep` stands, it is `name`.
    Labels are JSON objects of the scientific parameters; `label` in `summary` and `ranking`,
    `label_a` and `label_b` in `comparisons`, and `label` in `cells` are the same strings.
    """

    name: str
    """Of the sweep, or of the report on several."""

    question: str
    """What is to be answered; empty where nobody asked."""

    spec: Spec | None
    """Null for several sweeps, and for a store without one."""

    compare: Compare
    """Metrics that are compared, the foremost first, and what each config is held against."""

    cells: pa.Table
    """Table `cells`: what is asked for. A run without a row in `runs` never finished an epoch."""

    runs: pa.Table
    """Table `runs`, of the cells' runs alone, in the order of `run_id`."""

    evaluations: pa.Table
    """Table `evaluations`, of every epoch of those runs."""

    labels: pa.Table
    """Table `labels`, of the sets' test splits; without rows of a set that is not known here."""

    summary: pa.Table
    """Table `summary`, of every stage."""

    comparisons: pa.Table
    """Table `comparisons`, of the stages grid and confirm."""

    ranking: pa.Table
    """Table `ranking`, likewise."""

    effects: pa.Table
    """Table `effects`."""

    proposals: Sequence[Proposal]
    """What a search tried, best first; empty for a grid."""

    forecasts: Sequence[Forecast]
    """What each time that it was run was predicted to take, and took; empty where nothing was."""

    explanations: Explanations | None
    """Null where none were made."""

    notes: Sequence[str]
    """Sentences that a reader must know before believing a number: what is missing, failed, pruned
    or mixed, with its count."""

    commands: Sequence[str]
    """Command lines that make it again, one for each sweep."""

    read: Callable[[RunTable, Iterable[str]], pa.Table]
    """A large table of some runs, by their ids: `thresholds`, `classes`, `batches`, `epochs` or
    `predictions`. Ask for the runs that are drawn alone: thousands of files can lie behind it. Runs
    without rows are passed over; raises `cifake.errors.InputError` for a damaged file."""

    resolution: Resolution | None = None
    """What `--until-resolved` decided; null where seeds were not added so."""

    @property
    def stage(self) -> str:
        """The stage whose scores are results: confirm, else grid, else the search itself."""
        there = set(self.cells["stage"].to_pylist())
        return next((stage for stage in STAGES_SHOWN if stage in there), "search")

    @property
    def ends(self) -> Ends:
        """How long each config was trained at most."""
        return ends(self.cells)

    @property
    def results(self) -> Results:
        """What findings, marks and the console are made of."""
        named = [] if self.spec is None else self.spec.datasets
        there = self.summary["dataset"].unique().to_pylist()
        return Results(
            name=self.name,
            question=self.question,
            search=None if self.spec is None else self.spec.search,
            compare=self.compare,
            datasets=list(dict.fromkeys([*named, *sorted(there)])),
            summary=self.summary,
            comparisons=self.comparisons,
            ranking=self.ranking,
            ends=self.ends,
            proposals=self.proposals,
            notes=self.notes,
            held=[] if self.spec is None else self.spec.held,
            resolution=self.resolution,
        )
