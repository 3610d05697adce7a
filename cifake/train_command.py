"""Train one configuration without a sweep, and say what came of it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from cifake.claims import Owner, Process
from cifake.config import run_id
from cifake.data.locate import parse_sources
from cifake.data.pack import Pack
from cifake.data.subsets import split_rows
from cifake.data.uses import check_uses
from cifake.data.watch import open_watched
from cifake.errors import refuse
from cifake.provenance import git_commit
from cifake.record import Record
from cifake.session import Aim, Progress, Session, failures_recorded
from cifake.store import claimed_runs, open_root, run_folder
from cifake.training_request import COMMAND, Request

SHOWN = ("accuracy", "precision", "recall", "f1", "auroc")
"""Scores that are printed, in percent; the tables hold all of them."""


@dataclass(frozen=True)
class Job:
    """A request with its data opened and its runs claimed."""

    aim: Aim
    packs: Mapping[str, Pack]
    records: Mapping[int, Record]

    def finished(self) -> bool:
        """Whether every run has the length asked for."""
        return all(r.epochs_done >= self.aim.epochs for r in self.records.values())


@contextlib.contextmanager
def prepared(request: Request, root: str, data: Sequence[str], console: Console) -> Iterator[Job]:
    """Open the data and the store, and claim the runs for as long as the block lasts.

    Raises:
        InputError: data that is nowhere, damaged or too small; a folder that is no store; a run
            that another process trains.
    """
    sources = parse_sources(data, request.data.train)
    packs = {name: open_watched(name, sources, console) for name in request.datasets}
    train = packs[request.data.train]
    check_uses(train, [packs[name] for name in request.evaluate], COMMAND)
    config = request.config(train.info.fingerprint)
    split_rows(train, config.data, COMMAND)
    store = open_root(root, create=True)
    aim = Aim(
        config=config,
        epochs=request.epochs,
        milestones=(request.epochs,),
        evaluate=request.evaluate,
        device=request.device,
        git_commit=git_commit(),
    )
    folders = {run_id(config.config_id, seed): seed for seed in request.seeds}

    def busy(process: Process) -> None:
        refuse(store, f"a run of these is being trained by {process}; wait for it, or end it")

    with Owner(store, COMMAND) as owner, claimed_runs(store, folders, owner, busy) as claims:
        records = {
            folders[name]: Record(
                run_folder(store, name), config, folders[name], request.device, claim
            )
            for name, claim in claims.items()
        }
        yield Job(aim, packs, {seed: records[seed] for seed in request.seeds})


def carry_out(job: Job, console: Console) -> int:
    """Train what the store lacks, with a line for every epoch of every run.

    Returns:
        Epochs trained, over all runs.
    """
    import torch

    torch.set_num_threads(1)  # a sweep's trial does too: one thread adds in one order
    trained = 0

    def report(progress: Progress) -> None:
        nonlocal trained
        trained += progress.epochs_trained
        for line in _lines(progress, job.aim.epochs):
            console.print(line, highlight=False, markup=False, soft_wrap=True)

    with failures_recorded(job.records.values(), job.aim.epochs):
        Session(job.aim, job.packs, job.records).run(report)
    return trained


def print_outcome(job: Job, console: Console) -> None:
    """The test scores at the length asked for, and where the runs are."""
    table = Table(title=f"test, epoch {job.aim.epochs}, %", title_justify="left")
    for name in ("seed", "data set"):
        table.add_column(name, no_wrap=True)
    for name in SHOWN:
        table.add_column(name, justify="right", no_wrap=True)
    for seed, record in job.records.items():
        for row in _evaluations(record, job.aim.epochs):
            if row["split"] == "test":
                scores = (_percent(row[name]) for name in SHOWN)
                table.add_row(str(seed), row["dataset"], *scores)
    if table.row_count:
        console.print(table)
    for seed, record in job.records.items():
        error = record.row["error"]
        problem = f": {error.strip().splitlines()[-1]}" if error else ""
        text = f"seed {seed}: {record.row['status']}{problem}, {record.folder.place}"
        console.print(text, highlight=False, markup=False, soft_wrap=True)


def as_json(job: Job, epochs_trained: int) -> str:
    """What came of it, as one JSON object."""
    runs = [
        {
            "run_id": record.run_id,
            "seed": seed,
            "status": record.row["status"],
            "error": record.row["error"],
            "epochs_done": record.epochs_done,
            "folder": str(record.folder.place),
            "epochs": _without_run(record.rows("epochs").to_pylist()),
            "evaluations": _without_run(_evaluations(record, job.aim.epochs)),
        }
        for seed, record in job.records.items()
    ]
    found = {
        "config_id": job.aim.config.config_id,
        "epochs": job.aim.epochs,
        "epochs_trained": epochs_trained,
        "runs": runs,
    }
    return json.dumps(found, indent=2)


def _lines(progress: Progress, epochs: int) -> list[str]:
    """One line a run: loss, validation accuracy and speed, or that it was there already."""
    if progress.images:
        speed = f"{progress.images / progress.seconds:,.0f} images/s"
    else:
        speed = "from the store"
    lines = []
    for member in progress.members:
        parts = [f"seed {member.seed}", f"epoch {progress.epoch}/{epochs}"]
        if member.loss is not None:
            parts.append(f"loss {member.loss:.4f}")
        if (accuracy := member.scores.get("accuracy")) is not None:
            parts.append(f"validation accuracy {_percent(accuracy)} %")
        lines.append("  ".join([*parts, speed]))
    return [*lines, *(f"seed {seed}  diverged" for seed in progress.diverged)]


def _evaluations(record: Record, epoch: int) -> list[dict[str, Any]]:
    return [row for row in record.rows("evaluations").to_pylist() if row["epoch"] == epoch]


def _without_run(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "run_id"} for row in rows]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"
