"""Learning rates and steps are those of torch's own schedules and update rules."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, OneCycleLR, SequentialLR

from cifake.config import Config, Schedule
from cifake.models.build import build
from cifake.updates import Updater, learning_rate

STEPS = 7


def _rates(schedule: Schedule, highest: float) -> list[float]:
    count = (schedule.horizon or 1) * STEPS
    return [learning_rate(schedule, highest, step, STEPS) for step in range(count)]


def _torch_rates(make: object, highest: float, count: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=highest)
    scheduler = make(optimizer)  # type: ignore[operator]
    rates = []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("horizon", [1, 3, 10])
def test_cosine_is_torchs(horizon: int) -> None:
    count = horizon * STEPS
    expected = _torch_rates(lambda o: CosineAnnealingLR(o, count), 0.3, count)
    found = _rates(Schedule(name="cosine", horizon=horizon), 0.3)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_cosine_after_a_warm_up_is_torchs() -> None:
    count, warm = 10 * STEPS, 2 * STEPS

    def make(optimizer: torch.optim.Optimizer) -> SequentialLR:
        rise = LinearLR(optimizer, 1 / (warm + 1), 1.0, total_iters=warm)
        fall = CosineAnnealingLR(optimizer, count - warm)
        return SequentialLR(optimizer, [rise, fall], [warm])

    expected = _torch_rates(make, 0.3, count)
    found = _rates(Schedule(name="cosine", horizon=10, warmup=0.2), 0.3)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("horizon", [2, 10])
@pytest.mark.parametrize("warmup", [0.3, 0.1, 0.5])
def test_one_cycle_is_torchs(horizon: int, warmup: float) -> None:
    count = horizon * STEPS
    expected = _torch_rates(
        lambda o: OneCycleLR(o, 0.3, count, pct_start=warmup, cycle_momentum=False), 0.3, count
    )
    found = _rates(Schedule(name="one_cycle", horizon=horizon, warmup=warmup), 0.3)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_constant_rate_is_constant() -> None:
    assert set(_rates(Schedule(), 0.3)) == {0.3}


def _step(config: Config, model: nn.Module, images: torch.Tensor, times: int = 3) -> Updater:
    updater = Updater(config, model, "cpu")
    for _ in range(times):
        updater.step((model(images) ** 2).mean(), config.optimizer.lr)
    return updater


@pytest.fixture
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8, generator=generator)


RULES: dict[
    str, tuple[dict[str, object], Callable[[list[nn.Parameter]], torch.optim.Optimizer]]
] = {
    "sgd": (
        {"name": "sgd", "lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01},
        lambda p: torch.optim.SGD(p, 0.1, 0.8, nesterov=True, weight_decay=0.01, fused=True),
    ),
    "sgd without momentum": (
        {"name": "sgd", "lr": 0.1, "momentum": 0.0},
        lambda p: torch.optim.SGD(p, 0.1, fused=True),
    ),
    "adam": (
        {"name": "adam", "lr": 0.01, "beta1": 0.8, "weight_decay": 0.01},
        lambda p: torch.optim.Adam(p, 0.01, (0.8, 0.999), weight_decay=0.01, fused=True),
    ),
    "adamw": (
        {"name": "adamw", "lr": 0.01, "eps": 1e-6, "weight_decay": 0.01},
        lambda p: torch.optim.AdamW(p, 0.01, eps=1e-6, weight_decay=0.01, fused=True),
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_steps_are_those_of_torchs_classes(rule: str, images: torch.Tensor) -> None:
    """Bit for bit, though the classes themselves are not used."""
    settings, make = RULES[rule]
    config = Config.model_validate({"optimizer": settings})
    ours, theirs = build(config, 0), build(config, 0)
    _step(config, ours, images)
    optimizer = make(list(theirs.parameters()))
    for _ in range(3):
        optimizer.zero_grad()
        (theirs(images) ** 2).mean().backward()
        optimizer.step()
    for name, parameter in theirs.named_parameters():
        assert torch.equal(ours.get_parameter(name), parameter), name


def test_training_does_not_import_torchs_compiler() -> None:
    body = """
import sys
from cifake.batches import TrainingData
from cifake.config import Config
from cifake.data.locate import open_dataset
from cifake.training import train
pack = open_dataset("demo")
data = TrainingData(pack.pixels, pack.labels, pack.rows("train")[:64])
train(Config(), [0, 1], data, lambda epoch: None, epochs=1)
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize("channels_last", [True, False])
def test_muon_is_torchs_on_flattened_filters(channels_last: bool, images: torch.Tensor) -> None:
    """Matrices of the filters go through torch's Muon, everything else through its AdamW."""
    config = Config.model_validate(
        {
            "optimizer": {"name": "muon", "lr": 0.01, "weight_decay": 0.1},
            "execution": {"channels_last": channels_last},
        }
    )
    ours = build(config, 0)
    _step(config, ours, images)

    theirs = build(config, 0).to(memory_format=torch.contiguous_format)
    matrices = {
        name: nn.Parameter(p.detach().flatten(1).clone())
        for name, p in theirs.named_parameters()
        if p.dim() > 1 and name != "fc3.weight"
    }
    assert set(matrices) == {"conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"}
    muon = torch.optim.Muon(
        list(matrices.values()),
        lr=0.01,
        weight_decay=0.1,
        momentum=0.95,
        nesterov=True,
        adjust_lr_fn="match_rms_adamw",
    )
    rest = [p for name, p in theirs.named_parameters() if name not in matrices]
    adam = torch.optim.AdamW(rest, lr=0.01, weight_decay=0.1, foreach=False)
    for _ in range(3):
        theirs.zero_grad()
        (theirs(images) ** 2).mean().backward()
        for name, parameter in theirs.named_parameters():
            if name in matrices:
                assert parameter.grad is not None
                matrices[name].grad = parameter.grad.flatten(1)
        muon.step()
        adam.step()
        with torch.no_grad():
            for name, parameter in theirs.named_parameters():
                if name in matrices:
                    parameter.copy_(matrices[name].view_as(parameter))
    # Muon orthogonalises in bfloat16, where the order of the inputs is felt.
    for name, parameter in theirs.named_parameters():
        moved = (parameter - build(config, 0).get_parameter(name)).norm()
        apart = (ours.get_parameter(name) - parameter).norm()
        assert apart < 0.02 * moved, name


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "muon"])
def test_state_is_put_back_whole(name: str, images: torch.Tensor) -> None:
    config = Config.model_validate(
        {"optimizer": {"name": name}, "attention": "srm", "placement": "both"}
    )
    model = build(config, 0)
    tensors = _step(config, model, images).tensors()
    fresh = Updater(config, model, "cpu")
    assert fresh.tensors().keys() <= tensors.keys()
    fresh.load(tensors)
    found = fresh.tensors()
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[key], tensors[key]) for key in tensors)
    kinds = {key.rpartition("/")[2] for key in tensors}
    assert (
        kinds
        == {
            "sgd": {"momentum_buffer"},
            "adam": {"step", "exp_avg", "exp_avg_sq"},
            "adamw": {"step", "exp_avg", "exp_avg_sq"},
            "muon": {"momentum_buffer", "step", "exp_avg", "exp_avg_sq"},
        }[name]
    )


def test_a_step_too_large_for_half_precision_is_left_out(images: torch.Tensor) -> None:
    config = Config.model_validate({"execution": {"precision": "fp16"}})
    model = build(config, 0)
    updater = Updater(config, model, "cpu")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    updater.step(model(images).mean() * 1e38, 0.1)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert updater.tensors()["/scaler/scale"].item() == 65536.0 / 2
    updater.step(model(images).mean(), 0.1)
    assert not torch.equal(model.get_parameter("fc3.bias"), before["fc3.bias"])


def test_after_a_first_step_that_was_left_out_momentum_begins_at_nothing(
    images: torch.Tensor,
) -> None:
    settings = {"execution": {"precision": "fp16"}, "optimizer": {"name": "sgd", "momentum": 0.9}}
    config = Config.model_validate(settings)
    model, other = (build(config, 0) for _ in range(2))
    updater = Updater(config, model, "cpu")
    updater.step(model(images).mean() * 1e38, 0.1)
    state = updater.tensors()
    buffers = [value for name, value in state.items() if name.endswith("/momentum_buffer")]
    assert len(buffers) == len(list(model.parameters()))
    assert not any(buffer.any() for buffer in buffers)
    updater.step(model(images).mean(), 0.1)
    # As the first step of a run that begins at the scale that was found.
    first = Updater(config, other, "cpu")
    first.load({name: value for name, value in state.items() if name.startswith("/scaler/")})
    first.step(other(images).mean(), 0.1)
    for one, same in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, same)
