"""The folder of one run: its tables, its weights, and the optimiser state it goes on from.

    <table>.parquet              the tables
    weights-0001.safetensors     one an epoch
    optimizer-0001.safetensors   the last epoch's, and the one before while a stack commits

Every file is written aside and renamed, so no reader sees half of one. `runs.parquet` is written
last: it commits the epoch. Rows and weights beyond its `epochs_done` belong to an epoch that was
interrupted; they are ignored and written again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from cifake import tables
from cifake.config import Config, leaves, nest
from cifake.errors import refuse
from cifake.files import write_aside
from cifake.stacks import Standing

if TYPE_CHECKING:
    import torch

_WEIGHTS = re.compile(r"weights-(\d{4})\.safetensors")


@dataclass(frozen=True)
class RunState:
    """How far a run is."""

    run_id: str
    config_id: str
    seed: int
    status: str
    epochs_done: int
    evaluated: frozenset[str]
    """`epoch:dataset:split` of every evaluation whose predictions are kept."""

    images_per_second: float | None
    stack_width: int | None
    stack: tuple[int, ...]
    """Seeds of the stack that the next epoch is trained in; none before it was begun."""

    row: Mapping[str, Any]
    """The whole row of the `runs` table."""

    @property
    def standing(self) -> Standing:
        """Where it stands among the runs that are trained with it."""
        diverged = self.status == "diverged"
        return Standing(self.seed, self.epochs_done, self.stack, diverged=diverged)


class RunFolder:
    """A folder of one run, which bears the run's identity as its name."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def run_id(self) -> str:
        """The run."""
        return self.path.name

    def state(self) -> RunState | None:
        """How far the run is, or null if it never committed.

        Raises:
            InputError: the table `runs` is damaged or of another schema.
        """
        table = self.read("runs")
        if not len(table):
            return None
        row = table.to_pylist()[0]
        return RunState(
            run_id=self.run_id,
            config_id=row["config_id"],
            seed=row["seed"],
            status=row["status"],
            epochs_done=row["epochs_done"],
            evaluated=frozenset(row["evaluated"]),
            images_per_second=row["images_per_second"],
            stack_width=row["stack_width"],
            stack=tuple(row["stack"]),
            row=row,
        )

    def config(self) -> Config:
        """The configuration that the run was trained with.

        Raises:
            InputError: the run never committed, or its table `runs` is damaged.
        """
        return config_of(self._committed().row)

    def epochs(self) -> list[int]:
        """The committed epochs whose weights are here, ascending.

        Raises:
            InputError: the run never committed, or its table `runs` is damaged.
        """
        done = self._committed().epochs_done
        found = (_WEIGHTS.fullmatch(path.name) for path in self.path.iterdir())
        epochs = sorted(int(match[1]) for match in found if match)
        return [epoch for epoch in epochs if epoch <= done]

    def read(self, table: tables.RunTable, *, epochs: int | None = None) -> pa.Table:
        """A table, empty if it was never written.

        Args:
            table: its name.
            epochs: rows of later epochs are left out.

        Raises:
            InputError: the file is damaged or of another schema.
        """
        path = self.path / f"{table}.parquet"
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return tables.TABLES[table].empty()
        try:
            read = tables.decode(table, content)
        except ValueError as error:
            refuse(path, f"{error}; delete the run's folder, and it is trained again")
        return read if epochs is None else read.filter(pc.field("epoch") <= epochs)

    def write(self, table: tables.RunTable, content: pa.Table) -> None:
        """Replace a table."""
        write_aside(self.path / f"{table}.parquet", tables.encode(table, content))

    def write_state(
        self,
        epoch: int,
        weights: Mapping[str, torch.Tensor],
        optimizer: Mapping[str, torch.Tensor],
    ) -> None:
        """Write an epoch's weights and optimiser state; nothing refers to them until committed."""
        from safetensors.torch import save

        for kind, tensors in (("weights", weights), ("optimizer", optimizer)):
            dense = {name: value.contiguous() for name, value in tensors.items()}
            write_aside(self._state_file(kind, epoch), save(dense))

    def read_weights(self, epoch: int) -> dict[str, torch.Tensor]:
        """The weights after an epoch.

        Raises:
            RuntimeError: they are missing or damaged.
        """
        return self._tensors("weights", epoch)

    def read_optimizer(self, epoch: int) -> dict[str, torch.Tensor]:
        """The optimiser's state after an epoch.

        Raises:
            RuntimeError: it is missing or damaged.
        """
        return self._tensors("optimizer", epoch)

    def has_optimizer(self, epoch: int) -> bool:
        """Whether the optimiser's state after an epoch is still here."""
        return self._state_file("optimizer", epoch).exists()

    def drop_old_optimizers(self, epoch: int) -> None:
        """Remove the optimiser states that the one of `epoch` supersedes."""
        superseded = self._state_file("optimizer", epoch).name
        for path in self.path.glob("optimizer-*.safetensors"):
            if path.name < superseded:
                path.unlink(missing_ok=True)

    def _committed(self) -> RunState:
        state = self.state()
        if state is None:
            refuse(self.path, "holds no run; give the folder of one that finished an epoch")
        return state

    def _tensors(self, kind: str, epoch: int) -> dict[str, torch.Tensor]:
        from safetensors import SafetensorError
        from safetensors.torch import load

        path = self._state_file(kind, epoch)
        try:
            return dict(load(path.read_bytes()))
        except (OSError, SafetensorError) as error:
            raise RuntimeError(f"{path}: cannot be read ({error})") from error

    def _state_file(self, kind: str, epoch: int) -> Path:
        return self.path / f"{kind}-{epoch:04}.safetensors"


def config_of(row: Mapping[str, Any]) -> Config:
    """The configuration in a row of the `runs` table; a null is left to its defaults."""
    settings = {path: row[path] for path, _ in leaves(Config)}
    return Config.model_validate(nest(settings))
