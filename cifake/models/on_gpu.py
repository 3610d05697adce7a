"""Convolutions on a GPU whose gradients are exact, and the same bits each time.

Of the algorithms for weight gradients that give the same bits each time, cuDNN may choose one that
is wrong in the third digit (Winograd's, with large tiles: on an H200, 2e-3 of the gradient of a
5×5 kernel, against 4e-7 by an algorithm whose bits vary). So these gradients are matrix products
here, of the result's gradient and of the patches that each place looks at.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from cifake.models.convolution import Convolution, torchs_gradients
from cifake.models.geometry import Geometry, of_convolution

_PATCH_NUMBERS = 2**26
"""Numbers that patches of images may have at once: 256 MB of float32."""


def take_over(network: nn.Module) -> None:
    """Have all convolutions of a network made here."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.padding_mode == "zeros":
            module.__class__ = _made_here(type(module))  # type: ignore[arg-type] # a metaclass hides a hash


class _MadeHere(nn.Conv2d):
    """A convolution that is made here where that applies."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        geometry = of_convolution(self) if applies(x, self.weight) else None
        if geometry is None:
            return super().forward(x)
        return conv2d(x, self.weight, self.bias, geometry, self.groups)


@functools.cache
def _made_here(kind: type[nn.Conv2d]) -> type[nn.Conv2d]:
    """A kind of convolution, made here; a class, since what refers to a module it keeps alive."""
    return type(kind.__name__, (_MadeHere, kind), {})


def applies(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether a convolution is made here: on a GPU, in full precision."""
    return (
        x.device.type == "cuda"
        and x.dtype == weight.dtype
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cuda")
        and not torch.compiler.is_compiling()
    )


def conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    geometry: Geometry,
    groups: int,
) -> torch.Tensor:
    """As torch's, with gradients of its own."""
    out: torch.Tensor = _Conv2d.apply(x, weight, bias, geometry, groups)
    return out


class _Conv2d(Convolution):
    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = _of_input(gradient, x, weight, ctx.geometry, ctx.groups)
        if ctx.needs_input_grad[1]:
            of_weight = of_weights(gradient, x, weight.shape, ctx.geometry, ctx.groups)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_x, of_weight, of_bias, None, None


def of_weights(
    gradient: torch.Tensor,
    x: torch.Tensor,
    shape: Sequence[int],
    geometry: Geometry,
    groups: int,
) -> torch.Tensor:
    """Gradient of a convolution's weight, by matrix products of gradients and patches.

    Args:
        gradient: of the result, shape (n, groups · outputs, height, width).
        x: shape (n, groups · inputs, …).
        shape: of the weight, (groups · outputs, inputs, rows, columns).
        geometry: of the convolution.
        groups: of its channels.
    """
    top, left = geometry.padding
    padded = functional.pad(x, (left, left, top, top)).contiguous()
    places = math.prod(gradient.shape[2:])
    taps = math.prod(shape[1:])
    outputs = shape[0] // groups
    each = max(1, _PATCH_NUMBERS // (groups * taps * places))
    total = gradient.new_zeros(groups, outputs, taps)
    for start in range(0, len(x), each):
        images = slice(start, start + each)
        seen = _patches(padded[images], gradient.shape[2:], shape, geometry, groups)
        due = gradient[images].reshape(-1, groups, outputs, places)
        if outputs <= places:  # a product for every image, smaller than the patches
            products = torch.bmm(
                due.reshape(-1, outputs, places), seen.reshape(-1, taps, places).transpose(1, 2)
            )
            total += products.view(-1, groups, outputs, taps).sum(0)
        else:
            total += torch.bmm(
                due.permute(1, 2, 0, 3).reshape(groups, outputs, -1),
                seen.permute(1, 0, 3, 2).reshape(groups, -1, taps),
            )
    return total.view(*shape)


def _patches(
    padded: torch.Tensor,
    places: Sequence[int],
    shape: Sequence[int],
    geometry: Geometry,
    groups: int,
) -> torch.Tensor:
    """What each tap of a kernel looks at from each place, (n, groups, taps, places)."""
    _, inputs, rows, columns = shape
    image, channel, row, column = padded.stride()
    (down, right), (far_down, far_right) = geometry.stride, geometry.dilation
    seen = padded.as_strided(
        (len(padded), groups, inputs, rows, columns, *places),
        (
            image,
            inputs * channel,
            channel,
            far_down * row,
            far_right * column,
            down * row,
            right * column,
        ),
        padded.storage_offset(),
    )
    return seen.reshape(len(padded), groups, inputs * rows * columns, -1)


def _of_input(
    gradient: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    geometry: Geometry,
    groups: int,
) -> torch.Tensor:
    """Gradient of the maps; cuDNN's deterministic algorithms are exact here."""
    with torch.backends.cudnn.flags(
        enabled=True, deterministic=True, allow_tf32=False, fp32_precision="ieee"
    ):
        return torchs_gradients(gradient, x, weight, geometry, groups, [True, False, False])[0]
