"""Convolutions of networks side by side, with the gradient that oneDNN is slow at.

On a GPU they are in `on_gpu.py`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from cifake.models import on_gpu
from cifake.models.convolution import Convolution, torchs_gradients
from cifake.models.geometry import Geometry

_FEW_CHANNELS = 3
"""Input channels of a group up to which oneDNN has no kernel for weight gradients on AVX2."""


def conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    geometry: Geometry,
    groups: int,
) -> torch.Tensor:
    """As torch's, with the weight gradient made group by group where that is faster.

    For the first layer of networks side by side, on processors without AVX-512, oneDNN falls back
    to a small matrix product for every image and group; a convolution for every group is twice to
    three times as fast. The choice depends on shapes and processor alone, never on a measurement,
    so that the same run gives the same bits.
    """
    if on_gpu.applies(x, weight):
        return on_gpu.conv2d(x, weight, bias, geometry, groups)
    if groups > 1 and _lacks_kernel(x, weight):
        out: torch.Tensor = _ByGroup.apply(x, weight, bias, geometry, groups)
        return out
    stride, padding, dilation = geometry
    return functional.conv2d(x, weight, bias, stride, padding, dilation, groups)


def _lacks_kernel(x: torch.Tensor, weight: torch.Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and weight.shape[1] <= _FEW_CHANNELS
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.cpu.get_cpu_capability() != "AVX512"
    )


class _ByGroup(Convolution):
    """A grouped convolution whose weight gradient is that of one convolution a group."""

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        of_x, of_weight, of_bias = None, None, None
        if wanted[0]:
            mask = [True, False, False]
            of_x, _, _ = torchs_gradients(gradient, x, weight, ctx.geometry, ctx.groups, mask)
        if wanted[1] or wanted[2]:
            mask = [False, wanted[1], wanted[2]]
            split = _groups(gradient, ctx.groups), _groups(x, ctx.groups), weight.chunk(ctx.groups)
            each = [
                torchs_gradients(*one, ctx.geometry, 1, mask) for one in zip(*split, strict=True)
            ]
            of_weight = torch.cat([one[1] for one in each]) if wanted[1] else None
            of_bias = torch.cat([one[2] for one in each]) if wanted[2] else None
        return of_x, of_weight, of_bias, None, None


def _groups(x: torch.Tensor, count: int) -> list[torch.Tensor]:
    """The channels of each group, next to each other in memory."""
    return [part.contiguous(memory_format=torch.channels_last) for part in x.chunk(count, 1)]
