"""The training loop. It writes nothing: what an epoch gave goes to the caller's function."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from cifake.batches import Block, Images, TrainingData
from cifake.config import Config
from cifake.evaluation import predict, scores
from cifake.models import catalogue
from cifake.models.build import build
from cifake.models.network import Network
from cifake.updates import Tensors, Updater, learning_rate

if TYPE_CHECKING:
    from cifake.models.boosting import Boosting

_NOISE_STREAM = 5


@dataclass(frozen=True)
class State:
    """Where a run stands: all that is needed to go on as if it had never stopped."""

    epoch: int
    """Epochs trained."""

    weights: Tensors
    """The network's state dict."""

    optimizer: Tensors
    """State of the update rule, as `Updater.tensors` gives it."""


@dataclass(frozen=True)
class Step:
    """One point of the difficulty curve."""

    batch: int
    images_seen: int
    loss: float
    accuracy: float


@dataclass(frozen=True)
class MemberEpoch:
    """What one epoch gave for one seed."""

    seed: int
    loss: float
    """Mean over the epoch, in nats."""

    accuracy: float
    learning_rate: float | None
    """Of the last batch; null where nothing is learned by gradient descent."""

    model: nn.Module
    """The network as it is now; it goes on training when the caller returns."""

    state: Callable[[], State]
    """A copy of the run's state."""

    steps: list[Step] = field(default_factory=list)
    """The difficulty curve; first epoch only."""


@dataclass(frozen=True)
class Divergence:
    """A seed whose loss became infinite or NaN; it is trained no further."""

    seed: int
    epoch: int
    batch: int
    loss: float

    def __str__(self) -> str:
        return f"loss became {self.loss} in epoch {self.epoch}, batch {self.batch}"


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave for all seeds that are still trained."""

    epoch: int
    members: list[MemberEpoch]
    diverged: list[Divergence]
    seconds: float
    """Training time of the whole stack, the caller's function left out."""

    images: int
    """Images trained on, all seeds together."""


def train(
    config: Config,
    seeds: Sequence[int],
    data: TrainingData,
    on_epoch: Callable[[Epoch], None],
    *,
    epochs: int,
    resume: Mapping[int, State] | None = None,
    device: str = "cpu",
) -> None:
    """Train one configuration with several seeds, epoch by epoch, all seeds in step.

    A seed's numbers depend on the seed alone: initialisation, order, augmentation and dropout. On a
    CPU with one thread they are the same bit for bit every time.

    Args:
        config: what to train.
        seeds: one run each.
        data: images to train on.
        on_epoch: called after every epoch.
        epochs: length of every run, epochs trained before included.
        resume: where each seed stands; all must have trained equally many epochs.
        device: `cpu`, or `cuda` with all pixels resident there.
    """
    resume = resume or {}
    start = {resume[seed].epoch if seed in resume else 0 for seed in seeds}
    if len(start) != 1:
        raise ValueError(f"seeds of one stack must resume from one epoch, not {sorted(start)}")
    member = _Fitted if catalogue.ARCHITECTURES[config.model].fitted else _Member
    images = Images(data, device)
    members = [member(config, seed, images, resume.get(seed)) for seed in seeds]
    for epoch in range(start.pop() + 1, epochs + 1):
        begun = time.perf_counter()
        results: list[MemberEpoch] = []
        diverged: list[Divergence] = []
        trained = 0
        for member_ in list(members):
            result = member_.train_epoch(epoch)
            trained += len(data.rows)
            if isinstance(result, Divergence):
                diverged.append(result)
                members.remove(member_)
            else:
                results.append(result)
        seconds = time.perf_counter() - begun
        on_epoch(Epoch(epoch, results, diverged, seconds, trained))
        if not members:
            return


class _Member:
    """One run of a stack that is trained by gradient descent."""

    def __init__(self, config: Config, seed: int, images: Images, resume: State | None) -> None:
        self.config = config
        self.seed = seed
        self.images = images
        self.model = build(config, seed)
        if config.normalization == "dataset" and resume is None:
            cast("Network", self.model).pixels.measure(images.data.pixels, images.data.rows)
        self.model.to(images.device)
        self.network = torch.compile(self.model) if config.execution.compile else self.model
        self.updater = Updater(config, self.model, images.device)
        if resume is not None:
            self.model.load_state_dict(resume.weights)
            self.updater.load(resume.optimizer)

    def train_epoch(self, epoch: int) -> MemberEpoch | Divergence:
        log = _Log()
        self.model.train()
        with _noise_of(self.config, self.seed, epoch):
            for block in self.images.blocks(self.config, self.seed, epoch):
                self._train_block(block, epoch, log)
                if (batch := log.first_not_finite()) is not None:
                    return Divergence(self.seed, epoch, batch + 1, log.losses[batch])
        if not self._predicts(block):
            return Divergence(self.seed, epoch, len(log.losses), float("nan"))
        return MemberEpoch(
            seed=self.seed,
            loss=_mean(log.losses, log.sizes),
            accuracy=sum(log.correct) / sum(log.sizes),
            learning_rate=self._rate(epoch, len(log.losses), len(log.losses) - 1),
            model=self.model,
            state=lambda: self._state(epoch),
            steps=log.steps(self.config.log_every) if epoch == 1 else [],
        )

    def _train_block(self, block: Block, epoch: int, log: _Log) -> None:
        losses, correct = [], []
        steps = self.images.steps_per_epoch(self.config)
        target = _smoothed(block.labels, self.config.label_smoothing)
        for number, (start, stop) in enumerate(block.bounds, block.first):
            with self.updater.autocast():
                logits = self.network(block.pixels[start:stop])
            logits = logits.to(target.dtype)
            loss = functional.binary_cross_entropy_with_logits(logits, target[start:stop])
            self.updater.step(loss, self._rate(epoch, steps, number))
            losses.append(loss.detach())
            correct.append(((logits.detach() >= 0) == (block.labels[start:stop] > 0.5)).sum())
        log.add(torch.stack(losses), torch.stack(correct), block)

    def _rate(self, epoch: int, steps: int, number: int) -> float:
        highest = self.config.optimizer.lr
        return learning_rate(self.config.schedule, highest, (epoch - 1) * steps + number, steps)

    def _predicts(self, block: Block) -> bool:
        """Whether logits are finite after the last step too, which no loss has seen."""
        self.model.eval()
        start, stop = block.bounds[-1]
        with torch.no_grad():
            return bool(torch.isfinite(self.model(block.pixels[start:stop])).all())

    def _state(self, epoch: int) -> State:
        weights = {name: value.cpu().clone() for name, value in self.model.state_dict().items()}
        return State(epoch, weights, self.updater.tensors())


class _Fitted:
    """One run of a model that is fitted at once; its only epoch is the fit."""

    def __init__(self, config: Config, seed: int, images: Images, resume: State | None) -> None:
        del resume  # it has no second epoch
        self.config = config
        self.seed = seed
        self.data = images.data
        self.model = cast("Boosting", build(config, seed))

    def train_epoch(self, epoch: int) -> MemberEpoch | Divergence:
        seed = self.seed if self.config.init_seed is None else self.config.init_seed
        self.model.fit(self.data.pixels, self.data.labels, self.data.rows, seed)
        labels = self.data.labels[self.data.rows]
        probabilities = predict(self.model, self.data.pixels, self.data.rows)
        found = scores(probabilities, labels)
        weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        return MemberEpoch(
            seed=self.seed,
            loss=float(found["loss"] or 0.0),
            accuracy=float(found["accuracy"] or 0.0),
            learning_rate=None,
            model=self.model,
            state=lambda: State(epoch, weights, {}),
        )


class _Log:
    """Loss and right answers of every batch of an epoch."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.correct: list[int] = []
        self.sizes: list[int] = []

    def add(self, losses: torch.Tensor, correct: torch.Tensor, block: Block) -> None:
        """Add a block's batches; read from the device at once."""
        self.losses += losses.tolist()
        self.correct += correct.tolist()
        self.sizes += [stop - start for start, stop in block.bounds]

    def first_not_finite(self) -> int | None:
        """The first batch whose loss is infinite or NaN."""
        finite = np.isfinite(self.losses)
        return None if finite.all() else int(np.flatnonzero(~finite)[0])

    def steps(self, every: int) -> list[Step]:
        """The difficulty curve."""
        found = []
        for start in range(0, len(self.losses), every):
            window = slice(start, start + every)
            stop = min(start + every, len(self.losses))
            loss = _mean(self.losses[window], self.sizes[window])
            accuracy = sum(self.correct[window]) / sum(self.sizes[window])
            found.append(Step(stop, sum(self.sizes[:stop]), loss, accuracy))
        return found


@contextmanager
def _noise_of(config: Config, seed: int, epoch: int) -> Iterator[None]:
    """Draw what a network draws while it trains, such as dropout, from seed and epoch alone."""
    seed = seed if config.data_seed is None else config.data_seed
    stream = np.random.SeedSequence([_NOISE_STREAM, seed, epoch])
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(int(stream.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        yield


def _smoothed(labels: torch.Tensor, share: float) -> torch.Tensor:
    """Labels with a share spread evenly over both classes (Szegedy et al. 2016, section 7)."""
    return labels if share == 0 else labels * (1 - share) + share / 2


def _mean(values: Sequence[float], sizes: Sequence[int]) -> float:
    return float(np.dot(values, sizes) / sum(sizes))
