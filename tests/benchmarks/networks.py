"""The two networks of a grid as a user of plain Ray Tune would have them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from tests.tutorial_net import Net

CHANNELS = 6
"""Of the first feature map."""

_EPS = 1e-5


class Recalibrated(Net):
    """The tutorial's network with style recalibration after the first pooling.

    The module is that of this project written with torch's own operations: both statistics in one
    call, and no convolution for the two weights of a channel.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(2, CHANNELS))
        self.norm = nn.BatchNorm1d(CHANNELS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (n, 1) for images of shape (n, 3, 32, 32)."""
        x = self.recalibrated(self.pool(functional.relu(self.conv1(x))))
        x = self.pool(functional.relu(self.conv2(x)))
        x = functional.relu(self.fc1(torch.flatten(x, 1)))
        logits: torch.Tensor = self.fc3(functional.relu(self.fc2(x)))
        return logits

    def recalibrated(self, x: torch.Tensor) -> torch.Tensor:
        """Scale a map by what its channels' means and deviations say."""
        variance, mean = torch.var_mean(x, dim=(2, 3))
        style = mean * self.weights[0] + (variance + _EPS).sqrt() * self.weights[1]
        return x * torch.sigmoid(self.norm(style))[:, :, None, None]


def network(attention: str) -> Net:
    """The network of a cell: `none` or `srm`."""
    return Recalibrated() if attention == "srm" else Net()
