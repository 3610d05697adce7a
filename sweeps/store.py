"""Where runs live. Every file is written aside and renamed, so no reader sees half of one.

    store.json                      what this folder is
    runs/<run_id>/<table>.parquet   the tables of a run
    runs/<run_id>/weights-0001.safetensors, one an epoch
    runs/<run_id>/optimizer-0001.safetensors, the last epoch's only
    sweeps/<name>/                  what a sweep asked for, and its report

A run's `runs.parquet` is written last: it commits the epoch. Rows and weights beyond its
`epochs_done` belong to an epoch that was interrupted; they are ignored and written again.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from cifake import tables
from cifake.errors import refuse

if TYPE_CHECKING:
    import torch

SCHEMA = 1
MARKER = "store.json"
STORE_VARIABLE = "CIFAKE_STORE"
_THREADS = 8


@dataclass(frozen=True)
class RunState:
    """What the store knows of a run, as far as planning needs it."""

    run_id: str
    config_id: str
    seed: int
    status: str
    epochs_done: int
    evaluated: frozenset[str]
    """`epoch:dataset:split` of every evaluation whose predictions are kept."""

    images_per_second: float | None
    stack_width: int | None
    row: Mapping[str, Any]
    """The whole row of the `runs` table."""


class Store:
    """A folder of runs and sweeps."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def open(cls, root: Path, *, create: bool) -> Store:
        """Open a store, or make one of an empty or missing folder.

        Raises:
            InputError: a folder of something else, a newer schema, or one that cannot be written.
        """
        marker = root / MARKER
        try:
            if marker.is_file():
                _check_marker(marker)
            elif root.is_dir() and any(root.iterdir()):
                refuse(root, "is no store and not empty; give --store a new or empty folder")
            elif root.exists() and not root.is_dir():
                refuse(root, "is a file; give --store a folder")
            elif create:
                root.mkdir(parents=True, exist_ok=True)
                write_aside(marker, json.dumps({"schema": SCHEMA}).encode())
            if create:
                _check_writable(root)
        except OSError as error:
            refuse(root, f"cannot be used as a store ({error.strerror}); give --store another")
        return cls(root)

    def sweep_folder(self, name: str) -> Path:
        """Where a sweep's outputs go."""
        return self.root / "sweeps" / name

    def run_ids(self) -> list[str]:
        """Every run of the store, whether finished or not."""
        folder = self.root / "runs"
        if not folder.is_dir():
            return []
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())

    def run_states(self, run_ids: Iterable[str] | None = None) -> dict[str, RunState]:
        """The state of the runs named, or of all; runs that never committed are left out."""
        wanted = self.run_ids() if run_ids is None else sorted(set(run_ids))
        with ThreadPoolExecutor(_THREADS) as pool:
            states = pool.map(self.run_state, wanted)
            return {state.run_id: state for state in states if state is not None}

    def run_state(self, run_id: str) -> RunState | None:
        """The state of a run, or null if it never committed."""
        table = self.read(run_id, "runs")
        if not len(table):
            return None
        row = table.to_pylist()[0]
        return RunState(
            run_id=run_id,
            config_id=row["config_id"],
            seed=row["seed"],
            status=row["status"],
            epochs_done=row["epochs_done"],
            evaluated=frozenset(row["evaluated"]),
            images_per_second=row["images_per_second"],
            stack_width=row["stack_width"],
            row=row,
        )

    def read(self, run_id: str, table: tables.RunTable, *, epochs: int | None = None) -> pa.Table:
        """A table of a run, empty if it was never written.

        Args:
            run_id: the run.
            table: name of the table.
            epochs: rows of later epochs are left out.

        Raises:
            InputError: the file is damaged or of another schema.
        """
        path = self._file(run_id, f"{table}.parquet")
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return tables.TABLES[table].empty()
        try:
            read = tables.decode(table, content)
        except ValueError as error:
            refuse(path, f"{error}; delete the run's folder, and it is trained again")
        return read if epochs is None else read.filter(pc.field("epoch") <= epochs)

    def read_many(self, run_ids: Iterable[str], table: tables.RunTable) -> pa.Table:
        """A table of several runs, one after another."""
        with ThreadPoolExecutor(_THREADS) as pool:
            found = list(pool.map(lambda run_id: self.read(run_id, table), run_ids))
        return pa.concat_tables([tables.TABLES[table].empty(), *found]).unify_dictionaries()

    def write(self, run_id: str, table: tables.RunTable, content: pa.Table) -> None:
        """Replace a table of a run."""
        write_aside(self._file(run_id, f"{table}.parquet"), tables.encode(table, content))

    def write_state(
        self,
        run_id: str,
        epoch: int,
        weights: Mapping[str, torch.Tensor],
        optimizer: Mapping[str, torch.Tensor],
    ) -> None:
        """Write an epoch's weights and optimiser state; nothing refers to them until committed."""
        from safetensors.torch import save

        for kind, tensors in (("weights", weights), ("optimizer", optimizer)):
            dense = {name: value.contiguous() for name, value in tensors.items()}
            write_aside(self._state_file(run_id, kind, epoch), save(dense))

    def read_weights(self, run_id: str, epoch: int) -> dict[str, torch.Tensor]:
        """The weights after an epoch."""
        return self._tensors(run_id, "weights", epoch)

    def read_optimizer(self, run_id: str, epoch: int) -> dict[str, torch.Tensor]:
        """The optimiser's state after the last committed epoch."""
        return self._tensors(run_id, "optimizer", epoch)

    def drop_old_optimizers(self, run_id: str, epoch: int) -> None:
        """Remove the optimiser states that the one of `epoch` supersedes."""
        superseded = self._state_file(run_id, "optimizer", epoch).name
        for path in self._file(run_id, "").glob("optimizer-*.safetensors"):
            if path.name < superseded:
                path.unlink(missing_ok=True)

    def write_sweep(self, name: str, file: str, content: bytes) -> Path:
        """Write a file of a sweep and say where it is."""
        path = self.sweep_folder(name) / file
        write_aside(path, content)
        return path

    def read_sweep(self, name: str, table: str) -> pa.Table | None:
        """A table of a sweep, or null if it was never written."""
        path = self.sweep_folder(name) / f"{table}.parquet"
        try:
            return tables.decode(table, path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            refuse(path, f"{error}; delete it and run `sweeps report` again")

    def _tensors(self, run_id: str, kind: str, epoch: int) -> dict[str, torch.Tensor]:
        from safetensors import SafetensorError
        from safetensors.torch import load

        path = self._state_file(run_id, kind, epoch)
        try:
            return dict(load(path.read_bytes()))
        except (OSError, SafetensorError) as error:
            raise RuntimeError(f"{path}: cannot be read ({error})") from error

    def _file(self, run_id: str, name: str) -> Path:
        return self.root / "runs" / run_id / name

    def _state_file(self, run_id: str, kind: str, epoch: int) -> Path:
        return self._file(run_id, f"{kind}-{epoch:04}.safetensors")


def write_aside(path: Path, content: bytes) -> None:
    """Write a file so that it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(aside).chmod(0o644)
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(aside).unlink()
        raise


def _check_writable(root: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        refuse(root, f"cannot be written ({error.strerror}); give --store another folder")


def _check_marker(marker: Path) -> None:
    try:
        schema = json.loads(marker.read_text()).get("schema")
    except (ValueError, AttributeError):
        refuse(marker, 'is damaged; a store\'s says its schema, as in {"schema": 1}')
    if schema != SCHEMA:
        refuse(marker, f"store schema {schema}, this release reads {SCHEMA}; use a release of then")
