"""What a source yields before decoding."""

from __future__ import annotations

from typing import NamedTuple

FAKE, REAL = 0, 1
LABELS = {"FAKE": FAKE, "REAL": REAL}
SPLITS = ("train", "validation", "test")


class RawImage(NamedTuple):
    """One encoded image and what its source says of it."""

    name: str
    """Where it lies inside the source, for messages."""

    file_name: str | None
    """Its own file name, null where the source has none."""

    split: str
    """`train`, `validation` or `test`."""

    label: int
    """0 FAKE, 1 REAL."""

    blob: bytes
    """The encoded file."""

    content_class: str | None = None
    """What the image shows."""

    coarse_class: str | None = None
    """The group that the content class belongs to."""

    generator: str | None = None
    """What made a fake."""
