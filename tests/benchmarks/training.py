"""Training speed: seeds stacked and one by one, torch's own loops, and matrix products alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from cifake.batches import TrainingData
from cifake.config import Config
from cifake.data.pack import Pack
from cifake.models.build import build
from cifake.training import Epoch, train
from tests.benchmarks.measure import Outcome, Timed, cpu_seconds, in_turns, speedup, timed
from tests.benchmarks.tuned import Images, Tuned
from tests.benchmarks.tutorial import Tutorial
from tests.tutorial_net import Net

ORDERS = {"per_seed": "own batches", "shared": "one shared order"}
"""Values of `data_order`, and what the stack's members see."""


@dataclass(frozen=True)
class _Comparison:
    """What stacks are held against, and how many times as fast they must be by order."""

    name: str
    unit: str
    targets: dict[str, float | None]


_COMPARISONS = {
    "alone": _Comparison("one by one", "images/s", {"per_seed": 1.5, "shared": 2.2}),
    "torch": _Comparison(
        "one by one with torch's own operations", "images/s", {"per_seed": 1.5, "shared": 2.2}
    ),
    "tutorial": _Comparison(
        "ImageFolder and DataLoader", "images/s", {"per_seed": 5.0, "shared": 7.0}
    ),
    "products": _Comparison("matrix products", "GFLOP/s", {"per_seed": None, "shared": 0.5}),
}

_SIDE = 1024
_PRODUCTS = 20


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    batches: int = 60
    """Batches of a measured epoch; one as long warms up."""

    seeds: int = 5
    repeats: int = 7


def training(
    pack: Pack, files: Path | None, batch_size: int, size: Size, device: str = "cpu"
) -> list[Outcome]:
    """Compare, in turns, all ways to train base on real images.

    Args:
        pack: the packed CIFAKE.
        files: folder of the training images as files, by class; null leaves the tutorial out.
        batch_size: images a step.
        size: how much is measured.
        device: `cpu`, one core of it, or `cuda`.
    """
    seeds = range(size.seeds)
    configs = {order: configuration(batch_size, data_order=order) for order in ORDERS}
    data = some_batches(pack, configs["per_seed"], size.batches)
    ways = {
        "alone": lambda: one_by_one(configs["per_seed"], seeds, data, device),
        "per_seed": lambda: trained(configs["per_seed"], seeds, data, device),
        "shared": lambda: trained(configs["shared"], seeds, data, device),
        "torch": lambda: with_torch(batch_size, seeds, data, device),
        "products": lambda: products(device),
    }
    if files is not None:
        tutorial = Tutorial(files, batch_size, device)
        tutorial.train(2)
        ways["tutorial"] = lambda: tutorial.train(size.batches)
    found = dict(zip(ways, in_turns(size.repeats, *ways.values()), strict=True))
    return list(_outcomes(found, configs, size.seeds, device))


def _outcomes(
    found: dict[str, list[Timed]], configs: dict[str, Config], seeds: int, device: str
) -> Iterable[Outcome]:
    for order, config in configs.items():
        flops = flops_per_image(config) / 1e9
        done = [Timed(each.work * flops, each.wall, each.cpu) for each in found[order]]
        what = f"{seeds} seeds of base stacked, batch {config.batch_size}, {ORDERS[order]}"
        for way, comparison in _COMPARISONS.items():
            if way in found:
                yield speedup(
                    f"{what}, vs {comparison.name}",
                    comparison.unit,
                    done if way == "products" else found[order],
                    found[way],
                    target=comparison.targets[order] if device == "cpu" else None,
                    device=device,
                )


def configuration(batch_size: int, **settings: Any) -> Config:
    """The base network, all else as it is by default."""
    return Config.model_validate({"batch_size": batch_size, **settings})


def some_batches(pack: Pack, config: Config, batches: int) -> TrainingData:
    """Real images of both labels for some batches."""
    whole = pack.rows("train")
    rows = whole[np.linspace(0, len(whole) - 1, batches * config.batch_size, dtype=np.int64)]
    return TrainingData(pack.pixels, pack.labels, rows)


def trained(config: Config, seeds: Sequence[int], data: TrainingData, device: str) -> Timed:
    """The second epoch of a stack; the first one warms up."""
    cpu: list[float] = []
    epochs: list[Epoch] = []

    def on_epoch(epoch: Epoch) -> None:
        epochs.append(epoch)
        cpu.append(cpu_seconds())

    train(config, seeds, data, on_epoch, epochs=2, device=device)
    return Timed(epochs[1].images, epochs[1].seconds, cpu[1] - cpu[0])


def one_by_one(config: Config, seeds: Sequence[int], data: TrainingData, device: str) -> Timed:
    """The same epochs, a seed after another."""
    return _in_sum([trained(config, [seed], data, device) for seed in seeds])


def with_torch(batch_size: int, seeds: Sequence[int], data: TrainingData, device: str) -> Timed:
    """As many epochs of the tutorial's network in a tuned loop of torch's, a seed after another."""
    images = Images(data.pixels[data.rows], data.labels[data.rows].astype(np.float32))
    return _in_sum([_with_torch(batch_size, seed, images, device) for seed in seeds])


def _with_torch(batch_size: int, seed: int, images: Images, device: str) -> Timed:
    torch.manual_seed(seed)
    tuned = Tuned(Net(), batch_size=batch_size, device=device)
    rows = np.random.default_rng(seed).permutation(len(images.labels))
    tuned.epoch(images, rows)
    return timed(len(rows), lambda: tuned.epoch(images, rows))


def _in_sum(each: Sequence[Timed]) -> Timed:
    return Timed(sum(t.work for t in each), sum(t.wall for t in each), sum(t.cpu for t in each))


def products(device: str) -> Timed:
    """GFLOP of float32 matrix products, large enough to run at the device's full speed."""
    left, right = torch.randn(2, _SIDE, _SIDE, device=device)

    def multiply() -> None:
        for _ in range(_PRODUCTS):
            product = left @ right
        product[0, 0].item()  # a GPU has finished when its result is read

    multiply()
    return timed(2 * _SIDE**3 * _PRODUCTS / 1e9, multiply)


def flops_per_image(config: Config) -> float:
    """Floating-point operations of a training step on one image, counted by torch.

    They are those of torch's own operations, whatever a processor can do without.
    """
    model = build(config, 0).to("meta")
    images = torch.zeros(8, 32, 32, 3, dtype=torch.uint8, device="meta")
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    return float(counter.get_total_flops()) / len(images)
