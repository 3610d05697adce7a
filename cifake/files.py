"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def write_aside(path: Path, content: bytes) -> None:
    """Write a file so that it appears whole or not at all."""
    with _aside(path, content) as aside:
        os.replace(aside, path)


def create_aside(path: Path, content: bytes) -> bool:
    """Write a file unless there is one already, and say whether it was written.

    It appears whole or not at all, and of several writers one has its way.
    """
    with _aside(path, content) as aside:
        try:
            os.link(aside, path)
        except FileExistsError:
            return False
        return True


@contextlib.contextmanager
def _aside(path: Path, content: bytes) -> Iterator[str]:
    """A file of some content beside another, for as long as the block lasts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
        except OSError as error:
            error.filename = os.fspath(path)  # what writes to an open file does not say which
            raise
        Path(aside).chmod(0o644)
        yield aside
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(aside).unlink()
