"""A GPU's convolutions are torch's, whatever their geometry; here they run on the processor."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from cifake.config import Config
from cifake.models import on_gpu, pooled
from cifake.models.build import build
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
    ours = on_gpu.conv2d(*found, geometry, groups)
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
    whole = on_gpu.of_weights(gradient, x, shape, Geometry(), 3)
    monkeypatch.setattr(on_gpu, "_PATCH_NUMBERS", 2 * 3 * 18 * 16)
    torch.testing.assert_close(on_gpu.of_weights(gradient, x, shape, Geometry(), 3), whole)


NETWORKS: dict[str, dict[str, object]] = {
    "base": {},
    "paper": {"model": "paper", "model_options": {"filters": 4}},
    "resnet": {"model": "resnet", "model_options": {"depth": 8, "width": 4}},
    "learned filters": {"input": "steg_srm_learned", "input_options": {"filters": 3}},
    "attention": {"attention": "cbam", "placement": "both"},
}


@pytest.mark.parametrize("settings", NETWORKS.values(), ids=NETWORKS.keys())
def test_a_network_whose_convolutions_are_made_here_is_the_same(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its outputs and in every gradient, of which each convolution's is made here."""
    config = Config.model_validate(settings)
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    plain, taken = (build(config, 0).double() for _ in range(2))
    expected = plain(images)
    expected.sum().backward()
    made = []
    of_weights = on_gpu.of_weights
    monkeypatch.setattr(on_gpu, "applies", lambda *_: True)
    monkeypatch.setattr(on_gpu, "of_weights", lambda *a: (made.append(1), of_weights(*a))[1])
    monkeypatch.setattr(pooled, "shape_of", lambda *_: None)
    on_gpu.take_over(taken)
    found = taken(images)
    found.sum().backward()
    torch.testing.assert_close(found, expected)
    for one, other in zip(plain.parameters(), taken.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    kernels = [p for p in taken.parameters() if p.dim() == 4]
    assert len(made) == len(kernels)


def test_a_network_that_was_taken_over_goes_when_nobody_needs_it() -> None:
    """Not when Python next looks for cycles: a GPU's memory would be missed until then."""
    network = build(Config(), 0)
    on_gpu.take_over(network)
    kept = weakref.ref(network.get_submodule("conv1"))
    gc.disable()
    try:
        del network
        assert kept() is None
    finally:
        gc.enable()


def test_a_processor_has_convolutions_of_its_own() -> None:
    assert not on_gpu.applies(torch.zeros(1, 2, 3, 3), torch.zeros(2, 2, 1, 1))
