"""One stack as a trial: told by a task, reported epoch by epoch, its failure kept in its rows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cifake.claims import Owner, Process
from cifake.config import Config, run_id
from cifake.data.published import open_near
from cifake.places import open_place
from cifake.record import Record
from cifake.session import Aim, Member, Progress, Session, failures_recorded
from cifake.store import claimed_runs
from sweeps.spec import METRICS
from sweeps.store import Store

_POLL = 2.0
"""Seconds between two looks at a run that another trains."""


@dataclass(frozen=True)
class Task:
    """What a trial is told; plain values, so that it travels to any worker."""

    config: dict[str, Any]
    """A `Config`, dumped."""

    seeds: tuple[int, ...]
    epochs: int
    milestones: tuple[int, ...]
    packs: dict[str, str]
    """Folder of the pack of each data set; the training set's comes first."""

    evaluate: tuple[str, ...]
    """Data sets whose test split is evaluated at milestones."""

    store: str
    width: int | None = None
    """Runs trained as one network, the last ones of them with fewer; null: as many as are fastest,
    by measurement."""

    git_commit: str | None = None
    gpus: float = 0.0
    """GPUs asked for, or a share of one."""

    fallbacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What a trial says after every epoch, and once for runs that were there already."""

    epoch: int
    width: int
    """Runs that are still trained."""

    epochs_trained: int
    """Epochs trained since the last report, over all runs."""

    images: int
    seconds: float
    scores: dict[str, float]
    """Mean over runs of each validation score, as `validation.<score>`, of `train_seconds` and of
    `parameters`; NaN where one of the runs has none."""

    stds: dict[str, float]
    """Sample standard deviations over runs, likewise; NaN for one run."""

    diverged: Sequence[int] = ()
    """Seeds dropped in this epoch."""


def run_stack(task: Task, report: Callable[[Report], None]) -> None:
    """Bring every run of a stack to the length asked for and evaluate it at every milestone.

    Whatever the store has already is used. An error is recorded in the runs' rows and raised.
    """
    import torch

    torch.set_num_threads(1)
    config = Config.model_validate(task.config)
    device, fallbacks = _device(task.gpus)
    aim = Aim(
        config=config,
        epochs=task.epochs,
        milestones=task.milestones,
        evaluate=task.evaluate,
        width=task.width,
        device=device,
        git_commit=task.git_commit,
        fallbacks=(*task.fallbacks, *fallbacks),
    )
    store = Store(open_place(task.store))
    names = {run_id(config.config_id, seed): seed for seed in task.seeds}
    with (
        Owner(store.root, "a trial of a sweep") as owner,
        claimed_runs(store.root, names, owner, _wait) as claims,
    ):
        records = {
            seed: Record(store.run(name), config, seed, device, claims[name])
            for name, seed in names.items()
        }
        with failures_recorded(records.values(), task.epochs):
            packs = {
                name: open_near(Path(folder), store.root) for name, folder in task.packs.items()
            }
            session = Session(aim, packs, records)
            session.run(lambda progress: report(_report(progress, len(task.seeds))))


def _wait(process: Process) -> None:
    """What another trains need not be trained here: it is there when the other is done."""
    del process
    time.sleep(_POLL)


def _device(gpus: float) -> tuple[str, tuple[str, ...]]:
    """Where a stack is trained, and the fallback if that is not what was asked for."""
    import torch

    if not gpus:
        return "cpu", ()
    if torch.cuda.is_available():
        if gpus < 1:  # others have the rest of its memory: none may take it from them
            torch.cuda.set_per_process_memory_fraction(gpus)
        return "cuda", ()
    return "cpu", (f"trained on the CPU: {gpus:g} GPU was asked for, and torch found none",)


def _report(progress: Progress, runs: int) -> Report:
    found = {name: _values(progress.members, name, runs) for name in METRICS}
    return Report(
        epoch=progress.epoch,
        width=len(progress.members),
        epochs_trained=progress.epochs_trained,
        images=progress.images,
        seconds=progress.seconds,
        scores={name: float(np.mean(values)) for name, values in found.items()},
        stds={
            name: float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
            for name, values in found.items()
        },
        diverged=progress.diverged,
    )


def _values(members: Sequence[Member], metric: str, runs: int) -> npt.NDArray[np.float64]:
    """A metric of every run; NaN for those that diverged, which are no members any more."""
    values = [member.metric(metric) for member in members]
    known = [math.nan if value is None else value for value in values]
    return np.asarray(known + [math.nan] * (runs - len(known)), np.float64)
