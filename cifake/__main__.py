"""The `cifake` command."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from cifake import asking, printing
from cifake.data.command import data
from cifake.data.fit import DEFAULT_FILTER, FILTERS
from cifake.errors import run_command
from cifake.exits import INTERRUPTED, STOPPED, UNFINISHED
from cifake.store import usual_root

app = typer.Typer(
    help="Data sets of photographs and generated images, and classifiers trained on them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data, name="data")

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN|WEIGHTS",
        help="A run of the store (the first 4 digits of its id or more), a run's folder, or a "
        "file of weights: .safetensors, or a state dict in .pt, .pth or .bin.",
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
EpochOption = Annotated[
    int | None,
    typer.Option("--epoch", metavar="N", help="Epoch of the run. Default: its last."),
]
SettingOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A setting of the network that weights belong to, as in model=resnet; repeatable. "
        "Default: recognised by their names and shapes.",
    ),
]
DataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="[NAME=]PATH|NAME",
        help="Where a data set lies: a folder, archive or parquet files; a bare path is the "
        "training set, or a folder of data sets. Or the name alone of a set in $CIFAKE_DATA. The "
        "sets that are named here are looked at unless --on says which; repeatable.",
    ),
]
OnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--on",
        metavar="NAME",
        help="Data set to look at; repeatable. Default: those that --data names, or the run's "
        "training set, or cifake.",
    ),
]
SplitOption = Annotated[
    str,
    typer.Option(
        "--split",
        metavar="SPLIT",
        help="validation (what the run set aside), train (what it learned from) or test.",
    ),
]
ThresholdOption = Annotated[
    float,
    typer.Option(
        "--threshold", metavar="P", min=0, max=1, help="REAL is a probability of at least this."
    ),
]


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
    store: StoreOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train one configuration, or read it where the store has it already."""
    from cifake import train_command
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
    errors = Console(stderr=True)
    with train_command.prepared(request, usual_root(store), sources or [], errors) as job:
        try:
            trained = train_command.carry_out(job, console)
        except KeyboardInterrupt:
            console.print(STOPPED)
            raise typer.Exit(INTERRUPTED) from None
        if as_json:
            print(train_command.as_json(job, trained))
        else:
            train_command.print_outcome(job, console)
        raise typer.Exit(0 if job.finished() else UNFINISHED)


@app.command()
def evaluate(  # noqa: PLR0913 - one parameter an option
    model: ModelArgument,
    *,
    data_: DataOption = None,
    on: OnOption = None,
    split: SplitOption = "test",
    threshold: ThresholdOption = 0.5,
    classes: Annotated[
        bool, typer.Option("--classes", help="Score content classes and generators too.")
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(
            "--against", metavar="RUN|WEIGHTS", help="Compare with another network, by image."
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option("--predictions", metavar="FILE", help="Write probabilities, as parquet."),
    ] = None,
    epoch: EpochOption = None,
    settings: SettingOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a network on data sets: how many images it tells right, and how surely."""
    facts = asking.evaluate(
        _model(model, store, epoch, settings),
        asking.DataChoice(data=data_ or (), on=on or (), split=split),
        threshold=threshold,
        classes=classes,
        against=against,
        predictions=predictions,
    )
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        printing.print_evaluation(Console(), facts)


@app.command()
def predict(
    model: ModelArgument,
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE...", help="Image files of any size, or folders of them."),
    ],
    *,
    filter_: Annotated[
        str,
        typer.Option(
            "--filter",
            metavar="NAME",
            help=f"How images are resized to 32×32: {', '.join(FILTERS)}.",
        ),
    ] = DEFAULT_FILTER,
    threshold: ThresholdOption = 0.5,
    epoch: EpochOption = None,
    settings: SettingOption = None,
    store: StoreOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON list, an object for each image.")
    ] = False,
) -> None:
    """Say of image files whether they are REAL or FAKE; exit code 1 if some are unreadable."""
    found = asking.predict(
        _model(model, store, epoch, settings), images, filter_name=filter_, threshold=threshold
    )
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        printing.print_predictions(Console(), found)
    if printing.print_problems(Console(stderr=True), found):
        raise typer.Exit(SOME_UNREADABLE)


@app.command()
def explain(  # noqa: PLR0913 - one parameter an option
    model: ModelArgument,
    *,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Page to write. Default: explain.png.")
    ] = Path("explain.png"),
    data_: DataOption = None,
    on: OnOption = None,
    split: SplitOption = "test",
    site: Annotated[
        str | None,
        typer.Option(
            "--site", metavar="SITE", help="Feature map of the Grad-CAM. Default: the last one."
        ),
    ] = None,
    per_group: Annotated[
        int,
        typer.Option("--per-group", metavar="N", min=1, max=12, help="Images of each group."),
    ] = 6,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Seed of the draw.")] = 0,
    epoch: EpochOption = None,
    settings: SettingOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw what a network looks at: Grad-CAM of right and wrong calls, and attention gates."""
    facts = asking.explain(
        _model(model, store, epoch, settings),
        asking.DataChoice(data=data_ or (), on=on or (), split=split),
        out=out,
        site=site,
        per_group=per_group,
        seed=seed,
    )
    print(json.dumps(facts, indent=2) if as_json else facts["sheet"])


SOME_UNREADABLE = 1
"""Exit code where some images could not be read and others could."""


def _model(
    target: str, store: str | None, epoch: int | None, settings: list[str] | None
) -> asking.ModelChoice:
    return asking.ModelChoice(
        target=target, store=usual_root(store), epoch=epoch, settings=settings or ()
    )


def main() -> NoReturn:
    """Run the command line."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    run_command(app, "cifake")


if __name__ == "__main__":
    main()
