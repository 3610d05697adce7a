"""What the commands do: open the data, plan, train, aggregate, report."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.progress import Progress

from cifake import tables
from cifake.data.locate import open_dataset, parse_sources
from cifake.data.pack import Pack
from cifake.data.subsets import split_rows
from cifake.errors import refuse
from sweeps import aggregate, authentication, overrides, specfile
from sweeps.costs import Costs
from sweeps.plan import Cell, Plan, Stack, make_cells, make_plan
from sweeps.progress import View, duration
from sweeps.report import write_report
from sweeps.spec import Spec, parse
from sweeps.store import RunState, Store
from sweeps.trial import Task

UNFINISHED = 1
"""Exit code of a sweep with cells that could not be trained."""


@dataclass(frozen=True)
class Sweep:
    """A specification with its data opened."""

    spec: Spec
    packs: Mapping[str, Pack]
    """By data set; the training set's comes first."""

    @property
    def train_pack(self) -> Pack:
        """The training data."""
        return self.packs[self.spec.data.train]

    @property
    def fingerprint(self) -> str:
        """Of the training data."""
        return self.train_pack.info.fingerprint

    @property
    def evaluations(self) -> list[tuple[str, str]]:
        """`(dataset, split)` that every milestone needs."""
        validation = [(self.spec.data.train, "validation")] if self.spec.data.validation else []
        return [*validation, *((name, "test") for name in self.spec.evaluate)]

    def cells(self, suggestions: Sequence[Mapping[str, Any]] = ({},)) -> list[Cell]:
        """The cells of the grid, or of some proposals of a search."""
        variants = [v for each in suggestions for v in self.spec.variants(self.fingerprint, each)]
        return make_cells(variants, self.spec.seeds)

    def task(self, stack: Stack, store: Store, git_commit: str | None) -> Task:
        """What a trial is told to train a stack."""
        return Task(
            config=stack.config.model_dump(),
            seeds=stack.seeds,
            epochs=stack.epochs,
            milestones=stack.milestones,
            packs={name: str(pack.folder) for name, pack in self.packs.items()},
            evaluate=tuple(self.spec.evaluate),
            store=str(store.root.resolve()),
            git_commit=git_commit,
        )


def read_spec(name: str, settings: Sequence[str]) -> Spec:
    """Find, read, override and validate a specification.

    Raises:
        InputError: every mistake found.
    """
    return parse(overrides.apply(specfile.read(specfile.find(name)), settings))


def open_sweep(spec: Spec, data: Sequence[str], console: Console) -> Sweep:
    """Open every data set that a specification needs, packing what was never packed.

    Raises:
        InputError: a data set is nowhere or damaged, or too small for the specification.
    """
    sources = parse_sources(data, spec.data.train)
    packs = {}
    for name in spec.datasets:
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task(f"packing {name}", total=None, visible=False)
            packs[name] = open_dataset(
                name, sources, lambda n, t=task, b=bar: b.update(t, advance=n, visible=True)
            )
    sweep = Sweep(spec, packs)
    for cell in sweep.cells():
        split_rows(sweep.train_pack, cell.variant.config.data, spec.source)
    return sweep


def workers_for(spec: Spec, cores: int | None = None) -> int:
    """Stacks that fit at the same time."""
    cores = cores or len(os.sched_getaffinity(0))
    return max(1, int(cores // spec.resources.cpus))


def plan_sweep(sweep: Sweep, store: Store, workers: int) -> Plan:
    """Plan the grid of a sweep; a search's proposals are not known beforehand."""
    known = store.run_states()
    return make_plan(
        sweep.cells(),
        known,
        sweep.evaluations,
        workers=workers,
        cost=Costs(sweep.train_pack, known.values()),
    )


def run_sweep(sweep: Sweep, store: Store, console: Console, address: str | None) -> int:
    """Train what is missing, then write tables and report.

    Returns:
        0, or `UNFINISHED` if a cell is still missing.
    """
    if sweep.spec.search is None:
        cells, problems = _run_grid(sweep, store, console, address)
    else:
        cells, problems = _run_search(sweep, store, console, address)
    _write_cells(store, sweep.spec, cells)
    for problem in problems:
        console.print(f"a trial failed: {problem}", style="red", highlight=False, markup=False)
    states = store.run_states({cell.run_id for cell in cells})
    report_sweep(sweep.spec, store, console)
    return UNFINISHED if problems or _missing(cells, states) else 0


def report_sweep(spec: Spec, store: Store, console: Console) -> Path:
    """Aggregate a sweep's runs and write its report.

    Raises:
        InputError: nothing of the sweep is in the store.
    """
    cells = _stored_cells(spec, store)
    run_ids = sorted(set(cells["run_id"].to_pylist()))
    evaluations = store.read_many(run_ids, "evaluations")
    summary = aggregate.summary(spec.name, cells, evaluations)
    content = tables.encode("summary", summary)
    store.write_sweep(spec.name, "summary.parquet", content)
    return write_report(spec, store, cells, summary, console)


@dataclass(frozen=True)
class Status:
    """How far a sweep is."""

    cells: int
    cells_done: int
    runs: int
    by_status: Mapping[str, int]
    errors: Mapping[str, str]
    """The last line of each run's error."""


def sweep_status(spec: Spec, store: Store) -> Status:
    """Read how far a sweep is from the store alone.

    Raises:
        InputError: nothing of the sweep is in the store.
    """
    cells = _stored_cells(spec, store).to_pylist()
    run_ids = {cell["run_id"] for cell in cells}
    states = store.run_states(run_ids)
    by_status = {"waiting": len(run_ids) - len(states)}
    for state in states.values():
        by_status[state.status] = by_status.get(state.status, 0) + 1
    done = sum(
        cell["run_id"] in states and states[cell["run_id"]].epochs_done >= cell["epochs"]
        for cell in cells
    )
    errors = {
        state.run_id: state.row["error"].strip().splitlines()[-1]
        for state in states.values()
        if state.row["error"]
    }
    return Status(len(cells), done, len(run_ids), by_status, errors)


def _run_grid(
    sweep: Sweep, store: Store, console: Console, address: str | None
) -> tuple[list[Cell], list[str]]:
    plan = plan_sweep(sweep, store, workers_for(sweep.spec))
    _write_cells(store, sweep.spec, plan.cells)
    print_plan(plan, console)
    if not plan.stacks:
        return plan.cells, []
    authentication.prepare(address)
    from sweeps import tuner

    commit = git_commit()
    with tuner.cluster(address) as cores:
        if address is not None:
            plan = plan_sweep(sweep, store, workers_for(sweep.spec, cores))
        tasks = [sweep.task(stack, store, commit) for stack in plan.stacks]
        with _view(sweep, console, plan.epochs_to_train, _runs_left(plan)) as view:
            problems = tuner.run_tasks(
                tasks, sweep.spec.resources, view.epoch, lambda task: view.stack(len(task.seeds))
            )
    return plan.cells, problems


def _run_search(
    sweep: Sweep, store: Store, console: Console, address: str | None
) -> tuple[list[Cell], list[str]]:
    """One study for each combination of scientific values, one after another."""
    authentication.prepare(address)
    from sweeps import search as optuna_search
    from sweeps import tuner

    search = sweep.spec.search
    assert search is not None
    storage = optuna_search.open_storage(store.sweep_folder(sweep.spec.name) / "study.journal")
    commit = git_commit()
    problems: list[str] = []
    cells: list[Cell] = []
    for part in split_scientific(sweep.spec):
        study = Sweep(part, sweep.packs)
        context = {**part.fixed, **{k: v[0] for k, v in {**part.scientific, **part.nuisance}.items()}}
        name = _study_name(study)
        left = search.trials - len(optuna_search.finished_trials(storage, name))
        console.print(
            f"search: {search.trials - left} of {search.trials} trials done", highlight=False
        )
        if left > 0:
            epochs = max(cell.variant.epochs for cell in study.cells())
            make_task = _task_maker(study, store, commit)
            seeds = len(part.seeds)
            with (
                tuner.cluster(address) as cores,
                _view(sweep, console, left * epochs * seeds, left * seeds) as view,
            ):
                problems += tuner.run_search(
                    search,
                    make_task,
                    part.resources,
                    view.epoch,
                    lambda task, view=view: view.stack(len(task.seeds)),
                    searcher={"context": context, "study_name": name, "storage": storage},
                    trials=left,
                    epochs=epochs,
                    workers=workers_for(part, cores),
                )
        trials = optuna_search.finished_trials(storage, name)
        found = study.cells([trial["params"] for trial in trials])
        cells += found
        _mark_pruned(store, found)
    return cells, problems


def split_scientific(spec: Spec) -> list[Spec]:
    """One specification for each combination of scientific values, epochs left together."""
    from dataclasses import replace
    from itertools import product

    held = {path: values for path, values in spec.scientific.items() if path != "epochs"}
    rest = {path: values for path, values in spec.scientific.items() if path == "epochs"}
    return [
        replace(
            spec,
            scientific={**{k: [v] for k, v in zip(held, values, strict=True)}, **rest},
        )
        for values in product(*held.values())
    ]


def _task_maker(
    study: Sweep, store: Store, commit: str | None
) -> Callable[[Mapping[str, Any]], Task]:
    def make_task(suggested: Mapping[str, Any]) -> Task:
        variants = study.spec.variants(study.fingerprint, suggested)
        stack = Stack(
            config=variants[0].config,
            seeds=tuple(study.spec.seeds),
            start=0,
            epochs=max(variant.epochs for variant in variants),
            milestones=tuple(sorted(variant.epochs for variant in variants)),
        )
        return study.task(stack, store, commit)

    return make_task


def _study_name(study: Sweep) -> str:
    """One study for each question asked of the same data with the same space."""
    import hashlib

    spec = study.spec
    assert spec.search is not None
    parts = [
        study.fingerprint,
        spec.data.model_dump_json(),
        repr(sorted(spec.scientific.items())),
        repr(sorted(spec.nuisance.items())),
        repr(sorted(spec.fixed.items())),
        repr(spec.seeds),
        spec.search.model_dump_json(exclude={"trials"}),
    ]
    return f"{spec.name}-{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:12]}"


def _mark_pruned(store: Store, cells: Sequence[Cell]) -> None:
    """A run that the scheduler stopped keeps its rows and says so."""
    lengths = {cell.run_id: cell.variant.epochs for cell in cells}
    for state in store.run_states(lengths).values():
        if state.status == "running" and state.epochs_done < lengths[state.run_id]:
            row = {**state.row, "status": "pruned"}
            store.write(state.run_id, "runs", tables.TABLES["runs"].from_rows([row]))


def print_plan(plan: Plan, console: Console) -> None:
    """The plan in two lines, and what should be known before starting."""
    time = "" if plan.predicted_seconds is None else f", about {duration(plan.predicted_seconds)}"
    diverged = f", {plan.runs_diverged} diverged" if plan.runs_diverged else ""
    console.print(
        f"{len(plan.cells)} cells in {plan.runs} runs: {plan.runs_done} done, "
        f"{plan.runs_continued} to continue, {plan.runs_new} new{diverged}\n"
        f"{plan.epochs_to_train} epochs to train in {len(plan.stacks)} stacks{time}; "
        f"{plan.epochs_saved} epochs saved",
        highlight=False,
    )
    for note in plan.notes:
        console.print(f"note: {note}", highlight=False)


def git_commit() -> str | None:
    """The commit of this code; null outside a checkout."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607 - git is found where the user's is
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip() or None


def _runs_left(plan: Plan) -> int:
    return sum(len(stack.seeds) for stack in plan.stacks)


def _view(sweep: Sweep, console: Console, epochs: int, runs: int) -> View:
    search = sweep.spec.search
    metric = "validation.accuracy" if search is None else search.metric
    mode = "max" if search is None else search.mode
    return View(console, runs=runs, epochs=epochs, metric=metric, mode=mode)


def _write_cells(store: Store, spec: Spec, cells: list[Cell]) -> None:
    content = tables.encode("cells", aggregate.cells_table(cells))
    store.write_sweep(spec.name, "cells.parquet", content)


def _stored_cells(spec: Spec, store: Store) -> pa.Table:
    cells = store.read_sweep(spec.name, "cells")
    if cells is None or not len(cells):
        refuse(store.root, f"holds no sweep {spec.name!r}; run `sweeps run {spec.source}` first")
    return cells


def _missing(cells: Sequence[Cell], states: Mapping[str, RunState]) -> bool:
    """Whether a cell has no result, pruned ones left out."""
    for cell in cells:
        state = states.get(cell.run_id)
        if state is None:
            return True
        if state.epochs_done < cell.variant.epochs and state.status != "pruned":
            return True
    return False
