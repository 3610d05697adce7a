"""From a specification and what the store knows to what must be trained. Pure: no files, no clock.

Cells of one config and seed that differ in length are milestones of one run. A run is done when it
is as long as its longest cell and has been evaluated at each of them; otherwise it is continued
from where it stands, or new.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cifake.config import Config, run_id
from cifake.runs import RunState
from sweeps.spec import Variant

SPLIT_GAIN = 0.05
"""A stack is split only where that shortens the predicted makespan by more than this share."""


@dataclass(frozen=True)
class Cell:
    """One combination at one length with one seed."""

    variant: Variant
    seed: int
    run_id: str


@dataclass(frozen=True)
class Stack:
    """The runs of one config that are trained together: what one trial does."""

    config: Config
    seeds: tuple[int, ...]
    start: int
    """Epochs that every run of it has behind it."""

    epochs: int
    """Length that every run of it will have."""

    milestones: tuple[int, ...]
    """Lengths at which every evaluation is made and predictions are kept."""

    @property
    def run_ids(self) -> list[str]:
        """The runs, in the order of the seeds."""
        return [run_id(self.config.config_id, seed) for seed in self.seeds]

    @property
    def epochs_to_train(self) -> int:
        """Epochs over all runs."""
        return (self.epochs - self.start) * len(self.seeds)


@dataclass(frozen=True)
class Plan:
    """What a sweep asks for, what the store has of it, and what is left to train."""

    cells: list[Cell]
    stacks: list[Stack]
    """Longest first."""

    runs_done: int
    runs_continued: int
    runs_new: int
    runs_diverged: int
    epochs_asked: int
    """Epochs if every cell were trained on its own."""

    predicted_seconds: float | None
    """Predicted makespan; null where nothing is known of the speed."""

    notes: tuple[str, ...] = ()
    """What the reader should know before starting."""

    @property
    def runs(self) -> int:
        """Runs asked for."""
        return self.runs_done + self.runs_continued + self.runs_new + self.runs_diverged

    @property
    def epochs_to_train(self) -> int:
        """Epochs left to train, over all runs."""
        return sum(stack.epochs_to_train for stack in self.stacks)

    @property
    def epochs_saved(self) -> int:
        """Epochs that need not be trained because runs share them or the store has them."""
        return self.epochs_asked - self.epochs_to_train

    def as_dict(self) -> dict[str, Any]:
        """The numbers of `sweeps plan --json`."""
        return {
            "cells": len(self.cells),
            "runs": self.runs,
            "runs_done": self.runs_done,
            "runs_continued": self.runs_continued,
            "runs_new": self.runs_new,
            "runs_diverged": self.runs_diverged,
            "stacks": len(self.stacks),
            "epochs_to_train": self.epochs_to_train,
            "epochs_saved": self.epochs_saved,
            "predicted_seconds": self.predicted_seconds,
            "notes": list(self.notes),
        }


Cost = Callable[[Config], float | None]
"""Seconds that one epoch of one run of a config takes, or null where that is unknown."""


def make_cells(variants: Iterable[Variant], seeds: Sequence[int]) -> list[Cell]:
    """Every variant with every seed."""
    return [
        Cell(variant, seed, run_id(variant.config.config_id, seed))
        for variant in variants
        for seed in seeds
    ]


def make_plan(
    cells: Sequence[Cell],
    known: Mapping[str, RunState],
    evaluations: Sequence[tuple[str, str]],
    *,
    workers: int,
    cost: Cost,
) -> Plan:
    """Plan what is left to train.

    Args:
        cells: what is asked for.
        known: what the store has, by run.
        evaluations: `(dataset, split)` that every milestone needs.
        workers: stacks that train at the same time.
        cost: predicted seconds of an epoch.
    """
    runs: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        runs[cell.run_id].append(cell)
    counted = dict.fromkeys(("done", "continued", "new", "diverged"), 0)
    groups: dict[tuple[str, int], list[list[Cell]]] = defaultdict(list)
    for identity, asked in runs.items():
        state = known.get(identity)
        status = _status(asked, state, evaluations)
        counted[status] += 1
        if status in ("continued", "new"):
            config_id = asked[0].variant.config.config_id
            start = 0 if state is None else state.epochs_done
            groups[config_id, start].append(asked)
    whole = [_stack(members, start) for (_, start), members in groups.items()]
    seconds = {stack.config.config_id: cost(stack.config) for stack in whole}
    stacks, makespan = _pack(whole, seconds, workers)
    seeds = len({cell.seed for cell in cells})
    return Plan(
        cells=list(cells),
        stacks=stacks,
        runs_done=counted["done"],
        runs_continued=counted["continued"],
        runs_new=counted["new"],
        runs_diverged=counted["diverged"],
        epochs_asked=sum(cell.variant.epochs for cell in cells),
        predicted_seconds=makespan,
        notes=_notes(seeds, counted["diverged"]),
    )


def _status(
    asked: Sequence[Cell], state: RunState | None, evaluations: Sequence[tuple[str, str]]
) -> str:
    if state is None:
        return "new"
    lengths = {cell.variant.epochs for cell in asked}
    needed = {f"{length}:{name}:{split}" for length in lengths for name, split in evaluations}
    if state.epochs_done >= max(lengths):
        return "done" if needed <= state.evaluated else "continued"
    if state.status == "diverged":
        return "diverged"
    return "continued" if state.epochs_done else "new"


def _stack(members: list[list[Cell]], start: int) -> Stack:
    lengths = {cell.variant.epochs for asked in members for cell in asked}
    return Stack(
        config=members[0][0].variant.config,
        seeds=tuple(asked[0].seed for asked in members),
        start=start,
        epochs=max(start, *lengths),
        milestones=tuple(sorted(lengths)),
    )


def _pack(
    whole: list[Stack], seconds: Mapping[str, float | None], workers: int
) -> tuple[list[Stack], float | None]:
    """Split stacks where that shortens the makespan; order the longest first."""
    known = [value for value in seconds.values() if value is not None]
    # Where nothing is known, equal epochs are the best guess for the order; no time is predicted.
    guess = sum(known) / len(known) if known else 1.0

    def duration(stack: Stack) -> float:
        return stack.epochs_to_train * (seconds[stack.config.config_id] or guess)

    best = sorted(whole, key=duration, reverse=True)
    shortest = makespan([duration(stack) for stack in best], workers)
    widest = max((len(stack.seeds) for stack in whole), default=1)
    for parts in range(2, widest + 1):
        split = [part for stack in whole for part in _split(stack, parts)]
        split.sort(key=duration, reverse=True)
        length = makespan([duration(stack) for stack in split], workers)
        if length < shortest * (1 - SPLIT_GAIN):
            best, shortest = split, length
    return best, shortest if known or not whole else None


def _split(stack: Stack, parts: int) -> list[Stack]:
    width = math.ceil(len(stack.seeds) / parts)
    return [
        replace(stack, seeds=stack.seeds[i : i + width]) for i in range(0, len(stack.seeds), width)
    ]


def makespan(durations: Iterable[float], workers: int) -> float:
    """When the last worker is free if each takes the next duration as soon as it is."""
    free = [0.0] * max(1, workers)
    for duration in durations:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


def _notes(seeds: int, diverged: int) -> tuple[str, ...]:
    notes = []
    if seeds < 6:
        notes.append(
            f"{seeds} seed{'' if seeds == 1 else 's'}: paired comparisons of fewer than 6 cannot "
            "reach p < 0.05"
        )
    if diverged:
        notes.append(
            f"{diverged} run{'' if diverged == 1 else 's'} diverged before and would again; change "
            "a setting to train anew"
        )
    return tuple(notes)
