"""Plan a grid and train what the store lacks of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

from rich.console import Console

from cifake.config import Config
from cifake.provenance import git_commit
from cifake.runs import RunState
from sweeps.costs import Costs, Question, answer, shape_of
from sweeps.division import Division
from sweeps.forecast import recorded
from sweeps.plan import Cell, Plan, Stack, make_plan
from sweeps.probe import Widest
from sweeps.progress import View
from sweeps.rounds import Round
from sweeps.site import connected
from sweeps.store import Store
from sweeps.sweep import Sweep, workers_here
from sweeps.trial import Report, Task, run_stack
from sweeps.words import duration


def plan_grid(sweep: Sweep, store: Store, workers: int) -> Plan:
    """Plan the cells of a sweep's grid; a search's proposals are not known beforehand."""
    return plan_cells(sweep, sweep.cells(), store, workers)


def plan_cells(
    sweep: Sweep, cells: Sequence[Cell], store: Store, workers: int, *, raced: bool = False
) -> Plan:
    """Plan some cells of a sweep, by speeds that are measured here where nobody has timed them.

    Args:
        sweep: whose cells they are.
        cells: what is asked for.
        store: where runs live.
        workers: that train.
        raced: whether looks tell configs apart, and not p-values at the end.
    """
    known = store.run_states()
    costs = _costs(sweep, known)
    planned = partial(_plan, sweep, store=store, costs=costs, raced=raced)
    rough = planned(cells, known=known, workers=workers)
    for question in _questions(sweep, costs, rough):
        answer(question, costs.learn)
    return planned(cells, known=known, workers=workers)


Following = Callable[[Sequence[str]], Sequence[Cell] | None]
"""What to train after the cells that were trained last, all of those before included, given what
went wrong; null for nothing."""


def run_cells(
    sweep: Sweep,
    cells: Sequence[Cell],
    store: Store,
    console: Console,
    address: str | None,
    following: Following | None = None,
) -> list[str]:
    """Plan some cells of a sweep, say so, and train what the store lacks of them.

    Ray is not started where nothing is lacking. Else its workers measure what nobody has timed
    yet: they are many, they are what trains, and they have torch in memory afterwards.

    Args:
        sweep: whose cells they are.
        cells: what is asked for.
        store: where runs live.
        console: to print to.
        address: of a running Ray cluster; null starts one.
        following: says what more is trained by the same workers, once all of it has ended: a
            race, in which looks tell configs apart, and not p-values at the end.

    Returns:
        What went wrong, a line for each trial that failed for good.
    """
    known = store.run_states()
    costs = _costs(sweep, known)
    planned = partial(_plan, store=store, raced=following is not None)
    rough = planned(sweep, cells, known=known, costs=costs, workers=workers_here(sweep.spec))
    if not rough.stacks:
        print_plan(rough, console)
        return []
    problems: list[str] = []
    with connected(sweep, store, console, address, _widest(sweep, store, rough)) as site:
        sweep, workers = site.sweep, site.workers
        costs = _costs(sweep, known)
        planned = partial(planned, sweep, costs=costs, workers=workers)

        def rounds() -> Generator[Round]:
            yield from _measuring(sweep, store, costs, rough)
            plan = planned(cells, known=known)
            print_plan(plan, console)
            yield from _training(sweep, store, plan, workers, costs, console, problems)
            while following is not None and (more := following(problems)) is not None:
                plan = planned(more, known=store.run_states())
                print_plan(plan, console)
                yield from _training(sweep, store, plan, workers, costs, console, problems)

        with closing(rounds()) as made:
            site.run_rounds(made)
    return problems


def _widest(sweep: Sweep, store: Store, rough: Plan) -> Widest:
    """The largest stacks of a plan, of each network that it trains."""
    widths: dict[str, tuple[dict[str, Any], int]] = {}
    for stack in rough.stacks:
        dumped = stack.config.model_dump()
        shape = repr(shape_of(stack.config))
        if shape not in widths or widths[shape][1] < len(stack.seeds):
            widths[shape] = dumped, len(stack.seeds)
    return Widest(list(widths.values()), str(sweep.train_pack.folder.resolve()), store.address)


def _costs(sweep: Sweep, known: Mapping[str, RunState]) -> Costs:
    """What the store's history tells; what it does not is asked for, and learned."""
    return Costs(
        sweep.train_pack,
        known.values(),
        measure=None,
        test_images=sweep.test_images,
        gpus=sweep.uses_gpus,
    )


def _plan(
    sweep: Sweep,
    cells: Sequence[Cell],
    *,
    store: Store,
    known: Mapping[str, RunState],
    costs: Costs,
    workers: int,
    raced: bool,
) -> Plan:
    decided = store.read_stacks(sweep.spec.name)
    return make_plan(
        cells,
        known,
        sweep.evaluations,
        workers=workers,
        cost=costs,
        decided=decided,
        compare=None if raced else sweep.spec.compare,
        width=sweep.spec.resources.width,
    )


def _questions(sweep: Sweep, costs: Costs, rough: Plan) -> list[Question]:
    """What should be measured before the runs of a plan are put into stacks."""
    runs: Counter[Config] = Counter()
    for stack in rough.stacks:
        runs[stack.config] += len(stack.seeds)
    return costs.unmeasured(runs, sweep.spec.resources.width)


def _measuring(sweep: Sweep, store: Store, costs: Costs, rough: Plan) -> Iterator[Round]:
    """Speeds that the store's history does not tell; what fails here will tell more in its stack.

    Args:
        sweep: whose images are trained on.
        store: that may have them.
        costs: what is known, and learns.
        rough: which runs are to be trained.
    """
    if questions := _questions(sweep, costs, rough):
        yield Round(
            tasks=[replace(question, store=store.address) for question in questions],
            run=answer,
            on_report=lambda _question, found: costs.learn(found),
            on_end=lambda _question, _problem: None,
            ahead=len(rough.stacks),
        )


def _training(
    sweep: Sweep,
    store: Store,
    plan: Plan,
    workers: int,
    costs: Costs,
    console: Console,
    problems: list[str],
) -> Iterator[Round]:
    """The stacks of a plan; what goes wrong is added to the problems."""
    # A kill must not change which runs are trained together: the next plan keeps to this one.
    before = store.read_stacks(sweep.spec.name)
    store.write_stacks(sweep.spec.name, {**before, **plan.new_stacks()})
    commit = git_commit()
    seconds = _epoch_seconds(plan, costs)
    view = View(
        console,
        runs=sum(len(stack.seeds) for stack in plan.stacks),
        epochs=plan.epochs_to_train,
        metric="validation.accuracy",
        mode="max",
        work=sum(seconds[stack.config_id] * stack.epochs_to_train for stack in plan.stacks),
    )
    forecast = recorded(
        store,
        sweep.spec.name,
        epochs=plan.epochs_to_train,
        workers=workers,
        predicted_seconds=plan.predicted_seconds,
    )

    def make_task(stack: Stack) -> Task:
        return sweep.task(stack, store, commit, width=len(stack.seeds))

    division = Division(store, sweep.spec.name, costs, make_task)

    def hear(task: Task, report: Report) -> None:
        config_id = Config.model_validate(task.config).config_id
        view.epoch(report, report.epochs_trained * seconds[config_id])

    def end(task: Task, problem: str | None) -> None:
        view.stack(len(task.seeds))
        if problem is not None:
            problems.append(problem)

    with view, forecast:
        yield Round(
            tasks=division.tasks(plan.stacks),
            divide=None if sweep.spec.resources.width else division.divide,
            run=run_stack,
            on_report=hear,
            on_end=end,
        )


def _epoch_seconds(plan: Plan, costs: Costs) -> dict[str, float]:
    """What an epoch of a run of each config takes; where that is not known of all, 1 of each."""
    found = {s.config_id: costs.seconds(s.config, len(s.seeds)) for s in plan.stacks}
    known = {config: seconds for config, seconds in found.items() if seconds}
    return known if len(known) == len(found) else dict.fromkeys(found, 1.0)


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
    told = "" if plan.width is None else f" (resources.width: {plan.width})"
    return f"{len(plan.stacks)} stack{plural} of {runs} run{'' if runs == '1' else 's'}{told}"
