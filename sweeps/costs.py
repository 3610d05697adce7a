"""What an epoch costs: from the store's history, else measured on a few of the real images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import median

from cifake.config import Config
from cifake.data.pack import Pack
from cifake.data.subsets import split_rows
from cifake.runs import RunState

_BATCHES = 30

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

    def __call__(self, config: Config) -> float:
        """Predicted seconds of an epoch of a run."""
        rows = split_rows(self.pack, config.data)
        shape = _shape(config.flat())
        if shape not in self.speeds:
            self.speeds[shape] = [measure(config, self.pack)]
        return (len(rows.train) + len(rows.validation) * _EVALUATION_SHARE) / median(
            self.speeds[shape]
        )


def measure(config: Config, pack: Pack) -> float:
    """Training images a second of one run on one core, from a few batches of real images."""
    import torch

    from cifake.batches import TrainingData
    from cifake.training import Epoch, train

    torch.set_num_threads(1)
    rows = split_rows(pack, config.data).train[: _BATCHES * config.batch_size]
    epochs: list[Epoch] = []
    data = TrainingData(pack.pixels, pack.labels, rows)
    train(config, [0], data, epochs.append, epochs=2)
    return epochs[-1].images / epochs[-1].seconds


def _shape(settings: Mapping[str, object]) -> tuple[object, ...]:
    """The settings that speed depends on."""
    names = ("model", "attention", "placement", "batch_size")
    return tuple(settings[name] for name in names)
