"""Reports on a sweep, on several, and on all runs of a store: made where something has changed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
from rich.console import Console

from cifake import tables
from cifake.errors import refuse
from cifake.runs import Head, RunState, run_state
from sweeps import explanations, fresh, resolution, union
from sweeps.aggregate import frame
from sweeps.gather import RESULTS, Subject, agreed_labels, gather, known_labels, results_of
from sweeps.outcome import stored_cells
from sweeps.report.console import print_results
from sweeps.report.content import PAGE
from sweeps.report.markdown import REPORT
from sweeps.spec import Compare, Spec, name_problem
from sweeps.store import Store
from sweeps.union import Asked


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How a report on more than one sweep is to be made."""

    name: str | None = None
    """By default it is made of those of the sweeps."""

    mixed: bool = False
    """Whether runs on other data or of another trainer may stand side by side."""

    csv: bool = False
    """Whether its tables are also written as CSV."""


ALL_RUNS = "all-runs"
"""Name of the report on a store without a specification, where none is given."""


def report_sweep(
    spec: Spec,
    store: Store,
    console: Console,
    *,
    anew: bool = True,
    csv: bool = False,
    explain: Sequence[str] | None = None,
) -> None:
    """Write the tables and the report of a sweep, and print its results.

    Args:
        spec: the sweep's.
        store: that has its runs.
        console: to print to.
        anew: whether it is made although nothing has changed since it was made last.
        csv: whether the tables are also written as CSV.
        explain: where data sets lie, as `--data` takes them, if what the best networks look at is
            to be drawn first.

    Raises:
        InputError: nothing of the sweep is in the store; or as `explanations.explain` does.
    """
    subject, heads = _subject(spec, store)
    words = [spec.written, *subject.all_notes, *subject.commands]
    labels = agreed_labels(known_labels(store, [spec.name]))
    inputs = fresh.inputs(words, [subject.cells, labels], heads)
    made = None if anew else fresh.unchanged(store, spec.name, inputs, RESULTS)
    if made is None:
        _write(subject, store, console, csv=csv, inputs=inputs, explain=explain)
    else:
        print_results(results_of(subject, store, made), console)
    _say_where(store, spec.name, console)


def subject_of(spec: Spec, store: Store) -> Subject:
    """What the report on a sweep is on.

    Raises:
        InputError: nothing of the sweep is in the store.
    """
    return _subject(spec, store)[0]


def _subject(spec: Spec, store: Store) -> tuple[Subject, dict[str, Head]]:
    """The same, and the heads of its runs."""
    cells = stored_cells(spec, store)
    heads = store.heads(cells["run_id"].to_pylist())
    resolved = resolution.read(store, spec.name)
    subject = Subject(
        name=spec.name,
        question=spec.question,
        spec=spec,
        compare=spec.compare,
        cells=cells,
        states={run: run_state(head.row) for run, head in heads.items()},
        sweeps=[spec.name],
        notes=[] if resolved is None else resolution.sentences(resolved),
        resolution=resolved,
        commands=[f"sweeps run spec.yaml{'' if resolved is None else ' --until-resolved'}"],
    )
    return subject, heads


def report_sweeps(specs: Sequence[Spec], store: Store, console: Console, choice: Choice) -> None:
    """Write one report on several sweeps; what two of them ask for is counted once.

    Raises:
        InputError: a sweep is not in the store, runs are mixed, or the name is a sweep's.
    """
    asked: list[Asked] = []
    states: dict[str, RunState] = {}
    notes = [f"one report on the sweeps {', '.join(spec.name for spec in specs)}"]
    for spec in specs:
        cells = stored_cells(spec, store)
        own = store.run_states(cells["run_id"].to_pylist())
        states |= own
        asked += union.asked_by(spec, cells, own)
        if spec.search is not None:
            notes.append(
                f"{spec.name}: what its search tried is left out, since it chose something"
            )
    names = [spec.name for spec in specs]
    if len(set(names)) < len(names):
        refuse("SPEC", "names a sweep twice; remove one", value=names)
    scientific = {path for spec in specs for path in spec.scientific}
    subject = Subject(
        name=_free_name(choice.name or "-and-".join(names), store),
        question=" ".join(dict.fromkeys(spec.question for spec in specs if spec.question)),
        spec=None,
        compare=_common([spec.compare for spec in specs]),
        cells=tables.TABLES["cells"].empty(),
        states=states,
        sweeps=names,
        notes=notes,
        commands=[f"sweeps run ../{name}/spec.yaml" for name in names],
    )
    nuisance = {path for spec in specs for path in spec.nuisance} - scientific
    _report_union(asked, nuisance, subject, store, console, choice)


def report_store(store: Store, console: Console, choice: Choice) -> None:
    """Write one report on all runs of a store, by whatever they differ in.

    Raises:
        InputError: there are none, they are mixed, or the name is a sweep's.
    """
    states = store.run_states()
    if not states:
        problem = "holds no runs; run `sweeps run SPEC` or `cifake train` first, or give --store"
        refuse(store.root, problem)
    subject = Subject(
        name=_free_name(choice.name or ALL_RUNS, store),
        question="",
        spec=None,
        compare=Compare(),
        cells=tables.TABLES["cells"].empty(),
        states=states,
        sweeps=store.sweeps(),
        everything=True,
        notes=[f"all runs of a store, {len(states)}, by whatever they differ in"],
        commands=["sweeps report"],
    )
    _report_union(union.asked_of(states.values()), set(), subject, store, console, choice)


def _report_union(
    asked: Sequence[Asked],
    nuisance: Collection[str],
    subject: Subject,
    store: Store,
    console: Console,
    choice: Choice,
) -> None:
    mixtures = union.mixtures(asked)
    if mixtures and not choice.mixed:
        problem = "are no fair comparison; leave some out, or give --mixed to have them told apart"
        refuse(store.root, problem, field="runs", value="; ".join(mixtures))
    cells, repeated = union.union_cells(asked, nuisance)
    notes = [*subject.notes, *(f"mixed {mixture}" for mixture in mixtures)]
    if repeated:
        notes.append(f"{repeated} cells that several sweeps ask for are counted once")
    whole = replace(subject, cells=cells, notes=notes)
    _write(whole, store, console, csv=choice.csv)
    _say_where(store, subject.name, console)


def _say_where(store: Store, name: str, console: Console) -> None:
    for what, file in (("report", REPORT), ("page", PAGE)):
        path = f"{store.sweep(name)}/{file}"
        console.print(f"{what}: {path}", highlight=False, soft_wrap=True)


def _write(
    subject: Subject,
    store: Store,
    console: Console,
    *,
    csv: bool,
    inputs: str = "",
    explain: Sequence[str] | None = None,
) -> None:
    """Make a report, write its tables and files, and print its results."""
    from sweeps.report.files import files

    content = gather(subject, store)
    if explain is not None:
        made_now = explanations.explain(content, store, explain, console)
        content = replace(content, explanations=made_now)
    content = replace(content, notes=[*content.notes, *explanations.outdated(content)])
    made = {name: getattr(content, name) for name in RESULTS}
    written = {f"{name}.parquet": tables.encode(name, table) for name, table in made.items()}
    if csv:
        written |= {f"{name}.csv": _csv(table) for name, table in made.items()}
    fresh.keep(store, subject.name, inputs, {**written, **files(content)})
    print_results(content.results, console)


def _csv(table: pa.Table) -> bytes:
    return bytes(frame(table).to_csv(index=False).encode())


def _free_name(name: str, store: Store) -> str:
    """A name for a report, once it is known that no sweep has it."""
    problem = name_problem(name)
    if name in store.sweeps():
        problem = "is a sweep of the store; give the report another name"
    if problem is not None:
        refuse("--name", problem, value=name)
    return name


def _common(compares: Sequence[Compare]) -> Compare:
    """What several sweeps compare: every metric; a baseline where all name the same."""
    metrics = dict.fromkeys(metric for each in compares for metric in each.metrics)
    first = compares[0].baseline
    same = all(each.baseline == first for each in compares)
    return Compare(metrics=list(metrics), baseline=first if same else {})
