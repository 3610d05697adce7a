"""One run's record while it grows: its tables, its state, and the row that commits them."""

from __future__ import annotations

import datetime
import json
import platform
import socket
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cifake import tables
from cifake.config import TRAINER_VERSION, Config, run_id
from sweeps.store import Store

if TYPE_CHECKING:
    from cifake.training import State


class Record:
    """A run as the store has it, and what has come since; nothing counts before `commit`."""

    def __init__(self, store: Store, config: Config, seed: int) -> None:
        self.store = store
        self.seed = seed
        self.run_id = run_id(config.config_id, seed)
        state = store.run_state(self.run_id)
        self.row = _new_row(config, seed) if state is None else dict(state.row)
        self.committed = dict(self.row)
        self.grown: dict[tables.RunTable, list[pa.Table]] = {
            table: [store.read(self.run_id, table, epochs=self.epochs_done)]
            for table in tables.RUN_TABLES
            if table != "runs"
        }

    @property
    def epochs_done(self) -> int:
        """Epochs committed."""
        return int(self.committed["epochs_done"])

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

    def state(self) -> State:
        """Where training goes on: the last committed epoch."""
        from cifake.training import State

        epoch = self.epochs_done
        weights = self.store.read_weights(self.run_id, epoch)
        return State(epoch, weights, self.store.read_optimizer(self.run_id, epoch))

    def write_state(self, state: State) -> None:
        """Write the state after an epoch."""
        self.store.write_state(self.run_id, state.epoch, state.weights, state.optimizer)

    def commit(self, **changes: Any) -> None:
        """Write every table, and last the row that makes them count."""
        import torch

        for table in self.grown:
            self.store.write(self.run_id, table, self.rows(table))
        self.row |= {
            "host": socket.gethostname(),
            "device": f"cpu {platform.machine()}",
            "versions": json.dumps(_versions() | {"torch": torch.__version__}, sort_keys=True),
            "updated_at": _now(),
            **changes,
        }
        self._write_row(self.row)
        self.store.drop_old_optimizers(self.run_id, self.epochs_done)

    def commit_failure(self, error: str) -> None:
        """Write the error into the last committed row; what came since is given up."""
        self._write_row(
            {**self.committed, "status": "failed", "error": error, "updated_at": _now()}
        )

    def _write_row(self, row: dict[str, Any]) -> None:
        self.store.write(self.run_id, "runs", tables.TABLES["runs"].from_rows([row]))
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
        "train_seconds": 0.0,
        "started_at": _now(),
        "trainer_version": TRAINER_VERSION,
        **config.flat(),
    }


def _versions() -> dict[str, str]:
    names = ("cifake-sweeps", "numpy", "ray")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
