"""Where runs and sweeps live.

    store.json      what this folder is
    runs/<run_id>/  the folder of a run
    tables/         tables of many runs in one file each; see `cifake/archive.py`
    sweeps/<name>/  what a sweep asked for, and its report

Every file appears whole or not at all; see `cifake/places.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Annotated, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from cifake import tables
from cifake.archive import Archive, Part, Span
from cifake.claims import Owner, Process, claimed
from cifake.errors import refuse
from cifake.places import LocalPlace, Place
from cifake.runs import DamagedError, Head, RunFolder, RunState, table_file
from cifake.store import RUNS, open_root, run_folder

SPEC = "spec.yaml"
"""File of a sweep with its specification, as it was run last."""

STACKS = "stacks.json"
"""File of a sweep that says which runs its plan trains as one network."""

_REQUESTS = 32
"""Requests to an object store at the same time."""

_LARGE_REQUESTS = 4
"""The same of files that are large in memory."""

S = TypeVar("S")
T = TypeVar("T")


def _apart(stacks: list[list[int]]) -> list[list[int]]:
    seeds = [seed for stack in stacks for seed in stack]
    if len(set(seeds)) < len(seeds):
        raise ValueError("a seed lies in two stacks")
    return stacks


_SomeSeeds = Annotated[list[int], Field(min_length=1)]
_STACKS = TypeAdapter(dict[str, Annotated[list[_SomeSeeds], AfterValidator(_apart)]])


class _Taken(NamedTuple):
    """Rows of several runs, one after another."""

    rows: pa.Table
    sizes: Sequence[int]
    """Of each run, in their order."""


@dataclass(frozen=True)
class _Chosen:
    """What of a table's rows is read."""

    table: tables.RunTable
    columns: Sequence[str] | None
    epochs: Collection[int] | None

    def needed(self) -> list[str] | None:
        """The columns to decode, `epoch` among them where it chooses; null for all."""
        if self.columns is None:
            return None
        chooses = self.epochs is not None and "epoch" not in self.columns
        return [*self.columns, *(["epoch"] if chooses else [])]

    def of(self, rows: pa.Table) -> pa.Table:
        """What is chosen of some rows."""
        return self.of_each(rows, [len(rows)]).rows

    def of_each(self, rows: pa.Table, sizes: Sequence[int]) -> _Taken:
        """What is chosen of some runs' rows, and how many of each are."""
        if self.epochs is not None:
            wanted = pa.array(sorted(self.epochs), pa.int32())
            kept = pc.is_in(rows["epoch"], value_set=wanted)
            rows = rows.filter(kept)
            before = np.concatenate([[0], np.cumsum(kept.to_numpy())])
            sizes = np.diff(before[np.cumsum([0, *sizes])]).tolist()
        return _Taken(rows if self.columns is None else rows.select(self.columns), sizes)

    def empty(self) -> pa.Table:
        """No row of it."""
        empty = tables.TABLES[self.table].empty()
        return empty if self.columns is None else empty.select(self.columns)


class Store:
    """A place of runs and sweeps."""

    def __init__(self, root: Place) -> None:
        self.root = root
        self.archive = Archive(root)
        self.owner: Owner | None = None
        """This process, while it has claimed a sweep."""

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
            self.owner = owner
            try:
                yield
            finally:
                self.owner = None

    def run_ids(self) -> list[str]:
        """Every run of the store, whether finished or not."""
        return self.root.at(RUNS).folders()

    def run_states(self, run_ids: Iterable[str] | None = None) -> dict[str, RunState]:
        """The state of the runs named, or of all; runs that never committed are left out."""
        wanted = self.run_ids() if run_ids is None else sorted(set(run_ids))
        return {state.run_id: state for state in self.each(self.run_state, wanted) if state}

    def heads(self, run_ids: Iterable[str]) -> dict[str, Head]:
        """What commits some runs; those that never committed are left out."""
        names = sorted(set(run_ids))
        found = zip(names, self.each(lambda name: self.run(name).head(), names), strict=True)
        return {name: head for name, head in found if head is not None}

    def sweeps(self) -> list[str]:
        """Names of the sweeps that were run here, in order."""
        place = self.root.at("sweeps")
        return sorted(name for name in place.folders() if SPEC in place.at(name).files())

    def run(self, run_id: str) -> RunFolder:
        """The folder of a run, whether it exists or not."""
        return run_folder(self.root, run_id, self.archive)

    def run_state(self, run_id: str) -> RunState | None:
        """The state of a run, or null if it never committed."""
        return self.run(run_id).state()

    def read(self, run_id: str, table: tables.RunTable, *, epochs: int | None = None) -> pa.Table:
        """A table of a run, as `RunFolder.read` gives it."""
        return self.run(run_id).read(table, epochs=epochs)

    def read_many(
        self,
        run_ids: Iterable[str],
        table: tables.RunTable,
        *,
        columns: Sequence[str] | None = None,
        epochs: Collection[int] | None = None,
    ) -> pa.Table:
        """A table of several runs, one after another.

        Args:
            run_ids: the runs; one without rows is passed over.
            table: which table.
            columns: the only ones that are read, in this order; by default all.
            epochs: rows of others are left out; by default none is.

        Raises:
            InputError: a run's file is damaged.
        """
        names = list(run_ids)
        chosen = _Chosen(table, columns, epochs)
        pieces: list[tuple[Sequence[tuple[str, int]], pa.Table]] = []
        read = self.each(
            partial(self._taken, chosen),
            self._by_part(set(names), table),
            _LARGE_REQUESTS,
            in_threads=True,
        )
        for spans, taken in read:
            if taken is not None:
                pieces.append((list(zip(spans, taken.sizes, strict=True)), taken.rows))
        there = {name for sizes, _ in pieces for name, _ in sizes}
        own = [name for name in dict.fromkeys(names) if name not in there]
        try:
            found = self.each(lambda run_id: chosen.of(self.run(run_id).rows(table)), own)
        except DamagedError as error:
            refuse(f"{self.root}", f"{error}; `sweeps verify --repair` has it trained again")
        pieces += [([(name, len(rows))], rows) for name, rows in zip(own, found, strict=True)]
        whole = pa.concat_tables([chosen.empty(), *(rows for _, rows in pieces)])
        ranges, start = {}, 0
        for name, rows in (each for sizes, _ in pieces for each in sizes):
            ranges[name] = (start, rows)
            start += rows
        return tables.arranged(whole, [ranges[name] for name in names])

    def _by_part(self, names: Collection[str], table: tables.RunTable) -> list[dict[str, Span]]:
        """Where the archive has rows that are the runs' still: by run, each part's apart."""
        spans = self.archive.index().spans
        asked = sorted({run_id for kind, run_id, _ in spans if kind == table and run_id in names})
        heads = self.each(lambda run_id: self.run(run_id).head(), asked)
        found: dict[str, dict[str, Span]] = {}
        for run_id, head in zip(asked, heads, strict=True):
            held = "" if head is None else head.files.get(table_file(table), "")
            span = spans.get((table, run_id, held))
            if span is not None:
                found.setdefault(span.part.file, {})[run_id] = span
        return list(found.values())

    def _taken(
        self, chosen: _Chosen, spans: Mapping[str, Span]
    ) -> tuple[Mapping[str, Span], _Taken | None]:
        """Rows of several runs from one part; none if it cannot be read, and each must see why."""
        part: Part = next(iter(spans.values())).part
        try:
            rows = self.archive.take(part, list(spans.values()), chosen.needed())
        except (FileNotFoundError, DamagedError):
            return spans, None
        return spans, chosen.of_each(rows, [span.rows for span in spans.values()])

    def write_sweep(self, name: str, file: str, content: bytes) -> str:
        """Write a file of a sweep and say where it is."""
        place, last = self._file(name, file)
        place.write(last, content)
        return f"{place}/{last}"

    def read_file(self, name: str, file: str) -> bytes:
        """A file of a sweep.

        Raises:
            FileNotFoundError: there is none.
        """
        place, last = self._file(name, file)
        return place.read(last)

    def remove_file(self, name: str, file: str) -> None:
        """Remove a file of a sweep, if it is there."""
        place, last = self._file(name, file)
        place.remove(last)

    def _file(self, name: str, file: str) -> tuple[Place, str]:
        """The folder of a sweep's file, which can lie deeper, and its name there."""
        place = self.sweep(name)
        *folders, last = file.split("/")
        for folder in folders:
            place = place.at(folder)
        return place, last

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

    def each(
        self,
        function: Callable[[S], T],
        items: Iterable[S],
        at_once: int = _REQUESTS,
        *,
        in_threads: bool = False,
    ) -> list[T]:
        """A function of every item, several at a time where an answer is long under way.

        Args:
            function: what is made of each.
            items: all of them.
            at_once: how many are under way at the same time in an object store.
            in_threads: whether most of what it does is done outside Python, so that cores help
                where the answers of a folder's files do not keep anybody waiting.
        """
        asked = list(items)
        if isinstance(self.root, LocalPlace):
            at_once = min(at_once, len(os.sched_getaffinity(0)), len(asked)) if in_threads else 1
        if at_once <= 1:
            return [function(item) for item in asked]  # threads would wait for each other
        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(function, asked))
