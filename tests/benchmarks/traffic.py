"""What a sweep asks of an object store: requests and bytes, for each run and each of its epochs.

A sweep's traffic is taken to be a part of its own, a part for each run and one for each epoch of a
run; three sweeps that differ in runs and epochs tell the three apart.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.benchmarks.measure import Outcome
from tests.object_store import BUCKET, ObjectStore

_SHAPES = ((2, 2), (2, 8), (8, 2))
"""Runs and epochs of the sweeps."""

_CHUNK = 2**16
_HEAD_ENDS = b"\r\n\r\n"

KINDS: Mapping[str, Sequence[str]] = {
    "writing requests": ("PUT", "POST", "LIST"),
    "reading requests": ("GET", "HEAD"),
    "bytes sent": ("sent",),
    "bytes received": ("received",),
}
"""What is told, of what is counted; the two kinds of requests are those that stores bill for.
Removing is free."""


class CountingProxy:
    """Passes HTTP on to a server of this machine and counts requests, by method, and bytes.

    What is signed stays as it was: heads and bodies are passed on as they come.

    Args:
        port: of the server.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.counts: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.server = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server.getsockname()[1]}"

    def close(self) -> None:
        """Take no more connections."""
        self.server.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            store = socket.create_connection(("127.0.0.1", self.port))
            for work, pair in ((self._requests, (client, store)), (self._answers, (store, client))):
                threading.Thread(target=work, args=pair, daemon=True).start()

    def _add(self, **counts: int) -> None:
        with self.lock:
            self.counts.update(counts)

    def _requests(self, client: socket.socket, store: socket.socket) -> None:
        counted = _Requests()
        with client, store:
            while data := _received(client):
                # Before they are passed on: who has the answer finds them counted.
                self._add(sent=len(data), **Counter(counted.methods(data)))
                store.sendall(data)

    def _answers(self, store: socket.socket, client: socket.socket) -> None:
        while data := _received(store):
            self._add(received=len(data))
            try:
                client.sendall(data)
            except OSError:
                return


def _received(source: socket.socket) -> bytes:
    try:
        return source.recv(_CHUNK)
    except OSError:
        return b""


class _Requests:
    """What is asked over a connection, one after another: a head, and a body if it says so."""

    def __init__(self) -> None:
        self.held = b""
        """The beginning of a head."""

        self.body = 0
        """Bytes of a body that are still to come."""

    def methods(self, data: bytes) -> Iterator[str]:
        """The kinds of the requests that begin in what came next."""
        while data:
            passed = min(self.body, len(data))
            self.body -= passed
            head, ends, rest = (self.held + data[passed:]).partition(_HEAD_ENDS)
            if not ends:
                self.held = head
                return
            self.held, data = b"", rest
            self.body = _length(head)
            yield _method(head)


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def _method(head: bytes) -> str:
    method, _, rest = head.decode("latin-1").partition(" ")
    query = rest.partition(" ")[0].partition("?")[2]
    if method == "GET" and "list-type=" in query:
        return "LIST"
    return "DELETE" if method == "POST" and query.startswith("delete") else method


def traffic(
    source: Path, scratch: Path, shapes: Sequence[tuple[int, int]] = _SHAPES
) -> Iterator[Outcome]:
    """Run sweeps of `base` on few images of CIFAKE, tested on all of its test images.

    Args:
        source: CIFAKE's images, as a file or folder that a sweep takes.
        scratch: an empty folder.
        shapes: runs and epochs of three sweeps or more.
    """
    (scratch / "weed").mkdir(parents=True)
    server = ObjectStore(scratch / "weed")
    server.start()
    try:
        counts = [
            _counted(server, source, scratch, number, shape) for number, shape in enumerate(shapes)
        ]
    finally:
        server.stop()
    parts = np.array([[1, runs, runs * epochs] for runs, epochs in shapes], np.float64)
    for kind, names in KINDS.items():
        found = [sum(each[name] for name in names) for each in counts]
        solved = np.linalg.lstsq(parts, np.array(found, np.float64), rcond=None)[0]
        for value, of in zip(solved, ("sweep", "run", "epoch of a run"), strict=True):
            unit = "B" if kind.startswith("bytes") else "requests"
            yield Outcome(
                f"object store, {kind} a {of}", unit, [float(value)], "value at most", None
            )


def _counted(
    server: ObjectStore, source: Path, scratch: Path, number: int, shape: tuple[int, int]
) -> Mapping[str, int]:
    runs, epochs = shape
    spec = scratch / f"traffic-{number}.yaml"
    spec.write_text(yaml.safe_dump(_specification(f"traffic-{number}", runs, epochs)))
    proxy = CountingProxy(server.ports["s3"])
    environment = {**os.environ, **server.variables, "AWS_ENDPOINT_URL": proxy.endpoint}
    store = f"s3://{BUCKET}/{number}"
    data = ("--data", str(source), "--store", store)
    command = [sys.executable, "-m", "sweeps", "run", str(spec), *data]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    finally:
        proxy.close()
    if done.returncode:
        raise ValueError(f"the sweep ended with {done.returncode}: {done.stderr[-2000:]}")
    return proxy.counts


def _specification(name: str, runs: int, epochs: int) -> dict[str, Any]:
    return {
        "name": name,
        "data": {"train": "cifake", "train_images": 1_000, "validation": 500},
        "scientific": {"model": ["base"], "epochs": [epochs]},
        "nuisance": {"seed": runs},
        "resources": {"width": 2},
    }
