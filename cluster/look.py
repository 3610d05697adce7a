"""What a machine has that nodes need: run by any Python of it, which may have nothing of ours.

    python3 - [PORT…] < look.py

prints one JSON object. It imports the standard library alone.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import platform
import socket
import sys
from pathlib import Path

PACKAGES = {"ray": "ray", "project": "cifake-sweeps"}
"""Distributions whose versions are told, by what they are called here."""

_TRAINS = ("cifake", "sweeps")
"""Packages whose code makes the numbers."""


def versions() -> dict[str, str | None]:
    """What must be the same everywhere; null where it is not installed."""
    return {
        "python": platform.python_version(),
        **{name: _version(package) for name, package in PACKAGES.items()},
        "code": _code(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _code() -> str | None:
    """The beginning of a hash of the code that makes the numbers."""
    digest = hashlib.sha256()
    for name in _TRAINS:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:
            return None
        root = Path(found.origin).parent
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{name}/{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def ports_in_use(ports: list[int]) -> list[int]:
    """Those on which a program listens."""
    return [port for port in ports if _in_use(port)]


def _in_use(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return True
    return False


def has_module(name: str) -> bool:
    """Whether a module can be imported."""
    return importlib.util.find_spec(name) is not None


def look(ports: list[int]) -> dict[str, object]:
    """All of it."""
    return {
        **versions(),
        "ports_in_use": ports_in_use(ports),
        "jobs": has_module("aiohttp"),
        "makes_environments": has_module("ensurepip") and has_module("venv"),
    }


if __name__ == "__main__":
    print(json.dumps(look([int(port) for port in sys.argv[1:]])))
