"""Whether other machines see a folder, as far as this one can tell."""

from __future__ import annotations

import re
import socket
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

_OWN_KINDS = {"tmpfs", "ramfs", "devtmpfs", "overlay"}
"""File systems that no other machine can see."""

_OWN_FOLDERS = tuple(map(Path, ("/tmp", "/var/tmp", "/dev/shm")))  # noqa: S108 - nothing is written there
"""Folders that every machine has for itself."""


@dataclass(frozen=True)
class Mount:
    """A file system, and where it is in the tree."""

    point: Path
    kind: str


def unshared(path: Path, hosts: Collection[str]) -> str | None:
    """Why other machines do not see a folder; null where they may.

    A folder on a disk of this machine may be exported to the others, which cannot be told here.

    Args:
        path: of the folder, whether it is there or not.
        hosts: names of the machines that must see it.
    """
    here = socket.gethostname().partition(".")[0]
    if {host.partition(".")[0] for host in hosts} <= {here}:
        return None
    real = path.resolve()
    mount = mount_of(real, Path("/proc/self/mountinfo").read_text())
    if mount.kind in _OWN_KINDS:
        return f"lies on this machine alone ({mount.kind})"
    for folder in _OWN_FOLDERS:
        if real.is_relative_to(folder) and not mount.point.is_relative_to(folder):
            return f"lies in {folder}, which every machine has for itself"
    return None


def mount_of(path: Path, mounts: str) -> Mount:
    """The file system that a path lies on.

    Args:
        path: a whole one.
        mounts: as in /proc/self/mountinfo.
    """
    found = Mount(Path("/"), "")
    for line in mounts.splitlines():
        fields, _, more = line.partition(" - ")
        point = Path(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), fields.split()[4]))
        # What is mounted later lies over what is there.
        if path.is_relative_to(point) and len(point.parts) >= len(found.point.parts):
            found = Mount(point, more.split()[0])
    return found
