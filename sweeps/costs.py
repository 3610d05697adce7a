"""What an epoch costs: from the store's history, else measured on a few of the real images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from cifake.config import Config, DataSettings, leaves
from cifake.data.pack import Pack, open_pack
from cifake.data.published import open_near
from cifake.data.subsets import Split, split_rows
from cifake.models import catalogue
from cifake.places import open_place
from cifake.runs import RunState
from cifake.stacks import best_width

if TYPE_CHECKING:
    from cifake.speed import Speed

Measure = Callable[[Config, Pack, int], float]
"""Training images a second of a config in stacks of some width, all runs together."""

_Shape = tuple[object, ...]

_EVALUATION_SHARE = 1 / 3
"""An image's evaluation beside its training: the backward pass is taken as two thirds of a step."""


class Clock:
    """Times stacks on one core, on a few batches of real images."""

    def __init__(self) -> None:
        self.speeds: dict[Config, Speed] = {}
        """Those that are timed again go on training."""

    def __call__(self, config: Config, pack: Pack, width: int) -> float:
        """Training images a second."""
        import torch

        from cifake.batches import TrainingData
        from cifake.speed import Speed

        torch.set_num_threads(1)
        if config not in self.speeds:
            # Which images they are makes no difference to the speed.
            data = TrainingData(pack.pixels, pack.labels, pack.rows("train"))
            self.speeds[config] = Speed(config, data)
        return self.speeds[config](width)


@dataclass(frozen=True)
class Question:
    """How fast stacks of some runs of a config are; plain values, as in `Task`."""

    config: dict[str, Any]
    pack: str
    """Folder of the images."""

    runs: int
    """In a stack at most."""

    width: int | None = None
    """The width that is given; null where the fastest is looked for."""

    store: str | None = None
    """What has the images for machines that cannot read their folder; null on the one that can."""


@dataclass(frozen=True)
class Answer:
    """Training images a second of a stack, all its runs together."""

    config: Config
    speeds: Mapping[int, float]
    """By width, each at its fastest."""

    usual: float = 1.0
    """Share of them that is usual."""


def answer(question: Question, report: Callable[[Answer], None]) -> None:
    """Measure where the question is asked: on one core, from a few batches."""
    config = Config.model_validate(question.config)
    costs = Costs(_images(question), (), measure=Clock())
    if question.width is None:
        asked = {costs.width(config, question.runs)}
    else:
        asked = {1, min(question.width, question.runs)}
    for width in sorted(asked):
        costs.seconds(config, width)
    report(Answer(config, costs.known(config), costs.usual[shape_of(config)]))


def _images(question: Question) -> Pack:
    folder = Path(question.pack)
    if question.store is None:
        return open_pack(folder)
    return open_near(folder, open_place(question.store))


class Costs:
    """What training costs: from the runs of a store, else from a few batches.

    Args:
        pack: training images.
        history: runs that say how fast they were.
        measure: tells what the history does not; null where nothing is measured.
        test_images: images of all test sets, which are evaluated at every milestone.
        gpus: whether a stack is trained on a GPU; nothing is measured then, since the machine that
            plans need not have one.
    """

    def __init__(
        self,
        pack: Pack,
        history: Iterable[RunState],
        *,
        measure: Measure | None = None,
        test_images: int = 0,
        gpus: bool = False,
    ) -> None:
        self.pack = pack
        self.measure = measure
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
        self.measured: dict[_Shape, dict[int, list[float]]] = defaultdict(dict)
        """What was measured here, by width."""

        self.usual: dict[_Shape, float] = defaultdict(lambda: 1.0)
        """Share of the speeds that is usual: the fastest moments tell widths apart, but nobody
        trains in them for hours."""

        for (shape, width), found in timed.items():
            self.speeds[shape][width] = median(found)

    def seconds(self, config: Config, width: int) -> float | None:
        """Predicted seconds of an epoch of one run of a stack, evaluation on validation included.

        It is null for what was never timed and cannot be measured: a fit, a GPU.
        """
        speed = self._speed(config, width)
        if speed is None:
            return None
        if config.data not in self.splits:
            self.splits[config.data] = split_rows(self.pack, config.data)
        rows = self.splits[config.data]
        training = len(rows.train) / (speed * self.usual[self._shape(config)])
        return training + self._evaluating(config, width) * len(rows.validation)

    def milestone(self, config: Config, width: int) -> float:
        """Predicted seconds of evaluating one run on all test sets; 0 where nothing is known."""
        return self._evaluating(config, width) * self.test_images

    def width(self, config: Config, runs: int) -> int:
        """How many of some runs are trained as one network, at most."""
        measurable = self.measure is not None and self._can_measure(config)
        if self.gpus or not (measurable or self.known(config)):
            return 1 if catalogue.stacking_problem(config) else runs
        best = best_width(config, runs, lambda width: self._once_more(config, width))
        if measured := self.measured[self._shape(config)].values():
            self.usual[self._shape(config)] = fmean(median(each) / max(each) for each in measured)
        return best

    def unmeasured(self, runs: Mapping[Config, int], width: int | None = None) -> list[Question]:
        """What should be measured before some runs are put into stacks.

        Args:
            runs: how many of each config.
            width: of a stack; null where the fastest is looked for.

        Returns:
            Of each network whose speed the history does not tell, one config and the most runs of
            a stack.
        """
        found: dict[_Shape, tuple[Config, int]] = {}
        for config, asked in runs.items():
            shape = self._shape(config)
            widest = 1 if catalogue.stacking_problem(config) else min(asked, width or asked)
            if self._can_measure(config) and not {1, widest} <= self.speeds[shape].keys():
                first, most = found.get(shape, (config, widest))
                found[shape] = first, max(most, widest)
        pack = str(self.pack.folder.resolve())
        return [Question(config.model_dump(), pack, most, width) for config, most in found.values()]

    def known(self, config: Config) -> Mapping[int, float]:
        """Images a second by width, as far as they are known."""
        return self.speeds[self._shape(config)]

    def learn(self, found: Answer) -> None:
        """Take what was measured elsewhere, for all configs that are trained like that one."""
        self.speeds[self._shape(found.config)].update(found.speeds)
        self.usual[self._shape(found.config)] = found.usual

    def _evaluating(self, config: Config, width: int) -> float:
        """Seconds of evaluating an image; 0 where nothing is known.

        The networks of a stack are evaluated one after another, so that a stack saves nothing.
        """
        speed = self._speed(config, width)
        alone = self.speeds[self._shape(config)].get(1, speed)
        return _EVALUATION_SHARE / alone if alone else 0.0

    def _speed(self, config: Config, width: int) -> float | None:
        """Images a second of a stack, all its runs together."""
        speeds = self.speeds[self._shape(config)]
        if width in speeds:
            return speeds[width]
        between = interpolated(speeds, width)
        if between is not None:
            return between
        if self.measure is not None and self._can_measure(config):
            return self._timed(config, width, self.measure)
        # A stack wider than any that was timed is hardly faster or slower than the widest.
        return speeds[max(speeds)] if speeds else None

    def _once_more(self, config: Config, width: int) -> float:
        """The speed where runs told it; else what one more measurement finds."""
        if self.measure is not None and width in self.measured[self._shape(config)]:
            return self._timed(config, width, self.measure)
        return self._speed(config, width) or 0.0

    def _timed(self, config: Config, width: int, measure: Measure) -> float:
        """What one more measurement of a width finds; the fastest of all is kept."""
        shape = self._shape(config)
        found = self.measured[shape].setdefault(width, [])
        found.append(measure(config, self.pack, width))
        self.speeds[shape][width] = max(found)
        return found[-1]

    def _can_measure(self, config: Config) -> bool:
        """The time of a fit does not grow with the images as that of a few would say."""
        return not self.gpus and not catalogue.ARCHITECTURES[config.model].fitted

    def _shape(self, config: Config) -> _Shape:
        if config not in self.shapes:
            self.shapes[config] = shape_of(config)
        return self.shapes[config]


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


def shape_of(config: Config) -> _Shape:
    """What the speed and the memory of a config depend on beside the width."""
    return _shape(config.flat())


def _shape(settings: Mapping[str, object]) -> _Shape:
    """What speed depends on beside the width."""
    return tuple(settings[path] for path in _PATHS)
