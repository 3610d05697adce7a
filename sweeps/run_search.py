"""Train what a search proposes: one Optuna study for each combination of scientific values."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from rich.console import Console

from cifake.parameters import EPOCHS
from cifake.provenance import git_commit
from sweeps import authentication
from sweeps.costs import Costs
from sweeps.plan import Cell, Stack
from sweeps.progress import View, duration
from sweeps.spec import Search, Spec
from sweeps.store import Store
from sweeps.sweep import Sweep, workers_for
from sweeps.trial import Task


def run_search(
    sweep: Sweep, search: Search, store: Store, console: Console, address: str | None
) -> tuple[list[Cell], list[str]]:
    """Make the proposals that a sweep's studies lack and train each with every seed.

    Returns:
        The cells of every proposal made so far, and what went wrong, a line for each failed trial.
    """
    authentication.prepare(address)
    from sweeps import search as studies
    from sweeps import tuner

    storage = studies.open_storage(store.sweep(sweep.spec.name))
    commit = git_commit()
    problems: list[str] = []
    cells: list[Cell] = []
    for part in split_scientific(sweep.spec):
        study = Sweep(part, sweep.packs)
        name = study_name(study, search)
        studies.resume_abandoned(storage, name)
        left = search.trials - len(studies.finished_trials(storage, name))
        done = f"{search.trials - left} of {search.trials} trials done"
        console.print(f"study {name}: {done}", highlight=False)
        if left > 0:
            epochs = max(cell.variant.epochs for cell in study.cells())
            runs = left * len(part.seeds)
            view = View(
                console, runs=runs, epochs=runs * epochs, metric=search.metric, mode=search.mode
            )
            with tuner.cluster(address) as cores, view:
                problems += tuner.run_search(
                    search,
                    _task_maker(study, store, commit),
                    part.resources,
                    view.epoch,
                    _stack_counter(view),
                    study=tuner.Study(
                        name=name,
                        storage=storage,
                        context=_single_values(part),
                        trials=left,
                        epochs=epochs,
                        workers=workers_for(part, cores),
                    ),
                )
        found = study.cells([trial["params"] for trial in studies.finished_trials(storage, name)])
        _mark_pruned(store, found)
        cells += found
    return cells, problems


@dataclass(frozen=True)
class SearchPlan:
    """What a search has done and has left; the epochs left are a bound, since trials may stop."""

    trials: int
    trials_done: int
    runs_done: int
    runs_left: int
    epochs_to_train: int
    predicted_seconds: float | None

    def as_dict(self) -> dict[str, Any]:
        """The numbers of `sweeps plan --json`."""
        return {
            "cells": self.runs_done + self.runs_left,
            "runs": self.runs_done + self.runs_left,
            "runs_done": self.runs_done,
            "runs_continued": 0,
            "runs_new": self.runs_left,
            "trials": self.trials,
            "trials_done": self.trials_done,
            "epochs_to_train": self.epochs_to_train,
            "epochs_saved": 0,
            "predicted_seconds": self.predicted_seconds,
        }


def plan_search(sweep: Sweep, search: Search, store: Store) -> SearchPlan:
    """Plan a search; the speed is taken from its first values."""
    from sweeps import search as studies

    parts = [Sweep(part, sweep.packs) for part in split_scientific(sweep.spec)]
    place = store.sweep(sweep.spec.name)
    storage = studies.open_storage(place) if studies.has_storage(place) else None
    done = [
        len(studies.finished_trials(storage, study_name(part, search))) if storage else 0
        for part in parts
    ]
    seeds = len(sweep.spec.seeds)
    lengths = [max(cell.variant.epochs for cell in part.cells()) for part in parts]
    left = [max(0, search.trials - count) * seeds for count in done]
    gpus = sweep.spec.resources.gpus > 0
    cost = Costs(sweep.train_pack, store.run_states().values(), gpus=gpus)
    epochs = [runs * length for runs, length in zip(left, lengths, strict=True)]
    configs = [part.cells()[0].variant.config for part in parts]
    costs = [cost.seconds(config, cost.width(config, seeds)) for config in configs]
    known = [each for each in costs if each is not None]
    seconds = sum(count * (each or 0.0) for count, each in zip(epochs, costs, strict=True))
    return SearchPlan(
        trials=search.trials * len(parts),
        trials_done=sum(done),
        runs_done=sum(done) * seeds,
        runs_left=sum(left),
        epochs_to_train=sum(epochs),
        predicted_seconds=seconds / workers_for(sweep.spec) if len(known) == len(costs) else None,
    )


def print_search_plan(plan: SearchPlan, console: Console) -> None:
    """The plan of a search in two lines."""
    time = "" if plan.predicted_seconds is None else f", about {duration(plan.predicted_seconds)}"
    console.print(
        f"{plan.trials_done} of {plan.trials} trials done, {plan.runs_left} runs left\n"
        f"at most {plan.epochs_to_train} epochs to train{time}",
        highlight=False,
    )


def split_scientific(spec: Spec) -> list[Spec]:
    """One specification for each combination of scientific values, lengths left together."""
    held = {path: values for path, values in spec.scientific.items() if path != EPOCHS}
    lengths = {path: values for path, values in spec.scientific.items() if path == EPOCHS}
    return [
        replace(spec, scientific={**{k: [v] for k, v in zip(held, chosen, strict=True)}, **lengths})
        for chosen in product(*held.values())
    ]


def study_name(study: Sweep, search: Search) -> str:
    """A name that changes with all that a study's values depend on, the number of trials aside."""
    spec = study.spec
    parts = [
        study.fingerprint,
        spec.data.model_dump_json(),
        *(repr(sorted(part.items())) for part in (spec.scientific, spec.nuisance, spec.fixed)),
        repr(spec.seeds),
        search.model_dump_json(exclude={"trials"}),
    ]
    return f"{spec.name}-{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:12]}"


def _single_values(spec: Spec) -> dict[str, Any]:
    """Parameters with one value; conditions of the space may look at them."""
    grids = {**spec.scientific, **spec.nuisance}
    return {**spec.fixed, **{path: v[0] for path, v in grids.items() if len(v) == 1}}


def _task_maker(
    study: Sweep, store: Store, commit: str | None
) -> Callable[[Mapping[str, Any]], Task]:
    def make_task(proposed: Mapping[str, Any]) -> Task:
        variants = study.spec.variants(study.fingerprint, proposed)
        lengths = tuple(sorted(variant.epochs for variant in variants))
        stack = Stack(
            config=variants[0].config,
            seeds=tuple(study.spec.seeds),
            start=0,
            epochs=lengths[-1],
            milestones=lengths,
        )
        return study.task(stack, store, commit)

    return make_task


def _stack_counter(view: View) -> Callable[[Task], None]:
    return lambda task: view.stack(len(task.seeds))


def _mark_pruned(store: Store, cells: Sequence[Cell]) -> None:
    """A run that the scheduler stopped keeps its rows and says so."""
    lengths: dict[str, int] = {}
    for cell in cells:
        lengths[cell.run_id] = max(cell.variant.epochs, lengths.get(cell.run_id, 0))
    for state in store.run_states(lengths).values():
        if state.status == "running" and state.epochs_done < lengths[state.run_id]:
            store.run(state.run_id).commit({**state.row, "status": "pruned"}, {})
