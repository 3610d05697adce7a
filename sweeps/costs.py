"""What an epoch costs: from the store's history, else measured on a few of the real images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import median

from cifake.config import Config
from cifake.data.pack import Pack
from cifake.data.subsets import split_rows
from cifake.models import catalogue
from cifake.runs import RunState

_BATCHES = 30
_FEW_BATCHES = 2
_FAST_ENOUGH = 1.0
"""Seconds that a few batches may take for more of them to be measured."""

_EVALUATION_SHARE = 1 / 3
"""An image's evaluation beside its training: the backward pass is taken as two thirds of a step."""


class Costs:
    """Seconds that one epoch of one run takes, evaluation on validation included."""

    def __init__(self, pack: Pack, history: Iterable[RunState]) -> None:
        self.pack = pack
        self.speeds: dict[tuple[object, ...], list[float]] = defaultdict(list)
        for state in history:
            if state.images_per_second:
                self.speeds[_shape(state.row)].append(state.images_per_second)

    def __call__(self, config: Config) -> float | None:
        """Predicted seconds of an epoch of a run; null for a fit that was never timed."""
        rows = split_rows(self.pack, config.data)
        shape = _shape(config.flat())
        if shape not in self.speeds:
            if catalogue.ARCHITECTURES[config.model].fitted:
                return None  # its time does not grow with the images as that of a few would say
            self.speeds[shape] = [measure(config, self.pack)]
        return (len(rows.train) + len(rows.validation) * _EVALUATION_SHARE) / median(
            self.speeds[shape]
        )


def measure(config: Config, pack: Pack) -> float:
    """Training images a second of one run on one core, from a few batches of real images."""
    import torch

    torch.set_num_threads(1)
    speed, seconds = _measure(config, pack, _FEW_BATCHES)
    return speed if seconds > _FAST_ENOUGH else _measure(config, pack, _BATCHES)[0]


def _measure(config: Config, pack: Pack, batches: int) -> tuple[float, float]:
    """Images a second of an epoch of some batches, and the seconds it took; the first warms up."""
    from cifake.batches import TrainingData
    from cifake.training import Epoch, train

    rows = split_rows(pack, config.data).train[: batches * config.batch_size]
    epochs: list[Epoch] = []
    data = TrainingData(pack.pixels, pack.labels, rows)
    train(config, [0], data, epochs.append, epochs=2)
    return epochs[-1].images / epochs[-1].seconds, epochs[-1].seconds


_SHAPING = {
    "model",
    "model_options",
    "input",
    "input_options",
    "attention",
    "attention_options",
    "placement",
    "batch_size",
    "augmentation",
    "execution",
}


def _shape(settings: Mapping[str, object]) -> tuple[object, ...]:
    """The settings that speed depends on."""
    return tuple(
        value
        for path, value in settings.items()
        if path.partition(".")[0] in _SHAPING or path == "optimizer.name"
    )
