"""Convolutions side by side: the same numbers by either way of making their gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from cifake.models import grouped
from cifake.models.geometry import Geometry
from cifake.models.stacked import NotStackableError, StackedConv2d

Found = tuple[torch.Tensor, ...]


def _found(by_group: bool, x: torch.Tensor, leaves: Found, padding: int, groups: int) -> Found:
    """The output and the gradients of a sum of squares."""
    x, weight, *bias = (leaf.detach().clone().requires_grad_() for leaf in (x, *leaves))
    geometry = Geometry(padding=(padding, padding))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouped, "_lacks_kernel", lambda *_: by_group)
        out = grouped.conv2d(x, weight, bias[0] if bias else None, geometry, groups)
    out.square().sum().backward()
    return out.detach(), *(leaf.grad for leaf in (x, weight, *bias) if leaf.grad is not None)


@settings(deadline=None)
@given(
    members=st.integers(2, 5),
    channels=st.integers(1, 3),
    filters=st.integers(1, 9),
    kernel=st.integers(1, 5),
    padding=st.integers(0, 2),
    with_bias=st.booleans(),
)
def test_gradients_made_group_by_group_are_those_of_the_grouped_convolution(
    members: int, channels: int, filters: int, kernel: int, padding: int, with_bias: bool
) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, members * channels, 8, 8, dtype=torch.float64)
    weight = torch.randn(members * filters, channels, kernel, kernel, dtype=torch.float64)
    leaves = (weight, torch.randn(members * filters, dtype=torch.float64))[: 1 + with_bias]
    ours = _found(True, x, leaves, padding, members)
    reference = _found(False, x, leaves, padding, members)
    assert len(ours) == 3 + with_bias
    for mine, theirs in zip(ours, reference, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_images_that_need_no_gradient_get_none() -> None:
    x, weight = torch.randn(2, 6, 8, 8), torch.randn(4, 3, 3, 3, requires_grad=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouped, "_lacks_kernel", lambda *_: True)
        grouped.conv2d(x, weight, None, Geometry(), 2).sum().backward()
    assert x.grad is None
    assert weight.grad is not None


@pytest.mark.parametrize(
    ("channels", "dtype", "capability", "own_way"),
    [
        (3, torch.float32, "AVX2", True),
        (3, torch.float32, "AVX512", False),
        (4, torch.float32, "AVX2", False),
        (3, torch.float64, "AVX2", False),
    ],
)
def test_the_way_depends_on_shapes_numbers_and_processor(
    channels: int, dtype: torch.dtype, capability: str, own_way: bool
) -> None:
    """Only where torch's way is slow; the output is torch's either way."""
    x = torch.randn(2, 2 * channels, 8, 8, dtype=dtype)
    weight = torch.randn(4, channels, 3, 3, dtype=dtype, requires_grad=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
        out = grouped.conv2d(x, weight, None, Geometry(), 2)
    assert ("ByGroup" in type(out.grad_fn).__name__) == own_way
    assert torch.equal(out, functional.conv2d(x, weight, groups=2))


def test_mixed_precision_is_left_to_torch() -> None:
    x, weight = torch.randn(2, 6, 8, 8), torch.randn(4, 3, 3, 3, requires_grad=True)
    with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", torch.bfloat16):
        patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
        out = grouped.conv2d(x, weight, None, Geometry(), 2)
    assert out.dtype == torch.bfloat16
    assert "ByGroup" not in type(out.grad_fn).__name__


@pytest.mark.parametrize(("padding", "zeros"), [("same", 2), ("valid", 0)])
def test_named_padding_is_that_of_the_plain_convolution(padding: str, zeros: int) -> None:
    conv = torch.nn.Conv2d(3, 4, 5, padding=padding)
    stacked = StackedConv2d(conv, 2)
    assert stacked.geometry.padding == (zeros, zeros)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(stacked(torch.cat([x, x], 1)), torch.cat([conv(x)] * 2, 1))


def test_same_padding_of_an_even_kernel_is_refused() -> None:
    with pytest.raises(NotStackableError, match="even kernel"):
        StackedConv2d(torch.nn.Conv2d(3, 4, 2, padding="same"), 2)
