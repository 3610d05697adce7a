"""Attention modules: each maps a feature map to one of the same shape.

Those that scale channels say by how much in `gates`.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from cifake.config import AttentionOptions
from cifake.models.moments import var_mean


class StyleRecalibration(nn.Module):
    """Style-based recalibration of channels (Lee, Kim, Nam 2019, section 3).

    Style pooling takes each channel's mean and standard deviation over the image; a channel-wise
    fully connected layer, batch normalisation and a sigmoid make of them a gate per channel.
    Adds 4 parameters a channel, 3 where one statistic is pooled. Like torch's own, the statistics
    are of one batch in training.

    `cfc` is a grouped convolution over the statistics, so that a state dict of this form loads.
    """

    members = 1

    def __init__(self, channels: int, options: AttentionOptions) -> None:
        super().__init__()
        self.correction = 1 if options.std == "unbiased" else 0
        self.eps = options.eps or 0.0
        self.init = options.init
        self.pool = options.pool
        statistics = 2 if options.pool == "both" else 1
        self.cfc = nn.Conv1d(channels, channels, statistics, groups=channels, bias=False)
        self.bn = nn.BatchNorm1d(channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial weights from torch's global generator."""
        self.cfc.reset_parameters()
        self.bn.reset_parameters()
        if self.init == "zero":
            nn.init.zeros_(self.cfc.weight)

    def gates(self, x: torch.Tensor) -> torch.Tensor:
        """The gate of each channel, shape (n, channels), for a map of shape (n, channels, h, w)."""
        weight = self.cfc.weight[:, 0]
        if self.pool == "mean":
            style = x.mean((2, 3)) * weight[:, 0]
        else:
            variance, mean = var_mean(x, self.correction)
            deviation = (variance + self.eps).sqrt()
            both = self.pool == "both"
            style = (
                mean * weight[:, 0] + deviation * weight[:, 1] if both else deviation * weight[:, 0]
            )
        gates: torch.Tensor = torch.sigmoid(self.bn(style))
        return gates

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale a map of shape (n, channels, h, w) by its gates."""
        return x * self.gates(x)[:, :, None, None]


class SqueezeExcitation(nn.Module):
    """Squeeze and excitation (Hu, Shen, Sun 2018, section 3).

    The channels' means go through a hidden layer of channels / reduction units, at least one.
    """

    members = 1

    def __init__(self, channels: int, options: AttentionOptions) -> None:
        super().__init__()
        hidden = max(1, channels // (options.reduction or 1))
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def gates(self, x: torch.Tensor) -> torch.Tensor:
        """The gate of each channel, shape (n, channels), for a map of shape (n, channels, h, w)."""
        return torch.sigmoid(self.fc2(functional.relu(self.fc1(x.mean((2, 3))))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale a map of shape (n, channels, h, w) by its gates."""
        return x * self.gates(x)[:, :, None, None]


class EfficientChannelAttention(nn.Module):
    """Efficient channel attention (Wang et al. 2020, section 3).

    A convolution across neighbouring channels' means; its width follows from their number (equation
    12 with γ = 2, b = 1) unless it is given.
    """

    members = 1

    def __init__(self, channels: int, options: AttentionOptions) -> None:
        super().__init__()
        size = options.kernel_size or adaptive_width(channels)
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def gates(self, x: torch.Tensor) -> torch.Tensor:
        """The gate of each channel, shape (n, channels), for a map of shape (n, channels, h, w)."""
        means = x.mean((2, 3)).view(len(x), self.members, -1)
        gates: torch.Tensor = torch.sigmoid(self.conv(means).flatten(1))
        return gates

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale a map of shape (n, channels, h, w) by its gates."""
        return x * self.gates(x)[:, :, None, None]


class ConvolutionalAttention(nn.Module):
    """The convolutional block attention module (Woo et al. 2018, section 3).

    First gates per channel, from the means and the maxima through one shared hidden layer; then
    gates per place, from a convolution over the mean and the maximum across channels.
    """

    members = 1

    def __init__(self, channels: int, options: AttentionOptions) -> None:
        super().__init__()
        hidden = max(1, channels // (options.reduction or 1))
        size = options.kernel_size or 1
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)
        self.conv = nn.Conv2d(2, 1, size, padding=size // 2, bias=False)

    def gates(self, x: torch.Tensor) -> torch.Tensor:
        """The gate of each channel, shape (n, channels), for a map of shape (n, channels, h, w)."""
        pooled = (x.mean((2, 3)), x.amax((2, 3)))
        first, second = (self.fc2(functional.relu(self.fc1(each))) for each in pooled)
        return torch.sigmoid(first + second)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale a map of shape (n, channels, h, w) by its gates: by channel, then by place."""
        scaled = x * self.gates(x)[:, :, None, None]
        x = scaled.reshape(len(x), self.members, -1, *x.shape[2:])
        pooled = torch.stack((x.mean(2), x.amax(2)), 2).flatten(1, 2)
        return (x * torch.sigmoid(self.conv(pooled))[:, :, None]).flatten(1, 2)


class StaticGate(nn.Module):
    """Control: a gate per channel that is learned and looks at nothing; it starts at one half."""

    members = 1

    def __init__(self, channels: int, options: AttentionOptions) -> None:
        del options
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))

    def reset_parameters(self) -> None:
        """Put every gate to one half, where style recalibration starts."""
        nn.init.zeros_(self.weight)

    def gates(self, x: torch.Tensor) -> torch.Tensor:
        """The gate of each channel, shape (n, channels), for a map of shape (n, channels, h, w)."""
        return torch.sigmoid(self.weight).expand(len(x), -1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale a map of shape (n, channels, h, w) by the gates."""
        return x * torch.sigmoid(self.weight)[:, None, None]


class BatchNorm(nn.BatchNorm2d):
    """Control: batch normalisation, the one part of style recalibration that is no attention."""

    def __init__(self, channels: int, options: AttentionOptions) -> None:
        del options
        super().__init__(channels)


MODULES: dict[str, type[nn.Module]] = {
    "srm": StyleRecalibration,
    "se": SqueezeExcitation,
    "eca": EfficientChannelAttention,
    "cbam": ConvolutionalAttention,
    "static_gate": StaticGate,
    "batchnorm": BatchNorm,
}
"""Attention modules by the name that a specification gives."""


def adaptive_width(channels: int) -> int:
    """The odd number nearest above (log2 of the channels + 1) / 2, cut to a whole one."""
    cut = int((math.log2(channels) + 1) / 2)
    return cut if cut % 2 else cut + 1
