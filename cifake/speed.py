"""How fast a configuration is trained here, by the number of seeds that are trained as one."""

from __future__ import annotations

from cifake.batches import TrainingData
from cifake.config import Config
from cifake.training import Epoch, train

_BATCHES = 12
_FEW_BATCHES = 2
_REPEATS = 3
_FAST_ENOUGH = 1.0
"""Seconds that a few batches may take for more of them to be measured."""


def images_per_second(config: Config, data: TrainingData, width: int, device: str = "cpu") -> float:
    """Training images a second of a stack, all its seeds together, from a few real batches."""
    speed, seconds = _measured(config, data, width, device, _FEW_BATCHES)
    return speed if seconds > _FAST_ENOUGH else _measured(config, data, width, device, _BATCHES)[0]


def _measured(
    config: Config, data: TrainingData, width: int, device: str, batches: int
) -> tuple[float, float]:
    """The best images a second of some short epochs, and its seconds; the first one warms up."""
    few = TrainingData(data.pixels, data.labels, data.rows[: batches * config.batch_size])
    epochs: list[Epoch] = []
    train(config, range(width), few, epochs.append, epochs=_REPEATS, device=device)
    best = min(epochs[1:] or epochs, key=lambda epoch: epoch.seconds / epoch.images)
    return best.images / best.seconds, best.seconds
