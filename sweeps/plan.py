"""From a specification and what the store knows to what must be trained. Pure: no files, no clock.

Cells of one config and seed that differ in length are milestones of one run. A run is done when it
is as long as its longest cell and has been evaluated at each of them; otherwise it is continued
from where it stands, or new. Runs that were begun together go on together; of the new ones as many
form a stack as the specification says, or else as are fastest, and fewer where a worker would be
left alone with a long one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import accumulate, pairwise
from typing import Any, Protocol

from cifake.config import Config, run_id
from cifake.models import catalogue
from cifake.runs import RunState
from cifake.stacks import Standing, begun_stacks, stacks_of_width
from sweeps import foresight, outdated
from sweeps.balance import Divisible, makespan, split
from sweeps.spec import Compare, Variant
from sweeps.words import counted


@dataclass(frozen=True)
class Cell:
    """One combination at one length with one seed."""

    variant: Variant
    seed: int
    config_id: str
    run_id: str
    stage: str = "grid"
    """What asks for it: the grid, a search, or a search's last stage, confirm."""


@dataclass(frozen=True)
class Stack:
    """The runs of one config that are trained together: what one trial does."""

    config: Config
    seeds: tuple[int, ...]
    start: int
    """Epochs that every run of it has behind it; after a kill some can be an epoch further."""

    epochs: int
    """Length that every run of it will have."""

    milestones: tuple[int, ...]
    """Lengths at which every evaluation is made and predictions are kept."""

    repeated: int = 0
    """Epochs that some runs have already and repeat, so that the others have their company."""

    @cached_property
    def config_id(self) -> str:
        """Of its config."""
        return self.config.config_id

    @property
    def run_ids(self) -> list[str]:
        """The runs, in the order of the seeds."""
        return [run_id(self.config_id, seed) for seed in self.seeds]

    @property
    def epochs_to_train(self) -> int:
        """Epochs over all runs."""
        return (self.epochs - self.start) * len(self.seeds) - self.repeated


@dataclass(frozen=True)
class Plan:
    """What a sweep asks for, what the store has of it, and what is left to train."""

    cells: list[Cell]
    stacks: list[Stack]
    """Longest first."""

    runs_done: int
    runs_continued: int
    runs_new: int
    runs_failed: int
    """Of the runs continued and new, those that an error stopped before."""

    runs_diverged: int
    epochs_asked: int
    """Epochs if every cell were trained on its own."""

    seconds_saved: float | None
    """Seconds that the epochs saved would take on one worker; null where that is not known."""

    predicted_seconds: float | None
    """Predicted makespan; null where nothing is known of the speed."""

    width: int | None = None
    """Runs of a stack, where the specification says so."""

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

    def new_stacks(self) -> dict[str, list[tuple[int, ...]]]:
        """By config, the seeds of every stack that starts from nothing."""
        found: dict[str, list[tuple[int, ...]]] = defaultdict(list)
        for stack in self.stacks:
            if stack.start == 0:
                found[stack.config_id].append(stack.seeds)
        return dict(found)

    def as_dict(self) -> dict[str, Any]:
        """The numbers of `sweeps plan --json`."""
        return {
            "cells": len(self.cells),
            "runs": self.runs,
            "runs_done": self.runs_done,
            "runs_continued": self.runs_continued,
            "runs_new": self.runs_new,
            "runs_failed": self.runs_failed,
            "runs_diverged": self.runs_diverged,
            "stacks": len(self.stacks),
            "stack_widths": sorted({len(stack.seeds) for stack in self.stacks}),
            "width": self.width,
            "epochs_to_train": self.epochs_to_train,
            "epochs_saved": self.epochs_saved,
            "seconds_saved": self.seconds_saved,
            "predicted_seconds": self.predicted_seconds,
            "notes": list(self.notes),
        }


class Cost(Protocol):
    """What training costs, as far as it is known."""

    def seconds(self, config: Config, width: int) -> float | None:
        """Of one epoch of one run in a stack of some width; null where that is unknown."""

    def milestone(self, config: Config, width: int) -> float:
        """Seconds of evaluating one run on all test sets; 0 where that is unknown."""

    def width(self, config: Config, runs: int) -> int:
        """How many of some runs are trained as one network, at most."""


Decided = Mapping[str, Sequence[Sequence[int]]]
"""By config, the stacks that an earlier plan of the sweep made of runs that were new then."""


def make_cells(
    variants: Iterable[Variant], seeds: Sequence[int], stage: str = "grid"
) -> list[Cell]:
    """Every variant with every seed."""
    identified = ((variant, variant.config.config_id) for variant in variants)
    return [
        Cell(variant, seed, config_id, run_id(config_id, seed), stage)
        for variant, config_id in identified
        for seed in seeds
    ]


def finished(
    cells: Iterable[Cell],
    known: Mapping[str, RunState],
    evaluations: Sequence[tuple[str, str]],
) -> bool:
    """Whether nothing is left to train: each run is done, or diverged and would again."""
    asked: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        asked[cell.run_id].append(cell)
    return all(
        _status(wanted, known.get(identity), evaluations) in ("done", "diverged")
        for identity, wanted in asked.items()
    )


def make_plan(
    cells: Sequence[Cell],
    known: Mapping[str, RunState],
    evaluations: Sequence[tuple[str, str]],
    *,
    workers: int,
    cost: Cost,
    decided: Decided | None = None,
    compare: Compare | None = None,
    width: int | None = None,
) -> Plan:
    """Plan what is left to train.

    Args:
        cells: what is asked for.
        known: what the store has, by run.
        evaluations: `(dataset, split)` that every milestone needs.
        workers: stacks that train at the same time.
        cost: what training costs.
        decided: stacks that were planned before; those of which no run was begun stay as they are.
        compare: what is to be compared; by default, or where other things tell configs apart,
            nothing is said of what so many seeds can show.
        width: runs of a stack, the last ones of a config with fewer; null for as many as are
            fastest, and fewer where a worker would be left alone with a long stack.
    """
    asked: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        asked[cell.run_id].append(cell)
    configs: dict[str, dict[int, _Run]] = defaultdict(dict)
    for identity, wanted in asked.items():
        state = known.get(identity)
        run = _Run(wanted, state, _status(wanted, state, evaluations))
        configs[wanted[0].config_id][wanted[0].seed] = run
    runs = [run for members in configs.values() for run in members.values()]
    fixed, free = [], []
    for config_id, members in configs.items():
        begun = _begun(members)
        placed = {seed for stack in begun for seed in stack.seeds}
        left = {s: run for s, run in members.items() if run.is_wanted and s not in placed}
        planned = (decided or {}).get(config_id, ())
        if width is not None:
            planned = _of_width(members, left, width)
        settled, new = _never_begun(left, planned)
        fixed += [*begun, *_diverged(left), *settled]
        free += new
    stacks, makespan = _pack(fixed, free, cost, workers)
    count = Counter(run.status for run in runs)
    return Plan(
        cells=list(cells),
        stacks=stacks,
        runs_done=count["done"],
        runs_continued=count["continued"],
        runs_new=count["new"],
        runs_failed=sum(run.is_wanted and run.failed for run in runs),
        runs_diverged=count["diverged"],
        epochs_asked=sum(cell.variant.epochs for cell in cells),
        seconds_saved=_seconds_saved(runs, stacks, cost),
        predicted_seconds=makespan,
        width=width,
        notes=(
            *(
                []
                if compare is None
                else foresight.notes(((c.variant, c.seed) for c in cells), compare)
            ),
            *_divergence_notes(count["diverged"]),
            *outdated.notes(
                (
                    (run.asked[0].variant.config, run.asked[0].seed)
                    for run in runs
                    if run.status == "new"
                ),
                known.values(),
            ),
            *_sharing_notes(cells),
            *_stacking_notes(stacks),
            *(_guess_notes(stacks, cost) if makespan is not None else []),
            *_width_notes(configs.values(), width),
            *_idle_notes(len(stacks), workers),
        ),
    )


@dataclass(frozen=True)
class _Run:
    """One run that is asked for: its cells, and what the store has of it."""

    asked: list[Cell]
    state: RunState | None
    status: str

    @property
    def standing(self) -> Standing:
        return Standing(self.asked[0].seed, 0, ()) if self.state is None else self.state.standing

    @property
    def is_wanted(self) -> bool:
        return self.status in ("continued", "new")

    @property
    def failed(self) -> bool:
        return self.state is not None and self.state.status == "failed"


def _begun(members: Mapping[int, _Run]) -> list[Stack]:
    """The stacks in which runs that were begun go on, without those that have nothing left."""
    found = []
    for each in begun_stacks(run.standing for run in members.values()):
        wanted = [seed for seed in each.seeds if members[seed].is_wanted]
        if wanted:
            whole = _stack({seed: members[seed] for seed in each.seeds}, each.start)
            company = whole.seeds if whole.epochs > each.start else tuple(wanted)
            repeated = sum(_surplus(members[seed], whole) for seed in company)
            found.append(replace(whole, seeds=company, repeated=repeated))
    return found


def _surplus(run: _Run, stack: Stack) -> int:
    """Epochs of a stack that a run has already, or will not live to train."""
    end = stack.epochs if run.standing.diverged else run.standing.epochs_done
    return min(end, stack.epochs) - stack.start


def _diverged(left: Mapping[int, _Run]) -> list[Stack]:
    """Runs that are trained no further, but lack an evaluation of what they reached."""
    reached: dict[int, dict[int, _Run]] = defaultdict(dict)
    for seed, run in left.items():
        if run.standing.diverged:
            reached[run.standing.epochs_done][seed] = run
    return [_stack(runs, start) for start, runs in reached.items()]


def _never_begun(
    left: Mapping[int, _Run], decided: Sequence[Sequence[int]]
) -> tuple[list[Stack], list[Stack]]:
    """New runs: the stacks that were planned before, and one of all the others."""
    new = {seed: run for seed, run in left.items() if not run.standing.diverged}
    kept = [seeds for seeds in decided if set(seeds) <= new.keys()]
    settled = [_stack({seed: new.pop(seed) for seed in seeds}, 0) for seeds in kept]
    return settled, [_stack(new, 0)] if new else []


def _of_width(members: Mapping[int, _Run], left: Mapping[int, _Run], width: int) -> list[list[int]]:
    """The stacks of a width that is given, without the runs that are not left to begin."""
    new = {seed for seed, run in left.items() if not run.standing.diverged}
    stacks = stacks_of_width(_config(members), [*members], width)
    return [kept for stack in stacks if (kept := [seed for seed in stack if seed in new])]


def _config(members: Mapping[int, _Run]) -> Config:
    return next(iter(members.values())).asked[0].variant.config


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


def _stack(members: Mapping[int, _Run], start: int) -> Stack:
    cells = [cell for run in members.values() for cell in run.asked]
    lengths = {cell.variant.epochs for cell in cells}
    return Stack(
        config=cells[0].variant.config,
        seeds=tuple(members),
        start=start,
        epochs=max(start, *lengths),
        milestones=tuple(sorted(lengths)),
    )


def _pack(
    fixed: list[Stack], free: list[Stack], cost: Cost, workers: int
) -> tuple[list[Stack], float | None]:
    """Split what may be split where that shortens the makespan; order the longest first."""
    widest = [cost.width(stack.config, len(stack.seeds)) for stack in free]
    found = [
        each
        for stack, width in (
            *((stack, len(stack.seeds)) for stack in fixed),
            *zip(free, widest, strict=True),
        )
        if (each := cost.seconds(stack.config, width)) is not None
    ]
    # Where nothing is known, equal epochs are the best guess for the order; no time is predicted.
    guess = sum(found) / len(found) if found else 1.0

    def seconds(stack: Stack, runs: int) -> float:
        known = cost.seconds(stack.config, runs)
        trained = (stack.epochs - stack.start) * (guess if known is None else known)
        left = sum(m > stack.start or stack.start == stack.epochs for m in stack.milestones)
        return runs * (trained + left * cost.milestone(stack.config, runs))

    divisible = [
        Divisible(len(stack.seeds), width, partial(seconds, stack))
        for stack, width in zip(free, widest, strict=True)
    ]
    settled = [seconds(stack, len(stack.seeds)) for stack in fixed]
    widths = split(divisible, settled, workers)
    parts = [part for stack, each in zip(free, widths, strict=True) for part in _parts(stack, each)]
    timed = [*zip(fixed, settled, strict=True)]
    timed += [(part, seconds(part, len(part.seeds))) for part in parts]
    timed.sort(key=lambda each: each[1], reverse=True)
    length = makespan((each for _, each in timed), workers)
    return [stack for stack, _ in timed], length if found or not timed else None


def divided(stacks: Sequence[Stack], cost: Cost, workers: int) -> dict[int, list[Stack]]:
    """The parts of some stacks that are split since there are more workers than there were.

    Args:
        stacks: that wait; none is begun.
        cost: what training costs.
        workers: that have nothing else to do.

    Returns:
        By place among the stacks; those that stay whole are left out.
    """
    parts, _ = _pack([], list(stacks), cost, workers)
    found = {
        place: [p for p in parts if p.config == stack.config and set(p.seeds) <= set(stack.seeds)]
        for place, stack in enumerate(stacks)
    }
    return {place: each for place, each in found.items() if len(each) > 1}


def _parts(stack: Stack, widths: Sequence[int]) -> list[Stack]:
    """A stack cut into some of so many runs each."""
    ends = [0, *accumulate(widths)]
    return [replace(stack, seeds=stack.seeds[start:end]) for start, end in pairwise(ends)]


def _seconds_saved(runs: Iterable[_Run], stacks: Iterable[Stack], cost: Cost) -> float | None:
    """What each cell on its own would take beyond what is left, by the speed of its run's stack."""
    planned = {identity: stack for stack in stacks for identity in stack.run_ids}
    total = 0.0
    for run in runs:
        stack = planned.get(run.asked[0].run_id)
        left = 0 if stack is None else stack.epochs - stack.start
        saved = sum(cell.variant.epochs for cell in run.asked) - left
        width = run.state.stack_width if stack is None and run.state else None
        if stack is not None:
            width = len(stack.seeds)
        if saved and width is None:
            return None
        if saved and width is not None:
            each = cost.seconds(run.asked[0].variant.config, width)
            if each is None:
                return None
            total += saved * each
    return total


def _divergence_notes(diverged: int) -> Iterator[str]:
    """How many runs are trained no further."""
    if diverged:
        yield (
            f"{counted(diverged, 'run')} diverged before and would again; change "
            "a setting to train anew"
        )


def _sharing_notes(cells: Iterable[Cell]) -> Iterator[str]:
    """Which lengths share no epoch because the learning rate depends on them."""
    alike: dict[tuple[object, ...], set[object]] = defaultdict(set)
    for config in {cell.config_id: cell.variant.config for cell in cells}.values():
        flat = config.flat()
        horizon, name = flat.pop("schedule.horizon"), flat["schedule.name"]
        alike[name, *flat.values()].add(horizon)
    for name in sorted({str(key[0]) for key, horizons in alike.items() if len(horizons) > 1}):
        yield (
            f"schedule {name}: each length is a run of its own and shares no epoch, since its "
            "learning rate depends on the horizon; lengths of one `schedule.horizon` would"
        )


def _stacking_notes(stacks: Iterable[Stack]) -> Iterator[str]:
    """Which networks are trained one seed after another because they cannot be stacked."""
    reasons: dict[str, set[str]] = defaultdict(set)
    trained = [stack for stack in stacks if stack.epochs > stack.start]
    runs = Counter(stack.config_id for stack in trained for _ in stack.seeds)
    for stack in trained:
        reason = catalogue.stacking_problem(stack.config)
        if reason is not None and runs[stack.config_id] > 1:
            reasons[reason].add(stack.config.model)
    for reason, models in reasons.items():
        yield f"{', '.join(sorted(models))}: one seed is trained after another, since {reason}"


def _guess_notes(stacks: Iterable[Stack], cost: Cost) -> Iterator[str]:
    """Which networks a predicted time knows nothing of."""
    unknown = {
        stack.config.model
        for stack in stacks
        if stack.epochs > stack.start and cost.seconds(stack.config, len(stack.seeds)) is None
    }
    if unknown:
        yield (
            f"{', '.join(sorted(unknown))}: how long an epoch takes is not known before one was "
            "trained; in the predicted time it is as long as the others' on average"
        )


def _width_notes(configs: Iterable[Mapping[int, _Run]], width: int | None) -> Iterator[str]:
    """How many runs of the store were trained in other company than a given width says."""
    if width is None:
        return
    others = 0
    for members in configs:
        lost = {seed for seed, run in members.items() if run.standing.diverged}
        for stack in stacks_of_width(_config(members), [*members], width):
            found = (set(members[seed].standing.stack) for seed in {*stack} - lost)
            others += sum(bool(each) and each - lost != {*stack} - lost for each in found)
    if others:
        yield (
            f"{counted(others, 'run')} of the store {'was' if others == 1 else 'were'} begun in "
            f"other stacks than `resources.width: {width}` makes; they stay in them, so that their "
            "last bits can differ from those of a new store"
        )


def _idle_notes(stacks: int, workers: int) -> Iterator[str]:
    """How many workers a smaller machine or cluster could do without."""
    if 0 < stacks < workers:
        yield (
            f"{workers - stacks} of {workers} workers have nothing to do: there "
            f"{'is 1 stack' if stacks == 1 else f'are {stacks} stacks'} to train"
        )
