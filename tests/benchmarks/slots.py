"""How much of a cluster's time its trials get: slots on one machine, and trials that sleep.

python -m tests.benchmarks.slots SLOTS TRIALS SECONDS    a line of JSON
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps import authentication
from sweeps.rounds import Round
from sweeps.words import counted
from tests.benchmarks.measure import Outcome

_EFFICIENCY = 0.95
_REPORTS = 5
"""Of each trial, as if so many epochs ended."""

_POLL = 0.2


@dataclass(frozen=True)
class _Trial:
    """Sleeps, and reports now and then."""

    seconds: float


@dataclass(frozen=True)
class _Arrival:
    """Waits until as many workers as there are slots have come."""

    folder: str
    number: int
    slots: int


def slots(numbers: Sequence[int], each: int, seconds: float, repeats: int) -> Iterator[Outcome]:
    """The time that trials need at least over the time that they take, by number of slots.

    The workers have started before the clock does: here all of their processes share this machine,
    while nodes start their own. How long that takes is told too.

    Args:
        numbers: of slots.
        each: trials a slot.
        seconds: that a trial sleeps.
        repeats: of each number, in a process of its own.
    """
    for number in numbers:
        found = [_measured(number, number * each, seconds) for _ in range(repeats)]
        taken = [turn["seconds"] for turn in found]
        name = f"{number * each} trials of {seconds:g} s on {counted(number, 'slot')}"
        ideal = [each * seconds] * repeats
        yield Outcome(name, "s", taken, "ratio at most", 1 / _EFFICIENCY, ideal)
        started = [turn["started"] for turn in found]
        name = f"start {counted(number, 'worker')} on this machine"
        yield Outcome(name, "s", started, "value at most", None)


def _measured(slots: int, trials: int, seconds: float) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.slots", *map(str, (slots, trials, seconds))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _run(task: _Trial | _Arrival, report: Callable[[Any], None]) -> None:
    if isinstance(task, _Trial):
        for number in range(_REPORTS):
            time.sleep(task.seconds / _REPORTS)
            report(number)
        return
    folder = Path(task.folder)
    (folder / str(task.number)).touch()
    while len(os.listdir(folder)) < task.slots:
        time.sleep(_POLL)


def _timed(slots: int, trials: int, seconds: float) -> dict[str, float]:
    from sweeps import tuner

    problems: list[str] = []
    found: dict[str, float] = {}

    def end(task: Any, problem: str | None) -> None:
        del task
        if problem is not None:
            problems.append(problem)

    def rounds(folder: str) -> Iterator[Round]:
        arrivals = [_Arrival(folder, number, slots) for number in range(slots)]
        begun = time.perf_counter()
        yield Round(tasks=arrivals, run=_run, on_report=lambda *_: None, on_end=end, ahead=trials)
        there = time.perf_counter()
        tasks = [_Trial(seconds) for _ in range(trials)]
        yield Round(tasks=tasks, run=_run, on_report=lambda *_: None, on_end=end)
        found.update(started=there - begun, seconds=time.perf_counter() - there)

    with tempfile.TemporaryDirectory() as folder:
        tuner.run_rounds(rounds(folder), {"cpu": 1})
    if problems:
        raise ValueError(f"{len(problems)} trials failed: {problems[:3]}")
    return found


def main(slots: int, trials: int, seconds: float) -> None:
    """Print what trials on so many slots take."""
    authentication.prepare(None)
    from sweeps import tuner

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tuner.cluster(None, slots):
        print(json.dumps(_timed(slots, trials, seconds)), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
