"""From a store to everything that a report is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

from cifake import tables
from cifake.runs import RunState
from cifake.tables import RunTable
from sweeps import explanations, forecast
from sweeps.gaps import gap_notes
from sweeps.objectives import RUN_TABLES
from sweeps.proposals import Proposal, proposals
from sweeps.report.content import Content, Results
from sweeps.report.ends import ends
from sweeps.resolution import Resolution
from sweeps.spec import Compare, Search, Spec
from sweeps.store import Store

RESULTS = ("summary", "comparisons", "ranking", "effects")
"""Tables that are made of cells and runs."""

_KEPT = 2
"""Large tables that are kept for the next who asks for the same: one chart and another do."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a report is on, before anything is computed."""

    name: str
    question: str
    spec: Spec | None
    compare: Compare
    cells: pa.Table
    """Table `cells`."""

    states: Mapping[str, RunState]
    """Of those of their runs that finished an epoch."""

    sweeps: Sequence[str]
    """Names of the sweeps that it is on, as the store has them."""

    everything: bool = False
    """Whether runs are told on whatever sets they were evaluated on, those of no sweep, too."""

    notes: Sequence[str] = field(default_factory=list)
    """What must be known of how it was put together."""

    commands: Sequence[str] = field(default_factory=list)

    resolution: Resolution | None = None
    """What `--until-resolved` decided; null where seeds were not added so."""

    @property
    def run_ids(self) -> list[str]:
        """Every run that is asked for, in order."""
        return sorted(set(self.cells["run_id"].to_pylist()))

    @property
    def all_notes(self) -> list[str]:
        """What must be known before a number is believed."""
        return [*self.notes, *gap_notes(self.cells, self.states)]

    @property
    def search(self) -> Search | None:
        """The sweep's, if it has one."""
        return None if self.spec is None else self.spec.search


def gather(subject: Subject, store: Store) -> Content:
    """Everything that a report is made of.

    Raises:
        InputError: a run's file is damaged.
    """
    # What reports are made with is imported where one is made: a sweep that is asked for again
    # mostly needs none of it.
    from sweeps import aggregate, comparisons, effects, image_tests, rankings

    name, cells, compare = subject.name, subject.cells, subject.compare
    states = sorted(subject.states.items())
    runs = tables.TABLES["runs"].from_rows(state.row for _, state in states)
    known = known_labels(store, subject.sweeps)
    told = None if subject.everything or not known else _told_on(known)

    def read_told(run_ids: Sequence[str], table: RunTable) -> pa.Table:
        rows = store.read_many(run_ids, table)
        return rows if told is None or "dataset" not in rows.column_names else rows.filter(told)

    evaluations = read_told(subject.run_ids, "evaluations")
    labels = agreed_labels(known)
    tried = tried_by(subject, store, {"evaluations": evaluations, "runs": runs})

    @lru_cache(_KEPT)
    def kept(table: RunTable, run_ids: tuple[str, ...]) -> pa.Table:
        return read_told(run_ids, table)

    def read(table: RunTable, run_ids: Iterable[str]) -> pa.Table:
        return kept(table, tuple(run_ids))

    found = comparisons.scores(cells, evaluations, compare.metrics)
    images = image_tests.image_test(found, evaluations, labels, read)
    compared = comparisons.comparisons(name, compare, found, images)
    made = [effects.effects(name, cells, evaluations, compare.metrics)]
    if subject.spec is not None:
        made.append(effects.importances(subject.spec, tried))
    forecasts = [each for sweep in subject.sweeps for each in forecast.read(store, sweep)]
    return Content(
        name=name,
        question=subject.question,
        spec=subject.spec,
        compare=compare,
        cells=cells,
        runs=runs,
        evaluations=evaluations,
        labels=labels,
        summary=aggregate.summary(name, cells, evaluations),
        comparisons=compared,
        ranking=rankings.ranking(name, found, compared),
        effects=tables.canonical(pa.concat_tables(made)),
        proposals=tried,
        forecasts=sorted(forecasts, key=lambda each: each.started_at),
        explanations=explanations.read(store, name),
        notes=[*subject.all_notes, *image_tests.unlabelled(found, labels)],
        commands=subject.commands,
        resolution=subject.resolution,
        read=read,
    )


def results_of(subject: Subject, store: Store, made: Mapping[str, pa.Table]) -> Results:
    """What a report that was made says, from its tables.

    Args:
        subject: what it is on.
        store: that has the runs.
        made: the tables `RESULTS`.
    """
    return Results(
        name=subject.name,
        question=subject.question,
        search=subject.search,
        compare=subject.compare,
        datasets=[] if subject.spec is None else subject.spec.datasets,
        summary=made["summary"],
        comparisons=made["comparisons"],
        ranking=made["ranking"],
        ends=ends(subject.cells),
        proposals=tried_by(subject, store, {}),
        notes=subject.all_notes,
        held=[] if subject.spec is None else subject.spec.held,
        resolution=subject.resolution,
    )


def tried_by(
    subject: Subject, store: Store, read: Mapping[RunTable, pa.Table]
) -> Sequence[Proposal]:
    """What a search tried, best first; nothing without one.

    Args:
        subject: whose search it is.
        store: that has its runs.
        read: tables of them that were read before.
    """
    if subject.search is None:
        return []
    left = [name for name in RUN_TABLES if name not in read]
    found = {**read, **{name: store.read_many(subject.run_ids, name) for name in left}}
    return proposals(subject.search, subject.cells, found)


def known_labels(store: Store, sweeps: Iterable[str]) -> list[pa.Table]:
    """Of each sweep that has been run the table `labels`: of the images that it evaluates on."""
    found = (store.read_sweep(sweep, "labels") for sweep in sweeps)
    return [table for table in found if table is not None]


def agreed_labels(known: Iterable[pa.Table]) -> pa.Table:
    """The labels of images that sweeps evaluate on, in one table.

    Of a set that two sweeps know differently, since its images changed between them, none are.
    """
    by_set: dict[tuple[str, str], list[pa.Table]] = {}
    for labels in known:
        for table in _by_set(labels):
            key = (table["dataset"][0].as_py(), table["split"][0].as_py())
            if not any(table.equals(other) for other in by_set.get(key, ())):
                by_set.setdefault(key, []).append(table)
    agreed = [versions[0] for versions in by_set.values() if len(versions) == 1]
    return pa.concat_tables([tables.TABLES["labels"].empty(), *agreed])


def _told_on(known: Iterable[pa.Table]) -> pc.Expression:
    """Which rows are on validation, or on a test set that a sweep asks for.

    Runs that sweeps share were evaluated on the sets of all of them.
    """
    names = {name for labels in known for name in labels["dataset"].unique().to_pylist()}
    asked = pc.field("dataset").isin(pa.array(sorted(names), pa.string()))
    return (pc.field("split") != "test") | asked


def _by_set(labels: pa.Table) -> list[pa.Table]:
    sets = labels.select(["dataset", "split"]).group_by(["dataset", "split"]).aggregate([])
    found = []
    for row in sets.to_pylist():
        chosen = (pc.field("dataset") == row["dataset"]) & (pc.field("split") == row["split"])
        found.append(tables.canonical(labels.filter(chosen)))
    return found
