"""On a GPU a run follows what it is on a processor, and is repeated bit for bit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cifake import memory, replay
from cifake.arithmetic import exact
from cifake.batches import TrainingData
from cifake.config import Config, DataSettings
from cifake.data.pack import Pack
from cifake.data.subsets import split_rows
from cifake.evaluation import predict
from cifake.models import grouped
from cifake.models.build import build
from cifake.models.geometry import Geometry
from cifake.training import Epoch, MemberEpoch, State, train
from tests.cifake import test_equivalence as equivalence
from tests.cifake.test_training import ALL

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU to train on")

GPU = "cuda"

INPUTS: dict[str, Config] = {
    name: Config.model_validate({"input": name, "input_options": options})
    for name, options in {
        "greyscale": {},
        "low_pass": {"sigma": 1.0},
        "high_pass": {"sigma": 1.0},
        "steg_srm": {"filters": 30},
    }.items()
}

ATTENTION: dict[str, Config] = {
    name: Config(attention=name, placement="both")  # type: ignore[arg-type]
    for name in ("se", "eca", "cbam", "static_gate", "batchnorm")
}

NETWORKS: dict[str, Config] = {
    "resnet": Config.model_validate({"model": "resnet", "model_options": {"depth": 8, "width": 4}}),
    "backbone": Config(model="torchvision"),
    "dropout": Config.model_validate(
        {"model": "torchvision", "model_options": {"backbone": "mobilenet_v2"}}
    ),
}

SHARED = {"shared": Config(data_order="shared")}

TRAINED = {name: c for name, c in ALL.items() if name != "statistics"}
EVERY = TRAINED | INPUTS | ATTENTION | NETWORKS | SHARED

IN_HALF = ("bf16", "fp16", "muon")
"""What multiplies in half precision, where a processor and a GPU round apart."""

COMPARED = sorted(EVERY.keys() - {*IN_HALF, "learned-filters", "backbone", "dropout"})
"""What is compared with a processor: not what is large there, nor residuals that are cut at three
grey levels, where the rounding of a third decides whether a gradient passes."""

SEEDS = (3, 0)


@pytest.fixture(scope="module")
def data(demo: Pack) -> TrainingData:
    """330 demo images: ten batches of 32 and one of ten."""
    rows = split_rows(demo, DataSettings(validation=0, train_images=330)).train
    return TrainingData(demo.pixels, demo.labels, rows)


def _last(
    config: Config,
    data: TrainingData,
    *,
    epochs: int = 2,
    device: str = GPU,
    seeds: Sequence[int] = SEEDS,
    resume: Mapping[int, State] | None = None,
    stacks: Sequence[Sequence[int]] | None = None,
) -> dict[int, MemberEpoch]:
    """What the last epoch gave, by seed."""
    found: list[Epoch] = []
    train(
        config,
        seeds,
        data,
        found.append,
        epochs=epochs,
        device=device,
        resume=resume,
        stacks=stacks,
    )
    return {member.seed: member for member in found[-1].members}


def _differ(one: Mapping[int, MemberEpoch], other: Mapping[int, MemberEpoch]) -> list[str]:
    """Where two trainings have not the same bits."""
    found = []
    for seed, member in other.items():
        a = {**one[seed].state.weights, **one[seed].state.optimizer}
        b = {**member.state.weights, **member.state.optimizer}
        assert a.keys() == b.keys()
        found += [f"{seed}: {name}" for name in b if not torch.equal(a[name], b[name])]
        found += [f"{seed}: loss"] * (one[seed].loss != member.loss)
    return found


@pytest.mark.parametrize("name", EVERY)
def test_a_run_is_repeated_bit_for_bit(name: str, data: TrainingData) -> None:
    config = EVERY[name]
    assert _differ(_last(config, data), _last(config, data)) == []


@pytest.mark.parametrize("name", EVERY)
def test_replayed_passes_have_the_bits_of_passes_launched_one_by_one(
    name: str, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EVERY[name]
    replayed = _last(config, data)
    monkeypatch.setattr(replay, "_WARM_UP", 10**9)
    assert _differ(replayed, _last(config, data)) == []


def test_passes_are_replayed(data: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the first three of their shape, and the shorter last one of each epoch."""
    replays = []
    graph = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(
        torch.cuda.CUDAGraph, "replay", lambda self: (replays.append(1), graph(self))[1]
    )
    _last(Config(), data)
    assert len(replays) == 2 * 10 - 3


@pytest.mark.parametrize("name", EVERY)
def test_a_resumed_run_is_the_uninterrupted_run(name: str, data: TrainingData) -> None:
    config = EVERY[name]
    half = {seed: member.state for seed, member in _last(config, data, epochs=1).items()}
    assert _differ(_last(config, data, resume=half), _last(config, data)) == []


@pytest.mark.parametrize("name", COMPARED)
def test_a_run_follows_the_processor(name: str, data: TrainingData) -> None:
    """In double precision, to nine digits of every tensor."""
    settings = EVERY[name].model_dump() | {"execution": {"precision": "float64"}}
    config = Config.model_validate(settings)
    there, here = (_last(config, data, epochs=1, device=device) for device in (GPU, "cpu"))
    for seed, member in here.items():
        for tensor, value in {**member.state.weights, **member.state.optimizer}.items():
            found = {**there[seed].state.weights, **there[seed].state.optimizer}[tensor]
            apart = (found - value).double().abs().max().item()
            assert apart <= 1e-9 * value.double().abs().max().item() + 1e-11, tensor


def test_single_precision_is_not_rounded_further(data: TrainingData) -> None:
    """Factors of 10 bits, which cuDNN takes by itself, would put losses 1e-4 apart."""
    there, here = (_last(Config(log_every=1), data, epochs=1, device=d) for d in (GPU, "cpu"))
    for seed in SEEDS:
        losses = [[step.loss for step in each[seed].steps] for each in (there, here)]
        np.testing.assert_allclose(losses[0], losses[1], rtol=3e-6)


@pytest.mark.parametrize("members", [1, 5, 20])
@pytest.mark.parametrize("layer", [(3, 6, 32), (6, 16, 14)], ids=["first", "second"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_gradients_of_stacks_are_as_exact_as_their_numbers(
    members: int, layer: tuple[int, int, int], layout: torch.memory_format
) -> None:
    """Of base's convolutions; cuDNN's own can be 2e-3 off."""
    torch.manual_seed(0)
    inputs, outputs, side = layer
    x = torch.randn(32, members * inputs, side, side, device=GPU).to(memory_format=layout)
    weight = torch.randn(members * outputs, inputs, 5, 5, device=GPU).to(memory_format=layout)
    gradient = torch.randn(32, members * outputs, side - 4, side - 4, device=GPU)
    results = []
    for number in (torch.float32, torch.float64):
        a, b = (tensor.to(number).requires_grad_() for tensor in (x, weight))
        with exact():
            out = grouped.conv2d(a, b, None, Geometry(), members)
            found = torch.autograd.grad(out, (a, b), gradient.to(number))
        results.append([tensor.double() for tensor in (out.detach(), *found)])
    for mine, true in zip(*results, strict=True):
        assert (mine - true).norm() <= 1e-5 * true.norm()


@pytest.mark.parametrize("each", [e for e in equivalence.ALL if equivalence._is_quick(e)], ids=str)
def test_a_member_follows_its_seed_alone(each: equivalence.Combination, demo: Pack) -> None:
    """Fifty steps in double precision, to nine digits."""
    settings = each.config().model_dump() | {"execution": {"precision": "float64"}}
    config = Config.model_validate(settings)
    rows = np.random.default_rng(0).permutation(demo.rows("train"))[: 4 * equivalence.STEPS]
    data = TrainingData(demo.pixels, demo.labels, np.sort(rows))
    together = _last(config, data, epochs=1)
    for seed in SEEDS:
        alone = _last(config, data, epochs=1, seeds=[seed])[seed]
        mine = {**together[seed].state.weights, **together[seed].state.optimizer}
        for tensor, value in {**alone.state.weights, **alone.state.optimizer}.items():
            apart = (mine[tensor] - value).double().abs().max().item()
            assert apart <= 1e-9 * value.double().abs().max().item() + 1e-11, tensor


def test_a_stack_that_does_not_fit_after_all_is_halved(
    data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until its parts fit, with the numbers that they have where they are asked for."""
    config = Config(batch_size=256)
    seeds = range(8)
    whole = TrainingData(data.pixels, data.labels, np.repeat(data.rows, 8))
    monkeypatch.setattr(memory, "taken", lambda *_: 1)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    _last(config, whole, seeds=seeds)
    needed = torch.cuda.max_memory_reserved()
    torch.cuda.empty_cache()
    try:
        share = 0.6 * needed / torch.cuda.mem_get_info()[1]
        torch.cuda.set_per_process_memory_fraction(share)
        halved = _last(config, whole, seeds=seeds)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    stacks = sorted({member.stack for member in halved.values()})
    assert len(stacks) > 1
    assert all("out of memory" in why for m in halved.values() for why in m.fallbacks)
    assert _differ(halved, _last(config, whole, seeds=seeds, stacks=stacks)) == []


def test_predictions_are_the_processors(demo: Pack) -> None:
    model = build(Config(attention="srm", placement="both"), 0)
    rows = demo.rows("test")
    here = predict(model, demo.pixels, rows)
    np.testing.assert_allclose(predict(model.to(GPU), demo.pixels, rows), here, atol=2e-6)


def test_a_store_that_was_begun_on_a_gpu_is_asked_again_and_goes_on(tmp_path: Path) -> None:
    def ask(epochs: int) -> dict[str, Any]:
        options = [
            "--dataset",
            "demo",
            "--validation",
            "500",
            "--seed",
            "0,1,2",
            "--store",
            str(tmp_path),
            "--json",
        ]
        asked = ["train", "--epochs", str(epochs), "--device", GPU, *options]
        ended = subprocess.run(
            [sys.executable, "-m", "cifake", *asked], capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return dict(json.loads(ended.stdout))

    assert [ask(epochs)["epochs_trained"] for epochs in (2, 2, 3)] == [6, 0, 3]
