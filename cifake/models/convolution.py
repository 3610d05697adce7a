"""A convolution whose gradients are made in another way than torch makes them."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from cifake.models.geometry import Geometry


class Convolution(torch.autograd.Function):
    """torch's convolution; a subclass has the backward pass, of `ctx.geometry` and `ctx.groups`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        geometry: Geometry,
        groups: int,
    ) -> torch.Tensor:
        """As torch's, with maps and weight kept."""
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.groups = geometry, groups
        stride, padding, dilation = geometry
        return functional.conv2d(x, weight, bias, stride, padding, dilation, groups)


def torchs_gradients(
    gradient: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    geometry: Geometry,
    groups: int,
    mask: list[bool],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of input, weight and bias, as far as the mask wants them."""
    sizes = [len(weight)] if mask[2] else None
    transposed = False
    found: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = torch.ops.aten.convolution_backward(
        gradient, x, weight, sizes, *geometry, transposed, [0, 0], groups, mask
    )
    return found
