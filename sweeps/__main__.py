"""The `sweeps` command."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.table import Table

from cifake.errors import run_command
from sweeps import specfile, workflow
from sweeps.progress import make_console
from sweeps.store import STORE_VARIABLE, Store

app = typer.Typer(
    help="Plan, run and report sweeps of image classifiers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

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
    Path | None,
    typer.Option("--store", metavar="FOLDER", help="Where runs live. Default: $CIFAKE_STORE, store."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command("list")
def list_studies() -> None:
    """List the studies that ship."""
    table = Table("study", "question", "file")
    for name, path in specfile.shipped().items():
        question = specfile.read(path).content.get("question", "")
        table.add_row(name, question, str(path))
    make_console().print(table)


@app.command()
def plan(
    spec: SpecArgument,
    store: StoreOption = None,
    data: DataOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,  # noqa: FBT002 - typer makes a flag of it
) -> None:
    """Say what would be trained, what the store has already, and how long it takes."""
    console = make_console(stderr=as_json)
    parsed = workflow.read_spec(spec, settings or [])
    sweep = workflow.open_sweep(parsed, data or [], console)
    opened = Store.open(_store(store), create=False)
    made = workflow.plan_sweep(sweep, opened, workflow.workers_for(parsed))
    if as_json:
        print(json.dumps({"sweep": parsed.name, **made.as_dict()}, indent=2))  # noqa: T201
    else:
        workflow.print_plan(made, console)
        if parsed.search is not None:
            console.print(f"and a search of {parsed.search.trials} trials, each with every seed")


@app.command()
def run(
    spec: SpecArgument,
    store: StoreOption = None,
    data: DataOption = None,
    settings: SetOption = None,
    address: Annotated[
        str | None,
        typer.Option(help="Address of a running Ray cluster. Default: one on this machine."),
    ] = None,
) -> None:
    """Train what is missing, then write the tables and the report."""
    console = make_console()
    parsed = workflow.read_spec(spec, settings or [])
    sweep = workflow.open_sweep(parsed, data or [], console)
    opened = Store.open(_store(store), create=True)
    raise typer.Exit(workflow.run_sweep(sweep, opened, console, address))


@app.command()
def status(
    spec: SpecArgument,
    store: StoreOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,  # noqa: FBT002 - typer makes a flag of it
) -> None:
    """Say how far a sweep is."""
    parsed = workflow.read_spec(spec, settings or [])
    found = workflow.sweep_status(parsed, Store.open(_store(store), create=False))
    if as_json:
        print(json.dumps(vars(found), indent=2))  # noqa: T201
        return
    console = make_console()
    states = ", ".join(f"{count} {name}" for name, count in found.by_status.items() if count)
    console.print(f"{found.cells_done} of {found.cells} cells done", highlight=False)
    console.print(f"{found.runs} runs: {states}", highlight=False)
    for run_id, error in found.errors.items():
        console.print(f"{run_id}: {error}", highlight=False, markup=False)


@app.command()
def report(
    spec: SpecArgument,
    store: StoreOption = None,
    settings: SetOption = None,
) -> None:
    """Write the summary table and the report from what the store has."""
    parsed = workflow.read_spec(spec, settings or [])
    workflow.report_sweep(parsed, Store.open(_store(store), create=False), make_console())


def _store(option: Path | None) -> Path:
    return option or Path(os.environ.get(STORE_VARIABLE) or "store")


def main() -> NoReturn:
    """Run the command line."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    run_command(app, "sweeps")


if __name__ == "__main__":
    main()
