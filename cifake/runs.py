"""The folder of one run: its head, its tables, its weights, and the state it goes on from.

    run.json                     the head: the row of `runs`, and what is in every other file
    <table>.parquet              the tables, `runs` among them
    weights-0001.safetensors     one an epoch
    optimizer-0001.safetensors   the last epoch's, and the one before while a stack commits

Every file is written whole or not at all, and the head last: it commits the epoch. Before files
that exist are replaced, the head is written once more, as it was, with what they are about to
become: a reader knows of every file what it may hold, and so tells damage from an epoch that was
interrupted. Rows and weights beyond the head's `epochs_done` belong to such an epoch; they are
ignored and written again.

A table's file may be gone once the store's archive has its rows; see `cifake/archive.py`.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from cifake import tables
from cifake.config import Config, leaves, nest
from cifake.errors import refuse
from cifake.places import Place
from cifake.stacks import Standing

if TYPE_CHECKING:
    import torch

    from cifake.archive import Archive

T = TypeVar("T")

HEAD = "run.json"
ROW = "runs.parquet"
HEAD_SCHEMA = 1

_STATE = re.compile(r"(weights|optimizer)-(\d{4})\.safetensors")
_TIMES = [c.name for c in tables.TABLES["runs"].columns if pa.types.is_timestamp(c.type)]

Digests = Mapping[str, str]
"""What files hold, by name."""


class DamagedError(RuntimeError):
    """A file of a run does not hold what its head says."""

    def __init__(self, folder: Place, file: str, problem: str) -> None:
        super().__init__(f"{folder}/{file}: {problem}")
        self.file = file
        self.problem = problem


@dataclass(frozen=True)
class Head:
    """What commits a run."""

    row: Mapping[str, Any]
    """The row of the `runs` table."""

    files: Digests = field(default_factory=dict)
    """What its files hold."""

    pending: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What files may hold instead, since they were being written when it was written."""

    def allows(self, name: str, content: bytes) -> bool:
        """Whether a file may hold this."""
        held = digest(content)
        return held == self.files.get(name) or held in self.pending.get(name, ())

    def encode(self) -> bytes:
        """As JSON; nulls of the row are left out."""
        row = {name: value for name, value in self.row.items() if value is not None}
        content = {"schema": HEAD_SCHEMA, "row": row, "files": self.files}
        if self.pending:
            content["pending"] = self.pending
        return json.dumps(content, default=_iso, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, content: bytes) -> Head:
        """What `encode` made.

        Raises:
            ValueError: something else, or the head of another release.
        """
        found = json.loads(content)
        if not isinstance(found, dict) or found.get("schema") != HEAD_SCHEMA:
            schema = found.get("schema") if isinstance(found, dict) else None
            raise ValueError(f"schema {schema}, this release reads {HEAD_SCHEMA}")
        row = dict.fromkeys(_COLUMNS) | found["row"]
        for name in _TIMES:
            if row[name] is not None:
                row[name] = datetime.datetime.fromisoformat(row[name])
        if row["stack"] and row["seed"] not in row["stack"]:
            raise ValueError(f"seed {row['seed']} is not in its own stack {row['stack']}")
        return cls(row, found["files"], found.get("pending", {}))


_TABLE_FILES = {f"{table}.parquet": table for table in tables.RUN_TABLES}
_COLUMNS = [column.name for column in tables.TABLES["runs"].columns]


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
    """A folder of one run, which bears the run's identity as its name.

    Args:
        place: the folder.
        archive: that may have tables of the run which are no longer in it.
    """

    def __init__(self, place: Place, archive: Archive | None = None) -> None:
        self.place = place
        self.archive = archive

    @property
    def run_id(self) -> str:
        """The run."""
        return self.place.name

    def head(self) -> Head | None:
        """What commits the run, or null if nothing ever did.

        Raises:
            InputError: the head is damaged or of another release.
        """
        try:
            return Head.decode(self.place.read(HEAD))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            where = f"{self.place}/{HEAD}"
            refuse(where, f"is no head of a run ({error}); delete the folder to train it again")

    def state(self) -> RunState | None:
        """How far the run is, or null if it never committed.

        Raises:
            InputError: the head is damaged or of another release.
        """
        head = self.head()
        return None if head is None else run_state(head.row)

    def config(self) -> Config:
        """The configuration that the run was trained with.

        Raises:
            InputError: the run never committed, or its head is damaged.
        """
        return config_of(self._committed().row)

    def epochs(self) -> list[int]:
        """The committed epochs whose weights are kept, ascending.

        Raises:
            InputError: the run never committed, or its head is damaged.
        """
        files = self._committed().files
        return sorted(epoch for kind, epoch in map(state_of, files) if kind == "weights")

    def read(self, table: tables.RunTable, *, epochs: int | None = None) -> pa.Table:
        """A table in its canonical form, empty if it was never committed.

        Args:
            table: its name.
            epochs: rows of later epochs are left out.

        Raises:
            InputError: the head is damaged.
            DamagedError: the file is missing, damaged or of another schema.
        """
        read = tables.canonical(self.rows(table))
        return read if epochs is None else read.filter(pc.field("epoch") <= epochs)

    def rows(self, table: tables.RunTable) -> pa.Table:
        """The same rows as `read` gives, in whatever form they lie here.

        Raises:
            InputError: the head is damaged.
            DamagedError: the file is missing, damaged or of another schema.
        """
        head = self.head()
        file = table_file(table)
        if head is None or file not in head.files:
            return tables.TABLES[table].empty()

        def decoded(content: bytes) -> pa.Table:
            try:
                return tables.decode(table, content)
            except ValueError as error:
                raise DamagedError(self.place, file, str(error)) from None

        def archived(archive: Archive, held: str) -> pa.Table | None:
            return archive.read(self.run_id, table, held)

        return self._found(file, head, decoded, archived)

    def commit(self, row: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        """Write what is new of some files, the table `runs`, and last the head.

        Args:
            row: of the `runs` table.
            files: contents by name; those that the head has as they are stay untouched.
        """
        table = tables.TABLES["runs"].from_rows([row])
        contents = {**files, ROW: tables.encode("runs", table)}
        before = self.head() or Head({})
        old, unsure = before.files, before.pending
        digests = {name: digest(content) for name, content in contents.items()}
        changed = [name for name in contents if old.get(name) != digests[name] or name in unsure]
        replaced = {n: [*unsure.get(n, ()), digests[n]] for n in changed if n in old}
        if replaced:
            self.place.write(HEAD, Head(before.row, old, {**unsure, **replaced}).encode())
        for name in changed:
            self.place.write(name, contents[name])
        (whole,) = table.to_pylist()
        kept = {name: old[name] for name in old if not _superseded(name, row["epochs_done"])}
        left = {name: unsure[name] for name in unsure if name in kept and name not in contents}
        self.place.write(HEAD, Head(whole, {**kept, **digests}, left).encode())

    def read_weights(self, epoch: int) -> dict[str, torch.Tensor]:
        """The weights after an epoch.

        Raises:
            DamagedError: they are missing or damaged.
        """
        return self._tensors("weights", epoch)

    def read_optimizer(self, epoch: int) -> dict[str, torch.Tensor]:
        """The optimiser's state after an epoch.

        Raises:
            DamagedError: it is missing or damaged.
        """
        return self._tensors("optimizer", epoch)

    def has_optimizer(self, epoch: int) -> bool:
        """Whether the optimiser's state after an epoch is still here."""
        return state_file("optimizer", epoch) in self.place.files()

    def drop_old_optimizers(self, epoch: int) -> None:
        """Remove the optimiser states that the one of `epoch` supersedes."""
        for name in self.place.files():
            kind, other = state_of(name)
            if kind == "optimizer" and other < epoch:
                self.place.remove(name)

    def forget(self, names: Collection[str]) -> None:
        """Let files no longer be part of the run, and remove them."""
        head = self._committed()
        kept = {name: held for name, held in head.files.items() if name not in names}
        left = {name: held for name, held in head.pending.items() if name not in names}
        self.place.write(HEAD, Head(head.row, kept, left).encode())
        for name in names:
            self.place.remove(name)

    def damage(self) -> Iterator[DamagedError]:
        """Every file that does not hold what the head says; no optimiser state that is superseded.

        Raises:
            InputError: the head is damaged.
        """
        head = self.head()
        if head is None:
            return
        for name in head.files:
            kind, epoch = state_of(name)
            if kind == "optimizer" and epoch < head.row["epochs_done"]:
                continue
            try:
                self._found(name, head, bool, self._archived(name))
            except DamagedError as error:
                yield error

    def _committed(self) -> Head:
        head = self.head()
        if head is None:
            refuse(self.place, "holds no run; give the folder of one that finished an epoch")
        return head

    def _archived(self, name: str) -> Callable[[Archive, str], bool | None]:
        """What says whether the archive has a file's rows."""
        table = table_of(name)

        def held(archive: Archive, held: str) -> bool | None:
            return (table is not None and archive.holds(self.run_id, table, held)) or None

        return held

    def _found(
        self,
        name: str,
        head: Head,
        own: Callable[[bytes], T],
        archived: Callable[[Archive, str], T | None],
    ) -> T:
        """A file as the head says it is, or as a later one says by then.

        Args:
            name: of the file.
            head: the run's.
            own: makes what is wanted of the file in the run's folder.
            archived: takes it from an archive instead, by the digest of what the file held.
        """
        while True:
            try:
                content = self.place.read(name)
            except FileNotFoundError:
                content = None
            if content is not None and head.allows(name, content):
                return own(content)
            if self.archive is not None and name in head.files:
                try:
                    found = archived(self.archive, head.files[name])
                except DamagedError as error:
                    problem = f"{error.problem}, with other runs' in {error.file}"
                    raise DamagedError(self.place, name, problem) from None
                if found is not None:
                    return found
            later = self.head()
            if later is None or later == head:
                problem = "is missing" if content is None else "is damaged"
                raise DamagedError(self.place, name, problem)
            head = later

    def _tensors(self, kind: str, epoch: int) -> dict[str, torch.Tensor]:
        from safetensors import SafetensorError
        from safetensors.torch import load

        name = state_file(kind, epoch)
        try:
            content = self._found(name, self._committed(), bytes, lambda *_: None)
            return dict(load(content))
        except SafetensorError as error:
            raise DamagedError(self.place, name, f"cannot be read ({error})") from None


def run_state(row: Mapping[str, Any]) -> RunState:
    """How far the run of a row of `runs` is."""
    return RunState(
        run_id=row["run_id"],
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


def config_of(row: Mapping[str, Any]) -> Config:
    """The configuration in a row of the `runs` table; a null is left to its defaults."""
    settings = {path: row[path] for path, _ in leaves(Config)}
    return Config.model_validate(nest(settings))


def table_file(table: tables.RunTable) -> str:
    """The file of a table."""
    return f"{table}.parquet"


def table_of(name: str) -> tables.RunTable | None:
    """The table of such a file; null for any other."""
    return _TABLE_FILES.get(name)


def state_file(kind: str, epoch: int) -> str:
    """The file of `weights` or `optimizer` after an epoch."""
    return f"{kind}-{epoch:04}.safetensors"


def state_of(name: str) -> tuple[str, int]:
    """The kind and the epoch of such a file; no kind and 0 for any other."""
    match = _STATE.fullmatch(name)
    return (match[1], int(match[2])) if match else ("", 0)


def state_files(
    epoch: int, weights: Mapping[str, torch.Tensor], optimizer: Mapping[str, torch.Tensor]
) -> dict[str, bytes]:
    """The files of where a run stands after an epoch."""
    from safetensors.torch import save

    return {
        state_file(kind, epoch): save({name: value.contiguous() for name, value in tensors.items()})
        for kind, tensors in (("weights", weights), ("optimizer", optimizer))
    }


def digest(content: bytes) -> str:
    """What tells a file's content from any other: BLAKE2b, 16 bytes."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _superseded(name: str, epochs_done: int) -> bool:
    """Whether a file is beyond the committed epoch, or a state that no stack goes back to."""
    kind, epoch = state_of(name)
    return epoch > epochs_done or (kind == "optimizer" and epoch < epochs_done - 1)


def _iso(value: object) -> str:
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    raise TypeError(f"{value!r} has no form in JSON")
