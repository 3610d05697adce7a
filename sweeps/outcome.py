"""What a sweep has come to: its cells, its summary and report, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from rich.console import Console

from cifake import tables
from cifake.errors import refuse
from sweeps import aggregate, forecast
from sweeps.forecast import Forecast
from sweeps.plan import Cell
from sweeps.report import write_report
from sweeps.spec import Spec
from sweeps.store import Store


@dataclass(frozen=True)
class Status:
    """How far a sweep is."""

    cells: int
    cells_done: int
    runs: int
    by_status: Mapping[str, int]
    """Runs by status; those that never finished an epoch are waiting."""

    errors: Mapping[str, str]
    """The last line of each run's error."""

    forecast: Forecast | None
    """The last time that it was run; null for a search, and where nothing was left to train."""


def write_cells(spec: Spec, store: Store, cells: Sequence[Cell]) -> None:
    """Keep what a sweep asks for, so that its report needs the store alone."""
    content = tables.encode("cells", aggregate.cells_table(cells))
    store.write_sweep(spec.name, "cells.parquet", content)
    store.write_sweep(spec.name, "spec.yaml", spec.written.encode())


def report_sweep(spec: Spec, store: Store, console: Console) -> str:
    """Aggregate a sweep's runs and write its tables and report.

    Raises:
        InputError: nothing of the sweep is in the store.
    """
    cells = _stored_cells(spec, store)
    run_ids = sorted(set(cells["run_id"].to_pylist()))
    evaluations = store.read_many(run_ids, "evaluations")
    summary = aggregate.summary(spec.name, cells, evaluations)
    store.write_sweep(spec.name, "summary.parquet", tables.encode("summary", summary))
    return write_report(spec, store, cells, evaluations, summary, console)


def sweep_status(spec: Spec, store: Store) -> Status:
    """Read how far a sweep is from the store alone.

    Raises:
        InputError: nothing of the sweep is in the store.
    """
    cells = _stored_cells(spec, store).to_pylist()
    run_ids = {cell["run_id"] for cell in cells}
    states = store.run_states(run_ids)
    by_status = {"waiting": len(run_ids) - len(states)}
    for state in states.values():
        by_status[state.status] = by_status.get(state.status, 0) + 1
    done = sum(
        cell["run_id"] in states and states[cell["run_id"]].epochs_done >= cell["epochs"]
        for cell in cells
    )
    errors = {
        state.run_id: state.row["error"].strip().splitlines()[-1]
        for state in states.values()
        if state.row["error"]
    }
    forecasts = forecast.read(store, spec.name)
    last = forecasts[-1] if forecasts else None
    return Status(len(cells), done, len(run_ids), by_status, errors, last)


def unfinished(store: Store, cells: Sequence[Cell]) -> bool:
    """Whether a cell has no result. Of a search, to be stopped or to diverge is one."""
    outcomes = {"grid": (), "search": ("pruned", "diverged"), "confirm": ()}
    states = store.run_states({cell.run_id for cell in cells})
    for cell in cells:
        state = states.get(cell.run_id)
        if state is None:
            return True
        if state.epochs_done < cell.variant.epochs and state.status not in outcomes[cell.stage]:
            return True
    return False


def _stored_cells(spec: Spec, store: Store) -> pa.Table:
    cells = store.read_sweep(spec.name, "cells")
    if cells is None or not len(cells):
        refuse(store.root, f"holds no sweep {spec.name!r}; run `sweeps run` first, or give --store")
    return cells
