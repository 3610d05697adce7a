"""A whole sweep, from the command to its report, against the same grid with plain Ray Tune.

Both sides read the same image files, start with nothing but them, and have the same cores. Each
cell is evaluated on validation after every epoch and on the test set at its end. Plain Ray Tune
trains each cell from its first epoch on; a sweep trains the epochs that cells share once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import pyarrow.parquet as pq

from tests.benchmarks.grids import Cell, Grid, Trained, read_trained, subset
from tests.benchmarks.measure import Outcome, Timed
from tests.benchmarks.processes import apart, on_cores, run
from tests.benchmarks.training import ORDERS

CORES = 2
_SWEEP = "grid"
_TOLERANCE = 0.1
"""How far the mean accuracies of both sides may be apart: they differ in what is random."""


@dataclass(frozen=True)
class Rival:
    """A way to run the grid with plain Ray Tune."""

    module: str
    name: str
    targets: dict[str, float]
    """How many times as fast a sweep must be, by order."""

    options: tuple[str, ...] = ()
    """Of its command, after the grid, the images and the file of its results."""

    grid: Grid = field(default_factory=Grid)
    """What both sides train by default: so much that a sweep takes minutes."""


TUTORIAL = Rival(
    "tests.benchmarks.ray_tutorial",
    "plain Ray Tune as in its tutorial",
    {"per_seed": 15.0, "shared": 20.0},
)
TO_THE_LETTER = Rival(
    "tests.benchmarks.ray_tutorial",
    "plain Ray Tune with its tutorial's eight loaders and two cores a trial",
    {"per_seed": 15.0, "shared": 20.0},
    options=("8", "2"),
    grid=Grid(train_images=8_000, validation=400, test=1_600),
)
BEST = Rival(
    "tests.benchmarks.ray_best",
    "plain Ray Tune at its best",
    {"per_seed": 4.5, "shared": 6.0},
)


def against(
    rival: Rival,
    files: Path,
    scratch: Path,
    grid: Grid | None = None,
    repeats: int = 1,
    orders: Sequence[str] = tuple(ORDERS),
) -> list[Outcome]:
    """Compare sweeps with a rival, in turns.

    Args:
        rival: what they are compared with.
        files: CIFAKE's images as `<split>/<label>/<file>`.
        scratch: an empty folder on the file system of the images.
        grid: what is trained; by default the rival's.
        repeats: turns.
        orders: values of `data_order`, a sweep for each.

    Raises:
        ValueError: the sides did not train the same.
    """
    grid = grid or rival.grid
    scratch.mkdir()
    images = subset(files, scratch / "images", grid)
    found: dict[str, list[Timed]] = {way: [] for way in ("rival", *orders)}
    with on_cores(CORES):
        for turn in range(repeats):
            folder = scratch / str(turn)
            found["rival"].append(plain(rival, grid, images, _made(folder / "rival")))
            theirs = read_trained(folder / "rival" / "trained.json")
            check_trained(grid, theirs)
            for order in orders:
                found[order].append(ours(grid, order, images, _made(folder / order)))
                check_alike(learned(theirs), sweep_learned(folder / order / "store"))
    return [_outcome(rival, grid, order, found) for order in orders]


def _outcome(rival: Rival, grid: Grid, order: str, found: dict[str, list[Timed]]) -> Outcome:
    """Cells a minute of both sides."""
    name = (
        f"sweep of {len(grid.cells)} cells on {grid.train_images:,} images, {CORES} cores, "
        f"{ORDERS[order]}, vs {rival.name}"
    )
    sides = found[order], found["rival"]
    mine, theirs = ([60 * each.speed for each in side] for side in sides)
    cpu = [a.cpu_speed / b.cpu_speed for a, b in zip(*sides, strict=True)]
    return Outcome(name, "cells/min", mine, "ratio at least", rival.targets[order], theirs, cpu)


def plain(rival: Rival, grid: Grid, images: Path, folder: Path) -> Timed:
    """Run the grid with plain Ray Tune."""
    arguments = [grid.encode(), str(images), str(folder / "trained.json"), *rival.options]
    command = [sys.executable, "-m", rival.module, *arguments]
    with apart(folder / "cache") as environment:
        return run(len(grid.cells), command, environment, folder)


def ours(grid: Grid, order: str, images: Path, folder: Path) -> Timed:
    """Run the grid as a sweep that starts with image files and ends with a report."""
    specification = folder / f"{_SWEEP}.yaml"
    specification.write_text(json.dumps(grid.specification(_SWEEP, order)))
    options = ["--store", str(folder / "store"), "--data", f"cifake={images}"]
    command = [sys.executable, "-m", "sweeps", "run", str(specification), *options]
    with apart(folder / "cache") as environment:
        return run(len(grid.cells), command, environment, folder)


def learned(found: list[Trained]) -> dict[str, float]:
    """Mean accuracy on the test set at the greatest length, by attention: of plain Ray Tune."""
    return _learned({each.cell: each.test_accuracy for each in found})


def sweep_learned(store: Path) -> dict[str, float]:
    """The same of a sweep, from its runs' tables."""
    runs = [path for path in (store / "runs").iterdir() if path.is_dir()]
    return _learned({cell: score for run in runs for cell, score in _scores(run)})


def _scores(run: Path) -> Iterator[tuple[Cell, float]]:
    (told,) = pq.read_table(run / "runs.parquet").to_pylist()
    for row in pq.read_table(run / "evaluations.parquet").to_pylist():
        if row["split"] == "test":
            yield Cell(told["attention"], row["epoch"], told["seed"]), row["accuracy"]


def _learned(accuracies: Mapping[Cell, float]) -> dict[str, float]:
    length = max(cell.epochs for cell in accuracies)
    last = {cell: value for cell, value in accuracies.items() if cell.epochs == length}
    return {
        attention: fmean(value for cell, value in last.items() if cell.attention == attention)
        for attention in {cell.attention for cell in last}
    }


def check_trained(grid: Grid, found: list[Trained]) -> None:
    """Check that every cell was trained, as long as it should be.

    Raises:
        ValueError: one was not.
    """
    if sorted(map(repr, (each.cell for each in found))) != sorted(map(repr, grid.cells)):
        raise ValueError(f"{len(found)} trials are not the {len(grid.cells)} cells")
    for each in found:
        if each.epochs != each.cell.epochs:
            raise ValueError(f"{each.cell} was trained for {each.epochs} epochs")


def check_alike(theirs: Mapping[str, float], mine: Mapping[str, float]) -> None:
    """Check that both sides have learned as much with every attention.

    Raises:
        ValueError: they have not.
    """
    if theirs.keys() != mine.keys():
        raise ValueError(f"{sorted(mine)} were trained, and {sorted(theirs)} by Ray")
    for attention, accuracy in theirs.items():
        if abs(mine[attention] - accuracy) > _TOLERANCE:
            raise ValueError(
                f"accuracy with attention {attention} is {mine[attention]:.3f} in a sweep, and "
                f"{accuracy:.3f} in plain Ray Tune"
            )


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
