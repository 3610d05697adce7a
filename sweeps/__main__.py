"""The `sweeps` command."""

from __future__ import annotations

import datetime
import json
import signal
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from cifake.claims import forget_dead
from cifake.config import Config
from cifake.errors import refuse, run_command
from cifake.exits import INTERRUPTED, STOPPED, UNFINISHED
from cifake.models import catalogue
from cifake.store import usual_root
from sweeps import compact as compaction
from sweeps import resolution, specfile, upkeep
from sweeps.loggers import following, log_runs, open_loggers
from sweeps.outcome import sweep_status, unfinished, write_cells, write_labels
from sweeps.packs import unnamed_packs
from sweeps.plan import Plan
from sweeps.progress import make_console
from sweeps.reporting import Choice, report_store, report_sweep, report_sweeps
from sweeps.run_grid import plan_cells, plan_grid, print_plan, run_cells
from sweeps.run_race import current, run_race
from sweeps.run_search import run_confirm, run_search
from sweeps.search_plan import SearchPlan, plan_search, print_search_plan
from sweeps.spec import Resolve, Spec
from sweeps.store import Store
from sweeps.sweep import Sweep, open_sweep, read_spec, workers_here
from sweeps.upkeep import print_damage, print_unasked, print_unnamed
from sweeps.watch import LostClusterError

app = typer.Typer(
    help="Plan, run and report sweeps of image classifiers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

DAMAGED = 1
"""Exit code of a check that found damage."""

SpecArgument = Annotated[
    str, typer.Argument(metavar="SPEC", help="A YAML file, or the name of a study that ships.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change the specification; repeatable."),
]
DataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="[NAME=]PATH",
        help="Where a data set lies: a folder, archive or parquet files; repeatable. A bare path "
        "is the training set, or a folder of data sets. Default: $CIFAKE_DATA.",
    ),
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="PLACE",
        help="Where runs live: a folder, or s3://BUCKET/PREFIX, gs://… or az://…. Default: "
        "$CIFAKE_STORE, store.",
    ),
]
UntilResolvedOption = Annotated[
    bool,
    typer.Option(
        "--until-resolved",
        help="After a first round, add seeds where the ranking on validation is undecided, until "
        "it is resolved or the budget of the section `resolve` is spent.",
    ),
]
LogOption = Annotated[
    list[str] | None,
    typer.Option(
        "--log",
        metavar="LOGGER[=WHERE]",
        help="Log the runs to tensorboard[=DIR] or mlflow[=URI] as well; repeatable.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command("list")
def list_studies() -> None:
    """List the studies that ship, and the models and attention modules that a sweep can name."""
    studies = Table("study", "question", "file")
    for name, path in specfile.shipped().items():
        question = specfile.read(path).content.get("question", "")
        studies.add_row(name, question, str(path))
    models = Table("model", "what", "model_options", "placements")
    for name, architecture in catalogue.ARCHITECTURES.items():
        placements = catalogue.placement_names(Config(model=name))
        options = _options(architecture.options)
        models.add_row(name, architecture.description, options, _shortened(placements))
    for name, preset in catalogue.PRESETS.items():
        models.add_row(name, preset.description, "", f"as {preset.model}")
    console = make_console()
    console.print(studies)
    console.print(models)
    for title, modules in (("attention", catalogue.ATTENTION), ("input", catalogue.INPUTS)):
        table = Table(title, "what", f"{title}_options")
        for name, module in modules.items():
            table.add_row(name, module.description, _options(module.options))
        console.print(table)


@app.command()
def plan(
    spec: SpecArgument,
    store: StoreOption = None,
    data: DataOption = None,
    settings: SetOption = None,
    until_resolved: UntilResolvedOption = False,  # noqa: FBT002 - typer makes a flag of it
    as_json: JsonOption = False,  # noqa: FBT002 - typer makes a flag of it
) -> None:
    """Say what would be trained, what the store has already, and how long it takes."""
    console = make_console(stderr=as_json)
    parsed = read_spec(spec, settings or [], until_resolved=until_resolved)
    sweep = open_sweep(parsed, data or [], console)
    opened = Store.open(usual_root(store), create=False)
    made: Plan | SearchPlan
    more: dict[str, Any] = {}
    if until_resolved and parsed.resolve is not None:
        cells, found = current(sweep, parsed.resolve, opened)
        made = plan_cells(sweep, cells, opened, workers_here(parsed), raced=True)
        more = {"resolution": resolution.as_dict(found)}
        if not as_json:
            resolution.print_resolution(found, console)
    elif parsed.search is None:
        made = plan_grid(sweep, opened, workers_here(parsed))
    else:
        made = plan_search(sweep, parsed.search, opened)
    if as_json:
        print(json.dumps({"sweep": parsed.name, **made.as_dict(), **more}, indent=2))
    elif isinstance(made, Plan):
        print_plan(made, console)
    else:
        print_search_plan(made, console)


@app.command()
def run(
    spec: SpecArgument,
    store: StoreOption = None,
    data: DataOption = None,
    settings: SetOption = None,
    log: LogOption = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="A running Ray cluster. Default: one of its own on this machine.",
        ),
    ] = None,
    until_resolved: UntilResolvedOption = False,  # noqa: FBT002 - typer makes a flag of it
) -> None:
    """Train what is missing, then write the tables and the report."""
    console = make_console()
    parsed = read_spec(spec, settings or [], until_resolved=until_resolved)
    loggers = open_loggers(log or [], usual_root(store))
    sweep = open_sweep(parsed, data or [], console)
    opened = Store.open(usual_root(store), create=True)
    with opened.claimed(parsed.name), following(loggers, parsed.name, opened, console):
        forget_dead(opened.root)
        resolve = parsed.resolve if until_resolved else None
        _run(parsed, sweep, opened, console, address, resolve)


def _run(
    spec: Spec,
    sweep: Sweep,
    store: Store,
    console: Console,
    address: str | None,
    resolve: Resolve | None,
) -> NoReturn:
    write_labels(spec, store, sweep.packs)
    try:
        if resolve is not None:
            cells, problems = run_race(sweep, resolve, store, console, address)
        elif spec.search is None:
            resolution.forget(store, spec.name)
            cells = sweep.cells()
            write_cells(spec, store, cells)
            problems = run_cells(sweep, cells, store, console, address)
        else:
            keep = partial(write_cells, spec, store)
            cells, problems = run_search(sweep, spec.search, store, console, address, keep)
            keep(cells)
            best, more = run_confirm(sweep, spec.search, store, cells, console, address)
            cells, problems = [*cells, *best], [*problems, *more]
            keep(cells)
        for problem in problems:
            text = f"a trial failed: {problem}"
            console.print(text, style="red", highlight=False, markup=False, soft_wrap=True)
        report_sweep(spec, store, console, anew=False)
    except KeyboardInterrupt:
        console.print(STOPPED)
        raise typer.Exit(INTERRUPTED) from None
    except LostClusterError as error:
        console.print(str(error), style="red", highlight=False)
        raise typer.Exit(UNFINISHED) from None
    raise typer.Exit(UNFINISHED if problems or unfinished(store, cells) else 0)


@app.command()
def status(
    spec: SpecArgument,
    store: StoreOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,  # noqa: FBT002 - typer makes a flag of it
) -> None:
    """Say how far a sweep is."""
    parsed = read_spec(spec, settings or [])
    found = sweep_status(parsed, Store.open(usual_root(store), create=False))
    if as_json:
        decided = None if found.resolution is None else resolution.as_dict(found.resolution)
        print(json.dumps({**asdict(found), "resolution": decided}, indent=2, default=str))
        return
    console = make_console()
    states = ", ".join(f"{count} {name}" for name, count in found.by_status.items())
    console.print(f"{found.cells_done} of {found.cells} cells done", highlight=False)
    console.print(f"{found.runs} runs: {states}", highlight=False)
    if found.forecast is not None:
        console.print(str(found.forecast), highlight=False)
    if found.resolution is not None:
        resolution.print_resolution(found.resolution, console)
    for run_id, error in found.errors.items():
        console.print(f"{run_id}: {error}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def report(  # noqa: PLR0913 - a parameter an option
    specs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SPEC...",
            help="YAML files, or names of studies that ship. Several make one report, none one on "
            "all runs of the store.",
        ),
    ] = None,
    *,
    store: StoreOption = None,
    data: DataOption = None,
    settings: SetOption = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of a report on several sweeps or on a store."),
    ] = None,
    mixed: Annotated[
        bool,
        typer.Option(
            "--mixed",
            help="Let runs on other data or of another trainer stand side by side, told apart.",
        ),
    ] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Write the tables as CSV, too.")] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Draw what the best networks look at, Grad-CAM and attention gates. Needs the "
            "images.",
        ),
    ] = False,
    log: LogOption = None,
) -> None:
    """Write the tables and the report of sweeps, or of all runs, from what the store has."""
    parsed = [read_spec(spec, settings or []) for spec in specs or []]
    if data and not explain:
        refuse("--data", "is for --explain alone: a report is made of what the store has")
    if log and not parsed:
        refuse("--log", "logs the runs of a sweep; name one SPEC", value=log)
    loggers = open_loggers(log or [], usual_root(store))
    opened, console = Store.open(usual_root(store), create=False), make_console()
    if len(parsed) == 1 and name is None:
        wanted = (data or []) if explain else None
        report_sweep(parsed[0], opened, console, csv=csv, explain=wanted)
    elif explain:
        refuse("--explain", "is for the report of one sweep under its own name; name one SPEC")
    elif parsed:
        report_sweeps(parsed, opened, console, Choice(name=name, mixed=mixed, csv=csv))
    elif settings:
        refuse("--set", "changes a specification; name one", value=settings)
    else:
        report_store(opened, console, Choice(name=name, mixed=mixed, csv=csv))
    logged = [log_runs(loggers, each.name, opened, console) for each in parsed]
    if not all(logged):
        raise typer.Exit(UNFINISHED)


@app.command()
def serve(
    spec: SpecArgument,
    store: StoreOption = None,
    settings: SetOption = None,
    port: Annotated[
        int,
        typer.Option(
            metavar="PORT",
            min=0,
            max=65535,
            help="Port of this machine alone; 0 for any that is free. Default: 8400.",
        ),
    ] = 8400,
) -> None:
    """Show the report in a browser and keep it up to date while the sweep runs."""
    from sweeps.serve import serve_sweep

    parsed = read_spec(spec, settings or [])
    serve_sweep(parsed, Store.open(usual_root(store), create=False), port, make_console())


@app.command()
def verify(
    store: StoreOption = None,
    repair: Annotated[  # noqa: FBT002 - typer makes a flag of it
        bool,
        typer.Option(
            "--repair",
            help="Set damaged runs back to where they can be read; their sweeps train the rest "
            "again.",
        ),
    ] = False,
    as_json: JsonOption = False,  # noqa: FBT002 - typer makes a flag of it
) -> None:
    """Check every file of the store, and say what is damaged and what it costs to redo."""
    console = make_console(stderr=as_json)
    opened = _with_runs(store)
    with console.status("checking …") as line:
        found = list(
            upkeep.verify(opened, repair=repair, advance=lambda run: line.update(f"run {run}"))
        )
    if as_json:
        print(json.dumps([asdict(each) for each in found], indent=2))
    else:
        print_damage(found, len(opened.run_ids()), console, repaired=repair)
    raise typer.Exit(DAMAGED if found and not repair else 0)


@app.command()
def gc(
    store: StoreOption = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove them.")] = False,  # noqa: FBT002 - typer makes a flag of it
    older_than: Annotated[
        float,
        typer.Option(
            metavar="DAYS", min=0, help="Pass over runs that were written since. Default: 1."
        ),
    ] = 1,
    as_json: JsonOption = False,  # noqa: FBT002 - typer makes a flag of it
) -> None:
    """List the runs and packs that no sweep asks for, such as the runs of `cifake train`."""
    opened = _with_runs(store)
    found = upkeep.unasked(opened, datetime.timedelta(days=older_than))
    packs = unnamed_packs(opened)
    if remove:
        found, packs = upkeep.remove(opened, found), upkeep.remove_packs(opened, packs)
    if as_json:
        facts = {"runs": [asdict(run) for run in found], "packs": [asdict(pack) for pack in packs]}
        print(json.dumps({"removed": remove, **facts}, indent=2))
    else:
        console = make_console()
        print_unasked(found, console, removed=remove)
        print_unnamed(packs, console, removed=remove)


@app.command()
def compact(
    store: StoreOption = None,
    as_json: JsonOption = False,  # noqa: FBT002 - typer makes a flag of it
) -> None:
    """Merge the small tables of finished runs into few large files; readers do not notice."""
    console = make_console(stderr=as_json)
    opened = _with_runs(store)
    with console.status("looking at the runs …") as line:
        found = compaction.compact(opened, line.update)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
    else:
        compaction.print_compacted(found, console)


def _with_runs(store: str | None) -> Store:
    """A store that holds something: a place misspelt is not taken for a sound one."""
    opened = Store.open(usual_root(store), create=False)
    if not opened.run_ids():
        refuse(opened.root, "holds no runs; run `sweeps run` first, or give --store")
    return opened


def _options(options: Mapping[str, object]) -> str:
    return "\n".join(f"{name}: {json.dumps(value)}" for name, value in options.items())


def _shortened(names: Sequence[str], limit: int = 8) -> str:
    """Names in a line, the middle left out where there are many."""
    shown = names if len(names) <= limit else (*names[: limit - 2], "…", names[-1])
    return ", ".join(shown)


def main() -> NoReturn:
    """Run the command line."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    run_command(app, "sweeps")


if __name__ == "__main__":
    main()
