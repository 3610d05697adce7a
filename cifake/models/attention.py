"""Attention modules: each maps a feature map to one of the same shape."""

from __future__ import annotations

import torch
from torch import nn

from cifake.config import AttentionOptions


class StyleRecalibration(nn.Module):
    """Style-based recalibration of channels (Lee, Kim, Nam 2019, section 3).

    Style pooling takes each channel's mean and standard deviation over the image; a channel-wise
    fully connected layer, batch normalisation and a sigmoid make of them a gate per channel.
    Adds 4 parameters a channel. Like torch's own, the statistics are of one batch in training.

    `cfc` is a grouped convolution over the two statistics, so that a state dict of this form loads.
    """

    def __init__(self, channels: int, options: AttentionOptions) -> None:
        super().__init__()
        self.correction = 1 if options.std == "unbiased" else 0
        self.eps = options.eps
        self.init = options.init
        self.cfc = nn.Conv1d(channels, channels, 2, groups=channels, bias=False)
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
        variance, mean = torch.var_mean(x, dim=(2, 3), correction=self.correction)
        weight = self.cfc.weight[:, 0]
        style = mean * weight[:, 0] + (variance + self.eps).sqrt() * weight[:, 1]
        gates: torch.Tensor = torch.sigmoid(self.bn(style))
        return gates

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale a map of shape (n, channels, h, w) by its gates."""
        return x * self.gates(x)[:, :, None, None]


MODULES: dict[str, type[StyleRecalibration]] = {"srm": StyleRecalibration}
"""Attention modules by the name that a specification gives."""
