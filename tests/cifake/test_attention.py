"""Each attention module is the published one, and starts as it should."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.ops import SqueezeExcitation as TorchvisionSqueezeExcitation

from cifake.config import AttentionOptions, Config
from cifake.data.pack import Pack
from cifake.models import catalogue
from cifake.models.attention import MODULES, StyleRecalibration
from cifake.models.build import build, initialise, parameter_count

GATED = ("srm", "se", "eca", "cbam", "static_gate")


def _options(name: str, **given: object) -> AttentionOptions:
    """Complete options of a module, as a configuration makes them."""
    config = Config.model_validate(
        {"attention": name, "placement": "both", "attention_options": given}
    )
    return config.attention_options


def _module(name: str, channels: int = 6, seed: int = 0, **given: object) -> nn.Module:
    """A module with drawn weights, in double precision."""
    module = MODULES[name](channels, _options(name, **given)).double()
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return module


@pytest.fixture(scope="module")
def maps(demo: Pack) -> Callable[[int], torch.Tensor]:
    """Feature maps of real images: patches of 12 images cut into as many channels as asked for."""

    def make(channels: int) -> torch.Tensor:
        pixels = torch.from_numpy(demo.pixels[:: len(demo.pixels) // 12][:12].copy()).double()
        flat = pixels.permute(0, 3, 1, 2).reshape(12, -1)[:, : channels * 49]
        return flat.reshape(12, channels, 7, 7) / 127.5 - 1

    return make


Maps = Callable[[int], torch.Tensor]


class PaperRecalibration(nn.Module):
    """Lee, Kim and Nam 2019: style pooling, channel-wise layer, batch normalisation, sigmoid."""

    def __init__(self, channels: int, eps: float, pool: str, *, unbiased: bool) -> None:
        super().__init__()
        self.pool = pool
        count = 2 if pool == "both" else 1
        self.cfc = nn.Conv1d(channels, channels, kernel_size=count, bias=False, groups=channels)
        self.bn = nn.BatchNorm1d(channels)
        self.eps = eps
        self.unbiased = unbiased

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, channels, height, width = x.shape
        flat = x.reshape(n, channels, height * width)
        mean = flat.sum(-1) / (height * width)
        squares = ((flat - mean[..., None]) ** 2).sum(-1)
        std = (squares / (height * width - self.unbiased) + self.eps).sqrt()
        style = {"both": (mean, std), "mean": (mean,), "std": (std,)}[self.pool]
        z = self.cfc(torch.stack(style, -1))[..., 0]
        return x * torch.sigmoid(self.bn(z)).reshape(n, channels, 1, 1)


@pytest.mark.parametrize("std", ["unbiased", "biased"])
@pytest.mark.parametrize("eps", [1e-5, 0.5])
@pytest.mark.parametrize("pool", ["both", "mean", "std"])
@pytest.mark.parametrize("training", [True, False])
def test_recalibration_is_the_papers(
    std: str, eps: float, pool: str, training: bool, maps: Maps
) -> None:
    ours = _module("srm", std=std, eps=eps, pool=pool)
    theirs = PaperRecalibration(6, eps, pool, unbiased=std == "unbiased").double()
    theirs.load_state_dict(ours.state_dict())
    ours.train(training)
    theirs.train(training)
    x = maps(6).requires_grad_()
    y = x.detach().clone().requires_grad_()
    for _ in range(2):  # the second call meets moved running statistics
        out, expected = ours(x), theirs(y)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    (out**3).sum().backward()
    (expected**3).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-9, atol=1e-11)
    for mine, parameter in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, parameter.grad, rtol=1e-9, atol=1e-11)
    for mine, parameter in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(mine, parameter, rtol=1e-12, atol=1e-12)


def test_biased_and_unbiased_deviation_differ(maps: Maps) -> None:
    biased, unbiased = (_module("srm", std=std).eval() for std in ("biased", "unbiased"))
    assert not torch.allclose(biased(maps(6)), unbiased(maps(6)), rtol=1e-4)


@pytest.mark.parametrize("reduction", [1, 2, 16])
def test_squeeze_excitation_is_torchvisions(reduction: int, maps: Maps) -> None:
    ours = _module("se", 6, reduction=reduction)
    theirs = TorchvisionSqueezeExcitation(6, max(1, 6 // reduction)).double()
    with torch.no_grad():
        for mine, parameter in zip(ours.parameters(), theirs.parameters(), strict=True):
            parameter.copy_(mine.view_as(parameter))
    torch.testing.assert_close(ours(maps(6)), theirs(maps(6)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("channels", "width"), [(2, 1), (6, 1), (16, 3), (64, 3), (128, 5), (256, 5), (2048, 7)]
)
def test_efficient_channel_attention_is_as_wide_as_the_paper_says(
    channels: int, width: int
) -> None:
    """Of the widths published for γ = 2 and b = 1: 3 at 64 channels, 5 at 256, 7 at 2048."""
    module = MODULES["eca"](channels, _options("eca"))
    assert module.get_parameter("conv.weight").shape == (1, 1, width)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_efficient_channel_attention_looks_at_neighbouring_channels(size: int, maps: Maps) -> None:
    module, x = _module("eca", 6, kernel_size=size), maps(6)
    weight = module.get_parameter("conv.weight").detach().flatten().numpy()
    expected = np.empty_like(x.numpy())
    for image, channels in enumerate(x.numpy()):
        means = np.pad(channels.mean((1, 2)), size // 2)
        for channel in range(6):
            score = float(means[channel : channel + size] @ weight)
            expected[image, channel] = channels[channel] / (1 + math.exp(-score))
    np.testing.assert_allclose(module(x).detach().numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("size", [3, 7])
def test_convolutional_attention_is_the_papers(size: int, maps: Maps) -> None:
    """Equations 2 and 3 of Woo et al. 2018, written with linear layers and explicit loops."""
    module, x = _module("cbam", 6, reduction=2, kernel_size=size), maps(6)
    p = dict(module.named_parameters())

    def shared(v: torch.Tensor) -> torch.Tensor:
        hidden = functional.relu(v @ p["fc1.weight"].T + p["fc1.bias"])
        return hidden @ p["fc2.weight"].T + p["fc2.bias"]

    flat = x.flatten(2)
    channel = torch.sigmoid(shared(flat.mean(2)) + shared(flat.max(2).values))
    refined = x * channel[..., None, None]
    both = torch.stack([refined.mean(1), refined.max(1).values], 1)
    padded = functional.pad(both, [size // 2] * 4)
    windows = padded.unfold(2, size, 1).unfold(3, size, 1)
    place = torch.einsum("nchwij,cij->nhw", windows, p["conv.weight"][0])
    torch.testing.assert_close(module(x), refined * torch.sigmoid(place)[:, None])
    torch.testing.assert_close(module.gates(x), channel)  # type: ignore[operator]


def test_static_gate_is_the_same_for_every_image(maps: Maps) -> None:
    module, x = _module("static_gate", 6), maps(6)
    gates = 1 / (1 + torch.exp(-module.get_parameter("weight")))
    torch.testing.assert_close(module(x), torch.einsum("nchw,c->nchw", x, gates))


def test_batch_normalisation_control_is_torchs(maps: Maps) -> None:
    module, x = _module("batchnorm", 6), maps(6)
    scaled = (x - x.mean((0, 2, 3), keepdim=True)) / torch.sqrt(
        x.var((0, 2, 3), correction=0, keepdim=True) + 1e-5
    )
    gain, bias = (module.get_parameter(name)[:, None, None] for name in ("weight", "bias"))
    torch.testing.assert_close(module(x), scaled * gain + bias)


# Where gates start


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("name", "given"), [("srm", {"init": "zero"}), ("static_gate", {})])
def test_gates_start_half_open(
    name: str, given: dict[str, object], training: bool, maps: Maps
) -> None:
    module = MODULES[name](6, _options(name, **given)).double().train(training)
    initialise(module, 0)
    x = maps(6)
    assert torch.equal(module.gates(x), torch.full((12, 6), 0.5).double())  # type: ignore[operator]
    assert torch.equal(module(x), x / 2)


def test_uniform_initialisation_opens_gates_unequally(maps: Maps) -> None:
    module = StyleRecalibration(16, _options("srm", init="uniform")).double()
    initialise(module, 0)
    gates = module.gates(maps(16))
    assert ((gates > 0) & (gates < 1)).all()
    assert gates.std() > 0.05


@pytest.mark.parametrize("name", GATED)
def test_gates_scale_the_map(name: str, maps: Maps) -> None:
    """By channel; the convolutional module scales by place besides."""
    module, x = _module(name, 6).eval(), maps(6)
    gates = module.gates(x)  # type: ignore[operator]
    assert gates.shape == (12, 6)
    assert ((gates > 0) & (gates < 1)).all()
    scaled = x * gates[:, :, None, None]
    found = module(x)
    if name == "cbam":
        ratio = found / scaled
        torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-6, atol=1e-9)
    else:
        torch.testing.assert_close(found, scaled, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("channels", [1, 6, 16, 64])
def test_module_keeps_the_shape_and_passes_the_gradient(name: str, channels: int) -> None:
    module = MODULES[name](channels, _options(name)).train()
    initialise(module, 0)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, channels, 5, 5, generator=generator, requires_grad=True)
    out = module(x)
    assert out.shape == x.shape
    (out**2).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0


# Sizes

SIZES = {
    "srm": {"after_pool1": 24, "after_pool2": 64, "both": 88},
    "se": {"after_pool1": 6 * 1 * 2 + 7, "after_pool2": 16 * 4 * 2 + 20},
    "eca": {"after_pool1": 1, "after_pool2": 3},
    "cbam": {"after_pool1": 6 * 1 * 2 + 7 + 98, "after_pool2": 16 * 4 * 2 + 20 + 98},
    "static_gate": {"after_pool1": 6, "both": 22},
    "batchnorm": {"after_pool1": 12, "both": 44},
}


@pytest.mark.parametrize(
    ("name", "placement", "more"),
    [(name, placement, more) for name, sizes in SIZES.items() for placement, more in sizes.items()],
)
def test_parameters_are_counted(name: str, placement: str, more: int) -> None:
    model = build(Config(attention=name, placement=placement), 0)
    assert parameter_count(model) == 61_241 + more


@pytest.mark.parametrize("pool", ["mean", "std"])
def test_one_pooled_statistic_has_three_parameters_a_channel(pool: str) -> None:
    config = Config.model_validate(
        {"attention": "srm", "placement": "both", "attention_options": {"pool": pool}}
    )
    assert parameter_count(build(config, 0)) == 61_241 + 66


def test_every_module_can_stand_at_every_site_of_every_small_network(demo: Pack) -> None:
    images = torch.from_numpy(demo.pixels[:4].copy())
    for model in ("base", "paper", "convnet"):
        for name in MODULES:
            sites = catalogue.sites_of(Config(model=model))
            for site in sites:
                network = build(Config(model=model, attention=name, placement=site), 0)
                assert network(images).shape == (4,)


def test_state_dict_of_the_published_form_loads() -> None:
    module = StyleRecalibration(6, _options("srm"))
    assert {name: tuple(value.shape) for name, value in module.state_dict().items()} == {
        "cfc.weight": (6, 1, 2),
        "bn.weight": (6,),
        "bn.bias": (6,),
        "bn.running_mean": (6,),
        "bn.running_var": (6,),
        "bn.num_batches_tracked": (),
    }
