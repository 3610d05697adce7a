"""The Ray that a sweep starts: what listens, and whom it answers."""

from __future__ import annotations

import http.client
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

CLUSTER = """
from sweeps import authentication

authentication.prepare(None)

from sweeps.tuner.cluster import cluster

with cluster(None, 1):
    print("up", flush=True)
    input()
"""

LISTENS = "0A"
"""State of a socket in the kernel's tables."""

ANY = "0.0.0.0"  # noqa: S104 - what is looked for
"""Every interface."""


@pytest.fixture(scope="module")
def driver(environment: dict[str, str]) -> Iterator[int]:
    """A process with a Ray of its own, as that of a sweep."""
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "up\n"
        time.sleep(5)  # agents open their ports a little later
        yield started.pid
        started.communicate("\n", timeout=60)


def family(pid: int) -> set[int]:
    """A process and all that descend from it."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        parents.setdefault(parent, []).append(int(stat.parent.name))
    found, waiting = set(), [pid]
    while waiting:
        found.add(one := waiting.pop())
        waiting += parents.get(one, [])
    return found


def listening(pids: set[int]) -> dict[int, str]:
    """Ports that some processes listen on, with the address that each is bound to."""
    inodes = set()
    for pid in pids:
        for handle in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                inodes.add(str(handle.readlink()))
            except OSError:
                continue
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENS and f"socket:[{fields[9]}]" in inodes:
                address, _, port = fields[1].partition(":")
                found[int(port, 16)] = (
                    socket.inet_ntoa(struct.pack("<I", int(address, 16))) if table == "tcp" else ANY
                )
    return found


def status(address: str, port: int, path: str) -> int | None:
    """What someone without a token is answered over HTTP; null for no answer in it."""
    host = "127.0.0.1" if address == ANY else address
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/", "/metrics"])
def test_whoever_has_no_token_is_told_nothing_by_any_port(driver: int, path: str) -> None:
    ports = listening(family(driver))
    assert len(ports) >= 3, "the control store, the raylet and the driver"
    answers = {port: status(address, port, path) for port, address in ports.items()}
    assert {port: code for port, code in answers.items() if code is not None and code < 400} == {}
