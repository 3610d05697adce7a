"""A grid of cells on a subset of CIFAKE: what is trained, and the files that all sides read."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

ATTENTION = ("none", "srm")
"""The two models: base, and base with style recalibration after its first pooling."""

LEARNING_RATE = 0.001
MOMENTUM = 0.9
BATCH_SIZE = 32
LABELS = ("FAKE", "REAL")


@dataclass(frozen=True)
class Cell:
    """One model at one length with one seed: what plain Ray Tune has a trial for."""

    attention: str
    epochs: int
    seed: int


@dataclass(frozen=True)
class Trained:
    """What a trial of plain Ray Tune says about its cell."""

    cell: Cell
    epochs: int
    """Epochs that it reported."""

    loss: float
    """On validation after the last of them, in nats."""

    accuracy: float
    """On validation after the last of them."""

    test_accuracy: float


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Cells, and how many images each is trained and evaluated on."""

    epochs: tuple[int, ...] = (5, 10, 20, 30)
    seeds: int = 5
    train_images: int = 16_000
    validation: int = 800
    test: int = 3_200
    learning_rate: float = LEARNING_RATE

    @property
    def cells(self) -> list[Cell]:
        """Every model with every length and every seed."""
        combinations = itertools.product(ATTENTION, self.epochs, range(self.seeds))
        return [Cell(*each) for each in combinations]

    @property
    def epochs_of_cells(self) -> int:
        """Epochs where every cell is trained on its own."""
        return sum(cell.epochs for cell in self.cells)

    @property
    def epochs_of_runs(self) -> int:
        """Epochs where cells that differ in length alone are one run."""
        return len(ATTENTION) * self.seeds * max(self.epochs)

    def encode(self) -> str:
        """As text, for another process."""
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> Self:
        """From the text of `encode`."""
        values = json.loads(text)
        return cls(**{**values, "epochs": tuple(values["epochs"])})

    def specification(self, name: str, data_order: str) -> dict[str, Any]:
        """The grid as a sweep."""
        return {
            "name": name,
            "question": "Does style recalibration help, and from which length on?",
            "data": {
                "train": "cifake",
                "train_images": self.train_images,
                "validation": self.validation,
                "evaluate": ["cifake"],
            },
            "scientific": {
                "attention": list(ATTENTION),
                "placement": ["after_pool1"],
                "epochs": list(self.epochs),
            },
            "nuisance": {"seed": self.seeds},
            "fixed": {
                "batch_size": BATCH_SIZE,
                "data_order": data_order,
                "optimizer": {"name": "sgd", "lr": self.learning_rate, "momentum": MOMENTUM},
            },
        }


def subset(files: Path, target: Path, grid: Grid) -> Path:
    """Link as many images of each label as a grid needs into a folder of CIFAKE's layout.

    Args:
        files: CIFAKE's images as `<split>/<label>/<file>`.
        target: folder to make.
        grid: says how many of each split, half of them of each label.

    Raises:
        ValueError: there are too few.
    """
    for split, images in (("train", grid.train_images + grid.validation), ("test", grid.test)):
        for label in LABELS:
            folder = target / split / label
            folder.mkdir(parents=True)
            for file in _spread(
                sorted((files / split / label).iterdir(), key=_by_class), images // 2
            ):
                os.link(file, folder / file.name)
    return target


def _by_class(file: Path) -> tuple[str, str]:
    """What sorts files by content class, which their names state after the number."""
    number, _, content_class = file.stem.partition(" ")
    return content_class, number


def _spread(files: Sequence[Path], count: int) -> list[Path]:
    """Some files from the whole of a list, so that every content class has its share."""
    if count > len(files):
        raise ValueError(f"{count} images are needed, and {files[0].parent} has {len(files)}")
    return [files[len(files) * place // count] for place in range(count)]


def write_trained(path: Path, trained: Sequence[Trained]) -> None:
    """Write what trials said."""
    path.write_text(json.dumps([asdict(each) for each in trained]))


def read_trained(path: Path) -> list[Trained]:
    """Read what trials said."""
    return [Trained(**{**row, "cell": Cell(**row["cell"])}) for row in json.loads(path.read_text())]
