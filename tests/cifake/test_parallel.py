"""What a GPU does for networks side by side is torch's convolution, whatever its geometry.

Here it runs on the processor, where its streams are loops.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from cifake.models import parallel
from cifake.models.geometry import Geometry


@settings(deadline=None, max_examples=60)
@given(
    groups=st.integers(1, 20),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 9)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    images=st.integers(1, 4),
    channels_last=st.booleans(),
    seed=st.integers(0, 100),
)
def test_results_and_gradients_are_those_of_torch(  # noqa: PLR0917 - drawn by name
    groups: int,
    channels: tuple[int, int],
    kernel: tuple[int, int],
    stride: int,
    padding: int,
    dilation: int,
    images: int,
    channels_last: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    (inputs, outputs), side = channels, 7
    geometry = Geometry((stride,) * 2, (padding,) * 2, (dilation,) * 2)
    x = torch.randn(images, groups * inputs, side, side + 1, dtype=torch.float64)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    weight = torch.randn(groups * outputs, inputs, *kernel, dtype=torch.float64)
    bias = torch.randn(groups * outputs, dtype=torch.float64)
    found, expected = (
        [tensor.detach().clone().requires_grad_() for tensor in (x, weight, bias)] for _ in range(2)
    )
    ours = parallel.conv2d(*found, geometry, groups)
    theirs = functional.conv2d(*expected, *geometry, groups)
    torch.testing.assert_close(ours, theirs)
    gradient = torch.randn_like(theirs)
    ours.backward(gradient)
    theirs.backward(gradient)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("outputs", [2, 40])
def test_patches_that_are_too_many_at_once_are_taken_in_turns(
    outputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few outputs are multiplied image by image, more than there are places by all images."""
    torch.manual_seed(0)
    x = torch.randn(5, 6, 6, 6, dtype=torch.float64)
    gradient = torch.randn(5, 3 * outputs, 4, 4, dtype=torch.float64)
    shape = (3 * outputs, 2, 3, 3)
    whole = parallel.of_weights(gradient, x, shape, Geometry(), 3)
    monkeypatch.setattr(parallel, "_PATCH_NUMBERS", 2 * 3 * 18 * 16)
    torch.testing.assert_close(parallel.of_weights(gradient, x, shape, Geometry(), 3), whole)


def test_groups_are_divided_evenly_among_branches() -> None:
    for groups in (1, 5, 16, 17, 40, 64):
        divided = parallel._branches(groups)
        assert sum(divided) == groups
        assert max(divided) - min(divided) <= 1
        assert len(divided) == min(groups, 16)


@pytest.mark.parametrize(
    ("x", "weight", "groups"),
    [
        (torch.zeros(1, 2, 3, 3), torch.zeros(2, 1, 1, 1), 2),
        (torch.zeros(1, 2, 3, 3), torch.zeros(2, 2, 1, 1), 1),
    ],
)
def test_a_processor_has_convolutions_of_its_own(
    x: torch.Tensor, weight: torch.Tensor, groups: int
) -> None:
    assert not parallel.applies(x, weight, groups)
