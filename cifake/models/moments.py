"""Mean and variance of every channel of feature maps, fast where the channels lie side by side.

Torch's own pass over maps in the memory format channels_last takes one number at a time, forward
and backward; here every operation has the channels in its lanes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable


def var_mean(x: torch.Tensor, correction: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Variance and mean of each channel of each image, both of shape (n, channels).

    Args:
        x: maps, shape (n, channels, height, width).
        correction: what the divisor of the variance is less than height · width.
    """
    if _is_slow_in_torch(x):
        found: tuple[torch.Tensor, torch.Tensor] = _VarMean.apply(x, correction)
        return found
    return torch.var_mean(x, dim=(2, 3), correction=correction)


def _is_slow_in_torch(x: torch.Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and x.is_contiguous(memory_format=torch.channels_last)
        and not torch.compiler.is_compiling()
    )


class _VarMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, correction: int) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = _pixels(x)
        mean = pixels.mean(1)
        divisor = pixels.shape[1] - correction
        variance = (pixels - mean[:, None]).square_().sum(1) / divisor
        ctx.save_for_backward(x, mean)
        ctx.divisor = divisor
        return variance, mean

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_variance: torch.Tensor, of_mean: torch.Tensor
    ) -> tuple[torch.Tensor, None]:
        x, mean = ctx.saved_tensors
        pixels = _pixels(x)
        slope = of_variance * (2 / ctx.divisor)
        constant = of_mean / pixels.shape[1] - slope * mean
        gradient = torch.addcmul(constant[:, None], pixels, slope[:, None])
        n, channels, height, width = x.shape
        return gradient.view(n, height, width, channels).permute(0, 3, 1, 2), None


def _pixels(x: torch.Tensor) -> torch.Tensor:
    """The maps as they lie in memory, shape (n, height · width, channels)."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)
