"""The networks are those of the tutorial and the paper, and start equal where they share layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from cifake.config import Config
from cifake.data.pack import Pack
from cifake.models import catalogue
from cifake.models.build import build, parameter_count
from cifake.models.network import Network
from tests.tutorial_net import Net

PLACEMENTS = {"none": 0, "after_pool1": 24, "after_pool2": 64, "both": 88}


def _config(placement: str, **options: object) -> Config:
    if placement == "none":
        return Config()
    given = {"attention": "srm", "placement": placement, "attention_options": options}
    return Config.model_validate(given)


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
    assert isinstance(ours, Network)
    theirs = Net().double()
    theirs.load_state_dict(ours.state_dict())
    x = _images(16, 3, 32, 32).requires_grad_()
    y = x.detach().clone().requires_grad_()
    out, expected = ours.logits(x).squeeze(1), theirs(y).squeeze(1)
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


ARCHITECTURES: dict[str, dict[str, object]] = {
    "base": {},
    "paper": {"conv_layers": 3, "filters": 8, "dense_layers": 2, "neurons": 16},
    "convnet": {"filters": 4},
    "resnet": {"depth": 8, "width": 4},
    "linear": {},
    **{f"torchvision:{name}": {"backbone": name} for name in catalogue.BACKBONES},
}
SMALL = [name for name in ARCHITECTURES if not name.startswith("torchvision")]


def _network(name: str, **others: object) -> Config:
    model = name.partition(":")[0]
    return Config.model_validate({"model": model, "model_options": ARCHITECTURES[name], **others})


@pytest.fixture(scope="module")
def images(demo: Pack) -> torch.Tensor:
    """Eight images of each label."""
    rows = np.concatenate([np.flatnonzero(demo.labels == label)[:8] for label in (0, 1)])
    return torch.from_numpy(demo.pixels[rows])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gradient_flows_through_every_site(name: str, images: torch.Tensor) -> None:
    """And reaches every parameter, with a module that lets a zero-initialised one through."""
    sites = catalogue.sites_of(_network(name))
    attention = {"attention": "se", "placement": "+".join(sites)} if sites else {}
    model = build(_network(name, **attention), 0)
    model.train()
    seen = {}
    for site, module in model.get_submodule("attention").named_children():
        module.register_full_backward_hook(
            lambda _, grad_in, grad_out, site=site: seen.update({site: (grad_in[0], grad_out[0])})
        )
    assert model(images).shape == (16,)
    (model(images) * torch.linspace(-1, 1, 16)).sum().backward()
    assert list(seen) == list(reversed(sites))
    for site, (before, after) in seen.items():
        assert before.shape == after.shape
        assert before.shape[1] == sites[site]
        assert before.abs().max() > 0
        assert after.abs().max() > 0
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None, path
        # A bias before a normalisation moves nothing, but for rounding.
        assert torch.isfinite(parameter.grad).all(), path


@pytest.mark.parametrize("name", SMALL)
def test_gradient_reaches_every_parameter(name: str, images: torch.Tensor) -> None:
    model = build(_network(name), 0)
    (model(images) * torch.linspace(-1, 1, 16)).sum().backward()
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.abs().max() > 0, path


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_networks_start_from_the_seed(name: str) -> None:
    one, same, other = (build(_network(name), seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logit_of_an_image_does_not_depend_on_its_company(name: str, images: torch.Tensor) -> None:
    model = build(_network(name), 0).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(images)[3:5], model(images[3:5]), rtol=1e-3, atol=1e-4)


def test_init_seed_stands_for_the_seed() -> None:
    one, other = build(Config(init_seed=3), 9).state_dict(), build(Config(), 3).state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)


def _plain_paper(layers: int, filters: int, dense: int, neurons: int) -> nn.Sequential:
    """A topology of the paper as Keras users write it: convolution, ReLU, pooling, dense layers."""
    modules: list[nn.Module] = []
    for before in [3, *[filters] * (layers - 1)]:
        modules += [nn.Conv2d(before, filters, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    modules.append(nn.Flatten())
    size = filters * (32 // 2**layers) ** 2
    for _ in range(dense):
        modules += [nn.Linear(size, neurons), nn.ReLU()]
        size = neurons
    return nn.Sequential(*modules, nn.Linear(size, 1))


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize(("dense", "neurons"), [(0, 0), (1, 32), (3, 64)])
def test_paper_topologies_are_their_plain_form(
    layers: int, dense: int, neurons: int, images: torch.Tensor
) -> None:
    options = {"conv_layers": layers, "filters": 16, "dense_layers": dense}
    options |= {"neurons": neurons} if dense else {}
    ours = build(Config.model_validate({"model": "paper", "model_options": options}), 0)
    theirs = _plain_paper(layers, 16, dense, neurons)
    with torch.no_grad():
        for mine, parameter in zip(ours.parameters(), theirs.parameters(), strict=True):
            parameter.copy_(mine)
    x = (images.double() / 255 * 2 - 1).float().permute(0, 3, 1, 2)
    torch.testing.assert_close(ours(images), theirs(x).squeeze(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("depth", "width", "published"), [(20, 16, 0.27e6), (56, 16, 0.85e6), (110, 16, 1.7e6)]
)
def test_residual_networks_have_the_published_size(
    depth: int, width: int, published: float
) -> None:
    """Table 6 of He et al. 2016, of networks with ten outputs, 585 parameters more than ours."""
    options = {"depth": depth, "width": width}
    count = parameter_count(
        build(Config.model_validate({"model": "resnet", "model_options": options}), 0)
    )
    assert count + 9 * 65 == pytest.approx(published, rel=0.025)


class PlainBlock(nn.Module):
    """A basic block with the parameter-free shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.more = after - before
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x)))))
        short = x[:, :, :: self.stride, :: self.stride]
        zeros = short.new_zeros(len(x), self.more // 2, *short.shape[2:])
        return functional.relu(out + torch.cat([zeros, short, zeros], 1))


def test_residual_network_is_its_plain_form(images: torch.Tensor) -> None:
    config = Config.model_validate({"model": "resnet", "model_options": {"depth": 14, "width": 4}})
    ours = build(config, 0)
    plain = nn.Sequential(
        nn.Conv2d(3, 4, 3, 1, 1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        PlainBlock(4, 4, 1),
        PlainBlock(4, 4, 1),
        PlainBlock(4, 8, 2),
        PlainBlock(8, 8, 1),
        PlainBlock(8, 16, 2),
        PlainBlock(16, 16, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 1),
    )
    with torch.no_grad():
        for mine, parameter in zip(ours.parameters(), plain.parameters(), strict=True):
            parameter.copy_(mine)
    x = (images.double() / 255 * 2 - 1).float().permute(0, 3, 1, 2)
    torch.testing.assert_close(ours(images), plain(x).squeeze(1), rtol=1e-4, atol=1e-5)
    spread = ours.get_parameter("blocks.5.conv2.weight").std().item()
    assert spread == pytest.approx((2 / (16 * 9)) ** 0.5, rel=0.1)


@pytest.mark.parametrize("backbone", ["resnet18", "densenet121", "convnext_tiny"])
def test_backbone_is_torchvisions_but_for_its_stem(backbone: str, images: torch.Tensor) -> None:
    """torchvision's own network with our stem put in gives our logits."""
    ours = build(_network(f"torchvision:{backbone}"), 0).eval()
    theirs = torchvision.models.get_model(backbone, weights=None, num_classes=1).eval()
    stem = ours.get_submodule("parts.stem")
    if backbone == "resnet18":
        theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    elif backbone == "densenet121":
        theirs.features.conv0 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        theirs.features.pool0 = nn.Identity()
    else:
        theirs.features[0][0] = nn.Conv2d(3, 96, 2, 2)
    assert stem is not None
    mine, other = list(ours.state_dict().values()), theirs.state_dict()
    assert [tuple(value.shape) for value in mine] == [tuple(v.shape) for v in other.values()]
    theirs.load_state_dict(dict(zip(other, mine, strict=True)))
    x = (images.double() / 255 * 2 - 1).float().permute(0, 3, 1, 2)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(x).squeeze(1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2", "convnext_tiny"])
def test_backbone_starts_spread_as_torchvision_spreads_it(backbone: str) -> None:
    ours = build(_network(f"torchvision:{backbone}"), 0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = torchvision.models.get_model(backbone, weights=None, num_classes=1)
    mine = [p for p in ours.parameters() if p.numel() > 10_000]
    other = [p for p in theirs.parameters() if p.numel() > 10_000]
    assert len(mine) >= len(other) - 1
    for one, two in zip(mine[-10:], other[-10:], strict=True):
        assert one.shape == two.shape
        assert one.std().item() == pytest.approx(two.std().item(), rel=0.05)


@pytest.mark.parametrize(
    ("model", "asked", "allowed"),
    [("base", 10, 10), ("attn", 10, 10), ("mini", 10, 1), ("statistics", 10, 1)],
)
def test_some_models_train_one_epoch_at_most(model: str, asked: int, allowed: int) -> None:
    assert catalogue.epochs_allowed(model, asked) == allowed


# Placements


@pytest.mark.parametrize(
    ("name", "group", "sites"),
    [
        ("base", "both", ("after_pool1", "after_pool2")),
        ("paper", "all", ("after_pool1", "after_pool2", "after_pool3")),
        ("resnet", "all", ("in_block1", "in_block2", "in_block3")),
        ("torchvision:resnet18", "all", tuple(f"after_stage{n}" for n in (1, 2, 3, 4))),
    ],
)
def test_group_of_sites_has_one_name(name: str, group: str, sites: tuple[str, ...]) -> None:
    given = _network(name, attention="se", placement="+".join(reversed(sites)))
    assert given == _network(name, attention="se", placement=group)
    assert given.placement == group
    assert catalogue.placement_sites(given, group) == sites


@pytest.mark.parametrize("placement", ["after_conv1", "after_conv2+after_pool1"])
def test_attention_before_pooling_comes_after_the_activation(
    placement: str, images: torch.Tensor
) -> None:
    """Open gates change nothing; the map there is not negative."""
    model = build(Config(attention="static_gate", placement=placement), 0)
    plain = build(Config(), 0)
    for site in placement.split("+"):
        module = model.get_submodule(f"attention.{site}")
        torch.nn.init.constant_(module.get_parameter("weight"), 50.0)
        module.register_forward_pre_hook(lambda _, args: self_check(args[0]))
    torch.testing.assert_close(model(images), plain(images))


def self_check(x: torch.Tensor) -> None:
    assert x.min() == 0
    assert x.max() > 0


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_attention_acts_at_its_sites_alone(placement: str, images: torch.Tensor) -> None:
    """Zeroing a site's map by closed gates changes the output where there is a site."""
    config = _config(placement)
    model = build(config, 0).eval()
    sites = catalogue.placement_sites(config, config.placement)
    plain = build(Config(), 0).eval()
    modules = model.get_submodule("attention")
    assert {name for name, _ in modules.named_children()} == set(sites)
    for site in sites:
        torch.nn.init.constant_(model.get_parameter(f"attention.{site}.bn.bias"), 50.0)
    torch.testing.assert_close(model(images), plain(images))
    for site in sites:
        torch.nn.init.constant_(model.get_parameter(f"attention.{site}.bn.bias"), -50.0)
        assert not torch.allclose(model(images), plain(images))
