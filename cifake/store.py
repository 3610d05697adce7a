"""The root of a store: where it is, what marks it as one, and where its runs lie."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator

from cifake.archive import Archive
from cifake.claims import Claim, Owner, Process, claimed
from cifake.errors import refuse
from cifake.places import Place, open_place
from cifake.runs import RunFolder

SCHEMA = 2
MARKER = "store.json"
RUNS = "runs"
STORE_VARIABLE = "CIFAKE_STORE"


_PATIENCE = 10.0
"""Seconds after which an object store that does not answer is taken for one that cannot."""


def usual_root(option: str | None) -> str:
    """The place asked for, else `$CIFAKE_STORE`, else the folder `store`."""
    return option or os.environ.get(STORE_VARIABLE) or "store"


def open_root(root: str, *, create: bool) -> Place:
    """Open a store, or make one of an empty or missing folder or prefix.

    Args:
        root: a path, or the URL of a prefix in an object store.
        create: whether it is to be made and written; else a missing one is an empty one.

    Raises:
        InputError: a folder of something else, another schema, or one that cannot be used.
    """
    place = open_place(root, _PATIENCE)
    try:
        _check(place, create=create)
    except NotADirectoryError:
        refuse(root, "is or lies below a file; give --store a folder")
    except OSError as error:
        problem = error.strerror or str(error)
        refuse(root, f"cannot be used as a store ({problem}); give --store another")
    return open_place(root)


def run_folder(root: Place, run_id: str, archive: Archive | None = None) -> RunFolder:
    """The folder of a run below a store, whether it exists or not.

    Args:
        root: of the store.
        run_id: the run.
        archive: of the store, to share what is known of it; by default one of its own.
    """
    return RunFolder(root.at(RUNS).at(run_id), archive or Archive(root))


@contextlib.contextmanager
def claimed_runs(
    root: Place, run_ids: Iterable[str], owner: Owner, busy: Callable[[Process], None]
) -> Iterator[dict[str, Claim]]:
    """Claim runs for as long as the block lasts, in an order that is the same for all.

    Args:
        root: of the store.
        run_ids: the runs.
        owner: who claims them.
        busy: as `claims.claimed` calls it.

    Yields:
        The claims by run.
    """
    names = sorted(run_ids)
    with claimed([run_folder(root, name).place for name in names], owner, busy) as claims:
        yield dict(zip(names, claims, strict=True))


def _check(place: Place, *, create: bool) -> None:
    try:
        _check_marker(place, place.read(MARKER))
    except FileNotFoundError:
        if place.files() or place.folders():
            refuse(place, "is no store and not empty; give --store a new or empty folder")
        if create:
            place.create(MARKER, json.dumps({"schema": SCHEMA}).encode())
    if create:
        _check_writable(place)


def _check_writable(place: Place) -> None:
    name = f".writable-{secrets.token_hex(8)}"
    try:
        place.write(name, b"")
        place.remove(name)
    except OSError as error:
        refuse(place, f"cannot be written ({error.strerror}); give --store another folder")


def _check_marker(place: Place, content: bytes) -> None:
    where = f"{place}/{MARKER}"
    try:
        schema = json.loads(content).get("schema")
    except (ValueError, AttributeError):
        refuse(where, f'is damaged; a store\'s says its schema, as in {{"schema": {SCHEMA}}}')
    if schema != SCHEMA:
        problem = f"store schema {schema}, this release reads {SCHEMA}"
        refuse(where, f"{problem}; give --store a new folder, or use a release of then")
