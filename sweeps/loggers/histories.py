"""What is logged of a run: its settings, and its scalars epoch by epoch."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cifake.config import Config, leaves
from cifake.runs import RunState
from sweeps.aggregate import METRICS
from sweeps.report.headline import label_text
from sweeps.store import Store

Value = str | int | float | bool

_EPOCHS = ("loss", "accuracy", "learning_rate", "seconds")
"""Columns of `epochs` that are scalars."""

_AT_ONCE = 200
"""Runs whose tables are in memory at the same time."""

_UNNAMED = re.compile(r"[^A-Za-z0-9_.\-]+")
_LONGEST = 60


@dataclass(frozen=True)
class Epoch:
    """The scalars after one epoch."""

    epoch: int
    seconds: float
    """Since the Unix epoch: when it ended, by the training time of the run since it was begun."""

    scalars: Mapping[str, float]
    """By name, such as `train/loss` and `validation/accuracy`; undefined ones are left out."""


@dataclass(frozen=True)
class History:
    """Everything that is logged of one run."""

    run_id: str
    sweep: str
    name: str
    """Label, seed and the beginning of the run's identity, as a file may be named."""

    status: str
    """As in the table `runs`."""

    settings: Mapping[str, Value]
    """Every setting of the config that is not null, and the seed."""

    facts: Mapping[str, str]
    """What else identifies it."""

    started_at: float
    """Seconds since the Unix epoch."""

    updated_at: float
    epochs: Sequence[Epoch]
    """Ascending."""


def histories(
    sweep: str, store: Store, cells: pa.Table, states: Iterable[RunState]
) -> Iterator[History]:
    """What is logged of some runs.

    Args:
        sweep: that asks for them.
        store: that has them.
        cells: table `cells` of the sweep, which names them.
        states: of the runs, each read before its tables are: rows of later epochs are left out.

    Raises:
        InputError: a run's table is damaged.
    """
    named = cells.select(["run_id", "label"]).to_pylist()
    labels = {cell["run_id"]: cell["label"] for cell in reversed(named)}
    chosen = list(states)
    for start in range(0, len(chosen), _AT_ONCE):
        batch = {state.run_id: state for state in chosen[start : start + _AT_ONCE]}
        epochs = _by_run(store.read_many(batch, "epochs", columns=("run_id", "epoch", *_EPOCHS)))
        keys = ("run_id", "epoch", "dataset", "split")
        scores = _by_run(store.read_many(batch, "evaluations", columns=(*keys, *METRICS)))
        for run_id, state in batch.items():
            yield _history(
                sweep, labels[run_id], state, epochs.get(run_id, []), scores.get(run_id, [])
            )


def _by_run(rows: pa.Table) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows.to_pylist():
        found.setdefault(row["run_id"], []).append(row)
    return found


def _history(
    sweep: str,
    label: str,
    state: RunState,
    epochs: Sequence[Mapping[str, Any]],
    scores: Sequence[Mapping[str, Any]],
) -> History:
    row = state.row
    begun = _seconds(row["started_at"])
    scalars: dict[int, dict[str, float | None]] = {}
    took: dict[int, float] = {}
    for each in sorted(epochs, key=lambda each: each["epoch"]):
        took[each["epoch"]] = each["seconds"] or 0.0
        scalars[each["epoch"]] = {f"train/{name}": each[name] for name in _EPOCHS}
    places = ("epoch", "dataset", "split")
    for each in sorted(scores, key=lambda each: tuple(each[name] for name in places)):
        own = each["dataset"] == row["data.train"]
        where = each["split"] if own else f"{each['dataset']}.{each['split']}"
        named = {f"{where}/{name}": each[name] for name in METRICS}
        scalars.setdefault(each["epoch"], {}).update(named)
    made, ended = [], begun
    for epoch in sorted(scalars):
        ended += took.get(epoch, 0.0)
        if epoch <= state.epochs_done:
            defined = {name: value for name, value in scalars[epoch].items() if value is not None}
            made.append(Epoch(epoch, ended, defined))
    settings = {path: _value(row[path]) for path, _ in leaves(Config) if row[path] is not None}
    return History(
        run_id=state.run_id,
        sweep=sweep,
        name=_name(label, state),
        status=state.status,
        settings={**settings, "seed": state.seed},
        facts={
            "label": label,
            "config_id": state.config_id,
            "git_commit": row["git_commit"] or "",
            "versions": row["versions"] or "",
        },
        started_at=begun,
        updated_at=_seconds(row["updated_at"]),
        epochs=made,
    )


def _name(label: str, state: RunState) -> str:
    words = _UNNAMED.sub("-", label_text(json.loads(label))).strip("-.")[:_LONGEST]
    return f"{words}-seed{state.seed}-{state.run_id[:8]}"


def _value(value: object) -> Value:
    return value if isinstance(value, str | int | float | bool) else json.dumps(value)


def _seconds(time: datetime.datetime | None) -> float:
    return 0.0 if time is None else time.timestamp()
