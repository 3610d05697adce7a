"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
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


def copy_aside(path: Path, source: Path) -> None:
    """Let a file have the content of another, so that it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        link_or_copy(source, folder / path.name)
        os.replace(folder / path.name, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def link_or_copy(source: Path, target: Path) -> None:
    """A new file that shares its blocks with another where the file system can do that.

    Who shares so may replace a file, but never write into it.
    """
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links; whatever else is wrong recurs
        shutil.copyfile(source, target)


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
