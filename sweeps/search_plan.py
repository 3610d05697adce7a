"""What a search has done and has left."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console

from cifake.runs import RunState
from cifake.stacks import stacks_of_width
from sweeps import foresight
from sweeps.costs import Costs
from sweeps.known import known_points
from sweeps.parts import length, single_values, split_scientific, study_name
from sweeps.spec import Search, points
from sweeps.store import Store
from sweeps.sweep import Sweep, workers_here
from sweeps.words import duration

if TYPE_CHECKING:
    from sweeps.search.study import Ended


@dataclass(frozen=True)
class StudyPlan:
    """What one study has done and has left."""

    trials: int | None
    """Proposals to be made; null where other budgets alone bound them."""

    trials_done: int
    trials_known: int
    """Points of its space that the store has without a proposal."""

    trials_left: int | None
    epochs: int
    """Length of a trial."""

    seconds: float | None
    """Of one epoch of one run; null where that is unknown."""


@dataclass(frozen=True)
class SearchPlan:
    """What a search has done and has left; the epochs left are a bound, since trials may stop."""

    studies: Sequence[StudyPlan]
    seeds: int
    workers: int
    confirm_runs: int
    """Runs of its last stage."""

    budget: Mapping[str, float]
    """Of each study."""

    width: int | None = None
    """Seeds that are trained as one network, where the specification says so."""

    notes: tuple[str, ...] = ()
    """What the reader should know before starting."""

    @property
    def trials(self) -> int | None:
        """Proposals to be made over all studies."""
        return _sum(study.trials for study in self.studies)

    @property
    def trials_done(self) -> int:
        """Proposals that ended."""
        return sum(study.trials_done for study in self.studies)

    @property
    def trials_known(self) -> int:
        """Points that the store has without a proposal."""
        return sum(study.trials_known for study in self.studies)

    @property
    def trials_left(self) -> int | None:
        """Proposals left."""
        return _sum(study.trials_left for study in self.studies)

    @property
    def epochs_to_train(self) -> int | None:
        """Epochs left over all runs, if no trial is stopped early."""
        return _sum(
            None if study.trials_left is None else study.trials_left * self.seeds * study.epochs
            for study in self.studies
        )

    @property
    def predicted_seconds(self) -> float | None:
        """Of what is left, if no trial is stopped early; null where something is unknown.

        Studies are run in turn, and a trial is trained by one worker.
        """
        total = 0.0
        for study in self.studies:
            if study.trials_left is None or study.seconds is None:
                return None
            turns = math.ceil(study.trials_left / self.workers)
            total += turns * self.seeds * study.epochs * study.seconds
        return total

    def as_dict(self) -> dict[str, Any]:
        """The numbers of `sweeps plan --json`."""
        done = self.trials_done * self.seeds
        left = None if self.trials_left is None else self.trials_left * self.seeds
        return {
            "cells": None if left is None else done + left,
            "runs": None if left is None else done + left,
            "runs_done": done,
            "runs_continued": 0,
            "runs_new": left,
            "trials": self.trials,
            "trials_done": self.trials_done,
            "trials_known": self.trials_known,
            "confirm_runs": self.confirm_runs,
            "budget": dict(self.budget),
            "width": self.width,
            "epochs_to_train": self.epochs_to_train,
            "epochs_saved": self.trials_known * self.seeds * max(s.epochs for s in self.studies),
            "predicted_seconds": self.predicted_seconds,
            "notes": list(self.notes),
        }


def plan_search(sweep: Sweep, search: Search, store: Store) -> SearchPlan:
    """Plan a search; the speed is taken from the first values of its space."""
    from sweeps.search import storage as storages
    from sweeps.search.study import ended

    place = store.sweep(sweep.spec.name)
    storage = storages.open_storage(place, alone=False) if storages.has_storage(place) else None
    states = list(store.run_states().values())
    cost = Costs(sweep.train_pack, states, gpus=sweep.uses_gpus)
    studies = []
    for spec in split_scientific(sweep.spec):
        part = Sweep(spec, sweep.packs)
        found = ended(storage, study_name(part, search)) if storage else []
        studies.append(_plan_study(part, search, found, states, cost))
    confirming = sweep.spec.confirming
    top = search.confirm.top if search.confirm else 0
    notes: tuple[str, ...] = ()
    if confirming is not None and not confirming.compare.baseline:
        notes = tuple(foresight.unnamed_notes(len(studies) * top, len(confirming.seeds)))
    return SearchPlan(
        studies=studies,
        seeds=len(sweep.spec.seeds),
        workers=workers_here(sweep.spec),
        confirm_runs=len(studies) * top * len(confirming.seeds) if confirming else 0,
        budget=search.budget,
        width=sweep.spec.resources.width,
        notes=notes,
    )


def print_search_plan(plan: SearchPlan, console: Console) -> None:
    """The plan of a search in two or three lines."""
    known = f", {plan.trials_known} more known to the store" if plan.trials_known else ""
    if plan.trials is None or plan.epochs_to_train is None or plan.trials_left is None:
        budget = ", ".join(
            f"{most:g} {kind.replace('_', '-')}" for kind, most in plan.budget.items()
        )
        lines = [f"{plan.trials_done} trials done{known}; each study has {budget}"]
    else:
        seconds = plan.predicted_seconds
        time = "" if seconds is None else f", about {duration(seconds)}"
        runs = plan.trials_left * plan.seeds
        lines = [
            f"{plan.trials_done} of {plan.trials} trials done{known}, {runs} runs left",
            f"at most {plan.epochs_to_train} epochs to train{time}",
        ]
    if plan.confirm_runs:
        lines.append(f"then the best are confirmed with fresh seeds: {plan.confirm_runs} runs")
    if plan.width is not None:
        lines.append(f"seeds are trained {plan.width} at a time (resources.width)")
    lines += [f"note: {note}" for note in plan.notes]
    console.print("\n".join(lines), highlight=False)


def _plan_study(
    part: Sweep,
    search: Search,
    found: Sequence[Ended],
    states: Iterable[RunState],
    cost: Costs,
) -> StudyPlan:
    context = single_values(part.spec)
    done = sum(not each.known for each in found)
    told = {repr(sorted(each.params.items())) for each in found}
    stored = known_points(part, search, context, states)
    new = {repr(sorted(each.params.items())) for each in stored} - told
    known = len(found) - done + len(new)
    trials = search.trials
    if search.sampler == "grid":
        size = sum(1 for _ in points(search, context)) - known
        trials = size if trials is None else min(size, trials)
    config = part.cells()[0].variant.config
    seeds, width = part.spec.seeds, part.spec.resources.width
    if width is None:
        width = cost.width(config, len(seeds))
    beside = len(stacks_of_width(config, seeds, width)[0])
    return StudyPlan(
        trials=trials,
        trials_done=done,
        trials_known=known,
        trials_left=None if trials is None else max(0, trials - done),
        epochs=length(part),
        seconds=cost.seconds(config, beside),
    )


def _sum(counts: Iterable[int | None]) -> int | None:
    """The sum, where every part is known."""
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total
