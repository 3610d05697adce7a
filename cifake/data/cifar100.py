"""The CIFAR-100 test set (Krizhevsky 2009), all photographs.

Read from the Hugging Face parquet file, or from the original `cifar-100-python.tar.gz` or its
unpacked folder, of which `test` and `meta` are needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from cifake.data import pickles
from cifake.data.archives import is_archive, iter_files
from cifake.data.parquet import class_names, image_bytes, is_parquet, iter_rows, parquet_files
from cifake.data.raw import REAL, RawImage
from cifake.errors import refuse

LEVELS = ("fine", "coarse")
"""Of class labels: what an image shows, and the group that it belongs to."""

_PICKLES = ("test", "meta")
_SIDE = 32
_ROW = 3 * _SIDE * _SIDE
_PPM_HEADER = f"P6 {_SIDE} {_SIDE} 255\n".encode()


def read(path: Path) -> Iterator[RawImage]:
    """Yield the test images; content classes are the fine labels, coarse classes the coarse.

    Raises:
        InputError: the path holds neither form, or a damaged one.
    """
    if is_parquet(path):
        yield from _from_parquet(path)
    elif path.is_dir() or is_archive(path):
        yield from _from_pickles(path)
    else:
        refuse(path, f"must be {_FORMS}")


_FORMS = (
    "a parquet file of the Hugging Face set uoft-cs/cifar100, or the original "
    "cifar-100-python.tar.gz or its folder"
)


def _from_parquet(path: Path) -> Iterator[RawImage]:
    for file in parquet_files(path):
        if "train" in file.name:
            continue
        names = class_names(file)
        if not {"fine_label", "coarse_label"} <= set(names):
            refuse(file, "lacks the names of fine_label and coarse_label in its metadata")
        columns = ("img", "fine_label", "coarse_label")
        for number, row in enumerate(iter_rows(file, columns)):
            for column in columns[1:]:
                if row[column] not in range(len(names[column])):
                    problem = f"row {number}: must be 0 to {len(names[column]) - 1}"
                    refuse(file, problem, field=column, value=row[column])
            blob, inner = image_bytes(file, number, row["img"])
            yield RawImage(
                name=f"{file.name}, row {number}",
                file_name=inner,
                split="test",
                label=REAL,
                blob=blob,
                content_class=names["fine_label"][row["fine_label"]],
                coarse_class=names["coarse_label"][row["coarse_label"]],
            )


def _from_pickles(path: Path) -> Iterator[RawImage]:
    found = {
        PurePosixPath(name).name: (name, content)
        for name, content in iter_files(path, lambda name: PurePosixPath(name).name in _PICKLES)
    }
    missing = [name for name in _PICKLES if name not in found]
    if missing:
        refuse(path, f"holds no file {' and none '.join(missing)}; must be {_FORMS}")
    (test_name, _), (meta_name, _) = (found[name] for name in _PICKLES)
    test, meta = (_mapping(path, *found[name]) for name in _PICKLES)
    pixels = _pixels(path, test_name, test.get(b"data"))
    classes = [
        _classes(path, (test_name, meta_name), level, test, meta, len(pixels)) for level in LEVELS
    ]
    files = _texts(test.get(b"filenames"))
    if files is None or len(files) != len(pixels):
        refuse(path, f"must hold {len(pixels):,} names under filenames", field=test_name)
    for number, (image, fine, coarse, file) in enumerate(zip(pixels, *classes, files, strict=True)):
        yield RawImage(
            name=f"{test_name}, image {number}",
            file_name=file,
            split="test",
            label=REAL,
            blob=_PPM_HEADER + image.tobytes(),
            content_class=fine,
            coarse_class=coarse,
        )


def _mapping(path: Path, name: str, content: bytes) -> dict[Any, Any]:
    value = pickles.load(content, path, name)
    if not isinstance(value, dict):
        refuse(path, f"must hold a dict, not a {type(value).__name__}", field=name)
    return value


def _pixels(path: Path, name: str, data: object) -> npt.NDArray[np.uint8]:
    """Shape (n, 32, 32, 3); the file holds all red, then all green, then all blue of an image."""
    try:
        flat = data.value() if isinstance(data, pickles.ByteArray) else None
    except (ValueError, TypeError) as error:
        refuse(path, f"data holds {error}", field=name)
    if flat is None or flat.ndim != 2 or flat.shape[1] != _ROW:
        shape = None if flat is None else flat.shape
        refuse(path, f"data must be a uint8 array of shape (n, {_ROW})", field=name, value=shape)
    return flat.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)


def _classes(
    path: Path,
    files: tuple[str, str],
    level: str,
    test: dict[Any, Any],
    meta: dict[Any, Any],
    images: int,
) -> list[str]:
    """The class of each image."""
    test_name, meta_name = files
    names = _texts(meta.get(f"{level}_label_names".encode()))
    if not names:
        refuse(path, f"must hold a list of names under {level}_label_names", field=meta_name)
    labels = test.get(f"{level}_labels".encode())
    if not isinstance(labels, list) or len(labels) != images:
        refuse(path, f"must hold {images:,} labels under {level}_labels", field=test_name)
    for number, label in enumerate(labels):
        if type(label) is not int or label not in range(len(names)):
            problem = f"image {number}: {level}_labels must be 0 to {len(names) - 1}"
            refuse(path, problem, field=test_name, value=label)
    return [names[label] for label in labels]


def _texts(value: object) -> list[str] | None:
    """A list of byte strings as text; null for anything else."""
    if not isinstance(value, list) or not all(isinstance(each, bytes) for each in value):
        return None
    return [each.decode("utf-8", "replace") for each in value]
