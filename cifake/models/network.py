"""What every network has: an input filter, sites for attention, one logit an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional

from cifake.models import pooled
from cifake.models.inputs import Pixels
from cifake.models.stacked import StackedConv2d, geometry_of


class Network(nn.Module):
    """A network for 32×32 images whose output is the logit of REAL.

    A subclass maps the input filter's result, of shape (n, pixels.channels, 32, 32), to logits in
    `logits`, and passes its feature maps through `site` at the sites that `catalogue.py` declares.
    """

    members = 1
    """Networks side by side along the channels; see `stacked.py`."""

    def __init__(self, pixels: Pixels, attention: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.pixels = pixels
        self.attention = nn.ModuleDict(dict(attention))
        # A plain dictionary, so that no tap is part of the state dict.
        self.taps: dict[str, nn.Module] = {}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of shape (n,) for images of shape (n, 32, 32, 3), uint8.

        Of a stack (n, members), for (n, 32, 32, members · 3) or for images that all members share.
        """
        logits = self.logits(self.pixels(images))
        return logits.squeeze(1) if self.members == 1 else logits

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (n, 1) for what the input filter made, (n, channels, 32, 32)."""
        raise NotImplementedError

    def site(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """The feature map at a site, through the attention module that may stand there."""
        x = self.attention[name](x) if name in self.attention else x
        return self.taps[name](x) if name in self.taps else x

    @contextmanager
    def tap(self, name: str) -> Iterator[nn.Module]:
        """A module whose output is the feature map at a site, while the context lasts.

        It is there for hooks to be put on; the map is that after the attention module.
        """
        self.taps[name] = nn.Identity()
        try:
            yield self.taps[name]
        finally:
            del self.taps[name]

    def conv_and_pool(
        self, number: int, conv: nn.Conv2d | StackedConv2d, x: torch.Tensor
    ) -> torch.Tensor:
        """Convolution `number`, and what `relu_and_pool` does."""
        site = f"after_conv{number}"
        if site not in self.attention and site not in self.taps:
            shape = pooled.shape_of(x, conv.weight, geometry_of(conv), self.members)
            if shape is not None:
                x = pooled.conv_pool_relu(x, conv.weight, conv.bias, shape)
                return self.site(f"after_pool{number}", x)
        return self.relu_and_pool(number, conv(x))

    def relu_and_pool(self, number: int, x: torch.Tensor) -> torch.Tensor:
        """ReLU, the site after convolution `number`, 2×2 max pooling, the site after it."""
        site = f"after_conv{number}"
        if site in self.attention or site in self.taps:
            x = functional.max_pool2d(self.site(site, functional.relu(x)), 2)
        else:
            # ReLU and max pooling commute, and after pooling it has a quarter of the work.
            x = functional.relu(functional.max_pool2d(x, 2))
        return self.site(f"after_pool{number}", x)
