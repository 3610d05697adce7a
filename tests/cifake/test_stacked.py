"""A stack of networks is its members: outputs, gradients, statistics, and the steps they take."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from cifake.config import Config
from cifake.data.pack import Pack
from cifake.models import catalogue
from cifake.models.build import build
from cifake.models.stacked import NotStackableError, join, part, stack
from cifake.updates import Updater

MEMBERS = 3

ARCHITECTURES: dict[str, dict[str, object]] = {
    "base": {},
    "paper": {"conv_layers": 2, "filters": 4, "dense_layers": 2, "neurons": 8},
    "convnet": {"filters": 4},
    "resnet": {"depth": 8, "width": 4},
    "linear": {},
    "torchvision:resnet18": {"backbone": "resnet18"},
}
SMALL = [name for name in ARCHITECTURES if not name.startswith("torchvision")]
COMBINATIONS = [
    *((name, "none") for name in ARCHITECTURES),
    *((name, kind) for name in SMALL if name != "linear" for kind in catalogue.ATTENTION),
    ("torchvision:resnet18", "cbam"),
]


def _config(name: str, attention: str = "none", **others: object) -> Config:
    given_ = {"model": name.partition(":")[0], "model_options": ARCHITECTURES[name], **others}
    sites = catalogue.sites_of(Config.model_validate(given_))
    placement = "none" if attention == "none" else "+".join(sites)
    return Config.model_validate(given_ | {"attention": attention, "placement": placement})


def _members(config: Config) -> list[nn.Module]:
    """Networks of several seeds, in double precision, with what starts at zero moved from there."""
    models = []
    for seed in range(MEMBERS):
        model = build(config, seed).double().train()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for path, parameter in model.named_parameters():
                if path.startswith("attention."):
                    noise = torch.randn(parameter.shape, generator=generator)
                    parameter.add_(0.3 * noise)
        models.append(model)
    return models


@pytest.fixture(scope="module")
def images(demo: Pack) -> list[torch.Tensor]:
    """Six images for each member."""
    rows = np.random.default_rng(0).permutation(demo.rows("train"))[: 6 * MEMBERS]
    return list(torch.from_numpy(demo.pixels[rows]).double().chunk(MEMBERS))


def _same_gradients(stacked: nn.Module, models: list[nn.Module]) -> None:
    found = {path: parameter.grad for path, parameter in stacked.named_parameters()}
    for number, model in enumerate(models):
        gradients = part({k: v for k, v in found.items() if v is not None}, number, MEMBERS)
        for path, parameter in model.named_parameters():
            assert parameter.grad is not None, path
            scale = parameter.grad.abs().max().item()
            difference = (gradients[path] - parameter.grad).abs().max().item()
            assert difference <= 1e-9 * scale + 1e-13, path


def _same_states(stacked: nn.Module, models: list[nn.Module]) -> None:
    for number, model in enumerate(models):
        state = part(stacked.state_dict(), number, MEMBERS)
        assert state.keys() == model.state_dict().keys()
        for path, value in model.state_dict().items():
            torch.testing.assert_close(state[path], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("name", "attention"), COMBINATIONS)
def test_outputs_gradients_and_statistics_are_the_members(
    name: str, attention: str, images: list[torch.Tensor]
) -> None:
    models = _members(_config(name, attention))
    stacked = stack(models)
    out = stacked(torch.cat(images, 3))
    expected = torch.stack([m(x) for m, x in zip(models, images, strict=True)], 1)
    assert out.shape == (6, MEMBERS)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-12)
    weights = torch.linspace(-1, 2, 6 * MEMBERS).double().view(6, MEMBERS)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    _same_gradients(stacked, models)
    _same_states(stacked, models)


@pytest.mark.parametrize("normalization", ["half", "imagenet", "dataset"])
@pytest.mark.parametrize("input_", catalogue.INPUTS)
def test_inputs_of_members_are_filtered_and_normalised_alone(
    input_: str, normalization: str, images: list[torch.Tensor]
) -> None:
    models = _members(_config("base", input=input_, normalization=normalization))
    for number, model in enumerate(models):
        if normalization == "dataset" and not input_.startswith("steg"):
            model.get_buffer("pixels.mean").fill_(90 + number)
    found = stack(models)(torch.cat(images, 3))
    expected = torch.stack([m(x) for m, x in zip(models, images, strict=True)], 1)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("training", [True, False])
def test_images_can_be_shared(name: str, training: bool, images: list[torch.Tensor]) -> None:
    models = [model.train(training) for model in _members(_config(name))]
    found = stack(models)(images[0])
    expected = torch.stack([model(images[0]) for model in models], 1)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    found.sum().backward()
    expected.sum().backward()


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize(("name", "attention"), [("base", "srm"), ("convnet", "se")])
def test_members_follow_their_networks_for_fifty_steps(
    name: str, attention: str, optimizer: str, demo: Pack
) -> None:
    settings_ = {"name": optimizer, "lr": 0.01 if optimizer == "sgd" else 0.001}
    config = _config(name, attention, optimizer={**settings_, "weight_decay": 0.01})
    models = _members(config)
    stacked = stack(models)
    together = Updater(config, stacked, "cpu")
    alone = [Updater(config, model, "cpu") for model in models]
    rng = np.random.default_rng(0)
    rows = demo.rows("train")
    for _ in range(50):
        drawn = [rng.choice(rows, 8) for _ in models]
        pixels = [torch.from_numpy(demo.pixels[each]).double() for each in drawn]
        labels = [torch.from_numpy(demo.labels[each]).double() for each in drawn]
        losses = functional.binary_cross_entropy_with_logits(
            stacked(torch.cat(pixels, 3)), torch.stack(labels, 1), reduction="none"
        )
        together.step(losses.mean(0).sum(), config.optimizer.lr)
        for model, updater, x, y in zip(models, alone, pixels, labels, strict=True):
            loss = functional.binary_cross_entropy_with_logits(model(x), y)
            updater.step(loss, config.optimizer.lr)
    for number, (model, updater) in enumerate(zip(models, alone, strict=True)):
        state = part(stacked.state_dict(), number, MEMBERS)
        for path, value in model.state_dict().items():
            torch.testing.assert_close(state[path], value, rtol=1e-9, atol=1e-11)
        moments = part(together.tensors(), number, MEMBERS)
        for key, value in updater.tensors().items():
            torch.testing.assert_close(moments[key], value, rtol=1e-9, atol=1e-11)


def test_a_member_that_is_not_finite_leaves_the_others_as_they_are(
    images: list[torch.Tensor],
) -> None:
    models = _members(_config("convnet", "srm"))
    with torch.no_grad():
        models[1].get_parameter("convs.0.weight").fill_(float("inf"))
    stacked = stack(models)
    out = stacked(torch.cat(images, 3))
    functional.binary_cross_entropy_with_logits(out, torch.ones_like(out)).backward()
    for number in (0, 2):
        expected = models[number](images[number])
        torch.testing.assert_close(out[:, number], expected, rtol=1e-9, atol=1e-12)
        grown = {p: v.grad for p, v in stacked.named_parameters() if v.grad is not None}
        assert all(torch.isfinite(g).all() for g in part(grown, number, MEMBERS).values())
    assert not torch.isfinite(out[:, 1]).any()


@pytest.mark.parametrize(
    "backbone", ["densenet121", "mobilenet_v2", "efficientnet_b0", "convnext_tiny"]
)
def test_what_looks_across_channels_is_refused_by_name(backbone: str) -> None:
    config = Config.model_validate(
        {"model": "torchvision", "model_options": {"backbone": backbone}}
    )
    with pytest.raises(NotStackableError, match="looks across channels or draws at random"):
        stack([build(config, 0), build(config, 1)])


def test_stacking_leaves_the_members_alone(images: list[torch.Tensor]) -> None:
    models = _members(_config("base", "srm"))
    before = [{k: v.clone() for k, v in model.state_dict().items()} for model in models]
    stack(models)(torch.cat(images, 3)).sum().backward()
    for model, state in zip(models, before, strict=True):
        assert all(torch.equal(value, state[k]) for k, value in model.state_dict().items())
        assert all(parameter.grad is None for parameter in model.parameters())
        assert model(images[0]).shape == (6,)


@settings(deadline=None)
@given(
    members=st.integers(1, 5),
    shapes=st.dictionaries(
        st.sampled_from("abc"), st.lists(st.integers(1, 4), max_size=3), min_size=1
    ),
)
def test_parts_of_what_was_joined_are_what_it_was_joined_of(
    members: int, shapes: dict[str, list[int]]
) -> None:
    generator = torch.Generator().manual_seed(0)
    common = torch.rand((), generator=generator)
    states = [
        {
            name: torch.rand(shape, generator=generator) if shape else common
            for name, shape in shapes.items()
        }
        for _ in range(members)
    ]
    joined = join(states)
    for number, state in enumerate(states):
        taken = part(joined, number, members)
        assert taken.keys() == state.keys()
        assert all(torch.equal(taken[name], state[name]) for name in state)
