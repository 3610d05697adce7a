"""The commands of `cifake data`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from cifake.data.catalogue import DATASETS, dataset, look_up
from cifake.data.fetch import fetch as fetch_dataset
from cifake.data.locate import data_folder
from cifake.data.names import grammar
from cifake.data.pack import Pack
from cifake.data.raw import LABELS, SPLITS
from cifake.data.watch import open_watched
from cifake.errors import refuse

data = typer.Typer(help="List, fetch, pack and describe data sets.", no_args_is_help=True)

_FIRST_NAMED = 10

NameArgument = Annotated[
    str,
    typer.Argument(metavar="NAME", help="A data set or a variant, as `cifake data list` names it."),
]
SourceArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="PATH",
        help="A folder, archive or parquet files. Default: found in $CIFAKE_DATA, or fetched.",
    ),
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@data.command("list")
def list_datasets() -> None:
    """List the data sets, and the steps that make a variant of one."""
    console = Console()
    table = Table("name", "what", "licence")
    for name, known in DATASETS.items():
        table.add_row(name, known.description, known.licence)
    console.print(table)
    steps = Table("step", "what")
    for form, text in grammar():
        steps.add_row(form, text)
    console.print("variants: NAME@STEP, or NAME@STEP,STEP in order, as in cifake@jpeg=50,blur=1")
    console.print(steps)


@data.command()
def fetch(
    name: NameArgument,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="SOURCE",
            help="kaggle, github or huggingface. Default: the set's own, kaggle for cifake.",
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where the download goes. Default: $CIFAKE_DATA, else below $CIFAKE_CACHE.",
        ),
    ] = None,
    mirror: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="A server in place of huggingface's or github's own. Default: $HF_ENDPOINT for "
            "huggingface.",
        ),
    ] = None,
) -> None:
    """Download a data set, check that it is the published one, and say where it is."""
    console = Console(stderr=True)
    print(fetch_dataset(name, to or data_folder(), console, source=source, mirror=mirror))


@data.command()
def pack(name: NameArgument, path: SourceArgument = None) -> None:
    """Decode a data set into its packed form and say where that is."""
    print(_open(name, path).folder)


@data.command()
def info(
    name: NameArgument,
    path: SourceArgument = None,
    *,
    as_json: JsonOption = False,
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
    _print_unreadable(console, facts["unreadable"])
    same = _PUBLISHED[facts["published"]]
    console.print(f"fingerprint {facts['fingerprint']}, {same}", highlight=False)
    console.print(f"pack {facts['pack']}", highlight=False, soft_wrap=True)


_PUBLISHED = {
    True: "as published",
    False: "not the published set",
    None: "of a set that nobody published",
}


def _print_unreadable(console: Console, unreadable: dict[str, Any]) -> None:
    if not unreadable["files"]:
        return
    table = Table("split", "label", "could not be read")
    for row in unreadable["splits"]:
        table.add_row(row["split"], row["label"], f"{row['files']:,}")
    console.print(table)
    for row in unreadable["first"]:
        text = f"{row['file']}: {row['problem']}"
        console.print(text, highlight=False, markup=False, soft_wrap=True)


def describe(opened: Pack) -> dict[str, Any]:
    """What `cifake data info` says of a pack."""
    splits = []
    for split in SPLITS:
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
    published = dataset(opened.info.dataset).published
    return {
        "dataset": opened.info.dataset,
        "fingerprint": opened.info.fingerprint,
        "published": None if published is None else opened.info.fingerprint == published,
        "images": opened.info.images,
        "source": opened.info.source,
        "pack": str(opened.folder),
        "splits": splits,
        "unreadable": _unreadable(opened),
    }


def _unreadable(opened: Pack) -> dict[str, Any]:
    """How many files of each split and label were left out, and the first of them."""
    rows = opened.unreadable_files.to_pylist()
    counts = Counter((row["split"], row["label"]) for row in rows)
    splits = [
        {"split": split, "label": label, "files": counts[split, number]}
        for split in SPLITS
        for label, number in sorted(LABELS.items())
        if counts[split, number]
    ]
    first = [{"file": row["file"], "problem": row["problem"]} for row in rows[:_FIRST_NAMED]]
    return {"files": len(rows), "splits": splits, "first": first}


def _open(name: str, path: Path | None) -> Pack:
    known = look_up("data set", name)
    if path is not None and not path.exists():
        refuse(path, "no such file or folder")
    if path is not None and dataset(known).embedded:
        refuse(path, f"{known.source} is made by this package; leave the path out")
    sources = {} if path is None else {known.source: path}
    return open_watched(str(known), sources, Console(stderr=True))
