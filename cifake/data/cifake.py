"""CIFAKE (Bird & Lotfi 2024) as published: `train|test/REAL|FAKE/NUMBER (CLASS).jpg`.

The content class is the number in parentheses of the file name, none for the first class.
"""

from __future__ import annotations

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
_IMAGE = re.compile(r"\.(?:jpe?g|png)$", re.IGNORECASE)


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
    for name, blob in iter_files(path):
        if not _IMAGE.search(name):
            continue
        parts = PurePosixPath(name).parts
        folders = {part.upper() for part in parts[:-1]}
        labels = [label for label in LABELS if label in folders]
        splits = [split for split in ("train", "test") if split.upper() in folders]
        if len(labels) != 1 or len(splits) != 1:
            refuse(
                path,
                "must lie in train/REAL, train/FAKE, test/REAL or test/FAKE",
                field=name,
            )
        yield RawImage(
            name=name,
            file_name=parts[-1],
            split=splits[0],
            label=LABELS[labels[0]],
            blob=blob,
            content_class=content_class(parts[-1]),
        )


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
