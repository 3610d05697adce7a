"""What a reader must know of a sweep before believing a mean: cells without a result, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pyarrow as pa

from cifake.runs import RunState

_WORDS = {
    "waiting": "not trained yet",
    "running": "stopped half-way",
    "failed": "of failed runs",
    "diverged": "of runs that diverged",
    "pruned": "of runs that a search stopped early",
    "complete": "of runs that are shorter",
}
"""Why a cell has no result, by the status of its run."""


def gap_notes(cells: pa.Table, states: Mapping[str, RunState]) -> list[str]:
    """A sentence for each stage that lacks results; none where every cell has one.

    Args:
        cells: table `cells`, what is asked for.
        states: of the runs that finished an epoch, by run.
    """
    rows = cells.select(["stage", "label", "epochs", "run_id"]).to_pylist()
    stages = dict.fromkeys(row["stage"] for row in rows)
    return [
        note
        for stage in stages
        for note in _of_stage(stage, [row for row in rows if row["stage"] == stage], states)
    ]


def _of_stage(
    stage: str, rows: Sequence[Mapping[str, object]], states: Mapping[str, RunState]
) -> Iterator[str]:
    reasons = Counter(reason for row in rows if (reason := _reason(row, states)) is not None)
    if not reasons:
        return
    total = sum(reasons.values())
    words = _listed(f"{count} {_WORDS[reason]}" for reason, count in reasons.most_common())
    cells = {"search": "cells of the search", "confirm": "confirming cells"}.get(stage, "cells")
    verb = "has" if total == 1 else "have"
    if stage == "search":
        yield f"{total} of {len(rows)} {cells} {verb} no result: {words}"
        return
    configs = Counter((row["label"], row["epochs"]) for row in rows)
    left = Counter(
        (row["label"], row["epochs"]) for row in rows if _reason(row, states) is not None
    )
    empty = sum(count == configs[config] for config, count in left.items())
    none = f"; {empty} of {len(configs)} configs and lengths have no run at all" if empty else ""
    yield (
        f"{total} of {len(rows)} {cells} {verb} no result: {words}. Means are over the runs that "
        f"have one, and tables say of how many{none}"
    )


def _reason(cell: Mapping[str, object], states: Mapping[str, RunState]) -> str | None:
    """Why a cell has no result; null where it has one."""
    state = states.get(str(cell["run_id"]))
    if state is None:
        return "waiting"
    return None if state.epochs_done >= int(str(cell["epochs"])) else state.status


def _listed(parts: Iterable[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last
