"""Convolution, pooling and ReLU as one operation compute what torch's three compute."""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from cifake.machine_code import lanes
from cifake.models import pooled, pooled_code
from cifake.models.geometry import Geometry
from cifake.models.pooled_code import Shape

F32, F64 = torch.float32, torch.float64
TOLERANCE = {F32: 2e-5, F64: 1e-13}
"""Of sums of some thousand products, beside the largest of them."""

FIRST = Shape(
    members=3,
    shared=False,
    inputs=3,
    outputs=6,
    kernel=(5, 5),
    padding=(0, 0),
    height=32,
    width=32,
    dtype=F32,
    lanes=lanes(F32),
)
"""The first convolution of base, of three seeds."""

SECOND = replace(FIRST, inputs=6, outputs=16, height=14, width=14)

REGISTERS = [(F32, 4), (F32, 8), (F32, 16), (F64, 2), (F64, 4), (F64, 8)]
"""Numbers in a register of NEON, AVX2 and AVX-512."""


def of(shape: Shape, dtype: torch.dtype) -> Shape:
    """A shape for other numbers."""
    return replace(shape, dtype=dtype, lanes=lanes(dtype))


SHAPES = st.builds(
    lambda register, **rest: Shape(dtype=register[0], lanes=register[1], **rest),
    register=st.sampled_from(REGISTERS),
    members=st.integers(1, 5),
    shared=st.booleans(),
    inputs=st.integers(1, 7),
    outputs=st.integers(1, 20),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    height=st.integers(5, 12),
    width=st.integers(5, 40),
).filter(lambda shape: shape.fits)


class Operation:
    """Random maps, weights and gradients of a shape."""

    def __init__(self, shape: Shape, images: int = 3, seed: int = 0) -> None:
        self.shape = shape = replace(shape, shared=shape.shared and shape.members > 1)
        channels, of_maps = shape.members * shape.outputs, shape.inputs
        self.groups = 1 if shape.shared else shape.members
        rng = torch.Generator().manual_seed(seed)

        def drawn(*size: int) -> torch.Tensor:
            return torch.randn(size, generator=rng, dtype=shape.dtype)

        self.x = drawn(images, self.groups * of_maps, shape.height, shape.width)
        self.weight = drawn(channels, of_maps, *shape.kernel)
        self.bias = drawn(channels)
        self.gradient = drawn(images, channels, *shape.pooled)

    def ours(self) -> list[torch.Tensor]:
        """The result, and the gradients of maps, weight and bias."""
        return self._with_gradients(lambda *given: pooled.conv_pool_relu(*given, self.shape))

    def theirs(self) -> list[torch.Tensor]:
        """The same by torch's own operations."""
        return self._with_gradients(
            lambda x, weight, bias: functional.relu(
                functional.max_pool2d(
                    functional.conv2d(
                        x, weight, bias, padding=self.shape.padding, groups=self.groups
                    ),
                    2,
                )
            )
        )

    def _with_gradients(self, operation) -> list[torch.Tensor]:  # type: ignore[no-untyped-def]
        given = [each.clone().requires_grad_() for each in (self.x, self.weight, self.bias)]
        out = operation(*given)
        return [out.detach(), *torch.autograd.grad(out, given, self.gradient)]

    def member(self, number: int) -> Operation:
        """One member's part, alone."""
        alone = Operation(replace(self.shape, members=1, shared=False), len(self.x))
        part = slice(number * self.shape.outputs, (number + 1) * self.shape.outputs)
        alone.x = self.x if self.shape.shared else self.x.chunk(self.shape.members, 1)[number]
        alone.weight, alone.bias = self.weight[part], self.bias[part]
        alone.gradient = self.gradient[:, part]
        return alone


# What is computed.


@settings(max_examples=60, deadline=None)
@given(shape=SHAPES, images=st.integers(1, 3))
def test_results_and_gradients_of_any_shape_are_torchs(shape: Shape, images: int) -> None:
    operation = Operation(shape, images)
    for found, expected in zip(operation.ours(), operation.theirs(), strict=True):
        assert found.shape == expected.shape
        error = float((found - expected).abs().max() / expected.abs().max().clamp(min=1))
        assert error < TOLERANCE[shape.dtype]


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("shape", [FIRST, SECOND, replace(FIRST, shared=True)])
def test_the_layers_of_base_have_torchs_numbers(shape: Shape, dtype: torch.dtype) -> None:
    operation = Operation(of(shape, dtype), images=32)
    for found, expected in zip(operation.ours(), operation.theirs(), strict=True):
        assert float((found - expected).abs().max() / expected.abs().max()) < TOLERANCE[dtype]


def test_of_equal_pixels_the_first_gets_the_gradient_and_of_zero_none() -> None:
    operation = Operation(of(FIRST, F64), images=2)
    # Whole numbers, so that equal sums are equal in whatever order they are made.
    operation.x, operation.weight = torch.ones_like(operation.x), operation.weight.round()
    operation.bias[::2], operation.bias[1::2] = -1e3, 1e3
    for found, expected in zip(operation.ours(), operation.theirs(), strict=True):
        assert torch.allclose(found, expected, atol=1e-12)
    of_bias = operation.ours()[3]
    assert not of_bias[::2].any()
    assert of_bias[1::2].all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("shape", [FIRST, SECOND])
def test_what_is_no_number_stays_so_and_in_its_member(shape: Shape, value: float) -> None:
    sound, lost = Operation(shape), Operation(shape)
    lost.weight[: shape.outputs] = value
    (found, _, of_weight, _), (expected, *_) = lost.ours(), lost.theirs()
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found.isinf(), expected.isinf())
    out, of_x, whole, _ = sound.ours()
    assert torch.equal(found[:, shape.outputs :], out[:, shape.outputs :])
    assert torch.equal(of_weight[shape.outputs :], whole[shape.outputs :])
    assert torch.equal(lost.ours()[1][:, shape.inputs :], of_x[:, shape.inputs :])


@pytest.mark.parametrize("shape", [FIRST, replace(FIRST, padding=(2, 2), outputs=7)])
def test_a_members_numbers_have_the_same_bits_alone_and_beside_others(shape: Shape) -> None:
    operation = Operation(shape, images=5)
    whole = operation.ours()
    for number in range(shape.members):
        alone = operation.member(number).ours()
        parts = [each.chunk(shape.members, 1)[number] for each in whole[:2]]
        parts += [each.chunk(shape.members)[number] for each in whole[2:]]
        assert all(map(torch.equal, parts, alone))


def test_only_the_gradients_that_are_wanted_are_made() -> None:
    operation = Operation(FIRST)
    bias = operation.bias.clone().requires_grad_()
    out = pooled.conv_pool_relu(operation.x, operation.weight, bias, FIRST)
    (found,) = torch.autograd.grad(out, [bias], operation.gradient)
    assert torch.allclose(found, operation.theirs()[3], rtol=1e-4)
    nothing = pooled.conv_pool_relu(operation.x, operation.weight, None, FIRST)
    assert not nothing.requires_grad


# Where it is used.


def test_it_is_left_to_torch_where_it_was_not_written_for() -> None:
    operation = Operation(FIRST)
    x, weight, members = operation.x, operation.weight, FIRST.members
    assert pooled.shape_of(x, weight, Geometry(), members) == FIRST
    shared = pooled.shape_of(x[:, :3], weight, Geometry(padding=(2, 1)), members)
    assert shared == replace(FIRST, shared=True, padding=(2, 1))
    for geometry in (Geometry(stride=(2, 2)), Geometry(dilation=(2, 2))):
        assert pooled.shape_of(x, weight, geometry, members) is None
    assert pooled.shape_of(x.half(), weight.half(), Geometry(), members) is None
    assert pooled.shape_of(x.double(), weight, Geometry(), members) is None
    assert pooled.shape_of(x[:, :, :5, :5], weight, Geometry(), members) is None, "nothing is left"
    with torch.autocast("cpu", torch.bfloat16):
        assert pooled.shape_of(x, weight, Geometry(), members) is None
    wide = torch.zeros(1, 256, 8, 8), torch.zeros(16, 256, 3, 3)
    assert pooled.shape_of(*wide, Geometry(), 1) is None
    assert pooled.shape_of(x.to("meta"), weight, Geometry(), members) is None


# Memory.


_NO_ACCESS = 0
"""What the C library calls PROT_NONE."""


class Guarded:
    """A copy of a tensor whose end is the end of the memory that may be touched."""

    def __init__(self, tensor: torch.Tensor) -> None:
        size = tensor.numel() * tensor.itemsize
        pages = -(-size // mmap.PAGESIZE)
        self.memory = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        libc = ctypes.CDLL(None, use_errno=True)
        guard = ctypes.c_void_p(start + pages * mmap.PAGESIZE)
        assert libc.mprotect(guard, ctypes.c_size_t(mmap.PAGESIZE), _NO_ACCESS) == 0
        self.address = start + pages * mmap.PAGESIZE - size
        ctypes.memmove(self.address, tensor.contiguous().data_ptr(), size)


@pytest.mark.parametrize("shape", [FIRST, SECOND, replace(FIRST, padding=(1, 1), outputs=5)])
def test_no_function_reads_or_writes_beyond_its_memory(shape: Shape) -> None:
    images, (rows, columns) = 2, shape.pooled
    channels = shape.members * shape.outputs
    numbers = torch.randn(images, rows, columns, channels)
    maps = Guarded(torch.randn(shape.members, images, shape.image))
    registers = channels * shape.kernel[0] * shape.vectors * shape.lanes
    out, which = Guarded(numbers), Guarded(torch.randint(0, 5, numbers.shape, dtype=torch.uint8))
    convolved = Guarded(torch.randn(images, *shape.convolved, channels))
    sums, biases = Guarded(torch.zeros(registers)), Guarded(torch.zeros(channels))
    kernels = Guarded(torch.randn(channels, shape.inputs, *shape.kernel))
    planes = Guarded(torch.zeros(shape.inputs * shape.plane + shape.lanes))
    pooled_code.sum_patches(shape)(
        maps.address, out.address, which.address, sums.address, biases.address, images
    )
    pooled_code.sum_kernels(shape)(out.address, which.address, sums.address, maps.address, images)
    whole = Guarded(torch.randn(images, shape.height, shape.width, shape.members * shape.inputs))
    pooled_code.apart(shape)(whole.address, maps.address, images)
    pooled_code.side_by_side(shape)(maps.address, whole.address, images)
    pooled_code.pool(shape)(convolved.address, out.address, which.address, images)
    if shape.narrow:
        pooled_code.convolve(shape)(
            maps.address, kernels.address, biases.address, planes.address, out.address,
            which.address, images,
        )  # fmt: skip


@pytest.mark.parametrize("members", [2, 3, 5, 10])
@pytest.mark.parametrize("register", [(F32, 8), (F32, 16), (F64, 4)])
def test_channels_side_by_side_stay_within_their_memory(
    members: int, register: tuple[torch.dtype, int]
) -> None:
    dtype, width = register
    shape = replace(FIRST, shared=True, members=members, dtype=dtype, lanes=width)
    numbers = torch.randn(2, *shape.pooled, shape.channels, dtype=dtype)
    side_by_side = sum(map(len, pooled_code.channels_of_lanes(shape)))
    maps = Guarded(torch.randn(1, 2, shape.image, dtype=dtype))
    kernels = Guarded(torch.randn(75 * side_by_side, dtype=dtype))
    biases = Guarded(torch.randn(side_by_side, dtype=dtype))
    out, which = Guarded(numbers), Guarded(numbers.to(torch.uint8))
    pooled_code.convolve_together(shape)(
        maps.address, kernels.address, biases.address, out.address, which.address, 2
    )
