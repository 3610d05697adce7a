"""CIFAKE (Bird & Lotfi 2024) as published: `train|test/REAL|FAKE/NUMBER (CLASS).jpg`.

The content class is the number in parentheses of the file name, none for the first class.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from cifake.data.archives import iter_files
from cifake.data.parquet import class_names, image_bytes, is_parquet, iter_rows, parquet_files
from cifake.data.raw import LABELS, RawImage
from cifake.errors import refuse

CONTENT_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

_FILE_NAME = re.compile(r"^\d+(?: \((?P<number>\d+)\))?\.(?:jpe?g|png)$", re.IGNORECASE)
_SUFFIXES = (".jpg", ".jpeg", ".png")


def content_class(file_name: str | None) -> str | None:
    """The content class that a file name states, or null where it has another form."""
    match = _FILE_NAME.match(file_name or "")
    if match is None:
        return None
    number = int(match["number"] or 1)
    return CONTENT_CLASSES[number - 1] if 1 <= number <= len(CONTENT_CLASSES) else None


def read(path: Path) -> Iterator[RawImage]:
    """Yield the images of a folder, archive or set of Hugging Face parquet files.

    Raises:
        InputError: damaged files, or an image outside the published layout.
    """
    yield from _from_parquet(path) if is_parquet(path) else _from_files(path)


def _from_files(path: Path) -> Iterator[RawImage]:
    for name, blob in iter_files(path, _is_image):
        folder, _, file_name = name.rpartition("/")
        found = _place(folder)
        if found is None:
            refuse(
                path,
                "must lie in train/REAL, train/FAKE, test/REAL or test/FAKE",
                field=name,
            )
        split, label = found
        yield RawImage(
            name=name,
            file_name=file_name,
            split=split,
            label=label,
            blob=blob,
            content_class=content_class(file_name),
        )


def _is_image(name: str) -> bool:
    return name.lower().endswith(_SUFFIXES)


@functools.cache
def _place(folder: str) -> tuple[str, int] | None:
    """The split and the label that the folders of an image name; null unless one of each."""
    parts = {part.upper() for part in folder.split("/")}
    labels = [label for name, label in LABELS.items() if name in parts]
    splits = [split for split in ("train", "test") if split.upper() in parts]
    return (splits[0], labels[0]) if len(splits) == len(labels) == 1 else None


def _from_parquet(path: Path) -> Iterator[RawImage]:
    for file in parquet_files(path):
        split = next((split for split in ("train", "test") if file.name.startswith(split)), None)
        if split is None:
            refuse(file, "the file name must start with train or test, as Hugging Face writes it")
        names = class_names(file).get("label", ["FAKE", "REAL"])
        for number, row in enumerate(iter_rows(file, ("image", "label"))):
            blob, inner = image_bytes(file, number, row["image"])
            label = names[row["label"]].upper() if row["label"] in range(len(names)) else None
            if label not in LABELS:
                refuse(file, "must be 0 for FAKE or 1 for REAL", field="label", value=row["label"])
            file_name = PurePosixPath(inner).name if inner else None
            yield RawImage(
                name=f"{file.name}, row {number}",
                file_name=file_name,
                split=split,
                label=LABELS[label],
                blob=blob,
                content_class=content_class(file_name),
            )
