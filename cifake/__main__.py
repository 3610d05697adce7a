"""The `cifake` command."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Annotated, Any, NoReturn

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from cifake.data.catalogue import DATASETS
from cifake.data.pack import Pack
from cifake.data.raw import LABELS
from cifake.data.watch import open_watched
from cifake.errors import refuse, run_command, suggest

app = typer.Typer(
    help="Data sets of photographs and generated images, and classifiers trained on them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data = typer.Typer(help="List, pack and describe data sets.", no_args_is_help=True)
app.add_typer(data, name="data")

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="A data set, as `cifake data list` names it.")
]
SourceArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="PATH",
        help="A folder, archive or parquet files. Default: found in $CIFAKE_DATA.",
    ),
]


INTERRUPTED = 130
"""Exit code after Ctrl-C."""

UNFINISHED = 1
"""Exit code of runs that did not reach the length asked for."""


@app.command()
def train(  # noqa: PLR0913 - one parameter for each option
    *,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Architecture or preset; `sweeps list` names them."),
    ] = None,
    epochs: Annotated[int, typer.Option(metavar="N", help="Length of every run.")] = 1,
    seed: Annotated[
        list[str] | None,
        typer.Option(metavar="N[,N…]", help="One run for each seed; repeatable. Default: 0."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A parameter by dotted path, as in optimizer.lr=0.01; repeatable.",
        ),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Training set. Default: cifake.")
    ] = None,
    sources: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="[NAME=]PATH",
            help="Where a data set lies: a folder, archive or parquet files; repeatable. A bare "
            "path is the training set, or a folder of data sets. Default: $CIFAKE_DATA.",
        ),
    ] = None,
    evaluate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Evaluate the test split of this data set; repeatable. Default: the training "
            "set's.",
        ),
    ] = None,
    validation: Annotated[
        int | None,
        typer.Option(metavar="N", help="Training images set aside for validation. Default: 5000."),
    ] = None,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="cpu or cuda.")] = "cpu",
    store: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where runs live. Default: $CIFAKE_STORE, store."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train one configuration, or read it where the store has it already."""
    from cifake import train_command
    from cifake.store import usual_root
    from cifake.training_request import Options, read_request

    console = Console(stderr=as_json)
    request = read_request(
        Options(
            model=model,
            epochs=epochs,
            seeds=seed or (),
            settings=settings or (),
            dataset=dataset,
            evaluate=evaluate or (),
            validation=validation,
            device=device,
        )
    )
    job = train_command.prepare(request, usual_root(store), sources or [], Console(stderr=True))
    try:
        trained = train_command.carry_out(job, console)
    except KeyboardInterrupt:
        console.print("stopped; finished epochs are kept, and the same command goes on from there")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print(train_command.as_json(job, trained))
    else:
        train_command.print_outcome(job, console)
    raise typer.Exit(0 if job.finished() else UNFINISHED)


@data.command("list")
def list_datasets() -> None:
    """List the data sets."""
    table = Table("name", "what", "licence")
    for name, dataset in DATASETS.items():
        table.add_row(name, dataset.description, dataset.licence)
    Console().print(table)


@data.command()
def pack(name: NameArgument, path: SourceArgument = None) -> None:
    """Decode a data set into its packed form and say where that is."""
    print(_open(name, path).folder)


@data.command()
def info(
    name: NameArgument,
    path: SourceArgument = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,  # noqa: FBT002
) -> None:
    """Describe a data set: images by split and label, duplicates, fingerprint."""
    opened = _open(name, path)
    facts = describe(opened)
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    table = Table("split", "label", "images", "content classes", "duplicates")
    for row in facts["splits"]:
        table.add_row(
            row["split"],
            row["label"],
            f"{row['images']:,}",
            str(row["content_classes"]),
            f"{row['duplicates']:,}",
        )
    console = Console()
    console.print(table)
    same = "as published" if facts["published"] else "not the published set"
    console.print(f"fingerprint {facts['fingerprint']}, {same}", highlight=False)
    console.print(f"pack {facts['pack']}", highlight=False, soft_wrap=True)


def describe(opened: Pack) -> dict[str, Any]:
    """What `cifake data info` says of a pack."""
    splits = []
    for split in ("train", "test"):
        rows = opened.rows(split)
        for label, number in sorted(LABELS.items()):
            chosen = rows[opened.labels[rows] == number]
            if not len(chosen):
                continue
            classes = {word for word in opened.words("content_class", chosen) if word}
            splits.append(
                {
                    "split": split,
                    "label": label,
                    "images": len(chosen),
                    "content_classes": len(classes),
                    "duplicates": int(np.sum(opened.duplicates(chosen))),
                }
            )
    return {
        "dataset": opened.info.dataset,
        "fingerprint": opened.info.fingerprint,
        "published": opened.info.fingerprint == DATASETS[opened.info.dataset].published,
        "images": opened.info.images,
        "source": opened.info.source,
        "pack": str(opened.folder),
        "splits": splits,
    }


def _open(name: str, path: Path | None) -> Pack:
    if name not in DATASETS:
        refuse("data set", f"unknown; {suggest(name, DATASETS)}", value=name)
    if path is not None and not path.exists():
        refuse(path, "no such file or folder")
    if path is not None and DATASETS[name].embedded:
        refuse(path, f"{name} is made by this package; leave the path out")
    sources = {} if path is None else {name: path}
    return open_watched(name, sources, Console(stderr=True))


def main() -> NoReturn:
    """Run the command line."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    run_command(app, "cifake")


if __name__ == "__main__":
    main()
