"""What the driver spends on a cell, of time and of memory, and whether it grows with their number.

python -m tests.benchmarks.scheduling 1000 10000    a line of JSON for each number
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sweeps import authentication
from sweeps.rounds import Round
from sweeps.trial import Report, Task
from tests.benchmarks.measure import Outcome

_SECONDS, _GROWTH, _KILOBYTES = 0.02, 1.2, 3.0
_WORKERS = 2
_STATM = Path("/proc/self/statm")


def scheduling(few: int, many: int, repeats: int) -> Iterator[Outcome]:
    """Schedule cells that train nothing, on a Ray of two workers; each repeat is a new process.

    Memory is what the driver's resident set grows by while cells are run, at its highest, for
    `many` cells beyond what it grows by for `few`: what a driver needs at all is left out.
    """
    found = [_measured(few, many) for _ in range(repeats)]
    seconds = [[each[n]["seconds"] / n for each in found] for n in (few, many)]
    grown = [(each[many]["bytes"] - each[few]["bytes"]) / (many - few) / 1024 for each in found]
    name = f"schedule a null cell, of {many:,}"
    yield Outcome(name, "s", seconds[1], "value at most", _SECONDS)
    name = f"schedule a null cell, of {many:,} against of {few:,}"
    yield Outcome(name, "s", seconds[1], "ratio at most", _GROWTH, seconds[0])
    yield Outcome(
        f"driver memory a null cell, of {many:,}", "KB", grown, "value at most", _KILOBYTES
    )


def _measured(*numbers: int) -> dict[int, dict[str, float]]:
    """By number of cells, the seconds and bytes of a driver of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.scheduling", *map(str, numbers)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {each["cells"]: each for each in map(json.loads, done.stdout.splitlines())}


def _null(task: Task, report: Callable[[Report], None]) -> None:
    """Train nothing, and say so."""
    del task
    report(Report(epoch=1, width=1, epochs_trained=0, images=0, seconds=0.0, scores={}, stds={}))


def _run(cells: int) -> dict[str, Any]:
    from sweeps import tuner

    tasks = [
        Task({}, (number,), epochs=1, milestones=(1,), packs={}, evaluate=(), store="")
        for number in range(cells)
    ]
    before = highest = _resident()
    reports = ended = 0
    problems: list[str] = []

    def hear(task: Task, report: Report) -> None:
        nonlocal reports
        reports += 1
        del task, report

    def end(task: Task, problem: str | None) -> None:
        nonlocal ended, highest
        if problem is not None:
            problems.append(problem)
        ended += 1
        if ended % 100 == 0:
            highest = max(highest, _resident())
        del task

    begun = time.perf_counter()
    tuner.run_rounds([Round(tasks=tasks, run=_null, on_report=hear, on_end=end)], {"cpu": 1})
    seconds = time.perf_counter() - begun
    if problems or (reports, ended) != (cells, cells):
        raise ValueError(f"{ended} of {cells} cells ended, {reports} reported: {problems[:3]}")
    return {"cells": cells, "seconds": seconds, "bytes": max(highest, _resident()) - before}


def _resident() -> int:
    """Bytes of this process that are in memory."""
    return int(_STATM.read_text().split()[1]) * resource.getpagesize()


def main(numbers: Sequence[int]) -> None:
    """Print what so many cells take, each in turn."""
    authentication.prepare(None)
    from sweeps import tuner

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tuner.cluster(None, _WORKERS):
        _run(_WORKERS)
        for number in numbers:
            print(json.dumps(_run(number)), flush=True)


if __name__ == "__main__":
    main([int(number) for number in sys.argv[1:]])
