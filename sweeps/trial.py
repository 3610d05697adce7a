"""One stack: resume, train, evaluate, and commit every run after every epoch."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cifake import tables
from cifake.config import Config, run_id
from cifake.data.pack import open_pack
from cifake.data.subsets import split_rows
from cifake.evaluations import Images, evaluation_tables
from cifake.record import Record
from sweeps.store import Store

if TYPE_CHECKING:
    from torch import nn

    from cifake.training import Epoch, MemberEpoch


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
    git_commit: str | None = None
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
    """Mean over runs of each validation score, as `validation.<score>`; NaN where undefined."""

    diverged: tuple[int, ...] = ()
    """Seeds dropped in this epoch."""


def run_stack(task: Task, report: Callable[[Report], None]) -> None:
    """Bring every run of a stack to the length asked for and evaluate it at every milestone.

    Whatever the store has already is used. An error is recorded in the runs' rows and raised.
    """
    import torch

    torch.set_num_threads(1)
    config = Config.model_validate(task.config)
    store = Store(Path(task.store))
    folders = {seed: store.run(run_id(config.config_id, seed)) for seed in task.seeds}
    records = {seed: Record(folder, config, seed) for seed, folder in folders.items()}
    try:
        _Stack(task, config, records).execute(report)
    except Exception:
        for record in records.values():
            if record.trainable and record.epochs_done < task.epochs:
                record.commit_failure(traceback.format_exc())
        raise


class _Stack:
    def __init__(self, task: Task, config: Config, records: dict[int, Record]) -> None:
        self.task = task
        self.config = config
        self.records = records
        packs = {name: open_pack(Path(folder)) for name, folder in task.packs.items()}
        train, self.pack = next(iter(packs.items()))
        self.split = split_rows(self.pack, self.config.data)
        aside = self.split.validation
        self.validation = Images(train, "validation", self.pack, aside) if len(aside) else None
        self.tests = [
            Images(name, "test", packs[name], packs[name].rows("test")) for name in task.evaluate
        ]

    def execute(self, report: Callable[[Report], None]) -> None:
        for record in self.records.values():
            self._backfill(record)
        done = min(record.epochs_done for record in self.records.values())
        if done:
            report(self._stored_report(done))
        while lagging := self._lagging():
            self._train(lagging, report)

    def _trainable(self) -> list[Record]:
        return [record for record in self.records.values() if record.trainable]

    def _lagging(self) -> list[Record]:
        """The runs with the fewest epochs, if they have not reached their end.

        After a kill some runs of a stack can be an epoch ahead of the others.
        """
        records = self._trainable()
        least = min((record.epochs_done for record in records), default=self.task.epochs)
        if least >= self.task.epochs:
            return []
        return [record for record in records if record.epochs_done == least]

    def _train(self, records: Sequence[Record], report: Callable[[Report], None]) -> None:
        """Train some runs, as far as the next of those that are ahead of them."""
        from cifake.batches import TrainingData
        from cifake.training import train

        start = records[0].epochs_done
        ahead = {r.epochs_done for r in self._trainable() if r.epochs_done > start}
        train(
            self.config,
            [record.seed for record in records],
            TrainingData(self.pack.pixels, self.pack.labels, self.split.train),
            lambda epoch: report(self._record(epoch)),
            epochs=min({*ahead, self.task.epochs}),
            resume={record.seed: record.state() for record in records} if start else None,
        )

    def _backfill(self, record: Record) -> None:
        """Evaluate milestones that were passed before anyone asked for them, from their weights."""
        from cifake.models.build import build

        late = [
            epoch
            for epoch in self.task.milestones
            if epoch <= record.epochs_done and self._unevaluated(record, epoch)
        ]
        for epoch in late:
            model = build(self.config, record.seed)
            model.load_state_dict(record.folder.read_weights(epoch))
            self._evaluate(record, model, epoch)
        if late:
            record.commit()

    def _unevaluated(self, record: Record, epoch: int) -> list[Images]:
        """What a milestone needs and has not: validation first."""
        needed = [*([self.validation] if self.validation else []), *self.tests]
        return [i for i in needed if not record.has_evaluation(epoch, i.dataset, i.split)]

    def _record(self, epoch: Epoch) -> Report:
        width = len(epoch.members) + len(epoch.diverged)
        scores = []
        for member in epoch.members:
            record = self.records[member.seed]
            scores.append(self._record_member(record, member, epoch.epoch, epoch.seconds / width))
            record.commit(
                status="complete" if epoch.epoch >= self.task.epochs else "running",
                error=None,
                epochs_done=epoch.epoch,
                images_per_second=epoch.images / epoch.seconds,
                stack_width=width,
                git_commit=self.task.git_commit,
                fallbacks=sorted({*record.row["fallbacks"], *self.task.fallbacks}),
            )
        for divergence in epoch.diverged:
            self.records[divergence.seed].commit(status="diverged", error=str(divergence))
        return Report(
            epoch=epoch.epoch,
            width=len(epoch.members),
            epochs_trained=width,
            images=epoch.images,
            seconds=epoch.seconds,
            scores=_means(scores),
            diverged=tuple(divergence.seed for divergence in epoch.diverged),
        )

    def _record_member(
        self, record: Record, member: MemberEpoch, epoch: int, seconds: float
    ) -> Mapping[str, float | None]:
        """Add what an epoch gave for one run; returns its validation scores."""
        from cifake.models.build import parameter_count

        record.row["parameters"] = parameter_count(member.model)
        record.row["train_seconds"] += seconds
        keys = {"run_id": record.run_id, "epoch": epoch}
        steps = [keys | asdict(step) for step in member.steps]
        record.add("batches", tables.TABLES["batches"].from_rows(steps))
        row = {
            "loss": member.loss,
            "accuracy": member.accuracy,
            "learning_rate": member.learning_rate,
            "seconds": seconds,
        }
        record.add("epochs", tables.TABLES["epochs"].from_rows([keys | row]))
        record.write_state(member.state())
        return self._evaluate(record, member.model, epoch)

    def _evaluate(self, record: Record, model: nn.Module, epoch: int) -> Mapping[str, float | None]:
        """Evaluate validation after every epoch, and at milestones all that is not there yet.

        Returns:
            The validation scores.
        """
        from cifake.evaluation import best_threshold

        milestone = epoch in self.task.milestones
        scores: Mapping[str, float | None] = {}
        threshold: float | None = None

        def add(images: Images, probabilities: npt.NDArray[np.float32]) -> pa.Table:
            made = evaluation_tables(
                record.run_id, epoch, images, probabilities, threshold, keep_predictions=milestone
            )
            if not record.has_evaluation(epoch, images.dataset, images.split):
                record.add_evaluation(epoch, images.dataset, images.split, made)
            return made["evaluations"]

        if self.validation is not None:
            # The tests' threshold comes from here, so it is made again even where it is kept.
            probabilities = self.validation.probabilities(model)
            threshold = best_threshold(probabilities, self.validation.labels)
            scores = add(self.validation, probabilities).to_pylist()[0]
        if milestone:
            for images in self._unevaluated(record, epoch):
                add(images, images.probabilities(model))
        return scores

    def _stored_report(self, epoch: int) -> Report:
        """What the last finished epoch said, read from the tables."""
        rows = [
            row
            for record in self.records.values()
            for row in record.rows("evaluations").to_pylist()
            if row["epoch"] == epoch and row["split"] == "validation"
        ]
        return Report(epoch, len(self.records), 0, 0, 0.0, _means(rows))


def _means(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    means = {}
    for score in tables.SCORES:
        values = [row.get(score) for row in rows]
        defined = [value for value in values if value is not None]
        complete = defined and len(defined) == len(values)
        means[f"validation.{score}"] = float(np.mean(defined)) if complete else float("nan")
    return means
