"""Files of a folder, zip or tar archive, one after another, read into memory and never unpacked.

Because nothing is written, a member's path cannot escape; links and devices are not followed.
"""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from lzma import LZMAError
from pathlib import Path

from cifake.errors import refuse

MAX_FILE_BYTES = 64 * 2**20
"""No single image is larger; a larger member is refused before it is read."""

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")

_DAMAGED = (tarfile.TarError, EOFError, LZMAError, zlib.error, OSError)


def is_archive(path: Path) -> bool:
    """Whether the name is one of an archive that can be read."""
    return path.name.lower().endswith((".zip", *TAR_SUFFIXES))


def iter_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield `(relative name with '/', content)` of every regular file, in a fixed order.

    Hidden files are left out: archives made on other systems carry some.

    Raises:
        InputError: an unreadable, truncated or damaged archive, or a file beyond the size limit.
    """
    if path.is_dir():
        yield from _folder(path)
    elif path.name.lower().endswith(".zip"):
        yield from _zip(path)
    else:
        yield from _tar(path)


def _folder(root: Path) -> Iterator[tuple[str, bytes]]:
    for folder, subfolders, names in os.walk(root):
        subfolders.sort()
        for name in sorted(names):
            file = Path(folder, name)
            relative = file.relative_to(root).as_posix()
            status = file.lstat()
            if _hidden(relative) or not stat.S_ISREG(status.st_mode):
                continue
            _check_size(root, relative, status.st_size)
            yield relative, file.read_bytes()


def _zip(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                link = stat.S_ISLNK(info.external_attr >> 16)
                if info.is_dir() or link or _hidden(info.filename):
                    continue
                _check_size(path, info.filename, info.file_size)
                yield info.filename, archive.read(info)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        refuse(path, f"damaged, truncated or encrypted zip archive ({error}); fetch it again")


def _tar(path: Path) -> Iterator[tuple[str, bytes]]:
    found = 0
    try:
        if path.name.lower().endswith(".tar"):
            _check_tar_end(path)
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                if not member.isreg() or _hidden(member.name):
                    continue
                _check_size(path, member.name, member.size)
                stream = archive.extractfile(member)
                if stream is None:
                    continue
                yield member.name.removeprefix("./"), stream.read()
                found += 1
    except _DAMAGED as error:
        refuse(
            path,
            f"damaged or truncated archive after {found:,} files ({error}); fetch it again",
        )


def _check_tar_end(path: Path) -> None:
    """A tar file ends in two blocks of zeros; without them it was cut at a member's border."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1024))
        if size % 512 or file.read() != bytes(1024):
            raise tarfile.ReadError("the end-of-archive marker is missing")


def _check_size(path: Path, name: str, size: int) -> None:
    if size > MAX_FILE_BYTES:
        refuse(path, f"is {size:,} bytes; an image has at most {MAX_FILE_BYTES:,}", field=name)


def _hidden(name: str) -> bool:
    parts = name.removeprefix("./").split("/")
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)
