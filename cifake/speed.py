"""How fast a configuration is trained here, by the number of seeds that are trained as one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

from cifake.batches import TrainingData
from cifake.config import Config
from cifake.training import Epoch, each_epoch

_BATCHES = 24
"""Of an epoch that is timed: what each epoch does beside its batches then takes some 3 %."""

_FEW_BATCHES = 2
"""Of one of a network that takes long for them."""

_MOST_EPOCHS = 50
"""That a network is trained for before it is timed from its start again."""

_LONG_ENOUGH = 0.1
"""Seconds that are timed, since what else a machine does decides over hundredths of a second."""


class Speed:
    """Training images a second of a stack by its width, all its seeds together.

    What is asked for again is timed again: the stack is there and trains on.

    Args:
        config: what is trained.
        data: real images, of which a few batches are taken.
        device: where it is trained.
    """

    def __init__(self, config: Config, data: TrainingData, device: str = "cpu") -> None:
        self.config = config
        self.data = data
        self.device = device
        self.epochs: dict[int, Iterator[Epoch]] = {}
        """Short ones without end, of the stacks that were timed."""

    def __call__(self, width: int) -> float:
        """Train a stack for a while; its fastest moments count."""
        if width in self.epochs:
            timed = [next(self.epochs[width])]
        else:
            # The better of two: a core that pauses makes any network one that takes long.
            timed = [self._begin(width, _FEW_BATCHES), next(self.epochs[width])]
            if min(epoch.seconds for epoch in timed) < _LONG_ENOUGH:
                timed = [self._begin(width, _BATCHES)]
        while sum(epoch.seconds for epoch in timed) < _LONG_ENOUGH:
            timed.append(next(self.epochs[width]))
        return max(epoch.images / epoch.seconds for epoch in timed)

    def _begin(self, width: int, batches: int) -> Epoch:
        """The first epoch of so many batches after one that warms up."""
        rows = self.data.rows[: batches * self.config.batch_size]
        few = replace(self.data, rows=rows)

        def epochs() -> Iterator[Epoch]:
            return each_epoch(
                self.config, range(width), few, epochs=_MOST_EPOCHS, device=self.device
            )

        self.epochs[width] = itertools.chain.from_iterable(epochs() for _ in itertools.count())
        next(self.epochs[width])
        return next(self.epochs[width])
