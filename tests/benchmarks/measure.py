"""Time two ways of doing the same thing, turn by turn, and say how they compare."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

Judged = Literal["ratio at least", "ratio at most", "value at most"]


@dataclass(frozen=True)
class Timed:
    """One repeat: what was done, and what it took."""

    work: float
    """How much was done, such as images."""

    wall: float
    """Seconds by the clock."""

    cpu: float
    """Seconds of processors, those of finished child processes included."""

    @property
    def speed(self) -> float:
        """Work a second, by the clock."""
        return self.work / self.wall

    @property
    def cpu_speed(self) -> float:
        """Work a second of processor time: what other work on the machine disturbs less."""
        return self.work / self.cpu


@dataclass(frozen=True)
class Outcome:
    """What a benchmark found; one number a repeat."""

    name: str
    unit: str
    values: Sequence[float]
    judged: Judged
    target: float | None
    """Null where nothing is asked for."""

    baselines: Sequence[float] = ()
    """What each value is compared with, from the same turn; none where a value stands alone."""

    cpu_ratios: Sequence[float] = field(default=())
    """The same comparisons by processor time."""

    device: str = "cpu"

    @property
    def value(self) -> float:
        """Median of the values."""
        return median(self.values)

    @property
    def baseline(self) -> float | None:
        """Median of the baselines."""
        return median(self.baselines) if self.baselines else None

    @property
    def ratio(self) -> float | None:
        """Of the two medians."""
        return None if self.baseline is None else self.value / self.baseline

    @property
    def spread(self) -> tuple[float, float]:
        """The lowest and the highest repeat of what is judged."""
        judged = self.values
        if self.baselines:
            judged = [v / b for v, b in zip(self.values, self.baselines, strict=True)]
        return min(judged), max(judged)

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; null where there is none."""
        if self.target is None:
            return None
        found = self.value if self.judged == "value at most" else self.ratio
        if found is None:
            raise ValueError(f"{self.name} is judged by its ratio and has no baseline")
        return found >= self.target if self.judged == "ratio at least" else found <= self.target


def timed(work: float, function: Callable[[], object]) -> Timed:
    """Run a function once."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    function()
    return Timed(work, time.perf_counter() - wall, cpu_seconds() - cpu)


def in_turns(repeats: int, *ways: Callable[[], Timed]) -> list[list[Timed]]:
    """The repeats of each way; in every turn each is run once, so that all see the same machine."""
    turns = [[way() for way in ways] for _ in range(repeats)]
    return [list(each) for each in zip(*turns, strict=True)]


def speedup(
    name: str,
    unit: str,
    ours: Sequence[Timed],
    theirs: Sequence[Timed],
    *,
    target: float | None,
    device: str = "cpu",
) -> Outcome:
    """Compare the speeds of two ways."""
    return Outcome(
        name,
        unit,
        [each.speed for each in ours],
        "ratio at least",
        target,
        [each.speed for each in theirs],
        [a.cpu_speed / b.cpu_speed for a, b in zip(ours, theirs, strict=True)],
        device,
    )


def cpu_seconds() -> float:
    """Seconds of processors that this process and its finished children have used."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in (
            resource.getrusage(resource.RUSAGE_SELF),
            resource.getrusage(resource.RUSAGE_CHILDREN),
        )
    )
