"""One run's record while it grows: its tables, its state, and the row that commits them."""

from __future__ import annotations

import contextlib
import datetime
import json
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cifake import tables
from cifake.claims import Claim
from cifake.config import TRAINER_VERSION, Config, run_id
from cifake.provenance import device_name, versions
from cifake.runs import DamagedError, RunFolder, state_files, state_of
from cifake.stacks import Standing

if TYPE_CHECKING:
    from cifake.training import State


class Record:
    """A run as its folder has it, and what has come since; nothing counts before `commit`."""

    def __init__(
        self,
        folder: RunFolder,
        config: Config,
        seed: int,
        device: str = "cpu",
        claim: Claim | None = None,
    ) -> None:
        self.folder = folder
        self.claim = claim
        self.device = device
        self.seed = seed
        state = folder.state()
        self.row = _new_row(config, seed) if state is None else dict(state.row)
        self.config = config
        self.committed = dict(self.row)
        self.files: dict[str, bytes] = {}
        self.grown: dict[tables.RunTable, list[pa.Table]] = {}
        try:
            self._read_tables()
            self._check_state(self.epochs_done)
        except DamagedError as error:
            self.go_back(error)

    @property
    def run_id(self) -> str:
        """The run."""
        return self.folder.run_id

    @property
    def epochs_done(self) -> int:
        """Epochs committed."""
        return int(self.committed["epochs_done"])

    @property
    def standing(self) -> Standing:
        """Where it stands among the runs that are trained with it."""
        stack = tuple(self.committed["stack"])
        return Standing(self.seed, self.epochs_done, stack, diverged=not self.trainable)

    @property
    def trainable(self) -> bool:
        """Whether more epochs can be trained."""
        return str(self.committed["status"]) != "diverged"

    def has_evaluation(self, epoch: int, dataset: str, split: str) -> bool:
        """Whether an evaluation was made and its predictions are kept."""
        return f"{epoch}:{dataset}:{split}" in self.row["evaluated"]

    def add(self, table: tables.RunTable, content: pa.Table) -> None:
        """Add rows to a table."""
        self.grown[table].append(content)

    def add_evaluation(
        self, epoch: int, dataset: str, split: str, made: Mapping[tables.RunTable, pa.Table]
    ) -> None:
        """Add the rows of an evaluation in the place of those made before."""
        same = (
            (pc.field("epoch") == epoch)
            & (pc.field("dataset") == dataset)
            & (pc.field("split") == split)
        )
        for table, rows in made.items():
            self.grown[table] = [part.filter(~same) for part in self.grown[table]]
            self.add(table, rows)
        if "predictions" in made:
            key = f"{epoch}:{dataset}:{split}"
            self.row["evaluated"] = sorted({*self.row["evaluated"], key})

    def rows(self, table: tables.RunTable) -> pa.Table:
        """A whole table, in the order of epochs; late evaluations were added last."""
        parts = [tables.TABLES[table].empty(), *self.grown[table]]
        whole = pa.concat_tables(parts).unify_dictionaries()
        order = np.argsort(whole["epoch"].to_numpy(), kind="stable")
        self.grown[table] = [whole.take(order).combine_chunks()]
        return self.grown[table][0]

    def has_state(self, epoch: int) -> bool:
        """Whether training can go on from an epoch."""
        return epoch in (0, self.epochs_done) or self.folder.has_optimizer(epoch)

    def state(self, epoch: int) -> State:
        """Where training goes on after an epoch."""
        from cifake.training import State

        return State(epoch, self.folder.read_weights(epoch), self.folder.read_optimizer(epoch))

    def go_back(self, damage: DamagedError) -> None:
        """Give up what cannot be read, and all that came after it; the row says so.

        Only the last states of the optimiser are kept: before them lies the beginning.
        """
        epoch = 0
        if state_of(damage.file)[1] == self.epochs_done > 1:
            with contextlib.suppress(DamagedError):
                self._check_state(self.epochs_done - 1)
                epoch = self.epochs_done - 1
        why = f"{damage.file} {damage.problem}: trained again from epoch {epoch}"
        evaluated = [key for key in self.committed["evaluated"] if _epoch_of(key) <= epoch]
        self.row = (self.committed if epoch else _new_row(self.config, self.seed)) | {
            "status": "running",
            "error": None,
            "fallbacks": sorted({*self.committed["fallbacks"], why}),
            "epochs_done": epoch,
            "evaluated": evaluated,
        }
        self.committed = dict(self.row)
        self._read_tables()
        self.row["train_seconds"] = sum(self.rows("epochs")["seconds"].to_pylist(), 0.0)
        self.committed = dict(self.row)

    def keep_state(self, state: State) -> None:
        """Let the next commit write the state after an epoch."""
        self.files |= state_files(state.epoch, state.weights, state.optimizer)

    def begin(self, stack: Sequence[int]) -> None:
        """Write, before the first epoch, in which stack the run is trained."""
        self._write_row(self.row | {"stack": list(stack), "updated_at": _now()})

    def commit(self, **changes: Any) -> None:
        """Write every table and state, and last the row that makes them count."""
        for table in self.grown:
            self.files[f"{table}.parquet"] = tables.encode(table, self.rows(table))
        self.row |= {
            "host": socket.gethostname(),
            "device": device_name(self.device),
            "versions": json.dumps(versions(), sort_keys=True),
            "updated_at": _now(),
            **changes,
        }
        self._write_row(self.row, self.files)
        self.files = {}

    def commit_failure(self, error: str) -> None:
        """Write the error into the last committed row; what came since is given up."""
        self._write_row(
            {**self.committed, "status": "failed", "error": error, "updated_at": _now()}
        )

    def _read_tables(self) -> None:
        for table in tables.RUN_TABLES:
            if table != "runs":
                begun = self.epochs_done > 0
                kept = self.folder.read(table, epochs=self.epochs_done) if begun else None
                self.grown[table] = [] if kept is None else [kept]

    def _check_state(self, epoch: int) -> None:
        if epoch:
            self.folder.read_weights(epoch)
            self.folder.read_optimizer(epoch)

    def _write_row(self, row: dict[str, Any], files: Mapping[str, bytes] | None = None) -> None:
        if self.claim is not None:
            self.claim.check()
        self.folder.commit(row, files or {})
        self.row = row
        self.committed = dict(row)


def _new_row(config: Config, seed: int) -> dict[str, Any]:
    return {
        "run_id": run_id(config.config_id, seed),
        "config_id": config.config_id,
        "seed": seed,
        "status": "running",
        "fallbacks": [],
        "epochs_done": 0,
        "evaluated": [],
        "stack": [],
        "train_seconds": 0.0,
        "started_at": _now(),
        "trainer_version": TRAINER_VERSION,
        **config.flat(),
    }


def _epoch_of(evaluated: str) -> int:
    return int(evaluated.partition(":")[0])


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
