"""How stacks are split so that the workers end together. Pure: seconds in, numbers of runs out.

A stack is fastest whole, and a worker that ends early is lost. So few stacks are split, those that
end last, and only where that ends the sweep sooner.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from cifake.stacks import chunks

ENOUGH = 0.08
"""Nothing is split to end sooner than this share above the least time that is possible: seconds
come from speeds that are known no better, and what is split is slower."""

SPLIT_GAIN = 0.02
"""Of plans whose makespans are within this share of each other, that of fewest stacks is taken."""

SHORT = 0.1
"""Share of all work over the workers up to which runs are short, so that they can be laid out
evenly. Where one is longer a plan with more stacks must be sooner by `ENOUGH`: what it gains beside
is less than is known of speeds."""

_EFFORT = 400_000
"""Stacks that are laid on workers before the best plan found so far is taken: half a second."""


@dataclass(frozen=True)
class Divisible:
    """Runs of one config, any number of which can be trained as one network."""

    runs: int
    widest: int
    """Runs in one stack at most, and the number that is fastest."""

    seconds: Callable[[int], float]
    """Of a stack of so many of them."""


def split(
    divisible: Sequence[Divisible], fixed: Sequence[float], workers: int
) -> list[tuple[int, ...]]:
    """How many runs each stack has, of each config.

    The longest stack is started first. The makespan is never above that of stacks as wide as is
    fastest, nor above that of stacks of one width by more than `SPLIT_GAIN`, or `ENOUGH` where a
    run is not `SHORT`, unless it is within `ENOUGH` of what no plan can beat: all work, done as
    fast as can be, over the workers, or the longest run.

    Args:
        divisible: runs to be put into stacks.
        fixed: seconds of the stacks that stay as they are.
        workers: stacks that train at the same time.
    """
    whole = [tuple(map(len, chunks(range(each.runs), each.widest))) for each in divisible]
    seconds = [each.seconds(w) for each, ws in zip(divisible, whole, strict=True) for w in ws]
    bound = sum((*seconds, *fixed)) / workers
    if makespan((*seconds, *fixed), workers) <= bound * (1 + ENOUGH):
        return whole
    tables = [tuple(map(each.seconds, range(1, each.widest + 1))) for each in divisible]
    gain = SPLIT_GAIN if max(map(min, tables), default=0.0) <= SHORT * bound else ENOUGH
    bound = max(bound, *fixed, *map(min, tables))
    # Ties are broken by the order: it must not be that in which somebody wrote the cells.
    order = sorted(range(len(tables)), key=lambda n: (tables[n], divisible[n].runs))
    balance = _Balance([tables[n] for n in order], fixed, workers, bound * (1 + ENOUGH), gain)
    found = balance.best([whole[n] for n in order], [divisible[n].runs for n in order])
    return [widths for _, widths in sorted(zip(order, found, strict=True))]


def makespan(seconds: Iterable[float], workers: int) -> float:
    """When the last worker is free if each takes the longest of what is left as soon as it is."""
    free = [0.0] * max(1, workers)
    for each in sorted(seconds, reverse=True):
        heapq.heapreplace(free, free[0] + each)
    return max(free)


@dataclass(frozen=True)
class _Schedule:
    """Stacks laid on workers."""

    stacks: tuple[tuple[int, int], ...]
    """Config and number of runs of each, those that stay as they are left out."""

    loads: tuple[float, ...]
    """Seconds of each worker, descending."""

    last: tuple[int, ...]
    """Places among `stacks` of those on the worker that ends last."""

    @property
    def makespan(self) -> float:
        return self.loads[0]


class _Balance:
    """The search for stacks that end together.

    Args:
        tables: seconds of a stack by its runs, from one on, of each config.
        fixed: seconds of what stays as it is.
        workers: stacks that train at the same time.
        enough: seconds that need not be shortened.
        gain: share that makes a plan with more stacks the better one.
    """

    def __init__(
        self,
        tables: Sequence[tuple[float, ...]],
        fixed: Sequence[float],
        workers: int,
        enough: float,
        gain: float,
    ) -> None:
        self.tables = tables
        self.fixed = [(each, -1) for each in fixed]
        self.workers = workers
        self.enough = enough
        self.gain = gain
        self.effort = _EFFORT

    def best(self, whole: Sequence[Sequence[int]], runs: Sequence[int]) -> list[tuple[int, ...]]:
        """The widths of each config's stacks."""
        uniform = sorted(self._uniform(whole, runs), key=lambda each: each.loads)
        starts = [self._laid(_stacks(whole)), *uniform]
        found = list(starts)
        for start, alike in product(starts, (False, True)):
            found += self._improvements(start, alike=alike)
            if found[-1].makespan <= self.enough or self.effort <= 0:
                break
        shortest = min(each.makespan for each in found)
        good = max(shortest * (1 + self.gain), self.enough)
        fitting = [each for each in found if each.makespan <= good]
        chosen = min(fitting, key=lambda each: (len(each.stacks), each.loads))
        widths: list[list[int]] = [[] for _ in whole]
        for config, width in chosen.stacks:
            widths[config].append(width)
        return [tuple(each) for each in widths]

    def _uniform(self, whole: Sequence[Sequence[int]], runs: Sequence[int]) -> Iterator[_Schedule]:
        """Stacks of at most one width, the same for all configs."""
        widest = max((max(widths) for widths in whole), default=1)
        for width in range(widest - 1, 0, -1):
            yield self._laid(
                _stacks(
                    kept if max(kept) <= width else map(len, chunks(range(count), width))
                    for kept, count in zip(whole, runs, strict=True)
                )
            )

    def _improvements(self, schedule: _Schedule, *, alike: bool) -> Iterator[_Schedule]:
        """Split what ends last for as long as that lightens the worker with most to do."""
        while schedule.makespan > self.enough and self.effort > 0:
            splits = map(self._laid, self._splits(schedule, alike=alike))
            best = min(splits, key=lambda each: each.loads, default=schedule)
            if best.loads >= schedule.loads:
                break
            schedule = best
            yield schedule

    def _splits(self, schedule: _Schedule, *, alike: bool) -> Iterator[list[tuple[int, int]]]:
        """A stack of the worker that ends last in two, or all that are like it."""
        stacks = schedule.stacks
        kinds = {self._kind(*stacks[place]): place for place in reversed(schedule.last)}
        for kind, first in kinds.items():
            for cut in range(1, stacks[first][1] // 2 + 1):
                if self.effort <= 0:
                    return
                yield [
                    (config, part)
                    for place, (config, width) in enumerate(stacks)
                    for part in (
                        (width - cut, cut)
                        if place == first or (alike and self._kind(config, width) == kind)
                        else (width,)
                    )
                ]

    def _kind(self, config: int, width: int) -> tuple[float, ...]:
        """What tells a stack from others: what it and its parts take."""
        return self.tables[config][:width]

    def _laid(self, stacks: Iterable[tuple[int, int]]) -> _Schedule:
        """Lay stacks on workers, the longest first."""
        kept = tuple(stacks)
        self.effort -= len(kept) + len(self.fixed)
        seconds = [(self.tables[c][width - 1], place) for place, (c, width) in enumerate(kept)]
        free = [(0.0, worker) for worker in range(self.workers)]
        taken: list[list[int]] = [[] for _ in free]
        for each, place in sorted([*self.fixed, *seconds], reverse=True):
            load, worker = free[0]
            heapq.heapreplace(free, (load + each, worker))
            taken[worker].append(place)
        loads = sorted(free, reverse=True)
        last = tuple(place for place in taken[loads[0][1]] if place >= 0)
        return _Schedule(kept, tuple(round(load, 9) for load, _ in loads), last)


def _stacks(widths: Iterable[Iterable[int]]) -> list[tuple[int, int]]:
    """Config and width of every stack."""
    return [(config, width) for config, each in enumerate(widths) for width in each]
