"""A grid with plain Ray Tune at its best: what someone who knows Ray and torch well would write.

Every cell is a trial that trains from the first epoch on, since Ray Tune shares nothing between
trials. The images are decoded once and lie in Ray's object store, which every trial maps. Workers
are kept from trial to trial, the longest cells come first so that no core waits at the end, and
Tune's log files are off. The network is in channels_last, SGD is the fused one, and no step waits
for its loss to be read. Validation is evaluated after every epoch; the test set is evaluated, and a
checkpoint written, at the end of a cell.

python -m tests.benchmarks.ray_best GRID FOLDER RESULTS
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ray import tune
from torch import nn
from torch.nn import functional
from torchvision.datasets import ImageFolder

from tests.benchmarks.grids import BATCH_SIZE, MOMENTUM, Grid, Trained, write_trained
from tests.benchmarks.networks import network
from tests.benchmarks.plain_ray import cluster, trained

_EVALUATED_AT_ONCE = 250
_SPARE_BYTES = 200 * 2**20


@dataclass(frozen=True)
class Images:
    """Some images, decoded."""

    pixels: npt.NDArray[np.uint8]
    """Shape (n, 32, 32, 3)."""

    labels: npt.NDArray[np.float32]
    """Shape (n,), 0 FAKE, 1 REAL."""

    def take(self, rows: npt.NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised images of shape (b, 3, 32, 32) in channels_last, and labels of shape (b,)."""
        pixels = torch.from_numpy(np.take(self.pixels, rows, axis=0))
        images = pixels.float().sub_(127.5).div_(127.5).permute(0, 3, 1, 2)
        return images, torch.from_numpy(self.labels[rows])


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
    net = network(cell["attention"]).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=config["lr"], momentum=MOMENTUM, fused=True)
    for epoch in range(1, cell["epochs"] + 1):
        net.train()
        losses = torch.zeros(())
        shuffled = order.permutation(rows)
        for start in range(0, len(shuffled), BATCH_SIZE):
            images, labels = train.take(shuffled[start : start + BATCH_SIZE])
            optimizer.zero_grad()
            loss = functional.binary_cross_entropy_with_logits(net(images).squeeze(1), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses += loss.detach()
        loss_of_validation, accuracy = evaluate(net, train, validation)
        metrics = {
            "train_loss": losses.item() / -(-len(rows) // BATCH_SIZE),
            "loss": loss_of_validation,
            "accuracy": accuracy,
        }
        if epoch < cell["epochs"]:
            tune.report(metrics)
            continue
        metrics["test_accuracy"] = evaluate(net, test, np.arange(len(test.labels)))[1]
        with tempfile.TemporaryDirectory() as checkpoint:
            torch.save(net.state_dict(), Path(checkpoint) / "weights.pt")
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
