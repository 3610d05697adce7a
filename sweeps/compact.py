"""Small files of finished runs merged into few large ones, one or some a table.

Whatever instant it is killed at, all can be read: parts are written first, then the index that
names them, and only then are the runs' own files removed, each run claimed while its files go.
Parts that the index names no longer are removed last. The next compaction finishes what one that
was killed has begun.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

import pyarrow as pa
from rich.console import Console

from cifake import tables
from cifake.archive import Archive, Index, Part, Span
from cifake.claims import Claim, Owner, Process, claimed, holder_of, is_claim
from cifake.errors import InputError, refuse
from cifake.runs import Head, RunFolder, digest, table_file
from sweeps.store import Store
from sweeps.upkeep import alone
from sweeps.words import counted

PART_BYTES = 64 * 2**20
"""Bytes in memory at which a part is full: what a reader of a few of its rows may have to read."""

_AT_ONCE = 16
"""Files of runs that are read from an object store before they are merged."""


@dataclass(frozen=True)
class Compacted:
    """What a compaction made of the tables of a store."""

    runs: int
    """Runs of which own files went because a part has their rows."""

    files_before: int
    """Files of tables, with the parts and their index."""

    files_after: int
    bytes_before: int
    bytes_after: int
    training: tuple[str, ...]
    """Runs left as they are: not finished, or trained now."""

    unreadable: tuple[str, ...]
    """Runs with a head or a table that cannot be read."""


@dataclass(frozen=True)
class _Run:
    """A run as the compaction finds it."""

    folder: RunFolder
    head: Head | None
    """Null where it never committed, or cannot be read."""

    problem: str
    """Why its head cannot be read; empty where it can."""

    sizes: Mapping[str, int]
    """Bytes of the tables' files that lie in its folder."""

    claimed: bool
    """Whether somebody has claimed it, who may be dead."""

    settled: bool
    """Whether it is finished, and nobody trains it."""

    def held(self, table: tables.RunTable) -> str | None:
        """What its table holds by its head; null where it has none."""
        return None if self.head is None else self.head.files.get(table_file(table))

    def is_unsure(self, file: str) -> bool:
        """Whether its writer ended, or is, in the middle of a file."""
        return self.head is not None and file in self.head.pending


@dataclass(frozen=True)
class _Rows:
    """Rows of a run on their way into a part."""

    run_id: str
    held: str
    rows: pa.Table


def compact(store: Store, advance: Callable[[str], None]) -> Compacted:
    """Merge the tables of all finished runs that nobody trains now.

    Args:
        store: whose.
        advance: called with each step before it is made.

    Raises:
        InputError: another process compacts it, or its index is missing or damaged.
    """

    def busy(process: Process) -> None:
        refuse(store.root, f"is being compacted by {process}; wait for it, or end it")

    archive = Archive(store.root)
    with (
        Owner(store.root, "sweeps compact") as owner,
        claimed([archive.place], owner, busy) as (c,),
    ):
        archive.begin()
        return _Compaction(store, archive, owner, c, advance).made()


@dataclass
class _Compaction:
    """One compaction, which has the store's tables to itself."""

    store: Store
    archive: Archive
    owner: Owner
    claim: Claim
    advance: Callable[[str], None]
    runs: dict[str, _Run] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)

    def made(self) -> Compacted:
        """Carry it out."""
        before = self.archive.index()
        stored = self._stored()
        self.advance("looking at the runs …")
        self.runs = {
            run.folder.run_id: run for run in self.store.each(self._run, self.store.run_ids())
        }
        self.unreadable = {run_id for run_id, run in self.runs.items() if run.problem}
        parts = [part for table in tables.RUN_TABLES for part in self._parts(table, before)]
        self.claim.check()
        self.archive.place.persist()
        after = Index(tuple(parts))
        if after != before:
            self.archive.write_index(after)
            self.archive.place.persist()
        self.advance("removing what was merged …")
        removed = self.store.each(partial(self._removed, after), self.runs.values())
        self.claim.check()
        self.archive.drop_unnamed(after)
        own = [size for run in self.runs.values() for size in run.sizes.values()]
        left = self._stored()
        return Compacted(
            runs=sum(map(bool, removed)),
            files_before=len(stored) + len(own),
            files_after=len(left) + len(own) - sum(map(len, removed)),
            bytes_before=sum(stored) + sum(own),
            bytes_after=sum(left) + sum(own) - sum(map(sum, removed)),
            training=tuple(i for i, r in self.runs.items() if r.head and not r.settled),
            unreadable=tuple(sorted(self.unreadable)),
        )

    def _stored(self) -> list[int]:
        """Bytes of each part, and of the index."""
        sizes = self.archive.place.sizes()
        return [size for name, size in sizes.items() if not is_claim(name)]

    def _run(self, run_id: str) -> _Run:
        folder, head, problem = self.store.run(run_id), None, ""
        files = folder.place.sizes()
        try:
            head = folder.head()
        except InputError as error:
            problem = str(error)
        claimed = any(map(is_claim, files))
        taken = claimed and holder_of(folder.place, self.store.root) is not None
        return _Run(
            folder,
            head,
            problem,
            sizes={
                name: files[name] for name in map(table_file, tables.RUN_TABLES) if name in files
            },
            claimed=claimed,
            settled=head is not None and _is_finished(head) and not taken,
        )

    def _parts(self, table: tables.RunTable, before: Index) -> Iterator[Part]:
        """The parts that a table shall have; those that are new are written."""
        self.advance(f"merging {table} …")
        fresh = self._fresh(table, before)
        found = []
        for part in before.parts:
            if part.table == table:
                live = [span for span in before.of(part) if self._is_live(table, span, fresh)]
                found += [(part, live)] * bool(live)
        opened = [(part, live) for part, live in found if _live_bytes(part, live) < PART_BYTES / 2]
        stale = any(len(live) < len(part.entries) for part, live in opened)
        if not (fresh or stale or len(opened) > 1):
            opened = []
        opened = [(part, live) for part, live in opened if self._is_sound(part, live)]
        rewritten = {part.file for part, _ in opened}
        yield from (part for part, _ in found if part.file not in rewritten)
        yield from self._written(
            table, chain(self._carried(opened), self._own(table, [*fresh.values()]))
        )

    def _fresh(self, table: tables.RunTable, before: Index) -> dict[str, _Run]:
        """The runs of which no part that can be read has the rows, and which can be merged."""
        found = {}
        for run_id, run in self.runs.items():
            held, file = run.held(table), table_file(table)
            if held is None or not run.settled or file not in run.sizes or run.is_unsure(file):
                continue
            span = before.spans.get((table, run_id, held))
            if span is None or self.archive.problem(span.part) is not None:
                found[run_id] = run
        return found

    def _is_live(self, table: tables.RunTable, span: Span, fresh: Collection[str]) -> bool:
        """Whether rows of a part are the run's still, and nothing else has them."""
        run = self.runs.get(span.run_id)
        if run is None or (run.head is None and not run.problem):
            return False
        return bool(run.problem) or (run.held(table) == span.held and span.run_id not in fresh)

    def _is_sound(self, part: Part, live: Sequence[Span]) -> bool:
        if self.archive.problem(part) is None:
            return True
        self.unreadable |= {span.run_id for span in live}
        return False

    def _carried(self, parts: Iterable[tuple[Part, Sequence[Span]]]) -> Iterator[_Rows]:
        """Rows of parts that are written anew."""
        for part, live in parts:
            rows, start = self.archive.take(part, live), 0
            for span in live:
                yield _Rows(span.run_id, span.held, rows.slice(start, span.rows))
                start += span.rows

    def _own(self, table: tables.RunTable, runs: Sequence[_Run]) -> Iterator[_Rows]:
        """Rows of runs' own files; a run whose file cannot be read, or is new, is left out."""
        for start in range(0, len(runs), _AT_ONCE):
            found = self.store.each(partial(_read, table), runs[start : start + _AT_ONCE])
            for run, rows in zip(runs[start:], found, strict=False):
                if rows is not None:
                    yield rows
                elif run.folder.head() == run.head:
                    self.unreadable.add(run.folder.run_id)

    def _written(self, table: tables.RunTable, rows: Iterable[_Rows]) -> Iterator[Part]:
        """Rows as new parts, each full but the last."""
        batch: list[_Rows] = []
        size = 0
        for each in rows:
            batch.append(each)
            size += each.rows.nbytes
            if size >= PART_BYTES:
                yield self._write(table, batch)
                batch, size = [], 0
        if batch:
            yield self._write(table, batch)

    def _write(self, table: tables.RunTable, batch: Sequence[_Rows]) -> Part:
        batch = sorted(batch, key=lambda each: each.run_id)
        return self.archive.write(table, [(each.run_id, each.held, each.rows) for each in batch])

    def _removed(self, index: Index, run: _Run) -> list[int]:
        """Remove a run's own files whose rows a part has; bytes of each."""
        sizes: list[int] = []

        def remove() -> None:
            head = run.folder.head()
            if head is None or not _is_finished(head):
                return
            for file in self._merged(index, run.folder.run_id, head, run.sizes):
                run.folder.place.remove(file)
                sizes.append(run.sizes[file])

        if run.settled and run.head is not None:
            merged = self._merged(index, run.folder.run_id, run.head, run.sizes)
            if merged or run.claimed:  # the claim of one that was killed here goes too
                alone(run.folder.place, self.owner, remove)
        return sizes

    def _merged(self, index: Index, run_id: str, head: Head, sizes: Mapping[str, int]) -> list[str]:
        """The files of a run that are there and that a part has too."""
        found = []
        for table in tables.RUN_TABLES:
            file = table_file(table)
            span = index.spans.get((table, run_id, head.files.get(file, "")))
            if file in sizes and file not in head.pending and span is not None:
                found += [file] * (self.archive.problem(span.part) is None)
        return found


def _read(table: tables.RunTable, run: _Run) -> _Rows | None:
    """What a run's own file has; null if it is not what the head says, or cannot be read."""
    held = run.held(table)
    try:
        content = run.folder.place.read(table_file(table))
        if held is None or digest(content) != held:
            return None
        return _Rows(run.folder.run_id, held, tables.decode(table, content))
    except (FileNotFoundError, ValueError):
        return None


def _is_finished(head: Head) -> bool:
    return bool(head.row["status"] != "running")


def _live_bytes(part: Part, live: Sequence[Span]) -> float:
    """What the rows of a part that are in use take in memory."""
    return part.size * sum(span.rows for span in live) / max(1, part.rows)


def print_compacted(found: Compacted, console: Console) -> None:
    """What was merged, and what was left and why."""
    if found.runs:
        files = f"{found.files_before:,} files became {found.files_after:,}"
        size = f"{found.bytes_before / 1e6:,.1f} MB became {found.bytes_after / 1e6:,.1f} MB"
        lines = [f"merged the tables of {counted(found.runs, 'run')}: {files}, {size}"]
    else:
        size = f"{found.files_after:,} files, {found.bytes_after / 1e6:,.1f} MB"
        lines = [f"nothing to merge; tables lie in {size}"]
    if found.training:
        lines.append(
            f"{counted(len(found.training), 'run')} not finished, or being trained now: left"
        )
    if found.unreadable:
        unreadable = counted(len(found.unreadable), "run")
        lines.append(f"{unreadable} cannot be read: left; `sweeps verify` says why")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
