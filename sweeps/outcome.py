"""What a sweep asks for, as it is kept, and how far it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cifake import tables
from cifake.data.pack import Pack
from cifake.errors import refuse
from cifake.runs import RunState
from cifake.tables.of_runs import STATUSES
from sweeps import aggregate, forecast, resolution
from sweeps.forecast import Forecast
from sweeps.plan import Cell
from sweeps.resolution import Resolution
from sweeps.spec import Spec
from sweeps.store import SPEC, Store


@dataclass(frozen=True)
class Status:
    """How far a sweep is."""

    cells: int
    cells_done: int
    runs: int
    by_status: Mapping[str, int]
    """As `count_by_status` tells."""

    errors: Mapping[str, str]
    """The last line of each run's error."""

    forecast: Forecast | None
    """The last time that it was run; null for a search, and where nothing was left to train."""

    resolution: Resolution | None
    """How far its ranking is resolved; null unless it was run until it is."""


def write_cells(spec: Spec, store: Store, cells: Sequence[Cell]) -> None:
    """Keep what a sweep asks for, so that its report needs the store alone."""
    content = tables.encode("cells", aggregate.cells_table(cells))
    store.write_sweep(spec.name, "cells.parquet", content)
    store.write_sweep(spec.name, SPEC, spec.written.encode())


def write_labels(spec: Spec, store: Store, packs: Mapping[str, Pack]) -> None:
    """Keep the labels of the images that a sweep is evaluated on: predictions name images alone."""
    evaluated = spec.evaluate if spec.confirming is None else spec.confirming.evaluate
    found = [tables.TABLES["labels"].empty()]
    for name in evaluated:
        rows = packs[name].rows("test")
        found.append(
            tables.TABLES["labels"].from_columns(
                {
                    "dataset": name,
                    "split": "test",
                    "image_id": rows.astype(np.int32),
                    "label": packs[name].labels[rows],
                }
            )
        )
    content = tables.encode("labels", tables.canonical(pa.concat_tables(found)))
    store.write_sweep(spec.name, "labels.parquet", content)


def sweep_status(spec: Spec, store: Store) -> Status:
    """Read how far a sweep is from the store alone.

    Raises:
        InputError: nothing of the sweep is in the store.
    """
    cells = stored_cells(spec, store).to_pylist()
    run_ids = {cell["run_id"] for cell in cells}
    states = store.run_states(run_ids)
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
    resolved = resolution.read(store, spec.name)
    by_status = count_by_status(states.values(), len(run_ids))
    return Status(len(cells), done, len(run_ids), by_status, errors, last, resolved)


def count_by_status(states: Collection[RunState], runs: int) -> dict[str, int]:
    """How many of some runs have each status, in one order whichever runs they are.

    Args:
        states: of the runs that finished an epoch.
        runs: how many there are; the others are waiting.
    """
    count = Counter(state.status for state in states)
    count["waiting"] = runs - len(states)
    return {name: count[name] for name in ("waiting", *STATUSES) if count[name]}


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


def stored_cells(spec: Spec, store: Store) -> pa.Table:
    """What a sweep asks for, as it was asked for last.

    Raises:
        InputError: nothing of the sweep is in the store.
    """
    cells = store.read_sweep(spec.name, "cells")
    if cells is None or not len(cells):
        command = f"`sweeps run {spec.source}`"
        refuse(store.root, f"holds no sweep {spec.name!r}; run {command} first, or give --store")
    return cells
