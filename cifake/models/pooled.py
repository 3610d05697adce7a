"""A convolution, 2×2 max pooling and ReLU as one operation whose backward pass knows of zeros.

Of the four pixels that a window looks at, one passes its gradient on, and none where ReLU is zero.
So a gradient is zero for three pixels of four at least, which a convolution's backward pass of its
own multiplies all the same. Here each number of the pooled gradient is multiplied with what its one
pixel looked at: the weights' gradient is a sum of patches of the maps, the maps' a sum of kernels.

Convolutions with few channels gain most, since there the general kernels fill registers badly. All
loops run in one thread, member by member and image by image, so that a member's gradients have the
same bits alone and beside others.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from cifake import memory
from cifake.machine_code import lanes
from cifake.models import pooled_code
from cifake.models.geometry import Geometry
from cifake.models.pooled_code import Shape


def shape_of(
    x: torch.Tensor, weight: torch.Tensor, geometry: Geometry, members: int
) -> Shape | None:
    """The shape of an operation, where it is worth a function of its own; else null.

    That depends on shapes and processor alone, never on a measurement, so that the same run gives
    the same bits.

    Args:
        x: maps, shape (n, members · inputs or inputs, height, width).
        weight: shape (members · outputs, inputs, rows, columns).
        geometry: of the convolution.
        members: networks side by side.
    """
    if (
        x.device.type != "cpu"
        or x.dtype not in (torch.float32, torch.float64)
        or x.dtype != weight.dtype
        or (geometry.stride, geometry.dilation) != ((1, 1), (1, 1))
        or torch.is_autocast_enabled("cpu")
        or torch.compiler.is_compiling()
    ):
        return None
    outputs, inputs, rows, columns = weight.shape
    top, left = geometry.padding
    found = Shape(
        members=members,
        shared=members > 1 and x.shape[1] == inputs,
        inputs=inputs,
        outputs=outputs // members,
        kernel=(rows, columns),
        padding=(top, left),
        height=x.shape[2],
        width=x.shape[3],
        dtype=x.dtype,
        lanes=lanes(x.dtype),
    )
    return found if found.fits else None


def conv_pool_relu(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, shape: Shape
) -> torch.Tensor:
    """ReLU of the 2×2 max pooling of a convolution of stride 1.

    Args:
        x: as `shape_of` takes it.
        weight: likewise.
        bias: shape (members · outputs,).
        shape: as `shape_of` gives it.

    Returns:
        Shape (n, members · outputs, height, width), in the memory format channels_last.
    """
    found: torch.Tensor = _ConvPoolRelu.apply(x, weight, bias, shape)
    return found


class _ConvPoolRelu(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, shape: Shape
    ) -> torch.Tensor:
        ctx.shape = shape
        if shape.together:
            seen = _image_by_image(x, shape)
            out, which = _convolved_together(seen, weight, bias, shape)
        elif shape.narrow:
            seen = _image_by_image(x, shape)
            out, which = _convolved_directly(seen, weight, bias, shape)
        else:
            seen = x
            out, which = _convolved_by_torch(x, weight, bias, shape)
        ctx.save_for_backward(seen, weight, which)
        return out.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        seen, weight, which = ctx.saved_tensors
        shape: Shape = ctx.shape
        gradient = gradient.permute(0, 2, 3, 1).contiguous()
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = _of_input(gradient, which, weight, shape)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            made = shape.together or shape.narrow
            images = seen if made else _image_by_image(seen, shape)
            of_weight, of_bias = _of_weights(images, gradient, which, shape)
        return of_x, of_weight, of_bias if ctx.needs_input_grad[2] else None, None


def _convolved_by_torch(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, shape: Shape
) -> tuple[torch.Tensor, torch.Tensor]:
    """The result, shape (n, *pooled, channels), and which pixel each number is from."""
    groups = 1 if shape.shared else shape.members
    maps = functional.conv2d(x, weight, bias, padding=shape.padding, groups=groups)
    maps = maps.permute(0, 2, 3, 1).contiguous()
    memory.passing(maps)
    out, which = _results(maps, len(x), shape)
    pooled_code.pool(shape)(maps.data_ptr(), out.data_ptr(), which.data_ptr(), len(x))
    return out, which


def _convolved_directly(
    images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, shape: Shape
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same, from padded maps that `_image_by_image` made."""
    kernels = weight.contiguous()
    biases = weight.new_zeros(len(weight)) if bias is None else bias
    planes = images.new_zeros(shape.inputs * shape.plane + shape.lanes)
    count = images.shape[1]
    out, which = _results(images, count, shape)
    pooled_code.convolve(shape)(
        images.data_ptr(),
        kernels.data_ptr(),
        biases.data_ptr(),
        planes.data_ptr(),
        out.data_ptr(),
        which.data_ptr(),
        count,
    )
    return out, which


def _convolved_together(
    images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, shape: Shape
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same, of maps that all members look at."""
    groups = _lanes(shape)
    taps = weight.permute(2, 3, 1, 0)
    kernels = torch.cat([taps[..., channels].flatten() for channels in groups])
    lanes = torch.cat(groups)
    biases = weight.new_zeros(len(lanes)) if bias is None else bias[lanes]
    count = images.shape[1]
    out, which = _results(images, count, shape)
    pooled_code.convolve_together(shape)(
        images.data_ptr(),
        kernels.data_ptr(),
        biases.data_ptr(),
        out.data_ptr(),
        which.data_ptr(),
        count,
    )
    return out, which


@functools.cache
def _lanes(shape: Shape) -> list[torch.Tensor]:
    """Channels of the registers that are summed at once."""
    return [torch.tensor(channels) for channels in pooled_code.channels_of_lanes(shape)]


def _results(like: torch.Tensor, count: int, shape: Shape) -> tuple[torch.Tensor, torch.Tensor]:
    """Room for the results of so many images, and for which pixel each number is from."""
    size = (count, *shape.pooled, shape.channels)
    return like.new_empty(size), like.new_empty(size, dtype=torch.uint8)


def _of_weights(
    images: torch.Tensor, gradient: torch.Tensor, which: torch.Tensor, shape: Shape
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of weight and bias."""
    rows, columns = shape.kernel
    channels = shape.channels
    sums = images.new_zeros(channels, rows, shape.vectors * shape.lanes)
    of_bias = images.new_zeros(channels)
    pooled_code.sum_patches(shape)(
        images.data_ptr(),
        gradient.data_ptr(),
        which.data_ptr(),
        sums.data_ptr(),
        of_bias.data_ptr(),
        len(gradient),
    )
    patches = sums[:, :, : columns * shape.inputs].reshape(channels, rows, columns, shape.inputs)
    return patches.permute(0, 3, 1, 2), of_bias


def _of_input(
    gradient: torch.Tensor, which: torch.Tensor, weight: torch.Tensor, shape: Shape
) -> torch.Tensor:
    """Gradient of the maps."""
    rows, columns = shape.kernel
    row = columns * shape.inputs
    kernels = weight.new_zeros(len(weight), rows, shape.vectors * shape.lanes)
    kernels[:, :, :row] = weight.permute(0, 2, 3, 1).reshape(len(weight), rows, row)
    seen = 1 if shape.shared else shape.members
    sums = gradient.new_zeros(seen, len(gradient), shape.image)
    pooled_code.sum_kernels(shape)(
        gradient.data_ptr(), which.data_ptr(), kernels.data_ptr(), sums.data_ptr(), len(gradient)
    )
    maps = gradient.new_empty(len(gradient), shape.height, shape.width, seen * shape.inputs)
    pooled_code.side_by_side(shape)(sums.data_ptr(), maps.data_ptr(), len(gradient))
    return maps.permute(0, 3, 1, 2)


def _image_by_image(x: torch.Tensor, shape: Shape) -> torch.Tensor:
    """Padded maps of each member and image in one piece, shape (members or 1, n, shape.image)."""
    x = x.permute(0, 2, 3, 1).contiguous()
    memory.passing(x)
    size = (1 if shape.shared else shape.members, len(x), shape.image)
    images = x.new_zeros(size) if any(shape.padding) else x.new_empty(size)
    pooled_code.apart(shape)(x.data_ptr(), images.data_ptr(), len(x))
    return images
