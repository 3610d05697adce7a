"""From a store to everything that a report is made of."""

from __future__ import annotations

import pyarrow as pa

from cifake import tables
from sweeps import aggregate, forecast
from sweeps.objectives import RUN_TABLES
from sweeps.proposals import proposals
from sweeps.report.content import Content
from sweeps.spec import Compare, Spec
from sweeps.store import Store


def gather(spec: Spec, store: Store, cells: pa.Table) -> Content:
    """Everything that the report of one sweep is made of.

    Args:
        spec: the sweep's.
        store: that has its runs.
        cells: table `cells`, what it asks for.

    Raises:
        InputError: a run's file is damaged.
    """
    run_ids = sorted(set(cells["run_id"].to_pylist()))
    states = store.run_states(run_ids)
    runs = tables.TABLES["runs"].from_rows(state.row for state in states.values())
    evaluations = store.read_many(run_ids, "evaluations")
    tried = []
    if spec.search is not None:
        read = {"evaluations": evaluations, "runs": runs}
        found = {name: read.get(name) or store.read_many(run_ids, name) for name in RUN_TABLES}
        tried = proposals(spec.search, cells, found)
    return Content(
        name=spec.name,
        question=spec.question,
        spec=spec,
        compare=Compare(),
        cells=cells,
        runs=runs,
        evaluations=evaluations,
        summary=aggregate.summary(spec.name, cells, evaluations),
        comparisons=tables.TABLES["comparisons"].empty(),
        ranking=tables.TABLES["ranking"].empty(),
        effects=tables.TABLES["effects"].empty(),
        proposals=tried,
        forecasts=forecast.read(store, spec.name),
        explanations=None,
        notes=[],
        commands=["sweeps run spec.yaml"],
        read=lambda table, run_ids: store.read_many(run_ids, table),
    )
