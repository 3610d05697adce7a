"""A grid with plain Ray Tune, as its PyTorch tutorial teaches it.

Every cell is a trial, every trial a new process that trains from the first epoch on. Images are
files that ImageFolder and DataLoader read and Pillow decodes, each time anew. Validation is
evaluated and a checkpoint is written after every epoch, the test set is evaluated at the end.

By default a trial has one core, so that as many run as there are cores, and its loader reads in the
trial's own process: workers beside it would take the core away that the next trial trains on. The
tutorial itself gives a trial two cores, and each of its loaders eight processes, which is slower on
a machine of two: `LOADERS` and `CORES` measure that.

python -m tests.benchmarks.ray_tutorial GRID FOLDER RESULTS [LOADERS CORES]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from ray import tune
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, random_split
from torchvision import transforms
from torchvision.datasets import ImageFolder

from tests.benchmarks.grids import (
    ATTENTION,
    BATCH_SIZE,
    MOMENTUM,
    Grid,
    Trained,
    write_trained,
)
from tests.benchmarks.networks import network
from tests.benchmarks.plain_ray import cluster, trained

Images = Dataset[tuple[torch.Tensor, int]]


def sweep(grid: Grid, folder: Path, loaders: int = 0, cores: int = 1) -> list[Trained]:
    """Train every cell of a grid.

    Args:
        grid: what is trained.
        folder: images as `<split>/<label>/<file>`.
        loaders: processes that read images for a trial; with none it does so itself.
        cores: of a trial.
    """
    with cluster(), tempfile.TemporaryDirectory() as storage:
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(train_cell, folder=folder, loaders=loaders), {"cpu": cores}
            ),
            param_space={
                "attention": tune.grid_search(list(ATTENTION)),
                "epochs": tune.grid_search(list(grid.epochs)),
                "seed": tune.grid_search(list(range(grid.seeds))),
                "lr": grid.learning_rate,
                "validation": grid.validation,
            },
            tune_config=tune.TuneConfig(metric="loss", mode="min"),
            run_config=tune.RunConfig(storage_path=storage, verbose=1),
        )
        return trained(tuner.fit(), lambda config: config)


def load_data(folder: Path, validation: int) -> tuple[Images, Images, Images]:
    """Training images, validation and the test set."""
    transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))]
    )
    trainset = ImageFolder(str(folder / "train"), transform=transform)
    testset = ImageFolder(str(folder / "test"), transform=transform)
    parts: list[Subset[Any]] = random_split(
        trainset,
        [len(trainset) - validation, validation],
        generator=torch.Generator().manual_seed(0),
    )
    return parts[0], parts[1], testset


def train_cell(config: dict[str, Any], folder: Path, loaders: int) -> None:
    """One trial."""
    torch.manual_seed(config["seed"])
    net = network(config["attention"])
    criterion = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=config["lr"], momentum=MOMENTUM)
    trainset, valset, testset = load_data(folder, config["validation"])
    trainloader = DataLoader(trainset, batch_size=BATCH_SIZE, shuffle=True, num_workers=loaders)
    valloader = DataLoader(valset, batch_size=BATCH_SIZE, num_workers=loaders)
    testloader = DataLoader(testset, batch_size=BATCH_SIZE, num_workers=loaders)

    for epoch in range(1, config["epochs"] + 1):
        running_loss = 0.0
        net.train()
        for inputs, labels in trainloader:
            optimizer.zero_grad()
            loss = criterion(net(inputs).squeeze(1), labels.float())
            loss.backward()
            optimizer.step()
            running_loss += loss.item()

        loss, accuracy = evaluate(net, valloader)
        metrics = {
            "train_loss": running_loss / len(trainloader),
            "loss": loss,
            "accuracy": accuracy,
        }
        if epoch == config["epochs"]:
            metrics["test_accuracy"] = evaluate(net, testloader)[1]
        with tempfile.TemporaryDirectory() as checkpoint:
            state = (net.state_dict(), optimizer.state_dict())
            torch.save(state, Path(checkpoint) / "checkpoint.pt")
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(checkpoint))


def evaluate(net: nn.Module, loader: DataLoader[Any]) -> tuple[float, float]:
    """Mean loss over images, and the share that is told right."""
    criterion = nn.BCEWithLogitsLoss(reduction="sum")
    loss, correct, total = 0.0, 0, 0
    net.eval()
    with torch.no_grad():
        for images, labels in loader:
            outputs = net(images).squeeze(1)
            loss += criterion(outputs, labels.float()).item()
            correct += ((outputs >= 0) == (labels == 1)).sum().item()
            total += len(labels)
    return loss / total, correct / total


if __name__ == "__main__":
    found = sweep(Grid.decode(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[4:]))
    write_trained(Path(sys.argv[3]), found)
