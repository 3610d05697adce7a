"""How fast a configuration is trained here, by the number of seeds that are trained as one."""

from __future__ import annotations

import contextlib

from cifake.batches import TrainingData
from cifake.config import Config
from cifake.training import Epoch, train

_BATCHES = 12
_FEW_BATCHES = 2
_MOST_REPEATS = 50
"""Epochs that are timed at most."""

_LONG_ENOUGH = 0.1
"""Seconds that are timed, since what else a machine does decides over hundredths of a second."""


def images_per_second(config: Config, data: TrainingData, width: int, device: str = "cpu") -> float:
    """Training images a second of a stack, all its seeds together, from a few real batches."""
    fastest = _fastest(config, data, width, device, _FEW_BATCHES)
    if fastest.seconds < _LONG_ENOUGH:
        fastest = _fastest(config, data, width, device, _BATCHES, at_least=_LONG_ENOUGH)
    return fastest.images / fastest.seconds


def _fastest(
    config: Config,
    data: TrainingData,
    width: int,
    device: str,
    batches: int,
    at_least: float = 0.0,
) -> Epoch:
    """The fastest of some short epochs after one that warms up.

    Args:
        config: what is trained.
        data: real images.
        width: seeds of the stack.
        device: where it is trained.
        batches: of each epoch.
        at_least: seconds that all of them are to take.
    """
    few = TrainingData(data.pixels, data.labels, data.rows[: batches * config.batch_size])
    epochs: list[Epoch] = []

    def on_epoch(epoch: Epoch) -> None:
        epochs.append(epoch)
        timed = epochs[1:]
        if timed and sum(each.seconds for each in timed) >= at_least:
            raise _EnoughError

    with contextlib.suppress(_EnoughError):
        train(config, range(width), few, on_epoch, epochs=_MOST_REPEATS, device=device)
    return min(epochs[1:] or epochs, key=lambda epoch: epoch.seconds / epoch.images)


class _EnoughError(Exception):
    """What was measured suffices."""
