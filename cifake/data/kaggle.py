"""A data set on Kaggle, through its own client."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from cifake.data.repositories import Repository
from cifake.errors import one_line, refuse

ATTEMPTS = 5
"""Attempts in a row that may bring nothing new."""

PAUSE_SECONDS = 1.0

_UNUSABLE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    RuntimeError,  # an encrypted or oddly compressed archive
    ValueError,  # no archive, no answer of Kaggle's, or credentials that cannot be read
)


def get(repository: Repository, staging: Path, mirror: str | None, console: Console) -> Path:
    """Download and unpack a data set below a folder; return the folder of its files.

    The client continues a download that was cut, and shows its own bar. It unpacks with the
    guards of Python's own archive modules, below the folder only.

    Raises:
        InputError: the server cannot be reached or refuses, or sends a damaged archive.
        OSError: the folder cannot be written.
    """
    del console
    if mirror:
        refuse("--mirror", "Kaggle's client has no setting for it; give another --from")
    # A cache of our own, so that the unpacked files do not stay behind in the user's.
    cache = staging / "cache"
    with _environment("KAGGLEHUB_CACHE", str(cache)), contextlib.redirect_stdout(sys.stderr):
        return Path(_downloaded(repository, cache))


def _downloaded(repository: Repository, cache: Path) -> str:
    """Call the client until nothing cuts it off, or it stops making progress."""
    import kagglehub
    from requests.exceptions import ChunkedEncodingError

    best, failures = _bytes_below(cache), 0
    while True:
        try:
            with _failures_said(repository, cache):
                found: str = kagglehub.dataset_download(repository.name)
                return found
        except ChunkedEncodingError as error:
            here = _bytes_below(cache)
            best, failures = max(best, here), 0 if here > best else failures + 1
            if failures == ATTEMPTS:
                refuse(
                    f"kaggle {repository.name}",
                    f"the connection was cut {ATTEMPTS} times without progress "
                    f"({one_line(error)}); {here:,} bytes are kept, the same command continues",
                )
            time.sleep(PAUSE_SECONDS)


@contextlib.contextmanager
def _failures_said(repository: Repository, cache: Path) -> Iterator[None]:
    """Turn the client's exceptions into one line each; cut connections pass."""
    from kagglehub.exceptions import DataCorruptionError
    from requests.exceptions import ChunkedEncodingError, RequestException

    where = f"kaggle {repository.name}"
    try:
        yield
    except ChunkedEncodingError:
        raise
    except RequestException as error:
        if error.response is not None:
            _refuse_status(where, repository, error.response.status_code)
        refuse(
            where,
            f"the connection failed ({one_line(error)}); check the network, repeat the command",
        )
    except (DataCorruptionError, *_UNUSABLE) as error:
        # The client would take a damaged archive for a whole one for ever.
        shutil.rmtree(cache, ignore_errors=True)
        refuse(where, f"cannot be used ({one_line(error)}); the same command starts anew")


def _refuse_status(where: str, repository: Repository, status: int) -> NoReturn:
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        refuse(
            where,
            f"access is refused ({status}): accept its terms at "
            f"https://www.kaggle.com/datasets/{repository.name}, and set KAGGLE_API_TOKEN, "
            "or KAGGLE_USERNAME and KAGGLE_KEY",
        )
    if status == HTTPStatus.NOT_FOUND:
        refuse(where, "not found (404); was it moved? try another --from")
    refuse(where, f"the server answers {status}; repeat the command later, or try another --from")


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set a variable for a while; the client takes its folder from nowhere else."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _bytes_below(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
