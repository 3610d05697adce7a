"""The project and its locked packages as a file from which another machine installs them.

    python -m cluster.bundle FILE

writes it, a tar archive of a wheel and of pip's constraints. It is made of what runs here, a
checkout or an installed package: the same code and the same versions make the same bytes.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.metadata
import importlib.util
import io
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cifake.errors import refuse, run_command
from cifake.files import write_aside

PROJECT, EXTRA = "cifake-sweeps", "cluster"
_PACKAGES = ("cifake", "sweeps", "cluster")
FILE, LOCK = "project.tar", "constraints.txt"

_WHEEL = "Wheel-Version: 1.0\nGenerator: cluster\nRoot-Is-Purelib: true\nTag: py3-none-any\n"

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file can hold; the bytes must not depend on when they are made."""


def wheel_name() -> str:
    """Name of the project's wheel, as its format asks for."""
    return f"{_stem()}-py3-none-any.whl"


@functools.cache
def wheel() -> bytes:
    """The project as a wheel."""
    distribution = importlib.metadata.distribution(PROJECT)
    info = f"{_stem()}.dist-info"
    described = {
        "METADATA": distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or "",
        "WHEEL": _WHEEL,
        "entry_points.txt": distribution.read_text("entry_points.txt") or "",
    }
    files = {
        **dict(_code()),
        **{f"{info}/{name}": text.encode() for name, text in described.items()},
    }
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


@functools.cache
def lock() -> str:
    """The versions that run here of all that the project needs, as pip's constraints.

    Raises:
        InputError: what is installed here is older than the code, or lacks a package.
    """
    offered = importlib.metadata.metadata(PROJECT).get_all("Provides-Extra") or []
    if EXTRA not in offered:
        refuse(PROJECT, f"is installed here without its extra {EXTRA}; install it again")
    found: dict[str, str] = {}
    wanted = [(PROJECT, frozenset({EXTRA}))]
    seen = set(wanted)
    while wanted:
        name, extras = wanted.pop()
        for requirement in _needs(name, extras):
            needed = canonicalize_name(requirement.name)
            # Another machine may have another build of the same version.
            found[needed] = _version(needed).partition("+")[0]
            entry = (needed, frozenset(requirement.extras))
            if entry not in seen:
                seen.add(entry)
                wanted.append(entry)
    return "".join(f"{name}=={found[name]}\n" for name in sorted(found))


def digest() -> str:
    """What tells this code with these packages from any other."""
    return hashlib.sha256(wheel() + lock().encode()).hexdigest()[:12]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return refuse(name, f"is not installed here; pip install '{PROJECT}[{EXTRA}]'")


def _stem() -> str:
    return f"{PROJECT.replace('-', '_')}-{importlib.metadata.version(PROJECT)}"


def _code() -> Iterator[tuple[str, bytes]]:
    """All files of the packages, by their path in the wheel."""
    for package in _PACKAGES:
        found = importlib.util.find_spec(package)
        if found is None or found.origin is None:
            raise ModuleNotFoundError(package)
        root = Path(found.origin).parent
        for path in sorted(root.rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                yield f"{package}/{path.relative_to(root).as_posix()}", path.read_bytes()


def _record(files: dict[str, bytes], own_name: str) -> bytes:
    lines = []
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(content)}\n")
    return "".join([*lines, f"{own_name},,\n"]).encode()


def _needs(name: str, extras: frozenset[str]) -> Iterator[Requirement]:
    """Requirements that apply here, of a distribution that is installed."""
    for text in importlib.metadata.requires(name) or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


def archive() -> bytes:
    """The wheel and the lock in one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as target:
        for name, content in ((wheel_name(), wheel()), (LOCK, lock().encode())):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            target.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def main() -> NoReturn:
    """Write the archive to the file that the command line names."""
    run_command(lambda: write_aside(Path(sys.argv[1]), archive()), "cluster")


if __name__ == "__main__":
    main()
