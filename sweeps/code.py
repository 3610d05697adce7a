"""Which code this is, whatever version it calls itself."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

_PACKAGES = ("cifake", "sweeps")


@functools.cache
def code_digest(pattern: str = "*") -> str:
    """A digest of the files of the project that training and reports are made by.

    Args:
        pattern: of their names.
    """
    found = hashlib.sha256()
    root = Path(__file__).resolve().parents[1]
    for package in _PACKAGES:
        for path in sorted((root / package).rglob(pattern)):
            # Another process may be writing compiled files there, under names that come and go.
            if path.parent.name != "__pycache__" and path.is_file():
                found.update(f"{path.relative_to(root)}\0".encode())
                found.update(path.read_bytes())
    return found.hexdigest()
