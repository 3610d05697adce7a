"""Folders for what a process needs no longer than it lives, removed even if it was killed."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

_PREFIX = "cifake-sweeps-"
_LOCK = "lock"
"""File that the process locks whose folder it is: the system unlocks it when the process ends."""


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder for as long as the block lasts; what killed processes left is removed."""
    _remove_abandoned(Path(tempfile.gettempdir()))
    lock = _locked()
    folder = Path(lock.name).parent
    try:
        inside = folder / "files"
        inside.mkdir()
        yield inside
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()


def _locked() -> TextIO:
    """The locked file of a new folder."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX)) / _LOCK
        lock = path.open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return lock
        lock.close()  # another took it for abandoned before it was locked


def _remove_abandoned(parent: Path) -> None:
    for path in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        # Gone meanwhile, another user's, or in use: its own process or user removes it.
        with contextlib.suppress(OSError), path.open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.parent, ignore_errors=True)
