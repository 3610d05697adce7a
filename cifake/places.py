"""Where files live that are read and written whole: a local folder, or a prefix of an object store.

Every file appears whole or not at all: a local one is written aside and renamed, an object is one
PUT, or several parts of which the store makes one. Whatever goes wrong is an `OSError` that says so
in its `strerror`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cifake.errors import refuse
from cifake.files import copy_aside, create_aside, link_or_copy, write_aside

if TYPE_CHECKING:
    import obstore

SCHEMES = ("s3", "gs", "az")
"""Object stores: Amazon's S3 and what speaks as it does, Google's, and Azure's."""

PATIENCE = 600.0
"""Seconds for which a request to an object store that does not answer is made again."""

_PART = 16 * 2**20
"""Bytes of a large file that are in memory at a time."""

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


class Place(Protocol):
    """A folder of files."""

    @property
    def name(self) -> str:
        """Its own name, the last part of where it is."""

    def at(self, name: str) -> Place:
        """The folder of that name below it, whether it exists or not."""

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            FileNotFoundError: there is none of that name.
        """

    def write(self, name: str, content: bytes) -> None:
        """Write a file, or replace it."""

    def create(self, name: str, content: bytes) -> bool:
        """Write a file unless there is one of that name already, and say whether it was written.

        Of several at the same time one writes it.
        """

    def parts(self, name: str) -> Iterator[bytes]:
        """The content of a file that may be large, a part at a time.

        Raises:
            FileNotFoundError: there is none of that name.
        """

    def fetch(self, name: str, path: Path) -> None:
        """Make a local file of the content of a file, of which never more than parts are in memory.

        A file that was cut off on its way is an error; it may be left behind.

        Raises:
            FileNotFoundError: there is none of that name.
        """

    def send(self, name: str, path: Path) -> None:
        """Write a file, or replace it, with the content of a local one, likewise in parts."""

    def remove(self, name: str) -> None:
        """Remove a file that may be there."""

    def clear(self) -> None:
        """Remove it with all files that lie in it."""

    def remains(self, beginnings: tuple[str, ...]) -> list[str]:
        """Files of which a writer left a beginning when it was killed, as names to remove.

        Args:
            beginnings: of the names that it wrote; nobody may be writing such a file now.
        """

    def persist(self) -> None:
        """Return when all files that lie in it would outlive a power cut."""

    def files(self) -> list[str]:
        """Names of the files that lie in it, ascending; none where it does not exist."""

    def sizes(self) -> dict[str, int]:
        """Bytes of each of these files."""

    def folders(self) -> list[str]:
        """Names of the folders that lie in it, ascending; none where it does not exist."""


class LocalPlace:
    """A folder of this machine, or of one that is mounted here."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    def at(self, name: str) -> LocalPlace:
        """A folder below."""
        return LocalPlace(self.path / name)

    def read(self, name: str) -> bytes:
        """The content of a file."""
        return (self.path / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        """Write a file aside and rename it."""
        write_aside(self.path / name, content)

    def create(self, name: str, content: bytes) -> bool:
        """Write a file aside and link it, which fails where there is one."""
        return create_aside(self.path / name, content)

    def parts(self, name: str) -> Iterator[bytes]:
        """The content of a file, a part at a time."""
        with (self.path / name).open("rb") as file:
            while part := file.read(_PART):
                yield part

    def fetch(self, name: str, path: Path) -> None:
        """Link a file to another place, or copy it."""
        link_or_copy(self.path / name, path)

    def send(self, name: str, path: Path) -> None:
        """Link a file aside, or copy it, and rename it."""
        copy_aside(self.path / name, path)

    def remove(self, name: str) -> None:
        """Remove a file that may be there."""
        (self.path / name).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove the folder, what is being written in it included."""
        shutil.rmtree(self.path, ignore_errors=not self.path.exists())

    def remains(self, beginnings: tuple[str, ...]) -> list[str]:
        """Files that were written aside and never renamed."""
        names = tuple(f".{beginning}" for beginning in beginnings)
        return sorted(entry.name for entry in self._entries() if entry.name.startswith(names))

    def persist(self) -> None:
        """Have the system write the files to their disk, and the folder that names them."""
        for name in (*self.files(), "."):
            handle = os.open(self.path / name, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def files(self) -> list[str]:
        """Files, without those that are being written."""
        return sorted(entry.name for entry in self._entries() if _is_whole(entry))

    def sizes(self) -> dict[str, int]:
        """Bytes of each of them."""
        return {entry.name: entry.stat().st_size for entry in self._entries() if _is_whole(entry)}

    def folders(self) -> list[str]:
        """Folders."""
        return sorted(entry.name for entry in self._entries() if entry.is_dir())

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        with contextlib.suppress(FileNotFoundError), os.scandir(self.path) as entries:
            yield from entries


def _is_whole(entry: os.DirEntry[str]) -> bool:
    return entry.is_file() and not entry.name.startswith(".")


class ObjectPlace:
    """A prefix of an object store's bucket.

    Who may read and write it is told by the environment, as the tools of the store's maker read it:
    `AWS_ACCESS_KEY_ID`, `AWS_REGION`, `AWS_ENDPOINT_URL`, `GOOGLE_APPLICATION_CREDENTIALS` and
    their like, or the role of the machine.

    Args:
        bucket: an opened bucket.
        url: of the prefix.
        prefix: what all names begin with, without slashes around it.
    """

    def __init__(self, bucket: obstore.store.ObjectStore, url: str, prefix: str = "") -> None:
        self.bucket = bucket
        self.url = url
        self.prefix = prefix

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part of the prefix."""
        return self.url.rpartition("/")[2]

    def at(self, name: str) -> ObjectPlace:
        """A longer prefix."""
        return ObjectPlace(self.bucket, f"{self.url}/{name}", self._key(name))

    def read(self, name: str) -> bytes:
        """The content of an object."""
        import obstore

        with self._told(name):
            return bytes(obstore.get(self.bucket, self._key(name)).bytes())

    def write(self, name: str, content: bytes) -> None:
        """Write an object with one PUT."""
        import obstore

        with self._told(name):
            obstore.put(self.bucket, self._key(name), content, use_multipart=False)

    def create(self, name: str, content: bytes) -> bool:
        """Write an object with one PUT that asks the store to refuse another."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        with self._told(name):
            try:
                obstore.put(self.bucket, self._key(name), content, mode="create")
            except AlreadyExistsError:
                # A PUT whose answer was lost is made again, and then finds what it wrote itself.
                return bytes(obstore.get(self.bucket, self._key(name)).bytes()) == content
        return True

    def parts(self, name: str) -> Iterator[bytes]:
        """The content of an object by ranges, each of which is asked for again if it fails."""
        import obstore

        with self._told(name):
            size = obstore.head(self.bucket, self._key(name))["size"]
        for start in range(0, size, _PART):
            length = min(_PART, size - start)
            with self._told(name):
                key = self._key(name)
                part = bytes(obstore.get_range(self.bucket, key, start=start, length=length))
            if len(part) != length:
                where = f"{self.url}/{name}"
                raise OSError(errno.EIO, f"{len(part)} bytes came of {length}", where)
            yield part

    def fetch(self, name: str, path: Path) -> None:
        """Write the parts of an object to a file."""
        try:
            with path.open("xb") as file:
                for part in self.parts(name):
                    file.write(part)
        except OSError as error:
            # What writes to an open file does not say which.
            error.filename = error.filename or os.fspath(path)
            raise

    def send(self, name: str, path: Path) -> None:
        """Put a file, a large one in parts that become an object when the last has come."""
        import obstore

        with self._told(name):
            obstore.put(self.bucket, self._key(name), path, chunk_size=_PART, max_concurrency=4)

    def remove(self, name: str) -> None:
        """Remove an object that may be there."""
        import obstore

        with self._told(name), contextlib.suppress(FileNotFoundError):
            obstore.delete(self.bucket, self._key(name))

    def clear(self) -> None:
        """Remove the objects whose names go on without a slash."""
        for name in self.files():
            self.remove(name)

    def remains(self, beginnings: tuple[str, ...]) -> list[str]:
        """None: an object that was not put whole is not there."""
        del beginnings
        return []

    def persist(self) -> None:
        """Nothing is to be done: a PUT is answered when it is kept."""

    def files(self) -> list[str]:
        """Objects whose names go on without a slash."""
        return sorted(self.sizes())

    def sizes(self) -> dict[str, int]:
        """Bytes of each of them."""
        found = {self._below(each["path"]): each["size"] for each in self._listed()["objects"]}
        found.pop("", None)  # some servers list an emptied folder as a file of its own
        return found

    def folders(self) -> list[str]:
        """Longer prefixes, to the next slash."""
        return sorted(map(self._below, self._listed()["common_prefixes"]))

    def _listed(self) -> Any:
        import obstore

        with self._told(""):
            return obstore.list_with_delimiter(self.bucket, self.prefix or None)

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    def _below(self, key: str) -> str:
        return key[len(self.prefix) + 1 :] if self.prefix else key

    @contextlib.contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Turn what goes wrong into the system's kind of error."""
        from obstore import exceptions

        try:
            yield
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError):
            where = f"{self.url}/{name}"
            raise PermissionError(errno.EACCES, "access denied", where) from None
        except exceptions.BaseError as error:
            lines = str(error).strip().splitlines()
            raise OSError(errno.EIO, lines[0], f"{self.url}/{name}") from None


def open_place(where: str, patience: float = PATIENCE) -> Place:
    """A folder by its path, or a prefix of an object store by its URL.

    Args:
        where: a path, or `s3://BUCKET/PREFIX`, `gs://…` or `az://…`.
        patience: seconds for which a request that fails in passing is made again.

    Raises:
        InputError: a URL of another kind, or one without a bucket.
    """
    scheme, separator, rest = where.partition("://")
    if not separator:
        return LocalPlace(Path(where))
    bucket, _, prefix = rest.partition("/")
    if scheme not in SCHEMES or not bucket:
        forms = ", ".join(f"{scheme}://BUCKET/PREFIX" for scheme in SCHEMES)
        refuse(where, f"is no folder and no object store; give a path, or {forms}")
    place = ObjectPlace(_bucket(f"{scheme}://{bucket}", patience), f"{scheme}://{bucket}")
    prefix = prefix.strip("/")
    return place.at(prefix) if prefix else place


def _bucket(url: str, patience: float) -> obstore.store.ObjectStore:
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    endpoint = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), "")
    settings: dict[str, Any] = {"client_options": {"connect_timeout": "5s", "timeout": "60s"}}
    if url.startswith("s3://") and endpoint:
        settings["endpoint"] = endpoint
        # Whoever names an endpoint without encryption, such as a server of their own, wants it so.
        settings["client_options"]["allow_http"] = endpoint.startswith("http://")
    attempts = {"max_retries": 10_000, "retry_timeout": timedelta(seconds=patience)}
    open_url: Any = from_url  # its overloads want every setting by name
    try:
        opened: obstore.store.ObjectStore = open_url(url, retry_config=attempts, **settings)
    except BaseError as error:
        refuse(url, f"cannot be opened ({str(error).strip().splitlines()[0]})")
    return opened
