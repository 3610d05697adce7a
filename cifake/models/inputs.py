"""From uint8 pixels to what the first layer sees: filter, then normalisation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from cifake.config import InputOptions
from cifake.models import on_gpu
from cifake.models.geometry import Geometry

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601)."""

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Means and deviations of ImageNet's channels, of pixels in 0…1, as torchvision gives them."""

TRUNCATION = 3.0
"""Residuals beyond this many grey levels are cut, as in Ye, Ni and Yi 2017, section III.C."""


class Pixels(nn.Module):
    """Images as they are, normalised by channel."""

    channels = 3
    """Channels of the result."""

    members = 1
    """Networks side by side; images then have the channels of one, shared, or of all of them."""

    def __init__(self, normalization: str) -> None:
        super().__init__()
        self.normalization = normalization
        mean, std = (IMAGENET if normalization == "imagenet" else ((0.5,) * 3, (0.5,) * 3))[:2]
        # Only what is measured on the data belongs to the weights.
        measured = normalization == "dataset"
        self.register_buffer("mean", 255 * torch.tensor(mean), persistent=measured)
        self.register_buffer("std", 255 * torch.tensor(std), persistent=measured)

    def adopt(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Take other means and deviations of the channels, each of shape (3,), of 0…255."""
        self.get_buffer("mean").copy_(mean)
        self.get_buffer("std").copy_(std)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images of shape (n, 32, 32, 3), 0…255, to (n, channels, 32, 32).

        Whole numbers become numbers of the network's type; floating-point numbers keep their own.
        """
        x = images.permute(0, 3, 1, 2)
        whole = not x.is_floating_point()
        x = x.to(self.get_buffer("mean").dtype) if whole else x
        return self.normalise(self.filter(x), in_place=whole)

    def filter(self, x: torch.Tensor) -> torch.Tensor:
        """What the filter makes of images of shape (n, 3, 32, 32), 0…255."""
        return x

    def normalise(self, x: torch.Tensor, *, in_place: bool) -> torch.Tensor:
        """Subtract the means and divide by the deviations, where they are if that is allowed."""
        if self.normalization == "half":
            return (x.mul_(2 / 255) if in_place else x * (2 / 255)).sub_(1)
        return (x - self._by_channel("mean", x)) / self._by_channel("std", x)

    def _by_channel(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """A buffer in the shape of a map; members that share images share their statistics."""
        return self.get_buffer(name)[: x.shape[1], None, None]


class Greyscale(Pixels):
    """Luma in all three channels: colour is gone, the network is the same."""

    def filter(self, x: torch.Tensor) -> torch.Tensor:
        """Luma of images of shape (n, 3, 32, 32), repeated in every channel."""
        by_image = x.reshape(-1, 3, *x.shape[2:])
        grey = luma(by_image).expand(-1, 3, -1, -1).reshape(x.shape)
        return grey.contiguous(memory_format=torch.channels_last)


class LowPass(Pixels):
    """Images blurred with a Gaussian: fine detail is gone."""

    def __init__(self, normalization: str, sigma: float) -> None:
        super().__init__(normalization)
        self.sigma = sigma

    def filter(self, x: torch.Tensor) -> torch.Tensor:
        """Blurred images of shape (n, 3, 32, 32); the border is mirrored."""
        return blur(x, self.sigma)


class HighPass(LowPass):
    """What a Gaussian blur takes away from images: shape and colour are gone."""

    def filter(self, x: torch.Tensor) -> torch.Tensor:
        """The difference of images of shape (n, 3, 32, 32) and their blurred form."""
        return x - blur(x, self.sigma)

    def normalise(self, x: torch.Tensor, *, in_place: bool) -> torch.Tensor:
        """Divide by the deviations; a difference has no mean to subtract."""
        del in_place
        if self.normalization == "half":
            return x * (2 / 255)
        return x / self._by_channel("std", x)


class StegResiduals(Pixels):
    """Residuals of the steganalysis rich model (Fridrich and Kodovský 2012), as an input layer.

    The mean of the three colours, in grey levels, goes through the linear filters of the model,
    as Ye, Ni and Yi 2017 put them into a network, or through the three of them that Zhou et al.
    2018 (section 3.2) use for images. Residuals are cut at ±3 and scaled to −1…1.
    """

    def __init__(self, filters: int, *, learned: bool) -> None:
        super().__init__("half")
        self.channels = filters
        self.initial = steg_filters(filters)
        if learned:
            self.weight = nn.Parameter(self.initial.clone())
        else:
            self.register_buffer("weight", self.initial.clone(), persistent=False)

    def reset_parameters(self) -> None:
        """Put the model's filters back."""
        with torch.no_grad():
            self.weight.copy_(self.initial)

    def filter(self, x: torch.Tensor) -> torch.Tensor:
        """Residuals, shape (n, filters, 32, 32), of images of shape (n, 3, 32, 32), 0…255."""
        grey = x.view(len(x), -1, 3, *x.shape[2:]).mean(2)
        bordered = functional.pad(grey, (2, 2, 2, 2), mode="reflect")
        weight, groups = self.weight.to(x.dtype), grey.shape[1]
        if on_gpu.applies(bordered, weight):
            return on_gpu.conv2d(bordered, weight, None, Geometry(), groups)
        return functional.conv2d(bordered, weight, groups=groups)

    def normalise(self, x: torch.Tensor, *, in_place: bool) -> torch.Tensor:
        """Cut at the truncation and scale it to 1."""
        del in_place
        return functional.hardtanh(x, -TRUNCATION, TRUNCATION) / TRUNCATION


def make_input(name: str, options: InputOptions, normalization: str) -> Pixels:
    """The input of a configuration."""
    if name == "greyscale":
        return Greyscale(normalization)
    if name == "low_pass":
        return LowPass(normalization, options.sigma or 1.0)
    if name == "high_pass":
        return HighPass(normalization, options.sigma or 1.0)
    if name in ("steg_srm", "steg_srm_learned"):
        return StegResiduals(options.filters or 30, learned=name == "steg_srm_learned")
    return Pixels(normalization)


def luma(x: torch.Tensor) -> torch.Tensor:
    """Luma, shape (n, 1, h, w), of images of shape (n, 3, h, w)."""
    # Filled in where they are: a copy from the processor has no place in a recorded graph.
    weights = torch.stack([x.new_full((), weight) for weight in LUMA])
    return (x * weights[:, None, None]).sum(1, keepdim=True)


def blur(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """Images of shape (n, c, h, w), convolved with a Gaussian of `sigma` pixels, cut at 3 sigma."""
    from torchvision.transforms.functional import gaussian_blur  # most networks need none of it

    size = 2 * math.ceil(3 * sigma) + 1
    blurred: torch.Tensor = gaussian_blur(x, [size, size], [sigma, sigma])
    return blurred


def steg_filters(count: int) -> torch.Tensor:
    """The rich model's linear filters, shape (count, 1, 5, 5), float32.

    Thirty: first (8), second (4) and third order (8) differences, the 3×3 edges (4) and square,
    the 5×5 edges (4) and square, each divided by the size of its central weight. Three: the two
    squares and the horizontal second difference.
    """
    line = {1: [-1, 1], 2: [1, -2, 1], 3: [1, -3, 3, -1]}
    square3 = np.asarray([[-1, 2, -1], [2, -4, 2], [-1, 2, -1]]) / 4
    ring = [[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2]]
    square5 = np.asarray([*ring, ring[1], ring[0]]) / 12
    if count == 3:
        chosen = [_centred(square3), square5, _along(line[2], (0, 1)) / 2]
    else:
        eight = [(-1, 0), (0, -1), (0, 1), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)]
        four = [(0, 1), (1, 0), (1, 1), (1, -1)]
        edge3, edge5 = square3.copy(), square5.copy()
        edge3[2:], edge5[3:] = 0, 0
        chosen = [
            *(_along(line[1], step, first=0) for step in eight),
            *(_along(line[2], step) / 2 for step in four),
            *(_along(line[3], step) / 3 for step in eight),
            *(_centred(np.rot90(edge3, turn)) for turn in range(4)),
            _centred(square3),
            *(np.rot90(edge5, turn) for turn in range(4)),
            square5,
        ]
    return torch.tensor(np.stack(chosen), dtype=torch.float32)[:, None]


def _along(weights: list[int], step: tuple[int, int], first: int = -1) -> npt.NDArray[Any]:
    """Weights along a direction; the first lies `first` steps from the centre."""
    kernel = np.zeros((5, 5))
    for index, weight in enumerate(weights, start=first):
        kernel[2 + index * step[0], 2 + index * step[1]] = weight
    return kernel


def _centred(kernel: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.pad(kernel, 1)
