"""Ports for servers that tests start."""

from __future__ import annotations

import itertools
import os
import socket

# Below those that Linux gives to connections as they come (32768 on), which could take one
# before its server does, and above those of Ray's workers (10002 to 19999).
_FIRST, _END = 20_000, 32_000
_PROCESSES = 64
"""Processes that may look for ports at the same time: each has numbers of its own."""

_candidates = itertools.cycle(range(_FIRST + os.getpid() % _PROCESSES, _END, _PROCESSES))


def free_port() -> int:
    """One that nobody uses and that this process has not been given lately."""
    while True:
        port = next(_candidates)
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        return port


def free_ports(count: int) -> list[int]:
    """So many different ones."""
    return [free_port() for _ in range(count)]
