"""Outcomes as rows of the table `benchmarks`, and as Markdown."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa

from cifake import tables
from cifake.files import write_aside
from cifake.provenance import device_name, git_commit
from sweeps.report.markdown import markdown_table
from tests.benchmarks.measure import Outcome

NAME = "benchmarks"
_CPUINFO = Path("/proc/cpuinfo")


def row(outcome: Outcome, measured_at: datetime) -> dict[str, Any]:
    """One outcome as a row."""
    low, high = outcome.spread
    return {
        "name": outcome.name,
        "value": outcome.value,
        "unit": outcome.unit,
        "baseline_value": outcome.baseline,
        "ratio": outcome.ratio,
        "target": outcome.target,
        "met": outcome.met,
        "commit": git_commit(),
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "torch": version("torch"),
        "ray": version("ray"),
        "measured_at": measured_at,
        "judged": outcome.judged,
        "low": low,
        "high": high,
        "cpu_ratio": median(outcome.cpu_ratios) if outcome.cpu_ratios else None,
        "repeats": len(outcome.values),
        "device": device_name(outcome.device),
    }


def append(folder: Path, outcomes: Sequence[Outcome]) -> pa.Table:
    """Add rows to `benchmarks.parquet`, write the newest of each name to `benchmarks.md`.

    Returns:
        The rows that were added.
    """
    now = datetime.now(UTC)
    added = tables.TABLES[NAME].from_rows([row(outcome, now) for outcome in outcomes])
    path = folder / f"{NAME}.parquet"
    before = [tables.decode(NAME, path.read_bytes())] if path.exists() else []
    whole = pa.concat_tables([*before, added]).unify_dictionaries()
    write_aside(path, tables.encode(NAME, whole))
    write_aside(folder / f"{NAME}.md", markdown(whole).encode())
    return added


def markdown(table: pa.Table) -> str:
    """The last row of every benchmark and machine, as a table."""
    newest = {(r["name"], r["cpu"], r["device"]): r for r in table.to_pylist()}
    head = [
        "benchmark", "value", "baseline", "ratio", "repeats", "by CPU time", "target", "met",
        "machine", "commit", "date",
    ]  # fmt: skip
    body = [_cells(each) for each in newest.values()]
    return (
        "# Benchmarks\n\nWritten by `make bench`; medians, and the spread over the repeats of one "
        "run. Older rows are in `benchmarks.parquet`.\n\n" + markdown_table(head, body) + "\n"
    )


def cpu_name() -> str:
    """What the processor calls itself."""
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()} {_instructions()}"
    return f"{platform.processor() or platform.machine()} {_instructions()}"


def _instructions() -> str:
    import torch

    return torch.backends.cpu.get_cpu_capability()


def _cells(found: dict[str, Any]) -> list[str]:
    sign, of = ("≥", "×") if found["judged"] == "ratio at least" else ("≤", "")
    unit = found["unit"] if found["judged"] == "value at most" else of
    target = "" if found["target"] is None else f"{sign} {number(found['target'])} {unit}".strip()
    return [
        found["name"],
        f"{number(found['value'])} {found['unit']}",
        number(found["baseline_value"]),
        number(found["ratio"]),
        f"{found['repeats']}: {number(found['low'])} to {number(found['high'])}",
        number(found["cpu_ratio"]),
        target,
        {True: "yes", False: "no", None: ""}[found["met"]],
        found["device"] if not found["device"].startswith("cpu") else found["cpu"],
        (found["commit"] or "")[:7],
        f"{found['measured_at']:%Y-%m-%d}",
    ]


def number(value: float | None) -> str:
    """Three significant digits; nothing for null."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
