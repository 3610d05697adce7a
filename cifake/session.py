"""Bring the runs of one configuration to a length: resume, train, evaluate, commit every epoch."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cifake import tables
from cifake.config import Config
from cifake.data.pack import Pack
from cifake.data.subsets import split_rows
from cifake.evaluations import Images, NotFiniteError, evaluation_tables
from cifake.record import Record

if TYPE_CHECKING:
    from torch import nn

    from cifake.training import Epoch, MemberEpoch

Scores = Mapping[str, float | None]
Made = list[tuple[Images, dict[tables.RunTable, pa.Table]]]


@dataclass(frozen=True, kw_only=True)
class Aim:
    """What the runs of one configuration are to become."""

    config: Config
    epochs: int
    """Length of every run."""

    milestones: tuple[int, ...]
    """Lengths at which every test set is evaluated and predictions are kept."""

    evaluate: tuple[str, ...]
    """Data sets whose test split is evaluated."""

    device: str = "cpu"
    """`cpu` or `cuda`."""

    git_commit: str | None = None
    fallbacks: tuple[str, ...] = ()
    """Every automatic fallback, with its reason."""


@dataclass(frozen=True)
class Member:
    """What an epoch gave for one run."""

    seed: int
    loss: float | None
    """Mean training loss, in nats."""

    scores: Scores
    """Of the `evaluations` table, on validation; empty without it."""


@dataclass(frozen=True)
class Progress:
    """An epoch that is committed."""

    epoch: int
    members: list[Member]
    """The runs that are trained on."""

    diverged: tuple[int, ...] = ()
    """Seeds dropped in this epoch."""

    images: int = 0
    """Images trained on, all runs together; 0 where the epoch was there already."""

    seconds: float = 0.0
    """Training time of all runs together."""

    @property
    def epochs_trained(self) -> int:
        """Epochs trained for this one, over all runs."""
        return len(self.members) + len(self.diverged) if self.images else 0


class _DroppedError(Exception):
    """A run that still trains must be left behind; the others go on from what is committed."""


class Session:
    """The runs of one configuration with several seeds, trained together.

    Args:
        aim: what they are to become.
        packs: by data set; the training set's comes first.
        records: by seed.
    """

    def __init__(self, aim: Aim, packs: Mapping[str, Pack], records: Mapping[int, Record]) -> None:
        self.aim = aim
        self.records = records
        train, self.pack = next(iter(packs.items()))
        self.split = split_rows(self.pack, aim.config.data)
        aside = self.split.validation
        self.validation = Images(train, "validation", self.pack, aside) if len(aside) else None
        self.tests = [
            Images(name, "test", packs[name], packs[name].rows("test")) for name in aim.evaluate
        ]

    def run(self, report: Callable[[Progress], None]) -> None:
        """Do what is missing, and report every epoch, the last one found first."""
        for record in self.records.values():
            self._backfill(record)
        done = min(record.epochs_done for record in self.records.values())
        if done:
            report(self._stored(done))
        while lagging := self._lagging():
            self._train(lagging, report)

    def _trainable(self) -> list[Record]:
        return [record for record in self.records.values() if record.trainable]

    def _lagging(self) -> list[Record]:
        """The runs with the fewest epochs, if they have not reached their end.

        After a kill some runs of a stack can be an epoch ahead of the others.
        """
        records = self._trainable()
        least = min((record.epochs_done for record in records), default=self.aim.epochs)
        if least >= self.aim.epochs:
            return []
        return [record for record in records if record.epochs_done == least]

    def _train(self, records: Sequence[Record], report: Callable[[Progress], None]) -> None:
        """Train some runs, as far as the next of those that are ahead of them."""
        from cifake.batches import TrainingData
        from cifake.training import train

        def on_epoch(epoch: Epoch) -> None:
            progress = self._record(epoch)
            report(progress)
            if len(progress.diverged) > len(epoch.diverged):
                raise _DroppedError

        start = records[0].epochs_done
        ahead = {r.epochs_done for r in self._trainable() if r.epochs_done > start}
        with contextlib.suppress(_DroppedError):
            train(
                self.aim.config,
                [record.seed for record in records],
                TrainingData(self.pack.pixels, self.pack.labels, self.split.train),
                on_epoch,
                epochs=min({*ahead, self.aim.epochs}),
                resume={record.seed: record.state() for record in records} if start else None,
                device=self.aim.device,
            )

    def _backfill(self, record: Record) -> None:
        """Evaluate milestones that were passed before anyone asked for them, from their weights."""
        from cifake.models.build import build

        late = [
            epoch
            for epoch in self.aim.milestones
            if epoch <= record.epochs_done and self._unevaluated(record, epoch)
        ]
        for epoch in late:
            model = build(self.aim.config, record.seed)
            model.load_state_dict(record.folder.read_weights(epoch))
            try:
                made, _ = self._evaluated(record, model.to(self.aim.device), epoch)
            except NotFiniteError as error:
                record.commit(status="diverged", error=f"{error}, in epoch {epoch}")
                return
            _add(record, epoch, made)
        if late:
            record.commit()

    def _unevaluated(self, record: Record, epoch: int) -> list[Images]:
        """What a milestone needs and has not: validation first."""
        needed = [*([self.validation] if self.validation else []), *self.tests]
        return [i for i in needed if not record.has_evaluation(epoch, i.dataset, i.split)]

    def _record(self, epoch: Epoch) -> Progress:
        width = len(epoch.members) + len(epoch.diverged)
        problems = {divergence.seed: str(divergence) for divergence in epoch.diverged}
        members = []
        for member in epoch.members:
            record = self.records[member.seed]
            try:
                made, scores = self._evaluated(record, member.model, epoch.epoch)
            except NotFiniteError as error:
                problems[member.seed] = f"{error}, in epoch {epoch.epoch}"
                continue
            _add_epoch(record, member, epoch.epoch, epoch.seconds / width)
            _add(record, epoch.epoch, made)
            record.commit(
                status="complete" if epoch.epoch >= self.aim.epochs else "running",
                error=None,
                epochs_done=epoch.epoch,
                images_per_second=epoch.images / epoch.seconds,
                stack_width=width,
                git_commit=self.aim.git_commit,
                fallbacks=sorted({*record.row["fallbacks"], *self.aim.fallbacks}),
            )
            members.append(Member(member.seed, member.loss, scores))
        for seed, problem in problems.items():
            self.records[seed].commit(status="diverged", error=problem)
        return Progress(epoch.epoch, members, tuple(problems), epoch.images, epoch.seconds)

    def _evaluated(self, record: Record, model: nn.Module, epoch: int) -> tuple[Made, Scores]:
        """Evaluate validation after every epoch, and at milestones all that is not there yet.

        Returns:
            What is to be added to the record, and the validation scores.

        Raises:
            NotFiniteError: a probability is NaN.
        """
        from cifake.evaluation import FromValidation, from_validation

        milestone = epoch in self.aim.milestones
        missing = self._unevaluated(record, epoch)
        chosen = FromValidation()
        made: Made = []
        scores: Scores = {}

        def add(images: Images, probabilities: npt.NDArray[np.float32]) -> pa.Table:
            rows = evaluation_tables(
                record.run_id, epoch, images, probabilities, chosen, keep_predictions=milestone
            )
            if any(images is lacking for lacking in missing):
                made.append((images, rows))
            return rows["evaluations"]

        if self.validation is not None:
            # The tests' threshold and temperature come from here: made again even where it is kept.
            probabilities = self.validation.probabilities(model)
            chosen = from_validation(probabilities, self.validation.labels)
            scores = add(self.validation, probabilities).to_pylist()[0]
        if milestone:
            for images in missing:
                if images is not self.validation:
                    add(images, images.probabilities(model))
        return made, scores

    def _stored(self, epoch: int) -> Progress:
        """What the last finished epoch of all runs gave, read from the tables."""
        members = []
        for seed, record in self.records.items():
            losses = _of_epoch(record.rows("epochs"), epoch)
            scores = [
                row
                for row in _of_epoch(record.rows("evaluations"), epoch)
                if row["split"] == "validation"
            ]
            loss = losses[0]["loss"] if losses else None
            members.append(Member(seed, loss, scores[0] if scores else {}))
        return Progress(epoch, members)


@contextlib.contextmanager
def failures_recorded(records: Iterable[Record], epochs: int) -> Iterator[None]:
    """Write an error into the rows of the runs that it stops short of a length, and raise it."""
    try:
        yield
    except Exception:
        for record in records:
            if record.trainable and record.epochs_done < epochs:
                record.commit_failure(traceback.format_exc())
        raise


def _add(record: Record, epoch: int, made: Made) -> None:
    for images, rows in made:
        record.add_evaluation(epoch, images.dataset, images.split, rows)


def _add_epoch(record: Record, member: MemberEpoch, epoch: int, seconds: float) -> None:
    """Add what training gave for one run, and write its state."""
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


def _of_epoch(table: pa.Table, epoch: int) -> list[dict[str, Any]]:
    return [row for row in table.to_pylist() if row["epoch"] == epoch]
