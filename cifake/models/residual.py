"""Residual networks of the CIFAR form (He et al. 2016, section 4.2)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from cifake.config import ModelOptions
from cifake.models.inputs import Pixels
from cifake.models.network import Network

_STAGES = 3


class ResNet(Network):
    """A 3×3 convolution, three stages of n blocks, global average pooling, one linear layer.

    The depth is 6n + 2. Stages two and three halve the map and double the channels; shortcuts are
    identities (the paper's option A: strided, padded with zero channels). Weights start as He et
    al. 2015 propose. The sites `in_block<i>` are on the residual branch, before the addition.
    """

    def __init__(
        self, options: ModelOptions, pixels: Pixels, attention: Mapping[str, nn.Module]
    ) -> None:
        super().__init__(pixels, attention)
        width, self.blocks_a_stage = int(options.width or 0), (int(options.depth or 2) - 2) // 6
        self.conv = _Conv(pixels.channels, width)
        self.norm = nn.BatchNorm2d(width)
        widths = [width * 2**stage for stage in range(_STAGES)]
        self.blocks = nn.ModuleList(
            _Block(
                widths[max(0, stage - 1)] if index == 0 else widths[stage],
                widths[stage],
                stride=2 if stage and index == 0 else 1,
            )
            for stage in range(_STAGES)
            for index in range(self.blocks_a_stage)
        )
        self.head = nn.Linear(widths[-1], 1)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (n, 1) for (n, channels, 32, 32)."""
        x = self.site("after_stem", functional.relu(self.norm(self.conv(x))))
        for number, block in enumerate(self.blocks, 1):
            branch = self.site(f"in_block{number}", block(x))
            x = functional.relu(branch + _shortcut(x, branch, self.members))
            if number % self.blocks_a_stage == 0:
                x = self.site(f"after_stage{number // self.blocks_a_stage}", x)
        logits: torch.Tensor = self.head(x.mean((2, 3)))
        return logits


class _Conv(nn.Conv2d):
    """A 3×3 convolution without bias, initialised for the ReLU that follows."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__(before, after, 3, stride=stride, padding=1, bias=False)

    def reset_parameters(self) -> None:
        """Draw normal weights that keep the variance of gradients (He et al. 2015)."""
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")


class _Block(nn.Module):
    """The residual branch of a block: two convolutions with batch normalisation."""

    members = 1

    def __init__(self, before: int, after: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = _Conv(before, after, stride)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = _Conv(after, after)
        self.norm2 = nn.BatchNorm2d(after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.norm1(self.conv1(x)))
        branch: torch.Tensor = self.norm2(self.conv2(x))
        return branch


def _shortcut(x: torch.Tensor, branch: torch.Tensor, members: int) -> torch.Tensor:
    """The identity, strided and padded with zero channels to the shape of the branch."""
    if x.shape == branch.shape:
        return x
    extra = (branch.shape[1] - x.shape[1]) // members
    strided = x[:, :, ::2, ::2]
    by_member = strided.reshape(len(x), members, -1, *strided.shape[2:])
    padded = functional.pad(by_member, (0, 0, 0, 0, extra // 2, extra - extra // 2))
    return padded.flatten(1, 2)
