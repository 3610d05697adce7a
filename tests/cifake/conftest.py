"""Fixtures of the tests of `cifake`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import torch

from cifake.data.locate import open_dataset
from cifake.data.pack import Pack


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Equal numbers bit for bit are promised for one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def demo(_isolated_environment: None) -> Pack:
    """The embedded data set."""
    return open_dataset("demo")


@pytest.fixture(scope="session")
def subset_folder(
    first_images: Callable[[Mapping[str, int]], dict[str, bytes]],
    write_tree: Callable[[Path, Mapping[str, bytes]], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The first 80 training and 20 test images of every class and label: 2,000 in all."""
    return write_tree(
        tmp_path_factory.mktemp("real") / "cifake", first_images({"train": 80, "test": 20})
    )


@pytest.fixture(scope="session")
def subset(subset_folder: Path) -> Pack:
    """They, packed."""
    return open_dataset("cifake", {"cifake": subset_folder})


@pytest.fixture(scope="session")
def cifake(real_data: Path) -> Pack:
    """All 120,000 images."""
    return open_dataset("cifake", {"cifake": real_data / "cifake.tar.xz"})


@dataclass
class Offer:
    """What a local server has under a path."""

    body: bytes = b""
    status: int = 200
    etag: str = '"first"'
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    """Whether a part can be asked for."""

    cuts: list[int] = field(default_factory=list)
    """After how many bytes of its own each of the next answers is cut off."""


class LocalServer(ThreadingHTTPServer):
    """A real server on this machine, whose connections break when a test wants them to.

    It answers what a proxy is asked as well, whatever host is named.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.offers: dict[str, Offer] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        """Method, path and range of each request."""

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"http://127.0.0.1:{self.server_port}"

    def offer(self, path: str, body: bytes, **what: Any) -> Offer:
        """Put a file on the server; what it is can be changed later."""
        self.offers[path] = Offer(body=body, **what)
        return self.offers[path]

    def ranges(self, path: str) -> list[str | None]:
        """The ranges that a path was asked for, null for the whole."""
        return [given for method, at, given in self.asked if (method, at) == ("GET", path)]


class _Answers(BaseHTTPRequestHandler):
    server: LocalServer

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self._answer()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        given = self.headers["Range"]
        self.server.asked.append((self.command, path, given))
        offer = self.server.offers.get(path) or Offer(status=404)
        same = self.headers["If-Range"] in (None, offer.etag)
        start = 0
        if given and offer.ranges and same:
            start = int(given.removeprefix("bytes=").split("-")[0])
        rest = offer.body[start:]
        if start and not rest:
            self._start(416, offer, 0)
            return
        self._start(206 if start else offer.status, offer, len(rest), start)
        if self.command == "HEAD":
            return
        whole = len(rest)
        if offer.cuts:
            rest = rest[: offer.cuts.pop(0)]
        self.wfile.write(rest)
        if len(rest) < whole:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    def _start(self, status: int, offer: Offer, length: int, start: int = 0) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("ETag", offer.etag)
        if offer.ranges:
            self.send_header("Accept-Ranges", "bytes")
        if start:
            total = len(offer.body)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        for name, value in offer.headers.items():
            self.send_header(name, value)
        self.end_headers()


@pytest.fixture
def server() -> Iterator[LocalServer]:
    """A server of this test alone."""
    running = LocalServer()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()
