"""How fast a configuration is trained here, by the number of seeds that are trained as one."""

from __future__ import annotations

import contextlib

from cifake.batches import TrainingData
from cifake.config import Config
from cifake.training import Epoch, train

_BATCHES = 12
_FEW_BATCHES = 2
_REPEATS = 2
_MOST_REPEATS = 50
_FAST_ENOUGH = 1.0
"""Seconds that a few batches may take for more of them to be measured."""

_LONG_ENOUGH = 0.25
"""Seconds to measure at least: what else a machine does slows tenths of a second down."""


def images_per_second(config: Config, data: TrainingData, width: int, device: str = "cpu") -> float:
    """Training images a second of a stack, all its seeds together, from a few real batches."""
    begun = _measured(config, data, width, device, _FEW_BATCHES, at_least=0)
    if begun.seconds > _FAST_ENOUGH:
        return begun.images / begun.seconds
    best = _measured(config, data, width, device, _BATCHES, at_least=_LONG_ENOUGH)
    return best.images / best.seconds


def _measured(
    config: Config, data: TrainingData, width: int, device: str, batches: int, at_least: float
) -> Epoch:
    """The fastest of some short epochs, which take so many seconds; the first one warms up."""
    few = TrainingData(data.pixels, data.labels, data.rows[: batches * config.batch_size])
    epochs: list[Epoch] = []

    def on_epoch(epoch: Epoch) -> None:
        epochs.append(epoch)
        seconds = sum(each.seconds for each in epochs[1:])
        if len(epochs) > _REPEATS and seconds >= at_least:
            raise _EnoughError

    with contextlib.suppress(_EnoughError):
        train(config, range(width), few, on_epoch, epochs=_MOST_REPEATS, device=device)
    return min(epochs[1:] or epochs, key=lambda epoch: epoch.seconds / epoch.images)


class _EnoughError(Exception):
    """What was measured suffices."""
