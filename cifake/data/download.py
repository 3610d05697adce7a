"""One file over HTTP, continued where an interrupted download of it stopped."""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import NoReturn

from cifake.errors import refuse

ATTEMPTS = 5
"""Attempts in a row that may bring nothing new."""

PAUSE_SECONDS = 1.0
TIMEOUT_SECONDS = 30.0
_CHUNK = 2**18

Advance = Callable[[int, int | None], None]
"""Called with the bytes that are here and the bytes in all, null where the server does not say."""


class _CutError(Exception):
    """The connection ended before the file did."""


def download(url: str, target: Path, advance: Advance) -> None:
    """Download a file; what is here of it lies in `target` with `.part` appended.

    A part is continued only if the server says that the file is still the same one, by its ETag
    or its time; otherwise the download starts anew. A cut connection is taken up again; after
    several attempts without progress the part is left for the next call.

    Raises:
        InputError: the server cannot be reached, refuses, or keeps cutting the connection.
        OSError: the part cannot be written.
    """
    part = target.with_name(f"{target.name}.part")
    best, failures = _size(part), 0
    while True:
        try:
            _attempt(url, part, advance)
            break
        except _CutError as cut:
            here = _size(part)
            best, failures = max(best, here), 0 if here > best else failures + 1
            if failures == ATTEMPTS:
                refuse(
                    url,
                    f"the connection was cut {ATTEMPTS} times without progress ({cut}); "
                    f"{here:,} bytes are kept, the same command continues",
                )
            time.sleep(PAUSE_SECONDS)
    part.replace(target)
    _validator_file(part).unlink(missing_ok=True)


def _attempt(url: str, part: Path, advance: Advance) -> None:
    """Ask for what is missing and append it.

    Raises:
        _CutError: less arrived than the server announced.
    """
    with _open(url, part) as response:
        offset = _size(part) if response.status == HTTPStatus.PARTIAL_CONTENT else 0
        length = response.headers["Content-Length"]
        total = offset + int(length) if length else None
        with part.open("ab" if offset else "wb") as file:
            if not offset:
                # After the old bytes are gone: they must never be found beside a new validator.
                _remember_validator(url, part, response)
            here = offset
            while chunk := _read(response):
                file.write(chunk)
                here += len(chunk)
                advance(here, total)
    if total is not None and here != total:
        raise _CutError(f"{here:,} of {total:,} bytes")


def _open(url: str, part: Path) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers=_continuation(url, part))  # noqa: S310 checked by the caller
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(  # noqa: S310
            request, timeout=TIMEOUT_SECONDS
        )
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            _forget(part)
            raise _CutError("the part was no part of the file") from None
        _refuse_status(url, error.code)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        refuse(url, f"cannot be reached ({reason}); check the network, then repeat the command")
    if url.startswith("https:") and not response.url.startswith("https:"):
        response.close()
        refuse(url, "leads to a connection that is not encrypted; give another --mirror")
    if response.status == HTTPStatus.PARTIAL_CONTENT and not _continues(response, part):
        response.close()
        _forget(part)
        raise _CutError("the server sent another range than was asked for")
    return response


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _CutError(str(error) or type(error).__name__) from None


def _continuation(url: str, part: Path) -> dict[str, str]:
    """Headers that ask for the rest of a part, if the file is still the one it was."""
    try:
        known = json.loads(_validator_file(part).read_text())
    except (OSError, ValueError):
        return {}  # never written, or damaged: the download starts anew
    size = _size(part)
    if not size or not isinstance(known, dict) or known.get("url") != url:
        return {}
    return {"Range": f"bytes={size}-", "If-Range": str(known["validator"])}


def _continues(response: http.client.HTTPResponse, part: Path) -> bool:
    found = re.match(r"bytes (\d+)-", response.headers["Content-Range"] or "")
    return found is not None and int(found[1]) == _size(part)


def _remember_validator(url: str, part: Path, response: http.client.HTTPResponse) -> None:
    """Keep what tells this file from another; a weak ETag cannot, as bytes may differ under it."""
    etag = response.headers["ETag"] or ""
    validator = etag if etag.startswith('"') else response.headers["Last-Modified"]
    file = _validator_file(part)
    if validator:
        file.write_text(json.dumps({"url": url, "validator": validator}))
    else:
        file.unlink(missing_ok=True)


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _validator_file(part).unlink(missing_ok=True)


def _validator_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _refuse_status(url: str, status: int) -> NoReturn:
    if status == HTTPStatus.NOT_FOUND:
        refuse(url, "not found (404); was the repository moved? try another --from")
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        refuse(url, f"access is refused ({status}); try another --from")
    refuse(url, f"the server answers {status}; repeat the command later, or try another --from")
