"""Networks for 32×32 RGB images with one output, the logit of REAL.

Each takes a mapping of site to attention module and applies it there; the sites and their channels
are declared in `catalogue.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional


class Base(nn.Module):
    """The network of the PyTorch CIFAR-10 tutorial with one output: 61,241 parameters."""

    def __init__(self, attention: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 1)
        self.attention = nn.ModuleDict(dict(attention))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (n,) for images of shape (n, 3, 32, 32)."""
        # ReLU and max pooling commute, and after pooling it has a quarter of the work.
        x = functional.relu(functional.max_pool2d(self.conv1(x), 2))
        x = self._site("after_pool1", x)
        x = functional.relu(functional.max_pool2d(self.conv2(x), 2))
        x = self._site("after_pool2", x)
        x = functional.relu(self.fc1(x.flatten(1)))
        x = functional.relu(self.fc2(x))
        logits: torch.Tensor = self.fc3(x)
        return logits.squeeze(1)

    def _site(self, name: str, x: torch.Tensor) -> torch.Tensor:
        if name in self.attention:
            x = self.attention[name](x)
        return x
