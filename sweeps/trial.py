"""One stack: resume, train, evaluate, and write tables, weights and state after every epoch."""

from __future__ import annotations

import datetime
import json
import platform
import socket
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cifake import tables
from cifake.config import TRAINER_VERSION, Config, run_id
from cifake.data.pack import Pack, open_pack
from cifake.data.subsets import split_rows
from sweeps.store import Store

if TYPE_CHECKING:
    from torch import nn

    from cifake.training import Epoch, MemberEpoch, State

_GROUPS = ("content_class", "coarse_class", "generator")


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


Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Images:
    """One split of one data set, ready to be evaluated."""

    dataset: str
    split: str
    pack: Pack
    rows: Rows

    @property
    def key(self) -> str:
        return f"{self.dataset}:{self.split}"


@dataclass
class _Run:
    """One run as it grows: its row, and its other tables."""

    run_id: str
    seed: int
    row: dict[str, Any]
    grown: dict[tables.RunTable, list[pa.Table]]

    @property
    def epochs_done(self) -> int:
        return int(self.row["epochs_done"])

    @property
    def trainable(self) -> bool:
        return str(self.row["status"]) != "diverged"

    def add(self, table: tables.RunTable, content: pa.Table) -> None:
        self.grown[table].append(content)

    def evaluated(self, epoch: int, images: Sequence[_Images]) -> bool:
        return {f"{epoch}:{each.key}" for each in images} <= set(self.row["evaluated"])

    def forget(self, epoch: int) -> None:
        """Drop the evaluations of an epoch, so that they can be made again in full."""
        for table in tables.EVALUATION_TABLES:
            self.grown[table] = [t.filter(pc.field("epoch") != epoch) for t in self.grown[table]]

    def joined(self, table: tables.RunTable) -> pa.Table:
        """The whole table, in the order of epochs; backfilled milestones were added last."""
        parts = [tables.TABLES[table].empty(), *self.grown[table]]
        whole = pa.concat_tables(parts).unify_dictionaries()
        order = np.argsort(whole["epoch"].to_numpy(), kind="stable")
        whole = whole.take(order).combine_chunks()
        self.grown[table] = [whole]
        return whole


def run_stack(task: Task, report: Callable[[Report], None]) -> None:
    """Bring every run of a stack to the length asked for and evaluate it at every milestone.

    Whatever the store has already is used. An error is recorded in the runs' rows and raised.
    """
    import torch

    torch.set_num_threads(1)
    stack = _StackRun(task)
    try:
        stack.execute(report)
    except Exception:
        stack.record_failure(traceback.format_exc())
        raise


class _StackRun:
    def __init__(self, task: Task) -> None:
        self.task = task
        self.config = Config.model_validate(task.config)
        self.store = Store(Path(task.store))
        self.packs = {name: open_pack(Path(folder)) for name, folder in task.packs.items()}
        self.train_pack = next(iter(self.packs.values()))
        self.split = split_rows(self.train_pack, self.config.data)
        self.validation = self._validation()
        self.tests = [
            _Images(name, "test", self.packs[name], self.packs[name].rows("test"))
            for name in task.evaluate
        ]
        self.runs = {seed: self._load(seed) for seed in task.seeds}

    def execute(self, report: Callable[[Report], None]) -> None:
        for run in self.runs.values():
            self._backfill(run)
        done = min(run.epochs_done for run in self.runs.values())
        if done:
            report(self._stored_report(done))
        while lagging := self._lagging():
            self._train(lagging, report)

    def record_failure(self, error: str) -> None:
        """Write the error into the rows of all runs that are not at their end."""
        for run in self.runs.values():
            if run.trainable and run.epochs_done < self.task.epochs:
                self._commit(run, status="failed", error=error)

    def _lagging(self) -> list[_Run]:
        """The runs with the fewest epochs, if they have not reached their end.

        After a kill some runs of a stack can be an epoch ahead of the others.
        """
        open_ = [run for run in self.runs.values() if run.trainable]
        least = min((run.epochs_done for run in open_), default=self.task.epochs)
        if least >= self.task.epochs:
            return []
        return [run for run in open_ if run.epochs_done == least]

    def _train(self, runs: Sequence[_Run], report: Callable[[Report], None]) -> None:
        from cifake.training import TrainingData, train

        ahead = [run.epochs_done for run in self.runs.values() if run.trainable]
        levels = {level for level in ahead if level > runs[0].epochs_done}
        train(
            self.config,
            [run.seed for run in runs],
            TrainingData(self.train_pack.pixels, self.train_pack.labels, self.split.train),
            lambda epoch: report(self._record(epoch)),
            epochs=min({*levels, self.task.epochs}),
            resume={run.seed: self._state(run) for run in runs if run.epochs_done},
        )

    def _validation(self) -> _Images | None:
        if not len(self.split.validation):
            return None
        name = next(iter(self.packs))
        return _Images(name, "validation", self.train_pack, self.split.validation)

    def _load(self, seed: int) -> _Run:
        """A run as the store has it; rows beyond its last committed epoch are left out."""
        identity = run_id(self.config.config_id, seed)
        state = self.store.run_state(identity)
        row = self._new_row(identity, seed) if state is None else dict(state.row)
        grown: dict[tables.RunTable, list[pa.Table]] = {
            table: [self.store.read(identity, table, epochs=row["epochs_done"])]
            for table in tables.RUN_TABLES
            if table != "runs"
        }
        return _Run(identity, seed, row, grown)

    def _new_row(self, identity: str, seed: int) -> dict[str, Any]:
        return {
            "run_id": identity,
            "config_id": self.config.config_id,
            "seed": seed,
            "epochs_done": 0,
            "evaluated": [],
            "fallbacks": [],
            "train_seconds": 0.0,
            "started_at": _now(),
            "trainer_version": TRAINER_VERSION,
            "status": "running",
            **self.config.flat(),
        }

    def _state(self, run: _Run) -> State:
        from cifake.training import State

        epoch = run.epochs_done
        weights = self.store.read_weights(run.run_id, epoch)
        return State(epoch, weights, self.store.read_optimizer(run.run_id, epoch))

    def _backfill(self, run: _Run) -> None:
        """Evaluate milestones that were passed before anyone asked for them, from their weights."""
        from cifake.models.build import build

        missing = [
            milestone
            for milestone in self.task.milestones
            if milestone <= run.epochs_done and not run.evaluated(milestone, self._all_images())
        ]
        for milestone in missing:
            model = build(self.config, run.seed)
            model.load_state_dict(self.store.read_weights(run.run_id, milestone))
            run.forget(milestone)
            self._evaluate(run, model, milestone)
        if missing:
            self._write(run)
            self._commit(run)

    def _all_images(self) -> list[_Images]:
        return [*([self.validation] if self.validation else []), *self.tests]

    def _record(self, epoch: Epoch) -> Report:
        width = len(epoch.members) + len(epoch.diverged)
        scores = []
        for member in epoch.members:
            run = self.runs[member.seed]
            scores.append(self._record_member(run, member, epoch.epoch, epoch.seconds / width))
            complete = epoch.epoch >= self.task.epochs
            self._commit(
                run,
                status="complete" if complete else "running",
                epochs_done=epoch.epoch,
                images_per_second=epoch.images / epoch.seconds,
                stack_width=width,
            )
            self.store.drop_old_optimizers(run.run_id, epoch.epoch)
        for divergence in epoch.diverged:
            self._commit(self.runs[divergence.seed], status="diverged", error=str(divergence))
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
        self, run: _Run, member: MemberEpoch, epoch: int, seconds: float
    ) -> Mapping[str, float | None]:
        from cifake.models.build import parameter_count

        run.row["parameters"] = parameter_count(member.model)
        run.row["train_seconds"] += seconds
        keys = {"run_id": run.run_id, "epoch": epoch}
        steps = [keys | asdict(step) for step in member.steps]
        run.add("batches", tables.TABLES["batches"].from_rows(steps))
        row = {
            "loss": member.loss,
            "accuracy": member.accuracy,
            "learning_rate": member.learning_rate,
            "seconds": seconds,
        }
        run.add("epochs", tables.TABLES["epochs"].from_rows([keys | row]))
        scores = self._evaluate(run, member.model, epoch)
        self._write(run)
        state = member.state()
        self.store.write_state(run.run_id, epoch, state.weights, state.optimizer)
        return scores

    def _evaluate(self, run: _Run, model: nn.Module, epoch: int) -> Mapping[str, float | None]:
        """Evaluate validation after every epoch, everything at milestones.

        Returns:
            The validation scores.
        """
        from cifake.evaluation import best_threshold, predict

        scores: Mapping[str, float | None] = {}
        threshold: float | None = None
        milestone = epoch in self.task.milestones
        if self.validation is not None:
            probabilities = predict(model, self.validation.pack.pixels, self.validation.rows)
            labels = self.validation.pack.labels[self.validation.rows]
            threshold = best_threshold(probabilities, labels)
            scores = self._add_evaluation(
                run, self.validation, epoch, probabilities, threshold, keep=milestone
            )
        for images in self.tests if milestone else ():
            probabilities = predict(model, images.pack.pixels, images.rows)
            self._add_evaluation(run, images, epoch, probabilities, threshold, keep=True)
        return scores

    def _add_evaluation(
        self,
        run: _Run,
        images: _Images,
        epoch: int,
        probabilities: npt.NDArray[np.float32],
        threshold: float | None,
        *,
        keep: bool,
    ) -> Mapping[str, float | None]:
        from cifake import evaluation

        labels = images.pack.labels[images.rows]
        keys = {
            "run_id": run.run_id,
            "epoch": epoch,
            "dataset": images.dataset,
            "split": images.split,
        }
        duplicates = images.pack.duplicates(images.rows)
        row = evaluation.evaluation(probabilities, labels, duplicates, threshold)
        run.add("evaluations", tables.TABLES["evaluations"].from_rows([keys | row]))
        at = evaluation.counts(probabilities, labels, np.asarray(tables.THRESHOLDS))
        columns = {**keys, "threshold": np.asarray(tables.THRESHOLDS), **at._asdict()}
        curve = {k: pa.array(v, pa.float64()) for k, v in evaluation.threshold_scores(at).items()}
        run.add("thresholds", tables.TABLES["thresholds"].from_columns(columns | curve))
        classes = [
            {**keys, "kind": kind, **scores}
            for kind in _GROUPS
            for scores in evaluation.class_scores(
                probabilities, labels, images.pack.words(kind, images.rows)
            )
        ]
        run.add("classes", tables.TABLES["classes"].from_rows(classes))
        if keep:
            predictions = {"image_id": images.rows, "probability": probabilities}
            run.add("predictions", tables.TABLES["predictions"].from_columns(keys | predictions))
            run.row["evaluated"] = sorted({*run.row["evaluated"], f"{epoch}:{images.key}"})
        return row

    def _stored_report(self, epoch: int) -> Report:
        """What the last finished epoch said, read from the tables."""
        rows = [
            row
            for run in self.runs.values()
            for row in run.joined("evaluations").to_pylist()
            if row["epoch"] == epoch and row["split"] == "validation"
        ]
        return Report(epoch, len(self.runs), 0, 0, 0.0, _means(rows))

    def _write(self, run: _Run) -> None:
        for table in run.grown:
            self.store.write(run.run_id, table, run.joined(table))

    def _commit(self, run: _Run, **changes: Any) -> None:
        """Write the run's row, which makes everything written before it count."""
        import torch

        run.row |= {
            "error": None,
            "fallbacks": sorted({*run.row["fallbacks"], *self.task.fallbacks}),
            "host": socket.gethostname(),
            "device": f"cpu {platform.machine()}",
            "versions": json.dumps(_versions() | {"torch": torch.__version__}, sort_keys=True),
            "git_commit": self.task.git_commit,
            "updated_at": _now(),
            **changes,
        }
        self.store.write(run.run_id, "runs", tables.TABLES["runs"].from_rows([run.row]))


def _means(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    means = {}
    for score in tables.SCORES:
        values = [row.get(score) for row in rows]
        defined = [value for value in values if value is not None]
        complete = defined and len(defined) == len(values)
        means[f"validation.{score}"] = float(np.mean(defined)) if complete else float("nan")
    return means


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _versions() -> dict[str, str]:
    names = ("cifake-sweeps", "numpy", "ray")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
