"""Files of a folder, zip or tar archive, one after another, read into memory and never unpacked.

Because nothing is written, a member's path cannot escape. Links inside an archive are refused;
those of a folder are the user's own and followed.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn, Self, cast

from cifake.errors import refuse

MAX_FILE_BYTES = 64 * 2**20
"""No single image is larger; a larger member is refused before it is read."""

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")

_DAMAGED = (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, OSError)

_WITHOUT_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)

_OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}


class _WholeHeader(tarfile.TarInfo):
    """A header that must be whole: tarfile takes a damaged or cut one for the archive's end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Read a header; only a block of zeros ends an archive."""
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise
            raise tarfile.ReadError(str(error)) from None


Wanted = Callable[[str], bool]
"""Whether the file of a relative name is to be read."""


def _every(name: str) -> bool:
    del name
    return True


def usual_names(stem: str) -> tuple[str, ...]:
    """The names under which a folder of this name, or an archive of it, is looked for."""
    return (stem, *(stem + suffix for suffix in (*reversed(TAR_SUFFIXES), ".zip")))


def is_archive(path: Path) -> bool:
    """Whether the name is one of an archive that can be read."""
    return path.name.lower().endswith((".zip", *TAR_SUFFIXES))


def archive_stem(path: Path) -> str | None:
    """The name of an archive without its ending; null where it is none."""
    lower = path.name.lower()
    endings = [suffix for suffix in (".zip", *TAR_SUFFIXES) if lower.endswith(suffix)]
    return path.name[: -max(map(len, endings))] if endings else None


def iter_files(path: Path, wanted: Wanted = _every) -> Iterator[tuple[str, bytes]]:
    """Yield `(relative name with '/', content)` of every regular file, in a fixed order.

    Hidden files are left out: archives made on other systems carry some.

    Args:
        path: a folder or archive.
        wanted: other files are passed over, whatever their size.

    Raises:
        InputError: an unreadable, truncated or damaged archive, or a file beyond the size limit.
    """
    for name, content in _files(path, wanted):
        yield _text(name), content


def _files(path: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        yield from _folder(path, wanted)
    elif not is_archive(path):
        kinds = ", ".join((".zip", *TAR_SUFFIXES, ".parquet"))
        refuse(path, f"must be a folder or end in one of {kinds}")
    elif path.name.lower().endswith(".zip"):
        yield from _zip(path, wanted)
    else:
        yield from _tar(path, wanted)


def _text(name: str) -> str:
    """Bytes of a name that are no UTF-8, which Python keeps as surrogates, are replaced."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def walk(root: Path) -> Iterator[str]:
    """Every file below a folder in a fixed order, as its relative name with '/'.

    Hidden ones are left out, links followed once. Names are text: a `Path` of each of 120,000 files
    would take longer than to read them.
    """
    visited: set[str] = set()
    top = os.fspath(root)
    for folder, subfolders, names in os.walk(top, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = sorted(filter(_shown, subfolders))
        below = "" if folder == top else os.path.relpath(folder, top).replace(os.sep, "/") + "/"
        for name in sorted(filter(_shown, names)):
            yield below + name


def _folder(root: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    top = os.fspath(root)
    for name in filter(wanted, walk(root)):
        try:
            content = _content(top, name)
        except OSError as error:
            if error.errno == errno.ENXIO:
                continue  # a socket
            problem = f"cannot be read ({error.strerror}); mend or remove it"
            refuse(root, problem, field=name)
        if content is not None:
            yield name, content


def _content(root: str, name: str) -> bytes | None:
    """A regular file of a folder, whole; null for any other."""
    # No wait for a writer to a pipe, and no Python file around it: 120,000 times that is felt.
    handle = os.open(f"{root}/{name}", os.O_RDONLY | _WITHOUT_WAITING)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            return None
        _check_size(root, name, status.st_size)
        content = os.read(handle, status.st_size + 1)
    finally:
        os.close(handle)
    if len(content) != status.st_size:
        refuse(root, "changed while it was read; read it again when it is whole", field=name)
    return content


def _zip(path: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                _check_inside(path, info.filename)
                if info.is_dir() or _hidden(info.filename) or not wanted(info.filename):
                    continue
                if stat.S_ISLNK(info.external_attr >> 16):
                    _refuse_link(path, info.filename)
                _check_size(path, info.filename, info.file_size)
                yield info.filename, archive.read(info)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, *_DAMAGED) as error:
        refuse(path, f"damaged, truncated or encrypted zip archive ({error}); fetch it again")


def _tar(path: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    found = 0
    try:
        with (
            _decompressed(path) as plain,
            tarfile.open(fileobj=plain, mode="r|", tarinfo=_WholeHeader) as archive,
        ):
            for member in archive:
                _check_inside(path, member.name)
                if _hidden(member.name):
                    continue
                if member.issym() or member.islnk():
                    _refuse_link(path, member.name)
                name = member.name.removeprefix("./")
                if not member.isreg() or not wanted(name):
                    continue
                _check_size(path, member.name, member.size)
                stream = archive.extractfile(member)
                if stream is None:
                    continue
                yield name, stream.read()
                found += 1
            while plain.read(2**20):
                pass  # to the end, where the check sums are
    except _DAMAGED as error:
        refuse(
            path,
            f"damaged or truncated archive after {found:,} files ({error}); fetch it again",
        )


def _decompressed(path: Path) -> IO[bytes]:
    """The archive without its compression, which is told by its first bytes."""
    with path.open("rb") as file:
        start = file.read(6)
    opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)
    return path.open("rb") if opener is None else cast("IO[bytes]", opener(path))


def _check_inside(path: Path, name: str) -> None:
    if ".." in name.split("/"):
        refuse(path, "leaves the archive; pack it again without '..'", field=name)


def _refuse_link(path: Path, name: str) -> NoReturn:
    refuse(path, "is a link, and links are not followed; put the file itself there", field=name)


def _check_size(path: Path | str, name: str, size: int) -> None:
    if size > MAX_FILE_BYTES:
        refuse(path, f"is {size:,} bytes; an image has at most {MAX_FILE_BYTES:,}", field=name)


def _hidden(name: str) -> bool:
    return not all(map(_shown, name.removeprefix("./").split("/")))


def _shown(part: str) -> bool:
    return not part.startswith(".") and part != "__MACOSX"
