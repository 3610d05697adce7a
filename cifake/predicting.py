"""Image files to probabilities of REAL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cifake.data.any_image import read_image
from cifake.data.archives import walk
from cifake.data.decode import PIXELS_SHAPE
from cifake.data.folders import SUFFIXES, is_image
from cifake.errors import Mistake

if TYPE_CHECKING:
    from torch import nn

_BATCH = 500


@dataclass(frozen=True)
class Prediction:
    """What a network says of one file."""

    file: str
    probability: float | None
    """Of REAL; null where the file could not be read."""

    label: str | None
    """REAL or FAKE; null likewise."""

    problem: str | None = None
    """Why the file could not be read."""


def find_images(arguments: Sequence[Path]) -> tuple[list[Path], list[Mistake]]:
    """The files that are meant, a folder standing for all images below it; and empty folders."""
    files: list[Path] = []
    mistakes: list[Mistake] = []
    for argument in arguments:
        if not argument.is_dir():
            files.append(argument)
            continue
        found = [argument / name for name in walk(argument) if is_image(name)]
        files += found
        if not found:
            problem = f"holds no images; their names must end in one of {', '.join(SUFFIXES)}"
            mistakes.append(Mistake(where=str(argument), problem=problem))
    return files, mistakes


def predict_files(
    model: nn.Module, files: Sequence[Path], *, filter_name: str, threshold: float
) -> Iterator[Prediction]:
    """Say of every file, in order, how probable REAL is.

    Args:
        model: maps (n, 32, 32, 3) uint8 to logits (n,).
        files: image files.
        filter_name: how images are resized, a key of `fit.FILTERS`.
        threshold: REAL is called at this probability or above.
    """
    for start in range(0, len(files), _BATCH):
        yield from _predict_batch(model, files[start : start + _BATCH], filter_name, threshold)


def _predict_batch(
    model: nn.Module, files: Sequence[Path], filter_name: str, threshold: float
) -> Iterator[Prediction]:
    from cifake.evaluation import predict

    pixels = np.zeros((len(files), *PIXELS_SHAPE), np.uint8)
    problems: dict[int, str] = {}
    for number, file in enumerate(files):
        try:
            pixels[number] = read_image(file, filter_name)
        except ValueError as error:
            problems[number] = str(error)
    readable = np.asarray([n for n in range(len(files)) if n not in problems], np.int64)
    probabilities = dict(zip(readable.tolist(), predict(model, pixels, readable), strict=True))
    problems |= {n: "the network gives NaN" for n, p in probabilities.items() if np.isnan(p)}
    for number, file in enumerate(files):
        name = _text(file)
        if number in problems:
            yield Prediction(name, None, None, problems[number])
        else:
            probability = float(probabilities[number])
            yield Prediction(name, probability, "REAL" if probability >= threshold else "FAKE")


def _text(file: Path) -> str:
    """A name that can be printed: bytes in it that are no UTF-8 are replaced."""
    return str(file).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
