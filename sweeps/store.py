"""Where runs and sweeps live.

    store.json      what this folder is
    runs/<run_id>/  the folder of a run
    sweeps/<name>/  what a sweep asked for, and its report

Every file is written aside and renamed, so no reader sees half of one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import pyarrow as pa
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from cifake import tables
from cifake.errors import refuse
from cifake.files import write_aside
from cifake.runs import RunFolder, RunState
from cifake.store import RUNS, open_root, run_folder

STACKS = "stacks.json"
"""File of a sweep that says which runs its plan trains as one network."""

_THREADS = 8


def _apart(stacks: list[list[int]]) -> list[list[int]]:
    seeds = [seed for stack in stacks for seed in stack]
    if len(set(seeds)) < len(seeds):
        raise ValueError("a seed lies in two stacks")
    return stacks


_SomeSeeds = Annotated[list[int], Field(min_length=1)]
_STACKS = TypeAdapter(dict[str, Annotated[list[_SomeSeeds], AfterValidator(_apart)]])


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
        open_root(root, create=create)
        return cls(root)

    def sweep_folder(self, name: str) -> Path:
        """Where a sweep's outputs go."""
        return self.root / "sweeps" / name

    def run_ids(self) -> list[str]:
        """Every run of the store, whether finished or not."""
        folder = self.root / RUNS
        if not folder.is_dir():
            return []
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())

    def run_states(self, run_ids: Iterable[str] | None = None) -> dict[str, RunState]:
        """The state of the runs named, or of all; runs that never committed are left out."""
        wanted = self.run_ids() if run_ids is None else sorted(set(run_ids))
        with ThreadPoolExecutor(_THREADS) as pool:
            states = pool.map(self.run_state, wanted)
            return {state.run_id: state for state in states if state is not None}

    def run(self, run_id: str) -> RunFolder:
        """The folder of a run, whether it exists or not."""
        return run_folder(self.root, run_id)

    def run_state(self, run_id: str) -> RunState | None:
        """The state of a run, or null if it never committed."""
        return self.run(run_id).state()

    def read(self, run_id: str, table: tables.RunTable, *, epochs: int | None = None) -> pa.Table:
        """A table of a run, as `RunFolder.read` gives it."""
        return self.run(run_id).read(table, epochs=epochs)

    def read_many(self, run_ids: Iterable[str], table: tables.RunTable) -> pa.Table:
        """A table of several runs, one after another."""
        with ThreadPoolExecutor(_THREADS) as pool:
            found = list(pool.map(lambda run_id: self.read(run_id, table), run_ids))
        return pa.concat_tables([tables.TABLES[table].empty(), *found]).unify_dictionaries()

    def write(self, run_id: str, table: tables.RunTable, content: pa.Table) -> None:
        """Replace a table of a run."""
        self.run(run_id).write(table, content)

    def write_sweep(self, name: str, file: str, content: bytes) -> Path:
        """Write a file of a sweep and say where it is."""
        path = self.sweep_folder(name) / file
        write_aside(path, content)
        return path

    def write_stacks(self, name: str, stacks: Mapping[str, Sequence[Sequence[int]]]) -> None:
        """Write which new runs a sweep trains as one network: seeds, by config."""
        self.write_sweep(name, STACKS, json.dumps(stacks, indent=1).encode())

    def read_stacks(self, name: str) -> dict[str, list[list[int]]]:
        """What `write_stacks` wrote last; nothing if it never did.

        Raises:
            InputError: the file is damaged.
        """
        path = self.sweep_folder(name) / STACKS
        try:
            return _STACKS.validate_json(path.read_bytes())
        except FileNotFoundError:
            return {}
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            refuse(path, f"{problem}; delete it, and the sweep is planned anew")

    def read_sweep(self, name: str, table: str) -> pa.Table | None:
        """A table of a sweep, or null if it was never written."""
        path = self.sweep_folder(name) / f"{table}.parquet"
        try:
            return tables.decode(table, path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            refuse(path, f"{error}; delete it and run `sweeps report` again")
