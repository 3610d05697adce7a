"""Train what a search proposes, and then what its last stage confirms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console

from cifake.claims import Owner
from cifake.errors import refuse
from cifake.provenance import git_commit
from cifake.runs import RunFolder
from sweeps.confirm import confirm_cells
from sweeps.known import history, known_points
from sweeps.parts import length, single_values, split_scientific, study_name
from sweeps.plan import Cell, Stack
from sweeps.probe import Widest
from sweeps.progress import View
from sweeps.run_grid import run_cells
from sweeps.site import connected
from sweeps.sizing import Sized
from sweeps.spec import Resources, Search, Spec
from sweeps.store import Store
from sweeps.sweep import Sweep
from sweeps.trial import Task
from sweeps.upkeep import alone

if TYPE_CHECKING:
    from sweeps.search.study import Study


def run_search(
    sweep: Sweep,
    search: Search,
    store: Store,
    console: Console,
    address: str | None,
    on_cells: Callable[[Sequence[Cell]], None],
) -> tuple[list[Cell], list[str]]:
    """Make the proposals that a sweep's studies lack and train each with every seed.

    Args:
        sweep: whose search it is.
        search: its search.
        store: where runs and studies live.
        console: to print to.
        address: of a running Ray cluster; null starts one.
        on_cells: called with the cells of every proposal made so far when another has ended.

    Returns:
        The cells of every proposal made so far, and what went wrong, a line for each failed trial.
    """
    from sweeps.search.storage import open_storage
    from sweeps.search.study import Study, ended

    storage = open_storage(store.sweep(sweep.spec.name), alone=True)
    problems: list[str] = []
    parts = [Sweep(spec, sweep.packs) for spec in split_scientific(sweep.spec)]
    names = [study_name(part, search) for part in parts]

    def made(part: Sweep, name: str) -> list[Cell]:
        return part.cells([each.params for each in ended(storage, name)])

    cells = {name: made(part, name) for part, name in zip(parts, names, strict=True)}

    def so_far() -> list[Cell]:
        return [cell for each in cells.values() for cell in each]

    for part, name in zip(parts, names, strict=True):
        study = Study(
            search,
            single_values(part.spec),
            name,
            storage,
            epochs=length(part),
            resources=part.spec.resources,
            length=partial(length, part),
        )

        def tell(part: Sweep = part, name: str = name) -> None:
            cells[name] = made(part, name)
            on_cells(so_far())

        known = _tell_known(study, part, store)
        if search.sampler == "grid":
            study.queue_grid()
        console.print(f"study {name}: {_standing(study, known)}", highlight=False)
        if study.has_more():
            problems += _make_proposals(study, part, store, console, address, tell)
        cells[name] = made(part, name)
        _mark_pruned(store, cells[name])
    return so_far(), problems


def run_confirm(
    sweep: Sweep,
    search: Search,
    store: Store,
    tried: Sequence[Cell],
    console: Console,
    address: str | None,
) -> tuple[list[Cell], list[str]]:
    """Train the best proposals with fresh seeds and evaluate them on test.

    Args:
        sweep: whose search it is.
        search: its search.
        store: that has the runs of the proposals.
        tried: the cells of every proposal.
        console: to print to.
        address: of a running Ray cluster, or null.

    Returns:
        Its cells, and what went wrong.
    """
    confirming = sweep.spec.confirming
    cells = confirm_cells(sweep.spec, search, store, tried)
    if confirming is None or not cells:
        return [], []
    stage = Sweep(confirming, sweep.packs)
    configs = len({cell.variant.config.config_id for cell in cells})
    console.print(f"the best {configs} are confirmed with fresh seeds:", highlight=False)
    return cells, run_cells(stage, cells, store, console, address)


def _tell_known(study: Study, part: Sweep, store: Store) -> int:
    """Tell a study what the store has of its space, and say how many points are new to it."""
    states = store.run_states().values()
    told = 0
    for known in known_points(part, study.search, study.space.context, states):
        if not study.knows(known.params):
            epochs = length(part, known.params)
            reached = history(known, store, part.spec.data.train, study.search.read, epochs)
            told += bool(reached) and study.tell_known(known.params, reached)
    return told


def _standing(study: Study, known: int) -> str:
    """How far a study is, in words."""
    trials = study.search.trials
    done = study.spent().trials
    words = f"{done} of {trials} trials done" if trials else f"{done} trials done"
    if known:
        words += f", {known} more point{'s' * (known > 1)} of its space known to the store"
    spent = study.used_up()
    if spent is not None and not spent.endswith("trials"):
        words += f"; its budget of {spent} is spent"
    return words


def _make_proposals(
    study: Study,
    part: Sweep,
    store: Store,
    console: Console,
    address: str | None,
    on_end: Callable[[], None],
) -> list[str]:
    """Train what a study proposes while its budget lasts; told whenever a proposal has ended."""
    search, seeds = study.search, len(part.spec.seeds)
    left = study.trials_left()
    runs = None if left is None else left * seeds
    metric, mode = search.watched
    view = View(
        console,
        runs=runs,
        epochs=None if runs is None else runs * study.epochs,
        metric=metric,
        mode=mode,
    )

    def end(task: Task) -> None:
        view.stack(len(task.seeds))
        on_end()

    with connected(part, store, console, address, _widest(part, store)) as site, view:
        study.resources = _charged(part.spec, site.sized)
        maker = _task_maker(site.sweep, store, git_commit())
        return site.run_search(study, maker, view.epoch, end)


def _charged(spec: Spec, sized: Sized) -> Resources:
    """What a trial costs of a budget: what it gets, or what was asked for and is not there.

    Raises:
        InputError: the budget would never be spent.
    """
    gpus = sized.gpus or spec.resources.gpus or 0.0
    if spec.search is not None and set(spec.search.budget) == {"gpu_hours"} and not gpus:
        problem = "is never spent without a GPU; give trials, hours or core_hours, too"
        refuse(spec.source, problem, field="search.gpu_hours", value=spec.search.gpu_hours)
    return Resources(cpus=sized.cpus, gpus=gpus)


def _widest(part: Sweep, store: Store) -> Widest:
    """The stack of all seeds; what the space changes of it is not known beforehand."""
    config = part.cells()[0].variant.config
    pack = str(part.train_pack.folder.resolve())
    return Widest([(config.model_dump(), len(part.spec.seeds))], pack, store.address)


def _task_maker(
    part: Sweep, store: Store, commit: str | None
) -> Callable[[Mapping[str, Any]], Task]:
    def make_task(proposed: Mapping[str, Any]) -> Task:
        variants = part.spec.variants(part.fingerprint, proposed)
        lengths = tuple(sorted(variant.epochs for variant in variants))
        stack = Stack(
            config=variants[0].config,
            seeds=tuple(part.spec.seeds),
            start=0,
            epochs=lengths[-1],
            milestones=lengths,
        )
        return part.task(stack, store, commit, width=part.spec.resources.width)

    return make_task


def _mark_pruned(store: Store, cells: Sequence[Cell]) -> None:
    """A run that was stopped early keeps its rows and says so."""
    lengths: dict[str, int] = {}
    for cell in cells:
        lengths[cell.run_id] = max(cell.variant.epochs, lengths.get(cell.run_id, 0))
    stopped = [
        state.run_id
        for state in store.run_states(lengths).values()
        if state.status == "running" and state.epochs_done < lengths[state.run_id]
    ]
    if not stopped:
        return
    with Owner(store.root, "a search that marks what it stopped") as owner:
        for run_id in stopped:
            folder = store.run(run_id)
            # Another sweep may be training it on by now: then it is left alone.
            alone(folder.place, owner, partial(_commit_pruned, folder))


def _commit_pruned(folder: RunFolder) -> None:
    state = folder.state()
    if state is not None and state.status == "running":
        folder.commit({**state.row, "status": "pruned"}, {})
