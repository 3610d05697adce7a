"""Which runs of a configuration are trained as one network.

The last bits of a run's numbers depend on the stack it was trained in, so a run that was begun in a
stack goes on in it, also after a kill that left some of its runs an epoch behind the others.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from cifake.config import Config
from cifake.models import catalogue

_LONG_STEP = 0.02
"""Seconds of a step on a CPU that is all arithmetic: there is nothing for a stack to save."""

_WORSE = 0.8
"""Share of the best speed below which no wider stack is tried."""

_TURNS = 3
"""How often all widths are timed, one after another: a core of a shared machine can be slow for
seconds, and that shall not decide between two widths."""

_MOST_TURNS = 9
"""How often they are while their fastest moments and their usual ones name different widths."""

_AS_GOOD = 0.95
"""Share of the best speed that is as good: a core of a shared machine varies by more in seconds."""


@dataclass(frozen=True)
class Standing:
    """Where a run stands."""

    seed: int
    epochs_done: int
    stack: tuple[int, ...]
    """Seeds of the stack that its next epoch is trained in, its own among them; none before it was
    begun."""

    diverged: bool = False


@dataclass(frozen=True)
class Begun:
    """A stack that was begun, and where it goes on."""

    seeds: tuple[int, ...]
    """In the order of their channels."""

    start: int
    """Epochs that each of them has behind it at least; those an epoch ahead repeat it."""


def begun_stacks(runs: Iterable[Standing]) -> list[Begun]:
    """The stacks in which runs that were begun go on, the furthest behind first.

    The run furthest behind says who is in its stack: those that stand where it stands, those that a
    kill found an epoch further or not begun yet, and those that would diverge in the epoch to be
    repeated.
    """
    left = {run.seed: run for run in _with_company(list(runs))}
    found = []
    while waiting := [run for run in left.values() if not run.diverged]:
        last = min(waiting, key=lambda run: run.epochs_done)
        seeds = [seed for seed in last.stack if seed in left and _together(left[seed], last)]
        found.append(Begun(tuple(seeds), last.epochs_done))
        left = {seed: run for seed, run in left.items() if seed not in seeds}
    return found


def _with_company(runs: Sequence[Standing]) -> Iterator[Standing]:
    """Runs that were begun, and those that one at its start was begun with."""
    starting = {seed: run.stack for run in runs if run.epochs_done == 0 for seed in run.stack}
    for run in runs:
        if run.stack:
            yield run
        elif run.epochs_done == 0 and run.seed in starting:
            yield replace(run, stack=starting[run.seed])


def _together(run: Standing, last: Standing) -> bool:
    if run.seed == last.seed:
        return True
    ahead = run.epochs_done - last.epochs_done
    return ahead == 0 if run.diverged else ahead in (0, 1)


def chunks(seeds: Sequence[int], width: int) -> list[tuple[int, ...]]:
    """Seeds in as few parts of at most `width` as there can be, the parts nearly equal."""
    parts = -(-len(seeds) // width)
    ends = [len(seeds) * number // max(1, parts) for number in range(parts + 1)]
    return [tuple(seeds[start:end]) for start, end in itertools.pairwise(ends)]


def stacks_of_width(config: Config, seeds: Sequence[int], width: int) -> list[tuple[int, ...]]:
    """Seeds in their order, so many in each stack, and what is left in the last.

    Who stands beside whom depends on nothing but the seeds and the width. Where a config cannot be
    stacked each seed stands alone.
    """
    each = 1 if catalogue.stacking_problem(config) else width
    return [tuple(seeds[start : start + each]) for start in range(0, len(seeds), each)]


def best_width(
    config: Config,
    runs: int,
    speed: Callable[[int], float],
    device: str = "cpu",
) -> int:
    """The number of seeds trained as one network that is fastest here; of some as good, the most.

    Args:
        config: what is trained.
        runs: seeds at most.
        speed: measures images a second by width, all seeds together; asked in turns.
        device: where it is trained.
    """
    if runs == 1 or catalogue.stacking_problem(config):
        return 1
    if device.startswith("cpu") and _takes_long(config, speed):
        return 1
    turns: list[dict[int, float]] = []
    while True:
        turns.append(_turn(runs, speed))
        fastest = _widest_as_good(turns, max)
        usual = _widest_as_good(turns, median)
        # One quick moment of a slow core is enough for the fastest, and a slow one for the usual.
        if len(turns) == _MOST_TURNS or (len(turns) >= _TURNS and fastest == usual):
            return max(fastest, usual)


def _takes_long(config: Config, speed: Callable[[int], float]) -> bool:
    """Whether a step of one run does, each time that it is asked: a core may just have paused."""
    return all(config.batch_size / speed(1) > _LONG_STEP for _ in range(_TURNS))


def _turn(runs: int, speed: Callable[[int], float]) -> dict[int, float]:
    """Images a second of widths, ascending, up to one that is clearly worse."""
    found: dict[int, float] = {}
    for width in _widths(runs):
        found[width] = speed(width)
        if found[width] < _WORSE * max(found.values()):
            break
    return found


def _widest_as_good(
    turns: Sequence[Mapping[int, float]], summary: Callable[[Sequence[float]], float]
) -> int:
    """The widest that is as good as the best; what a turn did not come to is nothing there."""
    widths = {width for turn in turns for width in turn}
    speeds = {width: summary([turn.get(width, 0.0) for turn in turns]) for width in widths}
    best = max(speeds.values())
    return max(width for width, found in speeds.items() if found >= _AS_GOOD * best)


def _widths(runs: int) -> list[int]:
    """Widths worth trying for some runs, ascending: all of them, and by halves down to one."""
    halves = (-(-runs // 2**power) for power in itertools.count())
    return [1, *sorted(itertools.takewhile(lambda width: width > 1, halves))]
