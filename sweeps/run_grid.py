"""Plan a grid and train what the store lacks of it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from cifake.provenance import git_commit
from sweeps import authentication
from sweeps.costs import Costs
from sweeps.forecast import recorded
from sweeps.plan import Cell, Plan, make_plan
from sweeps.progress import View, duration
from sweeps.store import Store
from sweeps.sweep import Sweep, workers_for


def plan_grid(sweep: Sweep, store: Store, workers: int) -> Plan:
    """Plan the cells of a sweep's grid; a search's proposals are not known beforehand."""
    return plan_cells(sweep, sweep.cells(), store, workers)


def plan_cells(sweep: Sweep, cells: Sequence[Cell], store: Store, workers: int) -> Plan:
    """Plan some cells of a sweep."""
    known = store.run_states()
    return make_plan(
        cells,
        known,
        sweep.evaluations,
        workers=workers,
        cost=Costs(
            sweep.train_pack,
            known.values(),
            test_images=sweep.test_images,
            gpus=sweep.spec.resources.gpus > 0,
        ),
        decided=store.read_stacks(sweep.spec.name),
    )


def run_grid(
    sweep: Sweep, store: Store, plan: Plan, console: Console, address: str | None
) -> list[str]:
    """Train what a plan has left; Ray is not started where nothing is.

    Returns:
        What went wrong, a line for each trial that failed for good.
    """
    if not plan.stacks:
        return []
    authentication.prepare(address)
    from sweeps import tuner

    commit = git_commit()
    with tuner.cluster(address) as cores:
        if address is not None:
            plan = plan_cells(sweep, plan.cells, store, workers_for(sweep.spec, cores))
        # A kill must not change which runs are trained together: the next plan keeps to this one.
        before = store.read_stacks(sweep.spec.name)
        store.write_stacks(sweep.spec.name, {**before, **plan.new_stacks()})
        tasks = [sweep.task(stack, store, commit, width=len(stack.seeds)) for stack in plan.stacks]
        runs = sum(len(stack.seeds) for stack in plan.stacks)
        view = View(
            console,
            runs=runs,
            epochs=plan.epochs_to_train,
            metric="validation.accuracy",
            mode="max",
        )
        forecast = recorded(
            store,
            sweep.spec.name,
            epochs=plan.epochs_to_train,
            workers=workers_for(sweep.spec, cores),
            predicted_seconds=plan.predicted_seconds,
        )
        with view, forecast:
            return tuner.run_tasks(
                tasks, sweep.spec.resources, view.epoch, lambda task: view.stack(len(task.seeds))
            )


def print_plan(plan: Plan, console: Console) -> None:
    """The plan in two lines, and what should be known before starting."""
    time = "" if plan.predicted_seconds is None else f", about {duration(plan.predicted_seconds)}"
    failed = f" ({plan.runs_failed} failed before)" if plan.runs_failed else ""
    diverged = f", {plan.runs_diverged} diverged" if plan.runs_diverged else ""
    saved = f" ({duration(plan.seconds_saved)} on one core)" if plan.seconds_saved else ""
    console.print(
        f"{len(plan.cells)} cells in {plan.runs} runs: {plan.runs_done} done, "
        f"{plan.runs_continued} to continue, {plan.runs_new} new{failed}{diverged}\n"
        f"{plan.epochs_to_train} epochs to train in {_stacks(plan)}{time}; "
        f"{plan.epochs_saved} epochs saved{saved}",
        highlight=False,
    )
    for note in plan.notes:
        console.print(f"note: {note}", highlight=False)


def _stacks(plan: Plan) -> str:
    """How many stacks there are, and of how many runs."""
    widths = sorted({len(stack.seeds) for stack in plan.stacks})
    if not widths:
        return "no stack"
    runs = str(widths[0]) if len(widths) == 1 else f"{widths[0]} to {widths[-1]}"
    plural = "" if len(plan.stacks) == 1 else "s"
    return f"{len(plan.stacks)} stack{plural} of {runs} run{'' if runs == '1' else 's'}"
