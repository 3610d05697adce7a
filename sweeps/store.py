"""Where runs and sweeps live.

    store.json      what this folder is
    runs/<run_id>/  the folder of a run
    sweeps/<name>/  what a sweep asked for, and its report

Every file appears whole or not at all; see `cifake/places.py`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, TypeVar

import pyarrow as pa
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from cifake import tables
from cifake.claims import Owner, Process, claimed
from cifake.errors import refuse
from cifake.places import LocalPlace, Place
from cifake.runs import DamagedError, RunFolder, RunState
from cifake.store import RUNS, open_root, run_folder

STACKS = "stacks.json"
"""File of a sweep that says which runs its plan trains as one network."""

_REQUESTS = 32
"""Requests to an object store at the same time."""

T = TypeVar("T")


def _apart(stacks: list[list[int]]) -> list[list[int]]:
    seeds = [seed for stack in stacks for seed in stack]
    if len(set(seeds)) < len(seeds):
        raise ValueError("a seed lies in two stacks")
    return stacks


_SomeSeeds = Annotated[list[int], Field(min_length=1)]
_STACKS = TypeAdapter(dict[str, Annotated[list[_SomeSeeds], AfterValidator(_apart)]])


class Store:
    """A place of runs and sweeps."""

    def __init__(self, root: Place) -> None:
        self.root = root

    @classmethod
    def open(cls, root: str, *, create: bool) -> Store:
        """Open a store, or make one of an empty or missing place.

        Raises:
            InputError: a place of something else, another schema, or one that cannot be written.
        """
        return cls(open_root(root, create=create))

    @property
    def address(self) -> str:
        """What opens it from any folder."""
        return str(self.root.path.resolve() if isinstance(self.root, LocalPlace) else self.root)

    def sweep(self, name: str) -> Place:
        """Where a sweep's outputs go."""
        return self.root.at("sweeps").at(name)

    @contextlib.contextmanager
    def claimed(self, name: str) -> Iterator[None]:
        """Keep a sweep from being run by another process for as long as the block lasts.

        Raises:
            InputError: another runs it now.
        """

        def busy(process: Process) -> None:
            problem = f"is being run by {process}; wait for it, or end it"
            refuse(self.root, problem, field=f"sweep {name}")

        with (
            Owner(self.root, f"sweeps run {name}") as owner,
            claimed([self.sweep(name)], owner, busy),
        ):
            yield

    def run_ids(self) -> list[str]:
        """Every run of the store, whether finished or not."""
        return self.root.at(RUNS).folders()

    def run_states(self, run_ids: Iterable[str] | None = None) -> dict[str, RunState]:
        """The state of the runs named, or of all; runs that never committed are left out."""
        wanted = self.run_ids() if run_ids is None else sorted(set(run_ids))
        return {state.run_id: state for state in self._map(self.run_state, wanted) if state}

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
        """A table of several runs, one after another.

        Raises:
            InputError: a run's file is damaged.
        """
        try:
            found = self._map(lambda run_id: self.read(run_id, table), run_ids)
        except DamagedError as error:
            refuse(f"{self.root}", f"{error}; `sweeps verify --repair` has it trained again")
        return pa.concat_tables([tables.TABLES[table].empty(), *found]).unify_dictionaries()

    def write_sweep(self, name: str, file: str, content: bytes) -> str:
        """Write a file of a sweep and say where it is."""
        place = self.sweep(name)
        *folders, last = file.split("/")
        for folder in folders:
            place = place.at(folder)
        place.write(last, content)
        return f"{place}/{last}"

    def write_stacks(self, name: str, stacks: Mapping[str, Sequence[Sequence[int]]]) -> None:
        """Write which new runs a sweep trains as one network: seeds, by config."""
        self.write_sweep(name, STACKS, json.dumps(stacks, indent=1).encode())

    def read_stacks(self, name: str) -> dict[str, list[list[int]]]:
        """What `write_stacks` wrote last; nothing if it never did.

        Raises:
            InputError: the file is damaged.
        """
        try:
            return _STACKS.validate_json(self.sweep(name).read(STACKS))
        except FileNotFoundError:
            return {}
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            where = f"{self.sweep(name)}/{STACKS}"
            refuse(where, f"{problem}; delete it, and the sweep is planned anew")

    def read_sweep(self, name: str, table: str) -> pa.Table | None:
        """A table of a sweep, or null if it was never written."""
        file = f"{table}.parquet"
        try:
            return tables.decode(table, self.sweep(name).read(file))
        except FileNotFoundError:
            return None
        except ValueError as error:
            where = f"{self.sweep(name)}/{file}"
            refuse(where, f"{error}; `sweeps run` writes it anew, from what the store has")

    def _map(self, function: Callable[[str], T], run_ids: Iterable[str]) -> list[T]:
        """Of every run, several at a time where an answer is long under way."""
        if isinstance(self.root, LocalPlace):
            return [function(run_id) for run_id in run_ids]  # threads would wait for each other
        with ThreadPoolExecutor(_REQUESTS) as pool:
            return list(pool.map(function, run_ids))
