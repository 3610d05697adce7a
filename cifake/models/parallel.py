"""Convolutions of networks side by side on a GPU.

A GPU's library works on one group after another, each of which leaves most of it idle. Here the
groups are divided among streams, which a recorded graph has as branches.

Of the algorithms for weight gradients that give the same bits each time, cuDNN may choose one that
is wrong in the third digit (Winograd's, with large tiles: on an H200, 2e-3 of the gradient of a
5×5 kernel, against 4e-7 by an algorithm whose bits vary). So these gradients are matrix products
here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from cifake.models.geometry import Geometry

_BRANCHES = 16
"""Streams among which groups are divided."""

_PATCH_NUMBERS = 2**26
"""Numbers that patches of images may have at once: 256 MB of float32."""


def applies(x: torch.Tensor, weight: torch.Tensor, groups: int) -> bool:
    """Whether a convolution is made here: on a GPU, in full precision, across channels."""
    return (
        x.device.type == "cuda"
        and x.dtype == weight.dtype
        and x.dtype in (torch.float32, torch.float64)
        and not (groups > 1 and weight.shape[1] == 1)  # torch has kernels of its own for these
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
    """As torch's, with gradients that are the same bits each time."""
    out: torch.Tensor = _Conv2d.apply(x, weight, bias, geometry, groups)
    return out


class _Conv2d(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        geometry: Geometry,
        groups: int,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.groups = geometry, groups
        branches = _branches(groups)
        inputs, kernels = _split(x, 1, branches, groups), _split(weight, 0, branches, groups)
        biases: Sequence[torch.Tensor | None] = (
            [None] * len(branches) if bias is None else _split(bias, 0, branches, groups)
        )

        def convolve(number: int) -> torch.Tensor:
            stride, padding, dilation = geometry
            return functional.conv2d(
                inputs[number],
                kernels[number],
                biases[number],
                stride,
                padding,
                dilation,
                branches[number],
            )

        return _joined(side_by_side(convolve, len(branches), x))

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


def side_by_side(
    work: Callable[[int], torch.Tensor], count: int, like: torch.Tensor
) -> list[torch.Tensor]:
    """Some pieces of work, by number, that do not wait for each other on a GPU.

    Args:
        work: gives the result of a piece.
        count: pieces.
        like: a tensor on the device.
    """
    if count == 1 or like.device.type != "cuda":
        return [work(number) for number in range(count)]
    here = torch.cuda.current_stream()
    streams = _streams(torch.cuda.current_device())[:count]
    for stream in streams:
        stream.wait_stream(here)
    found = []
    for number, stream in enumerate(streams):
        with torch.cuda.stream(stream):
            found.append(work(number))
    for stream in streams:
        here.wait_stream(stream)
    return found


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
    branches = _branches(groups)
    gradients = _split(gradient, 1, branches, groups)
    inputs, kernels = _split(x, 1, branches, groups), _split(weight, 0, branches, groups)
    transposed = False

    def differentiate(number: int) -> torch.Tensor:
        found: tuple[torch.Tensor, ...] = torch.ops.aten.convolution_backward(
            gradients[number],
            inputs[number],
            kernels[number],
            None,
            *geometry,
            transposed,
            [0, 0],
            branches[number],
            [True, False, False],
        )
        return found[0]

    backends = torch.backends.cudnn
    with backends.flags(enabled=True, deterministic=True, allow_tf32=False, fp32_precision="ieee"):
        return _joined(side_by_side(differentiate, len(branches), x))


def _branches(groups: int) -> list[int]:
    """How many groups each branch has."""
    count = min(groups, _BRANCHES)
    return [groups // count + (number < groups % count) for number in range(count)]


def _split(
    tensor: torch.Tensor, dimension: int, branches: Sequence[int], groups: int
) -> tuple[torch.Tensor, ...]:
    """The channels of each branch."""
    each = tensor.shape[dimension] // groups
    return torch.split(tensor, [each * count for count in branches], dimension)


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


@functools.cache
def _streams(_device: int) -> list[torch.cuda.Stream]:
    """A GPU's streams, made once: libraries keep memory for each that they have worked on."""
    return [torch.cuda.Stream() for _ in range(_BRANCHES)]  # type: ignore[no-untyped-call]
