"""Means and variances of channels, against torch's own."""

from __future__ import annotations

import pytest
import torch

from cifake.models.moments import var_mean


def _maps(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 6, 5, 7, generator=generator, dtype=torch.float64) + 3
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def _values_and_gradient(
    function: object, x: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    x = x.detach().requires_grad_()
    variance, mean = function(x)  # type: ignore[operator]
    (gradient,) = torch.autograd.grad((variance * weights + mean * weights**2).sum(), x)
    return variance, mean, gradient


@pytest.mark.parametrize("correction", [0, 1])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)], ids=str
)
def test_moments_and_their_gradients_are_those_of_torch(
    dtype: torch.dtype, tolerance: float, correction: int
) -> None:
    weights = torch.randn(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = _values_and_gradient(
        lambda x: torch.var_mean(x, dim=(2, 3), correction=correction), _maps(), weights
    )
    found = _values_and_gradient(lambda x: var_mean(x, correction), _maps(dtype), weights.to(dtype))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.double(), theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("wanted", [(True, False), (False, True)])
def test_gradient_of_one_moment_alone_is_right(wanted: tuple[bool, bool]) -> None:
    def chosen(x: torch.Tensor) -> torch.Tensor:
        moments = var_mean(x, 1)
        return torch.stack(
            [each for each, is_wanted in zip(moments, wanted, strict=True) if is_wanted]
        )

    assert torch.autograd.gradcheck(chosen, (_maps().requires_grad_(),))


def test_large_means_leave_the_variance_its_digits() -> None:
    """Of numbers about 1,000 with a deviation of 1, whose squares would have none left."""
    x = _maps(torch.float32) + 1000
    exact = torch.var_mean(x.double(), dim=(2, 3), correction=1)[0]
    torch.testing.assert_close(var_mean(x, 1)[0].double(), exact, rtol=1e-4, atol=0)


def test_gradients_of_maps_keep_their_memory_format() -> None:
    x = _maps().requires_grad_()
    (gradient,) = torch.autograd.grad(var_mean(x, 1)[0].sum(), x)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_maps_have_moments_too(dtype: torch.dtype) -> None:
    """Channels apart in memory, and numbers of half the size."""
    x = _maps().to(dtype).contiguous()
    for ours, theirs in zip(
        var_mean(x, 1), torch.var_mean(x, dim=(2, 3), correction=1), strict=True
    ):
        assert torch.equal(ours, theirs)
