"""Plain networks: the tutorial's, the CIFAKE paper's family, a normalised one, and a linear one."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from cifake.config import ModelOptions
from cifake.models.catalogue import SIDE
from cifake.models.inputs import Pixels
from cifake.models.network import Network


class Base(Network):
    """The network of the PyTorch CIFAR-10 tutorial with one output: 61,241 parameters."""

    def __init__(
        self, options: ModelOptions, pixels: Pixels, attention: Mapping[str, nn.Module]
    ) -> None:
        del options
        super().__init__(pixels, attention)
        self.conv1 = nn.Conv2d(pixels.channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 1)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (n, 1) for (n, channels, 32, 32)."""
        x = self.conv_and_pool(1, self.conv1, x)
        x = self.conv_and_pool(2, self.conv2, x)
        x = functional.relu(self.fc1(x.flatten(1)))
        x = functional.relu(self.fc2(x))
        logits: torch.Tensor = self.fc3(x)
        return logits


class Paper(Network):
    """A topology of the CIFAKE paper (Bird and Lotfi 2024, section IV).

    One to three 3×3 convolutions of equal width with same padding, ReLU and 2×2 max pooling, then
    hidden dense layers of equal width with ReLU.
    """

    def __init__(
        self, options: ModelOptions, pixels: Pixels, attention: Mapping[str, nn.Module]
    ) -> None:
        super().__init__(pixels, attention)
        layers, filters = int(options.conv_layers or 0), int(options.filters or 0)
        widths = [pixels.channels, *[filters] * layers]
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding="same")
            for before, after in itertools.pairwise(widths)
        )
        side = SIDE // 2**layers
        hidden = [int(options.neurons or 0)] * int(options.dense_layers or 0)
        sizes = [filters * side * side, *hidden, 1]
        self.dense = nn.ModuleList(
            nn.Linear(before, after) for before, after in itertools.pairwise(sizes)
        )

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (n, 1) for (n, channels, 32, 32)."""
        for number, conv in enumerate(self.convs, 1):
            x = self.conv_and_pool(number, cast("nn.Conv2d", conv), x)
        x = x.flatten(1)
        for dense in self.dense[:-1]:
            x = functional.relu(dense(x))
        logits: torch.Tensor = self.dense[-1](x)
        return logits


class ConvNet(Network):
    """One to four 3×3 convolutions with batch normalisation, ReLU and 2×2 max pooling.

    Channels double from layer to layer; one linear layer follows the last pooling.
    """

    def __init__(
        self, options: ModelOptions, pixels: Pixels, attention: Mapping[str, nn.Module]
    ) -> None:
        super().__init__(pixels, attention)
        layers, filters = int(options.conv_layers or 0), int(options.filters or 0)
        widths = [pixels.channels, *(filters * 2**layer for layer in range(layers))]
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1, bias=False)
            for before, after in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])
        side = SIDE // 2**layers
        self.head = nn.Linear(widths[-1] * side * side, 1)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (n, 1) for (n, channels, 32, 32)."""
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True), 1):
            x = self.relu_and_pool(number, norm(conv(x)))
        logits: torch.Tensor = self.head(x.flatten(1))
        return logits


class Linear(Network):
    """Logistic regression on the pixels."""

    def __init__(
        self, options: ModelOptions, pixels: Pixels, attention: Mapping[str, nn.Module]
    ) -> None:
        del options
        super().__init__(pixels, attention)
        self.head = nn.Linear(pixels.channels * SIDE * SIDE, 1)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (n, 1) for (n, channels, 32, 32)."""
        logits: torch.Tensor = self.head(x.flatten(1))
        return logits
