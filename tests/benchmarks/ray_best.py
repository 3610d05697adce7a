"""A grid with plain Ray Tune at its best: what someone who knows Ray and torch well would write.

Every cell is a trial that trains from the first epoch on, since Ray Tune shares nothing between
trials. The images are decoded once and lie in Ray's object store, which every trial maps. Workers
are kept from trial to trial, the longest cells come first so that no core waits at the end, and
Tune's log files are off. The loop is that of `tuned`. Validation is evaluated after every epoch;
the test set is evaluated, and a checkpoint written, at the end of a cell.

python -m tests.benchmarks.ray_best GRID FOLDER RESULTS
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ray import tune
from torch import nn
from torch.nn import functional
from torchvision.datasets import ImageFolder

from tests.benchmarks.grids import Grid, Trained, write_trained
from tests.benchmarks.networks import network
from tests.benchmarks.plain_ray import cluster, trained
from tests.benchmarks.tuned import Images, Tuned

_EVALUATED_AT_ONCE = 250
_SPARE_BYTES = 200 * 2**20


def sweep(grid: Grid, folder: Path) -> list[Trained]:
    """Train every cell of a grid.

    Args:
        grid: what is trained.
        folder: images as `<split>/<label>/<file>`.
    """
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    images = {split: decoded(folder / split) for split in ("train", "test")}
    order = np.random.default_rng(0).permutation(len(images["train"].labels))
    aside, rest = order[: grid.validation], order[grid.validation :]
    cells = sorted(grid.cells, key=lambda cell: cell.epochs, reverse=True)
    room = sum(each.pixels.nbytes for each in images.values()) + _SPARE_BYTES
    with cluster(room), tempfile.TemporaryDirectory() as storage:
        trainable = tune.with_parameters(
            train_cell, train=images["train"], test=images["test"], rows=rest, validation=aside
        )
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1}),
            param_space={
                "cell": tune.grid_search([asdict(cell) for cell in cells]),
                "lr": grid.learning_rate,
            },
            tune_config=tune.TuneConfig(reuse_actors=True),
            run_config=tune.RunConfig(storage_path=storage, verbose=0),
        )
        return trained(tuner.fit(), lambda config: config["cell"])


def decoded(folder: Path) -> Images:
    """Every image of a folder of label folders."""
    files = ImageFolder(str(folder))
    pixels = np.stack([np.asarray(image) for image, _ in files])
    return Images(pixels, np.asarray(files.targets, np.float32))


def train_cell(
    config: dict[str, Any],
    train: Images,
    test: Images,
    rows: npt.NDArray[np.int64],
    validation: npt.NDArray[np.int64],
) -> None:
    """One trial."""
    cell = config["cell"]
    torch.manual_seed(cell["seed"])
    order = np.random.default_rng(cell["seed"])
    tuned = Tuned(network(cell["attention"]), config["lr"])
    for epoch in range(1, cell["epochs"] + 1):
        train_loss = tuned.epoch(train, order.permutation(rows))
        loss_of_validation, accuracy = evaluate(tuned.net, train, validation)
        metrics = {
            "train_loss": train_loss,
            "loss": loss_of_validation,
            "accuracy": accuracy,
        }
        if epoch < cell["epochs"]:
            tune.report(metrics)
            continue
        metrics["test_accuracy"] = evaluate(tuned.net, test, np.arange(len(test.labels)))[1]
        with tempfile.TemporaryDirectory() as checkpoint:
            torch.save(tuned.net.state_dict(), Path(checkpoint) / "weights.pt")
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(checkpoint))


@torch.inference_mode()
def evaluate(net: nn.Module, images: Images, rows: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Mean loss over images, and the share that is told right."""
    net.eval()
    loss, correct = 0.0, 0
    for start in range(0, len(rows), _EVALUATED_AT_ONCE):
        pixels, labels = images.take(rows[start : start + _EVALUATED_AT_ONCE])
        outputs = net(pixels).squeeze(1)
        total = functional.binary_cross_entropy_with_logits(outputs, labels, reduction="sum")
        loss += total.item()
        correct += int(((outputs >= 0) == (labels == 1)).sum())
    return loss / len(rows), correct / len(rows)


if __name__ == "__main__":
    write_trained(Path(sys.argv[3]), sweep(Grid.decode(sys.argv[1]), Path(sys.argv[2])))
