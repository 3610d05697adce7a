"""How much faster a table of many runs is read once `sweeps compact` has merged it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pyarrow as pa

from cifake import tables
from cifake.runs import table_file
from sweeps.compact import compact
from sweeps.store import Store
from tests.benchmarks.listing import trained_head
from tests.benchmarks.measure import Outcome, Timed, in_turns, speedup, timed

TABLE: tables.RunTable = "evaluations"
_TARGET = 5.0


def merging(folder: Path, runs: int, repeats: int) -> Outcome:
    """Read a table of all runs of a store as they were written, and of one like it, merged.

    Args:
        folder: an empty one.
        runs: that each store holds, of ten epochs each.
        repeats: how often each is read.
    """
    small, merged = (Store.open(str(folder / name), create=True) for name in ("small", "merged"))
    for store in (small, merged):
        fill(store, folder / "trained", runs)
    found = compact(merged, lambda _: None)
    if found.runs != runs or found.files_after >= found.files_before:
        raise ValueError(f"not every table was merged: {found}")
    ours, theirs = in_turns(repeats, partial(_read, merged), partial(_read, small))
    name = f"read {TABLE} of {runs:,} runs, merged"
    return speedup(name, "runs/s", ours, theirs, target=_TARGET)


def fill(store: Store, trained: Path, runs: int) -> None:
    """Let a store hold copies of a run that was trained, each under a name of its own.

    Args:
        store: which.
        trained: a folder for the store of the run that is copied.
        runs: how many.
    """
    source = Store.open(str(trained), create=True)
    head = trained_head(source)
    kept = {table: source.read(head.row["run_id"], table) for table in tables.RUN_TABLES}

    def copy(number: int) -> None:
        name = f"{number:016x}"
        files = {
            table_file(table): tables.encode(table, _renamed(rows, name))
            for table, rows in kept.items()
            if table != "runs"
        }
        row = {**head.row, "run_id": name, "seed": number, "stack": [number]}
        store.run(name).commit(row, files)

    store.each(copy, range(runs))


def _renamed(rows: pa.Table, run_id: str) -> pa.Table:
    place = rows.schema.get_field_index("run_id")
    names = pa.array([run_id] * len(rows)).cast(rows.schema.field(place).type)
    return rows.set_column(place, rows.schema.field(place), names)


def _read(store: Store) -> Timed:
    opened, run_ids = Store(store.root), store.run_ids()
    return timed(len(run_ids), lambda: opened.read_many(run_ids, TABLE))
