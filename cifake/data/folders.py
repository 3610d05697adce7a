"""Folders named `real` and `fake`, at any depth, of images of any size.

The label is a folder's name in any case. A folder `train`, `test` or `validation` (`val`, `valid`)
above or below gives the split; without one an image belongs to `test`. What lies between `fake` and
the file names the generator: `fake/<generator>/0.jpg`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cifake.data.archives import iter_files
from cifake.data.raw import FAKE, LABELS, RawImage
from cifake.errors import InputError, Mistake

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""Endings of image files, in any case; other files are passed over."""

SPLIT_FOLDERS = {
    "train": "train",
    "test": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
}
"""The split that a folder's name states."""

_LABEL_FOLDERS = {name.lower(): label for name, label in LABELS.items()}
_NAMED = 10


class Place(NamedTuple):
    """What the folders around a file say of it."""

    split: str
    label: int
    generator: str | None


def is_image(name: str) -> bool:
    """Whether a file is taken for an image, by its ending."""
    return name.lower().endswith(SUFFIXES)


def place(name: str) -> Place:
    """Read the folders of a relative name with `/`.

    Raises:
        ValueError: not in exactly one of real and fake, or in several splits.
    """
    folders = PurePosixPath(name).parts[:-1]
    lower = [folder.lower() for folder in folders]
    labels = {_LABEL_FOLDERS[folder] for folder in lower if folder in _LABEL_FOLDERS}
    splits = {SPLIT_FOLDERS[folder] for folder in lower if folder in SPLIT_FOLDERS}
    if not labels:
        raise ValueError("lies in no folder named real or fake")
    if len(labels) > 1:
        raise ValueError("lies in both real and fake; must be in one of them")
    if len(splits) > 1:
        raise ValueError(f"lies in {' and '.join(sorted(splits))}; must be in one split")
    (label,) = labels
    split = next(iter(splits), "test")
    return Place(split, label, _generator(folders, lower) if label == FAKE else None)


def _generator(folders: tuple[str, ...], lower: list[str]) -> str | None:
    """The folders below the first `fake`, those that say something else left out."""
    start = lower.index("fake") + 1
    said = SPLIT_FOLDERS.keys() | _LABEL_FOLDERS.keys()
    below = [
        folder
        for folder, name in zip(folders[start:], lower[start:], strict=True)
        if name not in said
    ]
    return "/".join(below) or None


def read(path: Path) -> Iterator[RawImage]:
    """Yield the images of a folder or archive; what they show is not known.

    Raises:
        InputError: a damaged archive, or once all were seen, every image outside real and fake.
    """
    misplaced: list[tuple[str, str]] = []
    for name, blob in iter_files(path, is_image):
        try:
            split, label, generator = place(name)
        except ValueError as error:
            misplaced.append((name, str(error)))
            continue
        yield RawImage(
            name=name,
            file_name=PurePosixPath(name).name,
            split=split,
            label=label,
            blob=blob,
            generator=generator,
        )
    if misplaced:
        raise InputError(_mistakes(path, misplaced))


def _mistakes(path: Path, misplaced: list[tuple[str, str]]) -> list[Mistake]:
    source = str(path)
    named = [Mistake(where=source, field=n, problem=text) for n, text in misplaced[:_NAMED]]
    total = f"{len(misplaced):,} images are misplaced; move each into one folder real or fake"
    if len(misplaced) > len(named):
        total += f" (the first {len(named)} are named)"
    return [*named, Mistake(where=source, problem=total)]
