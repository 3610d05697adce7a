"""The two networks of a grid as a user of plain Ray Tune would have them."""

from __future__ import annotations

import torch
from torch.nn import functional

from cifake.config import Config
from cifake.models.attention import StyleRecalibration
from tests.tutorial_net import Net

CHANNELS = 6
"""Of the first feature map."""


class Recalibrated(Net):
    """The tutorial's network with style recalibration after the first pooling.

    The module is this project's, alone and not stacked. It pools both statistics in one pass and
    has no convolution for its two weights a channel, so both sides have the same fast module.
    """

    def __init__(self) -> None:
        super().__init__()
        config = Config.model_validate({"attention": "srm", "placement": "after_pool1"})
        if config.attention_options is None:
            raise ValueError("style recalibration has options")
        self.attention = StyleRecalibration(CHANNELS, config.attention_options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (n, 1) for images of shape (n, 3, 32, 32)."""
        x = self.attention(self.pool(functional.relu(self.conv1(x))))
        x = self.pool(functional.relu(self.conv2(x)))
        x = functional.relu(self.fc1(torch.flatten(x, 1)))
        logits: torch.Tensor = self.fc3(functional.relu(self.fc2(x)))
        return logits


def network(attention: str) -> Net:
    """The network of a cell: `none` or `srm`."""
    return Recalibrated() if attention == "srm" else Net()
