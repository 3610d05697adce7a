"""Bring the runs of one configuration to a length: resume, train, evaluate, commit every epoch."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cifake import tables
from cifake.claims import LostError
from cifake.config import Config
from cifake.data.pack import Pack
from cifake.data.subsets import split_rows
from cifake.evaluations import Images, NotFiniteError, evaluation_tables
from cifake.record import Record
from cifake.runs import DamagedError
from cifake.stacks import Begun, begun_stacks, best_width, chunks, stacks_of_width

if TYPE_CHECKING:
    from torch import nn

    from cifake.batches import TrainingData
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

    width: int | None = None
    """Runs trained as one network, the last ones of them with fewer; null: as many as are fastest,
    by measurement."""

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

    train_seconds: float
    """Training time of its epochs so far."""

    parameters: int | None

    def metric(self, name: str) -> float | None:
        """One of its figures by name, a score of validation as `validation.<score>`."""
        split, _, score = name.rpartition(".")
        if split:
            return self.scores.get(score)
        return self.train_seconds if name == "train_seconds" else self.parameters


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
        done = min(self.aim.epochs, *(record.epochs_done for record in self.records.values()))
        if done:
            report(self._stored(done))
        self._begin()
        while stacks := self._lagging():
            self._train(stacks, report)

    def _begin(self) -> None:
        """Settle, for runs that were never begun, which of them are trained as one network."""
        for begun in self._unfinished():  # a kill can have left a stack half begun
            for seed in begun.seeds:
                if not self.records[seed].standing.stack:
                    self.records[seed].begin(begun.seeds)
        new = [seed for seed, record in self.records.items() if self._is_new(record)]
        if not new:
            return
        for stack in self._new_stacks(new):
            for seed in stack:
                self.records[seed].begin(stack)

    def _new_stacks(self, new: Sequence[int]) -> Iterator[tuple[int, ...]]:
        if self.aim.width is None:
            yield from chunks(new, self._best_width(len(new)))
            return
        for stack in stacks_of_width(self.aim.config, [*self.records], self.aim.width):
            if left := tuple(seed for seed in stack if seed in new):
                yield left

    def _is_new(self, record: Record) -> bool:
        begun = bool(record.standing.stack)
        return record.trainable and not begun and record.epochs_done < self.aim.epochs

    def _best_width(self, runs: int) -> int:
        from cifake.speed import Speed

        config, device = self.aim.config, self.aim.device
        return best_width(config, runs, Speed(config, self._training_data(), device), device)

    def _training_data(self) -> TrainingData:
        from cifake.batches import TrainingData

        return TrainingData(self.pack.pixels, self.pack.labels, self.split.train)

    def _unfinished(self) -> list[Begun]:
        """The stacks that have not reached their end."""
        stacks = begun_stacks(record.standing for record in self.records.values())
        return [stack for stack in stacks if stack.start < self.aim.epochs]

    def _lagging(self) -> list[Begun]:
        """The stacks with the fewest epochs, without runs ahead of them that cannot go back."""
        unfinished = self._unfinished()
        least = min((stack.start for stack in unfinished), default=0)
        return [
            Begun(tuple(s for s in stack.seeds if self.records[s].has_state(least)), least)
            for stack in unfinished
            if stack.start == least
        ]

    def _train(self, stacks: Sequence[Begun], report: Callable[[Progress], None]) -> None:
        """Train some stacks, as far as the next of those that are ahead of them."""
        from cifake.training import train

        def on_epoch(epoch: Epoch) -> None:
            progress = self._record(epoch)
            report(progress)
            if len(progress.diverged) > len(epoch.diverged):
                raise _DroppedError

        start = stacks[0].start
        ahead = {stack.start for stack in self._unfinished() if stack.start > start}
        members = {seed for stack in stacks for seed in stack.seeds}
        seeds = [seed for seed in self.records if seed in members]
        with contextlib.suppress(_DroppedError):
            train(
                self.aim.config,
                seeds,
                self._training_data(),
                on_epoch,
                epochs=min({*ahead, self.aim.epochs}),
                resume={s: self.records[s].state(start) for s in seeds} if start else None,
                device=self.aim.device,
                stacks=[stack.seeds for stack in stacks],
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
            try:
                model.load_state_dict(record.folder.read_weights(epoch))
                made, _ = self._evaluated(record, model.to(self.aim.device), epoch)
            except NotFiniteError as error:
                # Without a stack it is no company for an epoch that others have to repeat.
                problem = f"{error}, in epoch {epoch}"
                record.commit(status="diverged", error=problem, stack=[])
                return
            except DamagedError as error:
                record.go_back(error)
                return
            _add(record, epoch, made)
        if late:
            record.commit()

    def _unevaluated(self, record: Record, epoch: int) -> list[Images]:
        """What a milestone needs and has not: validation first."""
        needed = [*([self.validation] if self.validation else []), *self.tests]
        return [i for i in needed if not record.has_evaluation(epoch, i.dataset, i.split)]

    def _record(self, epoch: Epoch) -> Progress:
        """Evaluate and commit an epoch, run by run.

        Those that diverged come last: while one run of a stack is an epoch behind, all that the
        epoch was trained with must still be there.
        """
        problems = {divergence.seed: str(divergence) for divergence in epoch.diverged}
        evaluated = {}
        for member in epoch.members:
            record = self.records[member.seed]
            if record.epochs_done < epoch.epoch:
                try:
                    evaluated[member.seed] = self._evaluated(record, member.model, epoch.epoch)
                except NotFiniteError as error:
                    problems[member.seed] = f"{error}, in epoch {epoch.epoch}"
        kept = [member for member in epoch.members if member.seed not in problems]
        for member in kept:
            if member.seed in evaluated:
                self._commit(epoch, member, evaluated[member.seed][0], lost=problems.keys())
        for seed, problem in problems.items():
            self.records[seed].commit(status="diverged", error=problem)
        for member in kept:
            self.records[member.seed].folder.drop_old_optimizers(epoch.epoch)
        members = [
            self._member(member, evaluated[member.seed][1])
            if member.seed in evaluated
            else self._stored_member(member.seed, epoch.epoch)
            for member in kept
        ]
        return Progress(epoch.epoch, members, tuple(problems), epoch.images, epoch.seconds)

    def _commit(
        self, epoch: Epoch, member: MemberEpoch, made: Made, *, lost: Collection[int]
    ) -> None:
        record = self.records[member.seed]
        seconds = epoch.seconds / (len(epoch.members) + len(epoch.diverged))
        _add_epoch(record, member, epoch.epoch, seconds)
        _add(record, epoch.epoch, made)
        fallbacks = {*record.row["fallbacks"], *self.aim.fallbacks, *member.fallbacks}
        record.commit(
            status="complete" if epoch.epoch >= self.aim.epochs else "running",
            error=None,
            epochs_done=epoch.epoch,
            images_per_second=epoch.images / epoch.seconds,
            stack_width=len(member.stack),
            stack=[seed for seed in member.stack if seed not in lost],
            git_commit=self.aim.git_commit,
            fallbacks=sorted(fallbacks),
        )

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
        return Progress(epoch, [self._stored_member(seed, epoch) for seed in self.records])

    def _stored_member(self, seed: int, epoch: int) -> Member:
        record = self.records[seed]
        losses = _of_epoch(record.rows("epochs"), epoch)
        scores = [
            row
            for row in _of_epoch(record.rows("evaluations"), epoch)
            if row["split"] == "validation"
        ]
        return Member(
            seed=seed,
            loss=losses[0]["loss"] if losses else None,
            scores=scores[0] if scores else {},
            train_seconds=sum(
                row["seconds"] for row in record.rows("epochs").to_pylist() if row["epoch"] <= epoch
            ),
            parameters=record.row["parameters"],
        )

    def _member(self, member: MemberEpoch, scores: Scores) -> Member:
        row = self.records[member.seed].row
        return Member(member.seed, member.loss, scores, row["train_seconds"], row["parameters"])


@contextlib.contextmanager
def failures_recorded(records: Iterable[Record], epochs: int) -> Iterator[None]:
    """Write an error into the rows of the runs that it stops short of a length, and raise it."""
    try:
        yield
    except LostError:
        raise  # the rows are another's to write
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
    record.keep_state(member.state)


def _of_epoch(table: pa.Table, epoch: int) -> list[dict[str, Any]]:
    return [row for row in table.to_pylist() if row["epoch"] == epoch]
