"""The root of a store: which folder it is, what marks it as one, and where its runs lie."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from cifake.errors import refuse
from cifake.files import write_aside
from cifake.runs import RunFolder

SCHEMA = 1
MARKER = "store.json"
RUNS = "runs"
STORE_VARIABLE = "CIFAKE_STORE"


def usual_root(option: Path | None) -> Path:
    """The folder asked for, else `$CIFAKE_STORE`, else `store`."""
    return option or Path(os.environ.get(STORE_VARIABLE) or "store")


def open_root(root: Path, *, create: bool) -> None:
    """Check that a folder is a store, or make one of an empty or missing folder.

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


def run_folder(root: Path, run_id: str) -> RunFolder:
    """The folder of a run below a store, whether it exists or not."""
    return RunFolder(root / RUNS / run_id)


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
