"""The files of a sweep that are handed out, and nothing else."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from cifake.places import LocalPlace, Place

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".tex": "text/plain; charset=utf-8",
    ".bib": "text/plain; charset=utf-8",
    ".yaml": "text/plain; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".pdf": "application/pdf",
    ".parquet": "application/vnd.apache.parquet",
}
"""What outputs are, by suffix; files of others, such as claims and studies, are not handed out."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
_DEPTH = 3


def read_output(sweep: Place, path: str) -> tuple[str, bytes] | None:
    """An output by its path below the sweep's folder.

    Args:
        sweep: the sweep's folder.
        path: names joined by `/`, as an address has them after decoding.

    Returns:
        What it is and its content; null where there is none, or where the path leads elsewhere.
    """
    names = path.split("/")
    kind = TYPES.get(PurePosixPath(names[-1]).suffix)
    if kind is None or len(names) > _DEPTH or not all(map(_NAME.fullmatch, names)):
        return None
    place = sweep
    for name in names[:-1]:
        place = place.at(name)
    if not _is_inside(place, names[-1], sweep):
        return None
    try:
        return kind, place.read(names[-1])
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _is_inside(place: Place, name: str, sweep: Place) -> bool:
    """Whether no link leads out of a sweep's folder; an object store has none."""
    if not (isinstance(place, LocalPlace) and isinstance(sweep, LocalPlace)):
        return True
    return (place.path / name).resolve().is_relative_to(sweep.path.resolve())
