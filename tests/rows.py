"""The rows of a store as they can be compared: without times and places."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from cifake import tables
from cifake.places import open_place
from sweeps.store import Store

Rows = dict[str, list[dict[str, Any]]]

VOLATILE = {
    "runs": {
        "train_seconds",
        "images_per_second",
        "stack_width",
        "host",
        "device",
        "versions",
        "git_commit",
        "started_at",
        "updated_at",
    },
    "epochs": {"seconds"},
}
"""Columns that may differ between two runs of the same thing: times and places."""

OF_SWEEPS = ("cells", "summary", "comparisons", "ranking", "effects")
"""Tables that are made of the runs' tables."""


def run_rows(store: Path | str, run_id: str, up_to: int | None = None) -> Rows:
    """Every table of a run, to some epoch or to its end."""
    opened = Store(open_place(str(store)))
    found: Rows = {}
    for name in tables.RUN_TABLES:
        kept = opened.read(run_id, name).to_pylist()
        if up_to is not None:
            kept = [row for row in kept if row.get("epoch", 0) <= up_to]
        found[name] = [
            {k: v for k, v in row.items() if k not in VOLATILE.get(name, ())} for row in kept
        ]
    return found


def store_rows(store: Path | str) -> dict[str, Rows]:
    """Every table of every run of a store."""
    runs = Store(open_place(str(store))).run_ids()
    return {run_id: run_rows(store, run_id) for run_id in runs}


def sweep_rows(store: Path | str, sweep: str) -> Rows:
    """Every table of a sweep that is made of its runs."""
    place = open_place(f"{store}/sweeps/{sweep}")
    return {
        name: pq.read_table(io.BytesIO(place.read(f"{name}.parquet"))).to_pylist()
        for name in OF_SWEEPS
    }
