"""A single network as someone who knows torch well would train it, with torch's own operations.

The images are decoded beforehand and gathered batch by batch, the network is in channels_last, SGD
is the fused one, and no step waits for its loss to be read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from tests.benchmarks.grids import BATCH_SIZE, LEARNING_RATE, MOMENTUM


@dataclass(frozen=True)
class Images:
    """Some images, decoded."""

    pixels: npt.NDArray[np.uint8]
    """Shape (n, 32, 32, 3)."""

    labels: npt.NDArray[np.float32]
    """Shape (n,), 0 FAKE, 1 REAL."""

    def take(
        self, rows: npt.NDArray[np.int64], device: str = "cpu"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised images of shape (b, 3, 32, 32) in channels_last, and labels of shape (b,)."""
        pixels = torch.from_numpy(np.take(self.pixels, rows, axis=0)).to(device)
        images = pixels.float().sub_(127.5).div_(127.5).permute(0, 3, 1, 2)
        return images, torch.from_numpy(self.labels[rows]).to(device)


class Tuned:
    """A network and its optimiser.

    Args:
        net: gives logits of shape (n, 1) for images of shape (n, 3, 32, 32).
        lr: learning rate of SGD.
        batch_size: images a step.
        device: where it trains.
    """

    def __init__(
        self,
        net: nn.Module,
        lr: float = LEARNING_RATE,
        batch_size: int = BATCH_SIZE,
        device: str = "cpu",
    ) -> None:
        self.net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.batch_size = batch_size
        self.device = device
        self._optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=MOMENTUM, fused=True)

    def epoch(self, images: Images, rows: npt.NDArray[np.int64]) -> float:
        """Train on rows of some images, in their order.

        Returns:
            The mean loss over the batches, in nats.
        """
        self.net.train()
        losses = torch.zeros((), device=self.device)
        for start in range(0, len(rows), self.batch_size):
            pixels, labels = images.take(rows[start : start + self.batch_size], self.device)
            self._optimizer.zero_grad()
            logits = self.net(pixels).squeeze(1)
            loss = functional.binary_cross_entropy_with_logits(logits, labels)
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            losses += loss.detach()
        return losses.item() / -(-len(rows) // self.batch_size)
