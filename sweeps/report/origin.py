"""Where a report's numbers come from, and which runs failed: rows of `runs` to words."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow.compute as pc

from sweeps.aggregate import frame
from sweeps.report.content import Content
from sweeps.report.headline import config_names
from sweeps.words import duration

MAX_FAILED = 200
"""Failed runs that are listed."""

MAX_TRACEBACK = 4000
"""Characters of an error, from its end."""


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A run that an error stopped, or whose loss was lost."""

    run_id: str
    config: str
    seed: int
    status: str
    epochs: int
    summary: str
    """The last line of the error."""

    error: str


def failed_runs(content: Content) -> list[Failed]:
    """Runs with an error, those of one config together."""
    failed = content.runs.filter(pc.field("error").is_valid())
    rows = [row for row in failed.to_pylist() if row["error"]]
    names = _names(content)
    found = [
        Failed(
            run_id=row["run_id"],
            config=names.get(row["run_id"], row["config_id"]),
            seed=row["seed"],
            status=row["status"],
            epochs=row["epochs_done"],
            summary=row["error"].strip().splitlines()[-1] if row["error"].strip() else "",
            error=row["error"].strip()[-MAX_TRACEBACK:],
        )
        for row in rows
    ]
    return sorted(found, key=lambda run: (run.config, run.seed))[:MAX_FAILED]


def provenance(content: Content) -> list[tuple[str, list[str]]]:
    """What is known of the origin of the numbers: a name, and the lines that belong to it."""
    rows = content.runs.to_pylist()
    statuses = Counter(row["status"] for row in rows)
    waiting = len(set(content.cells["run_id"].to_pylist())) - len(rows)
    runs = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
    seconds = sum(row["train_seconds"] or 0.0 for row in rows)
    epochs = sum(row["epochs_done"] for row in rows)
    known: list[tuple[str, list[str]]] = [
        ("training data", _data(content, rows)),
        ("runs", [runs + (f", {waiting} never finished an epoch" if waiting else "")]),
        ("training", [f"{epochs:,} epochs, {duration(seconds)} of computing"] if rows else []),
        ("code", [f"commit {commit}" for commit in _distinct(rows, "git_commit")]),
        ("trainer", [f"version {version}" for version in _distinct(rows, "trainer_version")]),
        ("versions", [_versions(text) for text in _distinct(rows, "versions")]),
        ("hardware", _machines(rows)),
        ("forecasts", [str(forecast) for forecast in content.forecasts]),
        ("fallbacks", _fallbacks(rows)),
    ]
    return [(name, lines) for name, lines in known if lines]


def _data(content: Content, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    names = [] if content.spec is None else [content.spec.data.train]
    lines = [f"{name}" for name in names]
    lines += [f"fingerprint {print_}" for print_ in _distinct(rows, "data.fingerprint")]
    lines += [f"{n} images set aside for validation" for n in _distinct(rows, "data.validation")]
    return lines


def _machines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    found = Counter((row["host"], row["device"]) for row in rows if row["host"])
    return [f"{device or 'unknown device'} on {host}" for host, device in sorted(found)]


def _versions(text: str) -> str:
    try:
        return ", ".join(f"{name} {version}" for name, version in json.loads(text).items())
    except (ValueError, AttributeError):
        return text


def _fallbacks(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    found = Counter(text for row in rows for text in row["fallbacks"])
    return [f"{text} ({count} runs)" for text, count in found.most_common(20)]


def _distinct(rows: Sequence[Mapping[str, Any]], column: str) -> list[str]:
    return sorted({str(row[column]) for row in rows if row[column] is not None})


def _names(content: Content) -> dict[str, str]:
    """A config in words, by run: of every stage."""
    asked = frame(content.cells.select(["run_id", "label"])).drop_duplicates("run_id")
    words = config_names(list(pd.unique(asked["label"])))
    return dict(zip(asked["run_id"], asked["label"].map(words), strict=True))
