"""The training loop. It writes nothing: what an epoch gave goes to the caller's function."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from cifake.config import Config
from cifake.config import Optimizer as OptimizerSettings
from cifake.models.build import build

LOG_EVERY = 50
"""Batches between two points of the first epoch's difficulty curve."""

_ORDER_STREAM = 2
_BLOCK_IMAGES = 4096

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class TrainingData:
    """Images to train on."""

    pixels: npt.NDArray[np.uint8]
    """Shape (n, 32, 32, 3), uint8; may be mapped from a file."""

    labels: npt.NDArray[np.int8]
    """Shape (n,), 0 FAKE, 1 REAL."""

    rows: npt.NDArray[np.int64]
    """Shape (m,), the rows of both that are trained on."""


@dataclass(frozen=True)
class State:
    """Where a run stands: all that is needed to go on as if it had never stopped."""

    epoch: int
    """Epochs trained."""

    weights: Tensors
    """The network's state dict."""

    optimizer: Tensors
    """Per-parameter state, as `<parameter>/<name>`."""


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
    learning_rate: float
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
) -> None:
    """Train one configuration with several seeds, epoch by epoch, all seeds in step.

    A seed's numbers depend on the seed alone: initialisation, and the order of images, which is
    drawn anew every epoch. On a CPU with one thread they are the same bit for bit every time.

    Args:
        config: what to train.
        seeds: one run each.
        data: images to train on.
        on_epoch: called after every epoch.
        epochs: length of every run, epochs trained before included.
        resume: where each seed stands; all must have trained equally many epochs.
    """
    resume = resume or {}
    start = {resume[seed].epoch if seed in resume else 0 for seed in seeds}
    if len(start) != 1:
        raise ValueError(f"seeds of one stack must resume from one epoch, not {sorted(start)}")
    members = [_Member(config, seed, resume.get(seed)) for seed in seeds]
    for epoch in range(start.pop() + 1, epochs + 1):
        begun = time.perf_counter()
        results: list[MemberEpoch] = []
        diverged: list[Divergence] = []
        images = 0
        for member in list(members):
            result = member.train_epoch(epoch, data)
            images += len(data.rows)
            if isinstance(result, Divergence):
                diverged.append(result)
                members.remove(member)
            else:
                results.append(result)
        seconds = time.perf_counter() - begun
        on_epoch(Epoch(epoch, results, diverged, seconds, images))
        if not members:
            return


class _Member:
    """One run of a stack: its network, its optimiser, its order."""

    def __init__(self, config: Config, seed: int, resume: State | None) -> None:
        self.config = config
        self.seed = seed
        self.model = build(config, seed)
        self.optimizer = make_optimizer(config.optimizer, self.model)
        if resume is not None:
            self.model.load_state_dict(resume.weights)
            load_optimizer(self.optimizer, self.model, resume.optimizer)

    def train_epoch(self, epoch: int, data: TrainingData) -> MemberEpoch | Divergence:
        order = epoch_order(data.rows, self.seed, epoch)
        bounds = batch_bounds(len(order), self.config.batch_size)
        losses = torch.empty(len(bounds))
        correct = torch.empty(len(bounds))
        sizes = torch.tensor([stop - start for start, stop in bounds])
        self.model.train()
        for first, last in _blocks(bounds):
            self._train_batches(order, bounds[first:last], data, losses[first:], correct[first:])
            finite = torch.isfinite(losses[first:last])
            if not bool(finite.all()):
                batch = first + int((~finite).nonzero()[0])
                return Divergence(self.seed, epoch, batch + 1, float(losses[batch]))
        if not self._predicts(order[slice(*bounds[-1])], data):
            return Divergence(self.seed, epoch, len(bounds), float("nan"))
        return MemberEpoch(
            seed=self.seed,
            loss=_mean(losses, sizes),
            accuracy=_mean(correct / sizes, sizes),
            learning_rate=self.config.optimizer.lr,
            model=self.model,
            state=lambda: self._state(epoch),
            steps=_steps(losses, correct, sizes) if epoch == 1 else [],
        )

    def _train_batches(
        self,
        order: npt.NDArray[np.int64],
        bounds: list[tuple[int, int]],
        data: TrainingData,
        losses: torch.Tensor,
        correct: torch.Tensor,
    ) -> None:
        start, stop = bounds[0][0], bounds[-1][1]
        pixels = torch.from_numpy(np.take(data.pixels, order[start:stop], axis=0))
        labels = torch.from_numpy(data.labels[order[start:stop]]).to(torch.float32)
        for index, (first, last) in enumerate(bounds):
            target = labels[first - start : last - start]
            logits = self.model(normalise(pixels[first - start : last - start]))
            loss = functional.binary_cross_entropy_with_logits(logits, target)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            losses[index] = loss.detach()
            correct[index] = ((logits.detach() >= 0) == (target > 0.5)).sum()

    def _predicts(self, rows: npt.NDArray[np.int64], data: TrainingData) -> bool:
        """Whether logits are finite after the last step too, which no loss has seen."""
        self.model.eval()
        with torch.no_grad():
            pixels = torch.from_numpy(np.take(data.pixels, rows, axis=0))
            return bool(torch.isfinite(self.model(normalise(pixels))).all())

    def _state(self, epoch: int) -> State:
        weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        return State(epoch, weights, optimizer_tensors(self.optimizer, self.model))


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels of shape (n, 32, 32, 3), uint8, to (n, 3, 32, 32), float32 in −1…1, channels_last."""
    return pixels.permute(0, 3, 1, 2).to(torch.float32).mul_(2 / 255).sub_(1)


def epoch_order(rows: npt.NDArray[np.int64], seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The order of images in one epoch, shape (m,): a function of seed and epoch alone."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([_ORDER_STREAM, seed, epoch])))
    return rng.permutation(rows)


def batch_bounds(images: int, batch_size: int) -> list[tuple[int, int]]:
    """Start and stop of every batch. A last batch of one image joins the one before.

    Batch normalisation cannot be trained on a single image.
    """
    starts = list(range(0, images, batch_size))
    if len(starts) > 1 and batch_size > 1 and images - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], images], strict=True))


def make_optimizer(settings: OptimizerSettings, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of a configuration, over all parameters of a network."""
    return torch.optim.SGD(
        model.parameters(),
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> Tensors:
    """The optimiser's per-parameter state, copied, as `<parameter>/<name>`."""
    return {
        f"{path}/{name}": torch.as_tensor(value).clone()
        for path, parameter in model.named_parameters()
        for name, value in optimizer.state[parameter].items()
        if value is not None
    }


def load_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Put back what `optimizer_tensors` gave."""
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        path, _, name = key.rpartition("/")
        like = parameters[path]
        shaped = value.shape == like.shape and value.dim() == 4
        stored = value.to(memory_format=torch.channels_last) if shaped else value
        optimizer.state[like][name] = stored.clone()


def _blocks(bounds: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Group batches so that the pixels of a group are gathered at once."""
    per_block = max(1, _BLOCK_IMAGES // (bounds[0][1] - bounds[0][0]))
    starts = range(0, len(bounds), per_block)
    return [(start, min(start + per_block, len(bounds))) for start in starts]


def _steps(losses: torch.Tensor, correct: torch.Tensor, sizes: torch.Tensor) -> list[Step]:
    steps = []
    seen = 0
    for start in range(0, len(losses), LOG_EVERY):
        window = slice(start, min(start + LOG_EVERY, len(losses)))
        seen += int(sizes[window].sum())
        loss = _mean(losses[window], sizes[window])
        accuracy = _mean(correct[window] / sizes[window], sizes[window])
        steps.append(Step(int(window.stop), seen, loss, accuracy))
    return steps


def _mean(values: torch.Tensor, weights: torch.Tensor) -> float:
    return float((values.double() * weights).sum() / weights.sum())
