"""One run's record while it grows: its tables, its state, and the row that commits them."""

from __future__ import annotations

import datetime
import json
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cifake import tables
from cifake.config import TRAINER_VERSION, Config, run_id
from cifake.provenance import device_name, versions
from cifake.runs import RunFolder
from cifake.stacks import Standing

if TYPE_CHECKING:
    from cifake.training import State


class Record:
    """A run as its folder has it, and what has come since; nothing counts before `commit`."""

    def __init__(self, folder: RunFolder, config: Config, seed: int, device: str = "cpu") -> None:
        self.folder = folder
        self.device = device
        self.seed = seed
        state = folder.state()
        self.row = _new_row(config, seed) if state is None else dict(state.row)
        self.committed = dict(self.row)
        self.grown: dict[tables.RunTable, list[pa.Table]] = {
            table: [folder.read(table, epochs=self.epochs_done)]
            for table in tables.RUN_TABLES
            if table != "runs"
        }

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

    def write_state(self, state: State) -> None:
        """Write the state after an epoch."""
        self.folder.write_state(state.epoch, state.weights, state.optimizer)

    def begin(self, stack: Sequence[int]) -> None:
        """Write, before the first epoch, in which stack the run is trained."""
        self._write_row(self.row | {"stack": list(stack), "updated_at": _now()})

    def commit(self, **changes: Any) -> None:
        """Write every table, and last the row that makes them count."""
        for table in self.grown:
            self.folder.write(table, self.rows(table))
        self.row |= {
            "host": socket.gethostname(),
            "device": device_name(self.device),
            "versions": json.dumps(versions(), sort_keys=True),
            "updated_at": _now(),
            **changes,
        }
        self._write_row(self.row)

    def commit_failure(self, error: str) -> None:
        """Write the error into the last committed row; what came since is given up."""
        self._write_row(
            {**self.committed, "status": "failed", "error": error, "updated_at": _now()}
        )

    def _write_row(self, row: dict[str, Any]) -> None:
        self.folder.write("runs", tables.TABLES["runs"].from_rows([row]))
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


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
