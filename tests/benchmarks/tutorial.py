"""What the stacked trainer is compared with: the loop that PyTorch's CIFAR-10 tutorial teaches."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from tests.benchmarks.measure import Timed, timed
from tests.tutorial_net import Net


class Tutorial:
    """Files through Pillow, one image at a time, batch after batch, in this process.

    Args:
        folder: holds a folder of image files for each class.
        batch_size: images a step.
        device: where the network is.
    """

    def __init__(self, folder: Path, batch_size: int, device: str = "cpu") -> None:
        normalised = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)]
        )
        self.loader = DataLoader(
            ImageFolder(str(folder), transform=normalised), batch_size=batch_size, shuffle=True
        )
        self.device = device
        self.net = Net().to(device)
        self.criterion = nn.BCEWithLogitsLoss()
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.001, momentum=0.9)
        self.losses: list[float] = []

    def train(self, batches: int) -> Timed:
        """Train on some batches."""
        before = len(self.losses)
        done = timed(0, lambda: self._train(batches))
        steps = len(self.losses) - before
        images = min(steps * (self.loader.batch_size or 1), len(self.loader.dataset))  # type: ignore[arg-type]
        return Timed(images, done.wall, done.cpu)

    def _train(self, batches: int) -> None:
        for images, labels in itertools.islice(self.loader, batches):
            inputs, targets = images.to(self.device), labels.to(self.device)
            self.optimizer.zero_grad()
            outputs = self.net(inputs)
            loss = self.criterion(outputs.squeeze(1), targets.float())
            loss.backward()
            self.optimizer.step()
            self.losses.append(loss.item())
