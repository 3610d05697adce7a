"""Tables of many runs in few files, as `sweeps compact` makes them of small ones.

    tables/index.json                    whose rows lie where, and what each run's own file held
    tables/<table>-<digest>.parquet      a part: rows of many runs, each run's together

The head of a run says what its table holds by the digest of the run's own file. Rows of a part are
the run's as long as the index has the same digest for them; a run that went on since has a file of
its own again. A part is named by its content and never changed. The index is written before the
files of runs and the parts that it makes needless are removed: who misses one of them finds its
rows by the index as it is then.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

import pyarrow as pa

from cifake import tables
from cifake.errors import refuse
from cifake.places import Place
from cifake.runs import DamagedError, digest

T = TypeVar("T")

FOLDER = "tables"
INDEX = "index.json"
INDEX_SCHEMA = 1

GROUP_BYTES = 4 * 2**20
"""Bytes in memory of what is decoded of a part at least, to read the rows of one run."""

_START = re.compile(rb'\{"schema":(\d+),"check":"([0-9a-f]{32})",')
_PART = re.compile(r"([a-z]+)-([0-9a-f]{32})\.parquet")
_ENTRIES_KEY = b"cifake.entries"


class Entry(NamedTuple):
    """A run's rows in a part."""

    run_id: str
    held: str
    """Digest of the file that the run had for them."""

    rows: int


class Span(NamedTuple):
    """Where a run's rows lie."""

    part: Part
    run_id: str
    held: str
    """Digest of the file that the run had for them."""

    start: int
    """The first row."""

    rows: int


@dataclass(frozen=True)
class Part:
    """A file of rows of many runs."""

    table: tables.RunTable
    file: str
    size: int
    """Bytes in memory."""

    entries: tuple[Entry, ...]
    """In the order of the rows."""

    @property
    def rows(self) -> int:
        """How many it has."""
        return sum(entry.rows for entry in self.entries)


@dataclass(frozen=True)
class Index:
    """Every part of a store."""

    parts: tuple[Part, ...] = ()

    @cached_property
    def spans(self) -> dict[tuple[tables.RunTable, str, str], Span]:
        """Where rows lie: by table, run, and digest of the file that the run had for them."""
        found = {}
        for part in self.parts:
            start = 0
            for run_id, held, rows in part.entries:
                found[part.table, run_id, held] = Span(part, run_id, held, start, rows)
                start += rows
        return found

    def of(self, part: Part) -> list[Span]:
        """Where rows lie that are to be read from a part, in their order."""
        keys = ((part.table, run_id, held) for run_id, held, _ in part.entries)
        return [span for span in map(self.spans.__getitem__, keys) if span.part is part]

    def encode(self) -> bytes:
        """As JSON that holds its own check sum."""
        parts = [
            {"table": part.table, "file": part.file, "size": part.size, "runs": part.entries}
            for part in self.parts
        ]
        rest = f'"parts":{json.dumps(parts, separators=(",", ":"))}}}'.encode()
        return f'{{"schema":{INDEX_SCHEMA},"check":"{digest(rest)}",'.encode() + rest

    @classmethod
    def decode(cls, content: bytes) -> Index:
        """What `encode` made.

        Raises:
            ValueError: something else, or the index of another release.
        """
        start = _START.match(content)
        if start is None or digest(content[start.end() :]) != start[2].decode():
            raise ValueError("is damaged")
        if int(start[1]) != INDEX_SCHEMA:
            schema = int(start[1])
            raise ValueError(f"has schema {schema}, this release reads {INDEX_SCHEMA}")
        return cls(
            tuple(
                Part(each["table"], each["file"], each["size"], _entries(each["runs"]))
                for each in json.loads(content)["parts"]
            )
        )


class Archive:
    """The parts of a store, and the one way to their rows. Threads may share it.

    Args:
        root: of the store.
    """

    def __init__(self, root: Place) -> None:
        self.place = root.at(FOLDER)
        self._lock = threading.Lock()
        self._known: tuple[bytes, Index] | None = None
        self._told: Index | None = None
        self._checked: dict[str, str | None] = {}
        self._decoded: dict[tables.RunTable, tuple[str, int, pa.Table]] = {}

    def index(self) -> Index:
        """The index as it is now; an empty one where there is none.

        Raises:
            InputError: it is damaged.
        """
        with self._lock:
            return self._refreshed()

    def read(self, run_id: str, table: tables.RunTable, held: str) -> pa.Table | None:
        """Rows of a run in no particular form, or null if no part has them.

        Args:
            run_id: the run.
            table: its table.
            held: digest of the file that the run had for them.

        Raises:
            InputError: the index is damaged.
            DamagedError: the part that has them is missing or damaged.
        """
        return self._found((table, run_id, held), self._rows)

    def holds(self, run_id: str, table: tables.RunTable, held: str) -> bool:
        """Whether a part has rows of a run; each part is read once by this object.

        Raises:
            InputError: the index is damaged.
            DamagedError: the part that has them is missing or damaged.
        """

        def check(span: Span) -> bool:
            if span.rows:
                self._check(span.part)
            return True

        return self._found((table, run_id, held), check) is not None

    def problem(self, part: Part) -> str | None:
        """Why a part cannot be read, null where it can; each is read once by this object."""
        try:
            self._check(part)
        except FileNotFoundError:
            return "is missing"
        except DamagedError as error:
            return error.problem
        return None

    def take(
        self, part: Part, spans: Sequence[Span], columns: Sequence[str] | None = None
    ) -> pa.Table:
        """Rows of several runs, which lie in one part, one after another.

        Args:
            part: that has them.
            spans: where they lie in it.
            columns: the only ones that are read; by default all.

        Raises:
            FileNotFoundError: it is no longer there.
            DamagedError: it is damaged.
        """
        ranges = [(span.start, span.rows) for span in spans]
        try:
            return tables.decode_ranges(part.table, self._sound(part.file), ranges, columns)
        except ValueError as error:
            raise DamagedError(self.place, part.file, str(error)) from None

    def write(self, table: tables.RunTable, runs: Sequence[tuple[str, str, pa.Table]]) -> Part:
        """Write a part.

        Args:
            table: which table its rows are of.
            runs: name, digest of its own file, and rows of each.
        """
        whole = pa.concat_tables([rows for _, _, rows in runs])
        whole = tables.canonical(whole)
        entries = tuple(Entry(run_id, held, len(rows)) for run_id, held, rows in runs)
        size = whole.nbytes
        kept = json.dumps({"size": size, "runs": entries}, separators=(",", ":"))
        group = max(1, len(whole) * GROUP_BYTES // max(GROUP_BYTES, size))
        content = tables.parquet(whole, group=group, metadata={_ENTRIES_KEY: kept})
        file = f"{table}-{digest(content)}.parquet"
        self.place.write(file, content)
        self._checked.pop(file, None)  # it may take the place of a damaged one
        return Part(table, file, size, entries)

    def write_index(self, index: Index) -> None:
        """Let an index be the store's."""
        self.place.write(INDEX, index.encode())

    def rebuilt(self) -> Index:
        """The index that the parts themselves tell, those left out that cannot be read."""
        parts = []
        for file in self.place.files():
            match = _PART.fullmatch(file)
            if match is None or match[1] not in tables.RUN_TABLES:
                continue
            table: tables.RunTable = match[1]
            try:
                kept = json.loads(tables.metadata(self._sound(file))[_ENTRIES_KEY])
                parts.append(Part(table, file, kept["size"], _entries(kept["runs"])))
            except (DamagedError, ValueError, KeyError):
                continue
        return Index(tuple(parts))

    def use(self, index: Index) -> None:
        """Go by this index from now on, whatever is stored."""
        self._told = index
        self._known = (b"", index)

    def begin(self) -> None:
        """Let there be an index, before there is a part: without one all parts would be strays.

        Raises:
            InputError: there are parts and no index.
        """
        if not self.index().parts:
            self.place.create(INDEX, Index().encode())

    def drop_unnamed(self, index: Index) -> None:
        """Remove parts that an index does not name, and beginnings of files by writers that died.

        Nobody else may write here at the same time.
        """
        named = {part.file for part in index.parts}
        for file in (*self._files(), *self.place.remains((INDEX, *tables.RUN_TABLES))):
            if file not in named:
                self.place.remove(file)

    def _files(self) -> list[str]:
        """The parts that lie here, whether the index names them or not."""
        return [file for file in self.place.files() if _PART.fullmatch(file)]

    def _found(
        self, key: tuple[tables.RunTable, str, str], function: Callable[[Span], T]
    ) -> T | None:
        """What a function makes of where rows lie; null if no part has them.

        Who looks by an index that was read before may find that a part is gone: a later one says
        where the rows are then.
        """
        index = self._last()
        while True:
            span = index.spans.get(key)
            with contextlib.suppress(FileNotFoundError):
                if span is not None:
                    return function(span)
            later = self.index()
            if later is not index:
                index = later
            elif span is None:
                return None
            else:
                raise DamagedError(self.place, span.part.file, "is missing")

    def _check(self, part: Part) -> None:
        """Make sure that a part can be read.

        Raises:
            FileNotFoundError: it is no longer there.
            DamagedError: it is damaged.
        """
        if part.file not in self._checked:
            problem = None
            try:
                self._sound(part.file)
            except DamagedError as error:
                problem = error.problem
            self._checked[part.file] = problem
        found = self._checked[part.file]
        if found is not None:
            raise DamagedError(self.place, part.file, found)

    def _last(self) -> Index:
        """The index as it was read last: what it says of a digest stays true."""
        with self._lock:
            return self._refreshed() if self._known is None else self._known[1]

    def _refreshed(self) -> Index:
        if self._told is not None:
            return self._told
        content = self._stored()
        if self._known is None or self._known[0] != content:
            try:
                index = Index.decode(content) if content else Index()
            except ValueError as error:
                where = f"{self.place}/{INDEX}"
                refuse(where, f"{error}; `sweeps verify --repair` makes it anew from the tables")
            self._known = (content, index)
        return self._known[1]

    def _stored(self) -> bytes:
        """The index as it is stored, nothing where nothing was ever merged."""
        try:
            return self.place.read(INDEX)
        except FileNotFoundError:
            if not self._files():
                return b""
        try:
            return self.place.read(INDEX)  # the first compaction began between the two looks
        except FileNotFoundError:
            where = f"{self.place}/{INDEX}"
            refuse(where, "is missing; `sweeps verify --repair` makes it anew from the tables")

    def _rows(self, span: Span) -> pa.Table:
        """Some rows of a part; what was decoded for them stays, since the next are near."""
        if not span.rows:
            return tables.TABLES[span.part.table].empty()
        file, first, decoded = self._decoded.get(span.part.table, ("", 0, None))
        end = span.start + span.rows
        if file != span.part.file or not first <= span.start <= end <= first + len(decoded):
            first, decoded = self._decode(span.part, span.start, end)
            self._decoded[span.part.table] = (span.part.file, first, decoded)
        return decoded.slice(span.start - first, span.rows)

    def _decode(self, part: Part, start: int, end: int) -> tuple[int, pa.Table]:
        try:
            return tables.decode_rows(part.table, self._sound(part.file), start, end)
        except ValueError as error:
            raise DamagedError(self.place, part.file, str(error)) from None

    def _sound(self, file: str) -> bytes:
        content = self.place.read(file)
        match = _PART.fullmatch(file)
        if match is None or match[2] != digest(content):
            raise DamagedError(self.place, file, "is damaged")
        return content


def _entries(found: Iterable[Sequence[str | int]]) -> tuple[Entry, ...]:
    return tuple(Entry(str(run), str(held), int(rows)) for run, held, rows in found)
