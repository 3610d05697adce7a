"""What an epoch costs: from the store's history, else measured on a few of the real images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import median

from cifake.config import Config, DataSettings, leaves
from cifake.data.pack import Pack
from cifake.data.subsets import Split, split_rows
from cifake.models import catalogue
from cifake.runs import RunState
from cifake.stacks import best_width

_Shape = tuple[object, ...]

_EVALUATION_SHARE = 1 / 3
"""An image's evaluation beside its training: the backward pass is taken as two thirds of a step."""


class Costs:
    """What training costs here: from the runs of a store, else from a few batches.

    Args:
        pack: training images.
        history: runs that say how fast they were.
        test_images: images of all test sets, which are evaluated at every milestone.
        gpus: whether a stack is trained on a GPU; nothing is measured then, since the machine that
            plans need not have one.
    """

    def __init__(
        self,
        pack: Pack,
        history: Iterable[RunState],
        *,
        test_images: int = 0,
        gpus: bool = False,
    ) -> None:
        self.pack = pack
        self.test_images = test_images
        self.gpus = gpus
        self.splits: dict[DataSettings, Split] = {}
        self.shapes: dict[Config, _Shape] = {}
        timed: dict[tuple[_Shape, int], list[float]] = defaultdict(list)
        for state in history:
            on_cpu = str(state.row["device"]).startswith("cpu")
            if state.images_per_second and state.stack_width and on_cpu != gpus:
                timed[_shape(state.row), state.stack_width].append(state.images_per_second)
        self.speeds: dict[_Shape, dict[int, float]] = defaultdict(dict)
        for (shape, width), found in timed.items():
            self.speeds[shape][width] = median(found)

    def seconds(self, config: Config, width: int) -> float | None:
        """Predicted seconds of an epoch of one run of a stack, evaluation on validation included.

        It is null for a fit that was never timed, and for a GPU that was never used.
        """
        speed = self._speed(config, width)
        if speed is None:
            return None
        if config.data not in self.splits:
            self.splits[config.data] = split_rows(self.pack, config.data)
        rows = self.splits[config.data]
        return len(rows.train) / speed + self._evaluating(config, width) * len(rows.validation)

    def milestone(self, config: Config, width: int) -> float:
        """Predicted seconds of evaluating one run on all test sets; 0 where nothing is known."""
        return self._evaluating(config, width) * self.test_images

    def width(self, config: Config, runs: int) -> int:
        """How many of some runs are trained as one network, at most."""
        if self.gpus:
            return 1 if catalogue.stacking_problem(config) else runs
        return best_width(config, runs, lambda width: self._speed(config, width) or 0.0)

    def _evaluating(self, config: Config, width: int) -> float:
        """Seconds of evaluating an image; 0 where nothing is known.

        The networks of a stack are evaluated one after another, so that a stack saves nothing.
        """
        speed = self._speed(config, width)
        alone = self.speeds[self.shapes[config]].get(1, speed)
        return _EVALUATION_SHARE / alone if alone else 0.0

    def _speed(self, config: Config, width: int) -> float | None:
        """Images a second of a stack, all its runs together."""
        if config not in self.shapes:
            self.shapes[config] = _shape(config.flat())
        speeds = self.speeds[self.shapes[config]]
        if width not in speeds:
            between = interpolated(speeds, width)
            if between is not None:
                return between
            # The time of a fit does not grow with the images as that of a few would say.
            if self.gpus or catalogue.ARCHITECTURES[config.model].fitted:
                return None
            speeds[width] = measure(config, self.pack, width)
        return speeds[width]


def interpolated(speeds: Mapping[int, float], width: int) -> float | None:
    """Images a second of a stack whose width lies between two that are known, else null.

    A step takes some time for itself and as much again for each run, so that its time, width over
    speed, lies on a line.
    """
    below = max((known for known in speeds if known < width), default=None)
    above = min((known for known in speeds if known > width), default=None)
    if below is None or above is None:
        return None
    share = (width - below) / (above - below)
    return width / ((1 - share) * below / speeds[below] + share * above / speeds[above])


def measure(config: Config, pack: Pack, width: int) -> float:
    """Training images a second of a stack on one core, from a few batches of real images."""
    import torch

    from cifake.batches import TrainingData
    from cifake.speed import images_per_second

    torch.set_num_threads(1)
    # Which images they are makes no difference to the speed.
    data = TrainingData(pack.pixels, pack.labels, pack.rows("train"))
    return images_per_second(config, data, width)


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
    "data_order",
    "execution",
}


_PATHS = [
    path
    for path, _ in leaves(Config)
    if path.partition(".")[0] in _SHAPING or path == "optimizer.name"
]


def _shape(settings: Mapping[str, object]) -> _Shape:
    """What speed depends on beside the width."""
    return tuple(settings[path] for path in _PATHS)
