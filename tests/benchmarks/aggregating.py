"""What it takes to make a large sweep's tables and charts of what its store has.

python -m tests.benchmarks.aggregating WHAT SPEC STORE    a line of JSON, of a process of its own
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rich.console import Console

from cifake import tables
from cifake.archive import Index, Part
from cifake.runs import HEAD, Head, table_file
from sweeps.aggregate import METRICS
from sweeps.compact import PART_BYTES
from sweeps.outcome import stored_cells, write_cells
from sweeps.plan import Cell
from sweeps.reporting import report_sweep, subject_of
from sweeps.spec import Spec
from sweeps.store import Store
from sweeps.sweep import Sweep, open_sweep, read_spec
from tests.benchmarks.listing import trained_head
from tests.benchmarks.measure import Outcome, cpu_seconds

_SECONDS, _GIGABYTES = 15.0, 4.0
_SEEDS = 10
_STATUS = Path("/proc/self/status")
_IMAGES = 5000
"""Of each class, in a split."""

_SPEC = """\
name: aggregated
question: Which learning rate is best?
data: {{train: demo, validation: 100, train_images: 64}}
scientific:
  optimizer.lr: {rates}
  epochs: {lengths}
nuisance: {{seed: {seeds}}}
"""


def aggregating(folder: Path, runs: int, epochs: int, repeats: int) -> Iterator[Outcome]:
    """Aggregate a sweep of which every epoch of every run has its curve over thresholds.

    Validation is evaluated at every epoch, test at the two milestones. What is measured is from the
    store to the tables of results and to the frames of all charts, which read the thresholds of
    the runs that they draw. Beside it, what it takes to average the thresholds of all runs, and
    to write the whole report. Each repeat is a process of its own, its start counted.

    Args:
        folder: an empty one.
        runs: of the sweep, ten of each config.
        epochs: of each run.
        repeats: how often the sweep is aggregated.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spec, store = folder / "aggregated.yaml", folder / "store"
    rates = [round(1e-5 * (1 + number), 5) for number in range(runs // _SEEDS)]
    lengths = sorted({max(1, epochs // 3), epochs})
    spec.write_text(_SPEC.format(rates=rates, seeds=_SEEDS, lengths=lengths))
    rows = fill(spec, Store.open(str(store), create=True), folder / "trained")
    places = 2 * len(rates) * len(lengths)  # validation and test
    wanted = {
        "frames": {"cells": runs * len(lengths), "summary": places * len(METRICS)},
        "curves": {"curves": places * len(tables.THRESHOLDS)},
        "report": {"cells": runs * len(lengths), "summary": places * len(METRICS)},
    }
    found = {w: _measured(w, spec, store, counts, repeats) for w, counts in wanted.items()}
    size = f"{runs:,} runs × {epochs} epochs, {rows['thresholds'] / 1e6:,.1f} million thresholds"
    frames = found["frames"]
    name = f"aggregate {size}"
    yield Outcome(name, "s", [each["wall"] for each in frames], "value at most", _SECONDS)
    yield Outcome(f"{name}: CPU time", "s", [each["cpu"] for each in frames], "value at most", None)
    memory = [each["bytes"] / 1e9 for each in frames]
    yield Outcome(f"{name}: memory", "GB", memory, "value at most", _GIGABYTES)
    for what, name in (("curves", "average all thresholds of"), ("report", "report on")):
        walls = [each["wall"] for each in found[what]]
        yield Outcome(f"{name} {size}", "s", walls, "value at most", None)


def _measured(
    what: str, spec: Path, store: Path, wanted: Mapping[str, int], repeats: int
) -> list[dict[str, float]]:
    """What each repeat took, a process of its own: `wall`, `cpu` and `bytes`."""
    command = [sys.executable, "-m", "tests.benchmarks.aggregating", what, str(spec), str(store)]
    found = []
    for _ in range(repeats):
        begun, cpu = time.perf_counter(), cpu_seconds()
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        wall, cpu = time.perf_counter() - begun, cpu_seconds() - cpu
        told = json.loads(done.stdout)
        if any(told[name] != count for name, count in wanted.items()):
            raise ValueError(f"not every cell was aggregated: {told}, and not {wanted}")
        found.append({**told, "wall": wall, "cpu": cpu})
    return found


def fill(spec: Path, store: Store, trained: Path) -> Mapping[str, int]:
    """Let a store hold every run of a sweep with merged tables, as `sweeps compact` leaves them.

    Args:
        spec: of the sweep; its longest length is every run's.
        store: an empty one.
        trained: a folder for the store of one run, whose head is the others' example.

    Returns:
        The rows of each table.
    """
    sweep = open_sweep(read_spec(str(spec), []), [], Console(stderr=True))
    cells = sweep.cells()
    example = trained_head(Store.open(str(trained), create=True)).row
    write_cells(sweep.spec, store, cells)
    longest = {cell.run_id: cell for cell in sorted(cells, key=lambda cell: cell.variant.epochs)}
    lengths = sorted({cell.variant.epochs for cell in cells})
    held = {table_file(name): f"{name:x<32}" for name in _MADE}
    for cell in longest.values():
        row = {**example, **_head(sweep, cell, lengths)}
        store.run(cell.run_id).place.write(HEAD, Head(row, held).encode())
    parts: list[Part] = []
    for name, make in _MADE.items():
        run = make(["0" * 16], lengths, np.random.default_rng(0))
        batch = max(1, PART_BYTES // run.nbytes)
        names = sorted(longest)
        for start in range(0, len(names), batch):
            chosen = names[start : start + batch]
            rows = make(chosen, lengths, np.random.default_rng(start))
            each = len(rows) // len(chosen)
            pieces = [rows.slice(number * each, each) for number in range(len(chosen))]
            held_by = held[table_file(name)]
            entries = [(n, held_by, piece) for n, piece in zip(chosen, pieces, strict=True)]
            parts.append(store.archive.write(name, entries))
    store.archive.write_index(Index(tuple(parts)))
    return {name: sum(part.rows for part in parts if part.table == name) for name in _MADE}


def _head(sweep: Sweep, cell: Cell, lengths: Sequence[int]) -> dict[str, Any]:
    places = sweep.evaluations
    evaluated = [f"{epoch}:{name}:{split}" for epoch in lengths for name, split in places]
    return {
        **cell.variant.config.flat(),
        "run_id": cell.run_id,
        "config_id": cell.config_id,
        "seed": cell.seed,
        "stack": [cell.seed],
        "epochs_done": lengths[-1],
        "evaluated": evaluated,
    }


def _evaluated(lengths: Sequence[int]) -> list[tuple[int, str]]:
    """Epoch and split of each evaluation of a run."""
    validated = [(epoch, "validation") for epoch in range(1, lengths[-1] + 1)]
    return sorted([*validated, *((epoch, "test") for epoch in lengths)])


def _keys(run_ids: Sequence[str], lengths: Sequence[int], each: int) -> dict[str, Any]:
    """The columns of evaluations that tell them apart, each repeated."""
    evaluated = _evaluated(lengths)
    epochs = np.repeat(np.asarray([epoch for epoch, _ in evaluated], np.int32), each)
    splits = np.repeat(np.asarray([split == "test" for _, split in evaluated], np.int32), each)
    runs = np.repeat(np.arange(len(run_ids), dtype=np.int32), len(epochs))
    return {
        "run_id": pa.DictionaryArray.from_arrays(runs, pa.array(run_ids)),
        "epoch": np.tile(epochs, len(run_ids)),
        "dataset": "demo",
        "split": pa.DictionaryArray.from_arrays(
            np.tile(splits, len(run_ids)), pa.array(["validation", "test"])
        ),
    }


def _qualities(
    runs: int, lengths: Sequence[int], rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """How well each evaluation went, shape (runs, evaluations): better with epochs, in [0.5, 1]."""
    epochs = np.asarray([epoch for epoch, _ in _evaluated(lengths)])
    reached = 0.95 - 0.4 * np.exp(-epochs / 5)
    return np.clip(reached + rng.normal(0, 0.01, (runs, len(epochs))), 0.5, 1)


def _evaluations(
    run_ids: Sequence[str], lengths: Sequence[int], rng: np.random.Generator
) -> pa.Table:
    quality = _qualities(len(run_ids), lengths, rng).reshape(-1)
    right = np.round(_IMAGES * quality).astype(np.int64)
    counts = {"tp": right, "tn": right, "fp": _IMAGES - right, "fn": _IMAGES - right}
    numbers = {
        column.name: np.clip(quality + rng.normal(0, 0.01, len(quality)), 0, 1)
        for column in tables.TABLES["evaluations"].columns
        if pa.types.is_floating(column.type)
    }
    sizes = {name: np.full(len(quality), 2 * _IMAGES) for name in ("n", "n_deduplicated")}
    return tables.TABLES["evaluations"].from_columns(
        {
            **numbers,
            **_keys(run_ids, lengths, 1),
            **counts,
            **sizes,
            "n_unreadable": np.zeros(len(quality), np.int64),
            "threshold": np.full(len(quality), 0.5),
        }
    )


def _thresholds(
    run_ids: Sequence[str], lengths: Sequence[int], rng: np.random.Generator
) -> pa.Table:
    at = np.asarray(tables.THRESHOLDS)
    steep = 1 / (1.001 - _qualities(len(run_ids), lengths, rng).reshape(-1, 1))
    real, fake = 1 - at**steep, 1 - (1 - at) ** steep
    tp, tn = (np.round(_IMAGES * share).astype(np.int64).reshape(-1) for share in (real, fake))
    fp, fn = _IMAGES - tn, _IMAGES - tp
    called = tp + fp
    precision = np.divide(tp, called, where=called > 0, out=np.full(len(tp), np.nan))
    recall = tp / _IMAGES
    return tables.TABLES["thresholds"].from_columns(
        {
            **_keys(run_ids, lengths, len(at)),
            "threshold": np.tile(at, len(steep)),
            "tp": tp,
            "fp": fp,
            "tn": tn,
            "fn": fn,
            "accuracy": (tp + tn) / (2 * _IMAGES),
            "precision": pa.array(precision, from_pandas=True),
            "recall": recall,
            "f1": 2 * tp / (2 * tp + fp + fn),
        }
    )


def _epochs(run_ids: Sequence[str], lengths: Sequence[int], rng: np.random.Generator) -> pa.Table:
    epochs = np.tile(np.arange(1, lengths[-1] + 1, dtype=np.int32), len(run_ids))
    runs = np.repeat(np.arange(len(run_ids), dtype=np.int32), lengths[-1])
    noise = rng.normal(0, 0.01, len(epochs))
    return tables.TABLES["epochs"].from_columns(
        {
            "run_id": pa.DictionaryArray.from_arrays(runs, pa.array(run_ids)),
            "epoch": epochs,
            "loss": 0.1 + 0.5 * np.exp(-epochs / 5) + noise,
            "accuracy": 0.95 - 0.4 * np.exp(-epochs / 5) - noise,
            "learning_rate": np.full(len(epochs), 0.001),
            "seconds": 1 + noise,
        }
    )


_Make = Callable[[Sequence[str], Sequence[int], np.random.Generator], pa.Table]
_MADE: dict[tables.RunTable, _Make] = {
    "evaluations": _evaluations,
    "thresholds": _thresholds,
    "epochs": _epochs,
}
"""The tables that the runs have."""


def main(what: str, spec: str, store: str) -> None:
    """Do one thing, and print how many rows there are and the memory that it took.

    Args:
        what: `frames`, `curves` or `report`.
        spec: of the sweep.
        store: that has its runs.
    """
    parsed = read_spec(spec, [])
    opened = Store.open(store, create=False)
    found: dict[str, int] = {}
    if what == "frames":
        found = _frames(parsed, opened)
    elif what == "curves":
        found = {"curves": len(_curves(opened, stored_cells(parsed, opened)))}
    else:
        report_sweep(parsed, opened, Console(stderr=True, quiet=True))
        for name in ("cells", "summary"):
            table = opened.read_sweep(parsed.name, name)
            found[name] = 0 if table is None else len(table)
    (highest,) = [line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM")]
    print(json.dumps({**found, "bytes": 1024 * int(highest.split()[1])}), flush=True)


def _frames(spec: Spec, store: Store) -> dict[str, int]:
    """Every table of results, encoded, and the frame of every chart."""
    from sweeps.gather import RESULTS, gather
    from sweeps.report import frames, search_frames
    from sweeps.report.shown import shown

    content = gather(subject_of(spec, store), store)
    encoded = [tables.encode(name, getattr(content, name)) for name in RESULTS]
    stand = shown(content)
    made = [
        frames.learning_curves(stand),
        frames.threshold_curves(stand),
        frames.reliability(stand),
        frames.class_scores(stand),
        frames.difficulty(stand),
        frames.transfer(stand),
        frames.differences(stand),
        frames.main_effects(stand),
        frames.variance(stand),
        frames.placements(stand),
        frames.costs(stand),
        frames.timeline(stand),
        search_frames.history(content),
        search_frames.importances(content),
    ]
    return {
        "cells": len(content.cells),
        "summary": len(content.summary),
        "bytes_of_tables": sum(map(len, encoded)),
        "rows_of_frames": sum(map(len, made)),
    }


def _curves(store: Store, cells: pa.Table) -> pa.Table:
    """The mean accuracy of each config at each length asked for and each threshold.

    The report draws the best configs' alone; who wants them all reads every file of thresholds.
    """
    by_run = dict(zip(cells["run_id"].to_pylist(), cells["label"].to_pylist(), strict=True))
    rows = store.read_many(
        by_run,
        "thresholds",
        columns=("run_id", "epoch", "dataset", "split", "threshold", "accuracy"),
        epochs=set(cells["epochs"].to_pylist()),
    )
    runs = rows["run_id"].combine_chunks()
    labels = pa.array([by_run[name] for name in runs.dictionary.to_pylist()]).dictionary_encode()
    keys = {
        # Arrow groups numbers, not words of a dictionary.
        "label": labels.indices.take(runs.indices),
        **{name: rows[name].combine_chunks().indices for name in ("dataset", "split")},
        **{name: rows[name] for name in ("epoch", "threshold")},
    }
    grouped = pa.table({**keys, "accuracy": rows["accuracy"]}).group_by([*keys], use_threads=False)
    return grouped.aggregate([("accuracy", "mean"), ("accuracy", "count")])


if __name__ == "__main__":
    main(*sys.argv[1:])
