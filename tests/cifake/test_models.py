"""The networks are those of the tutorial and the paper, and start equal where they share layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from cifake.config import AttentionOptions, Config
from cifake.models import catalogue
from cifake.models.attention import StyleRecalibration
from cifake.models.build import build, parameter_count

PLACEMENTS = {"none": 0, "after_pool1": 24, "after_pool2": 64, "both": 88}


def _config(placement: str, **options: object) -> Config:
    if placement == "none":
        return Config()
    given = {"attention": "srm", "placement": placement, "attention_options": options}
    return Config.model_validate(given)


class TutorialNet(nn.Module):
    """https://pytorch.org/tutorials/beginner/blitz/cifar10_tutorial.html, with one output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(functional.relu(self.conv1(x)))
        x = self.pool(functional.relu(self.conv2(x)))
        x = torch.flatten(x, 1)
        x = functional.relu(self.fc1(x))
        x = functional.relu(self.fc2(x))
        return self.fc3(x)[:, 0]


class PaperRecalibration(nn.Module):
    """Lee, Kim and Nam 2019: style pooling, channel-wise layer, batch normalisation, sigmoid."""

    def __init__(self, channels: int, eps: float, *, unbiased: bool) -> None:
        super().__init__()
        self.cfc = nn.Conv1d(channels, channels, kernel_size=2, bias=False, groups=channels)
        self.bn = nn.BatchNorm1d(channels)
        self.eps = eps
        self.unbiased = unbiased

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, channels, height, width = x.shape
        flat = x.reshape(n, channels, height * width)
        mean = flat.sum(-1) / (height * width)
        squares = ((flat - mean[..., None]) ** 2).sum(-1)
        std = (squares / (height * width - self.unbiased) + self.eps).sqrt()
        z = self.cfc(torch.stack((mean, std), -1))[..., 0]
        return x * torch.sigmoid(self.bn(z)).reshape(n, channels, 1, 1)


def _images(n: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize(("placement", "more"), PLACEMENTS.items())
def test_parameters_are_as_published(placement: str, more: int) -> None:
    assert parameter_count(build(_config(placement), 0)) == 61_241 + more


def test_frozen_parameters_are_not_counted() -> None:
    model = build(Config(), 0)
    model.get_submodule("fc3").requires_grad_(False)
    assert parameter_count(model) == 61_241 - 85


def test_base_is_the_tutorial_network() -> None:
    """Equal outputs and gradients, though ReLU comes after pooling here."""
    ours = build(Config(), 3).double()
    theirs = TutorialNet().double()
    theirs.load_state_dict(ours.state_dict())
    x = _images(16, 3, 32, 32).requires_grad_()
    y = x.detach().clone().requires_grad_()
    out, expected = ours(x), theirs(y)
    assert out.shape == (16,)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    (out**2).sum().backward()
    (expected**2).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-10, atol=1e-12)
    for (name, mine), (other, parameter) in zip(
        ours.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert name == other
        torch.testing.assert_close(mine.grad, parameter.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("std", ["unbiased", "biased"])
@pytest.mark.parametrize("eps", [1e-5, 0.5])
@pytest.mark.parametrize("training", [True, False])
def test_recalibration_is_the_papers(std: str, eps: float, training: bool) -> None:
    options = AttentionOptions.model_validate({"init": "uniform", "std": std, "eps": eps})
    torch.manual_seed(5)
    ours = StyleRecalibration(6, options).double()
    theirs = PaperRecalibration(6, eps, unbiased=std == "unbiased").double()
    theirs.load_state_dict(ours.state_dict())
    ours.train(training)
    theirs.train(training)
    x = _images(12, 6, 14, 14, seed=1).requires_grad_()
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


def test_biased_and_unbiased_deviation_differ() -> None:
    x = _images(4, 6, 5, 5)
    found = []
    for std in ("unbiased", "biased"):
        torch.manual_seed(0)
        options = AttentionOptions.model_validate({"init": "uniform", "std": std})
        found.append(StyleRecalibration(6, options).double().eval()(x))
    assert not torch.allclose(found[0], found[1], rtol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_zero_initialisation_opens_every_gate_half(training: bool) -> None:
    module = StyleRecalibration(16, AttentionOptions(init="zero")).train(training)
    x = _images(8, 16, 5, 5).float()
    assert torch.equal(module.gates(x), torch.full((8, 16), 0.5))
    assert torch.equal(module(x), x / 2)


def test_uniform_initialisation_opens_gates_unequally() -> None:
    module = StyleRecalibration(16, AttentionOptions(init="uniform"))
    gates = module.gates(_images(8, 16, 5, 5).float())
    assert ((gates > 0) & (gates < 1)).all()
    assert gates.std() > 0.05


@pytest.mark.parametrize("placement", ["after_pool1", "after_pool2", "both"])
@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_shared_layers_start_equal_at_equal_seeds(placement: str, seed: int) -> None:
    base = build(Config(), seed).state_dict()
    other = build(_config(placement, init="uniform"), seed).state_dict()
    assert base.keys() <= other.keys()
    for name, value in base.items():
        assert torch.equal(value, other[name]), name


def test_a_site_starts_equal_wherever_else_attention_is() -> None:
    both = build(_config("both", init="uniform"), 4).state_dict()
    for site in ("after_pool1", "after_pool2"):
        alone = build(_config(site, init="uniform"), 4).state_dict()
        name = f"attention.{site}.cfc.weight"
        assert torch.equal(both[name], alone[name])


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_other_seeds_start_differently(placement: str) -> None:
    """Every drawn parameter; biases and gains of normalisation are constants."""
    models = [build(_config(placement, init="uniform"), seed) for seed in (0, 1)]
    for (name, one), other in zip(
        models[0].named_parameters(), models[1].parameters(), strict=True
    ):
        assert torch.equal(one, other) == (".bn." in name), name


def test_layers_of_one_network_draw_from_streams_of_their_own() -> None:
    model = build(_config("both", init="uniform"), 0)
    drawn = [p.flatten()[:6].tolist() for n, p in model.named_parameters() if ".bn." not in n]
    scaled = [[round(v / values[0], 4) for v in values] for values in drawn if len(values) == 6]
    assert len({tuple(values) for values in scaled}) == len(scaled)


def test_building_is_the_same_every_time_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(99)
    expected = torch.rand(3)
    torch.manual_seed(99)
    first = build(Config(), 0)
    assert torch.equal(torch.rand(3), expected)
    second = build(Config(), 0)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_initial_weights_are_spread_as_torch_spreads_them() -> None:
    """Uniform within one over the root of the fan-in, as in the tutorial."""
    for name, parameter in build(Config(), 0).named_parameters():
        fan_in = {"conv1": 75, "conv2": 150, "fc1": 400, "fc2": 120, "fc3": 84}[name.split(".")[0]]
        bound = fan_in**-0.5
        assert parameter.abs().max() <= bound
        if parameter.numel() > 1000:
            assert parameter.abs().max() > 0.99 * bound
            assert parameter.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_gradient_reaches_every_parameter(placement: str) -> None:
    model = build(_config(placement, init="uniform"), 0)
    model(_images(8, 3, 32, 32).float()).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("placement", ["after_pool1", "after_pool2", "both"])
def test_zero_initialisation_trains_after_one_step(placement: str) -> None:
    """The channel-wise layer at once; the gain of normalisation once it has moved."""
    model = build(_config(placement), 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = _images(8, 3, 32, 32).float()
    for _ in range(2):
        optimizer.zero_grad()
        (model(x) ** 2).sum().backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_attention_acts_at_its_sites_alone(placement: str) -> None:
    """Zeroing a site's map by closed gates changes the output where there is a site."""
    config = _config(placement)
    model = build(config, 0).eval()
    sites = catalogue.placement_sites("base", config.placement)
    x = _images(4, 3, 32, 32).float()
    plain = build(Config(), 0).eval()
    modules = model.get_submodule("attention")
    assert {name for name, _ in modules.named_children()} == set(sites)
    for site in sites:
        torch.nn.init.constant_(model.get_parameter(f"attention.{site}.bn.bias"), 50.0)
    torch.testing.assert_close(model(x), plain(x))
    for site in sites:
        torch.nn.init.constant_(model.get_parameter(f"attention.{site}.bn.bias"), -50.0)
        assert not torch.allclose(model(x), plain(x))


def test_state_dict_of_the_published_form_loads() -> None:
    module = StyleRecalibration(6, AttentionOptions())
    assert {name: tuple(value.shape) for name, value in module.state_dict().items()} == {
        "cfc.weight": (6, 1, 2),
        "bn.weight": (6,),
        "bn.bias": (6,),
        "bn.running_mean": (6,),
        "bn.running_var": (6,),
        "bn.num_batches_tracked": (),
    }


@pytest.mark.parametrize(
    ("model", "asked", "allowed"), [("base", 10, 10), ("attn", 10, 10), ("mini", 10, 1)]
)
def test_mini_trains_one_epoch_at_most(model: str, asked: int, allowed: int) -> None:
    assert catalogue.epochs_allowed(model, asked) == allowed
    assert Config.model_validate({"model": model}).model == "base"
