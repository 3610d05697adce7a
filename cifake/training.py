"""The training loop. It writes nothing: what an epoch gave goes to the caller's function."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from cifake import memory
from cifake.arithmetic import exact
from cifake.batches import Block, Images, TrainingData
from cifake.config import Config
from cifake.evaluation import predict, scores
from cifake.models import catalogue, on_gpu
from cifake.models.build import build
from cifake.models.network import Network
from cifake.models.stacked import join, part, stack
from cifake.replay import Replay
from cifake.stacks import chunks
from cifake.updates import Tensors, Updater, learning_rate

if TYPE_CHECKING:
    from cifake.models.boosting import Boosting

Floats = npt.NDArray[np.float64]

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
    """The seed's own network as it is now; it goes on training when the caller returns."""

    state: State
    """A copy of the run's state."""

    stack: tuple[int, ...]
    """Seeds that were trained as one network with this one, itself among them, in their order."""

    fallbacks: tuple[str, ...] = ()
    """What was done in another way than asked for, with the reason."""

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
    stacks: Sequence[Sequence[int]] | None = None,
) -> None:
    """Train one configuration with several seeds, epoch by epoch, all seeds in step.

    Seeds of a stack are trained as one network, side by side along the channels. Initialisation,
    order, augmentation and dropout depend on the seed alone, so each follows the seed trained alone
    to float tolerance. On a CPU with one thread the same stack gives the same numbers bit for bit.

    A stack that the device's memory would not hold is split, and one that runs out of memory is
    halved and its epoch begun anew. A configuration that cannot be stacked is trained seed by seed.

    Args:
        config: what to train.
        seeds: one run each.
        data: images to train on.
        on_epoch: called after every epoch.
        epochs: length of every run, epochs trained before included.
        resume: where each seed stands; all must have trained equally many epochs.
        device: `cpu`, or `cuda` with all pixels resident there.
        stacks: the seeds that are trained as one network; by default all of them.
    """
    for epoch in each_epoch(
        config, seeds, data, epochs=epochs, resume=resume, device=device, stacks=stacks
    ):
        on_epoch(epoch)


def each_epoch(
    config: Config,
    seeds: Sequence[int],
    data: TrainingData,
    *,
    epochs: int,
    resume: Mapping[int, State] | None = None,
    device: str = "cpu",
    stacks: Sequence[Sequence[int]] | None = None,
) -> Iterator[Epoch]:
    """The epochs of `train`, each trained when it is asked for."""
    resume = resume or {}
    starts = {resume[seed].epoch if seed in resume else 0 for seed in seeds}
    if len(starts) != 1:
        raise ValueError(f"seeds trained together must resume from one epoch, not {sorted(starts)}")
    asked = [tuple(seeds)] if stacks is None else [tuple(stack) for stack in stacks]
    if sorted(seed for stack in asked for seed in stack) != sorted(seeds):
        raise ValueError(f"every seed must be in one stack: {asked} of {list(seeds)}")
    trained = _prepare(config, asked, Images(data, device), resume)
    for epoch in range(starts.pop() + 1, epochs + 1):
        begun = time.perf_counter()
        results = [result for each in trained for result in _train_epoch(each, epoch)]
        members = [member for result in results for member in result.members]
        diverged = [gone for result in results for gone in result.diverged]
        seconds = time.perf_counter() - begun
        in_order = sorted(members, key=lambda member: seeds.index(member.seed))
        images = len(data.rows) * (len(members) + len(diverged))
        yield Epoch(epoch, in_order, diverged, seconds, images)
        trained = [result.rest for result in results if result.rest is not None]
        if not trained:
            return


@dataclass(frozen=True)
class _Result:
    """What an epoch gave for one stack."""

    members: list[MemberEpoch]
    diverged: list[Divergence]
    rest: _Stack | _Fitted | None
    """The stack that goes on without the diverged; null where none is left."""


def _prepare(
    config: Config, asked: Sequence[tuple[int, ...]], images: Images, resume: Mapping[int, State]
) -> list[_Stack | _Fitted]:
    if catalogue.ARCHITECTURES[config.model].fitted:
        return [_Fitted(config, seed, images) for stack in asked for seed in stack]
    if catalogue.stacking_problem(config):
        return [_Stack(config, (seed,), images, resume) for stack in asked for seed in stack]
    return [part for seeds in asked for part in _within_memory(config, seeds, images, resume)]


def _within_memory(
    config: Config, seeds: tuple[int, ...], images: Images, resume: Mapping[int, State]
) -> Iterator[_Stack]:
    """A stack, or as few and as equal parts of it as the device's memory holds."""
    if len(seeds) == 1:
        yield _Stack(config, seeds, images, resume)
        return
    one = _Stack(config, seeds[:1], images, {}).memory()
    budget = memory.SHARE * memory.free(images.device)
    parts = chunks(seeds, max(1, int(budget // one)))
    why = (
        f"stack of {len(seeds)} split into {len(parts)}: a member takes {one / 2**20:,.0f} MiB of "
        f"memory, and there are {budget / 2**20:,.0f}"
    )
    for few in parts:
        yield _Stack(config, few, images, resume, (why,) if len(parts) > 1 else ())


def _train_epoch(trained: _Stack | _Fitted, epoch: int) -> list[_Result]:
    """One epoch of a stack; of what takes its place, from where it began, if memory runs out."""
    if isinstance(trained, _Fitted):
        return [trained.train_epoch(epoch)]
    try:
        return [trained.train_epoch(epoch)]
    except (MemoryError, RuntimeError) as error:
        if not trained.yields or not memory.is_exhausted(error):
            raise
    # Out of the handler, whose traceback holds on to the tensors that are in the way.
    return [result for part in trained.smaller(epoch) for result in _train_epoch(part, epoch)]


class _Stack:
    """Some runs that are trained by gradient descent as one network; a single one as its own."""

    def __init__(
        self,
        config: Config,
        seeds: tuple[int, ...],
        images: Images,
        states: Mapping[int, State],
        fallbacks: tuple[str, ...] = (),
    ) -> None:
        self.config = config
        self.seeds = seeds
        self.images = images
        self.states = {seed: states[seed] for seed in seeds if seed in states}
        self.fallbacks = fallbacks
        double = config.execution.precision == "float64"
        self.numbers = torch.float64 if double else torch.float32
        self.models = [self._model(seed) for seed in seeds]
        self.network = self._side_by_side()
        self.compiled = torch.compile(self.network) if config.execution.compile else self.network
        self.updater = Updater(config, self.network, images.device, len(seeds))
        self.replay = Replay(list(self.network.parameters())) if self._is_replayed() else None
        if self.states:
            self.updater.load(join([self.states[seed].optimizer for seed in seeds]))

    def train_epoch(self, epoch: int) -> _Result:
        log = _Log(len(self.seeds))
        self.network.train()
        with exact(), _noise_of(self.config, self.seeds[0], epoch, self.images.device):
            for block in self.images.blocks(self.config, self.seeds, epoch):
                self._train_block(block, epoch, log)
                if None not in log.lost:
                    break
        diverged = self._diverged(epoch, log, block)
        kept = [seed for seed in self.seeds if seed not in diverged]
        states = self._states(epoch, kept)
        members = [self._member(epoch, seed, log, states[seed]) for seed in kept]
        result = _Result(members, list(diverged.values()), self._rest(kept, states))
        # Last, since until then the epoch may have to be begun anew.
        self.states = states
        return result

    def memory(self) -> int:
        """Bytes that training it takes, measured on one batch."""
        block = next(self.images.blocks(self.config, self.seeds, 1))
        batch = slice(*block.bounds[0])
        self.network.train()
        labels = block.labels[batch].to(self.numbers)
        return memory.taken(
            self.network, lambda: _objective(self._logits(block.pixels[batch]), labels)
        )

    @property
    def yields(self) -> bool:
        """Whether there is a way to train it in less memory."""
        return self.replay is not None or len(self.seeds) > 1

    def smaller(self, epoch: int) -> list[_Stack]:
        """What takes its place, as it was before an epoch that did not fit: two halves.

        Where passes were recorded, first the same stack without that.
        """
        recorded, count = self.replay is not None, len(self.seeds)
        what = "no longer replayed" if recorded else "halved"
        why = f"stack of {count} {what} in epoch {epoch}: out of memory"
        del (
            self.models,
            self.network,
            self.compiled,
            self.updater,
            self.replay,
        )  # room for the halves
        if _is_gpu(self.images.device):
            memory.release()
        return [
            _Stack(self.config, half, self.images, self.states, (*self.fallbacks, why))
            for half in chunks(self.seeds, count if recorded else -(-count // 2))
        ]

    def _model(self, seed: int) -> nn.Module:
        """The network of one seed, where it stands."""
        model = build(self.config, seed)
        if seed in self.states:
            model.load_state_dict(self.states[seed].weights)
        elif self.config.normalization == "dataset":
            cast("Network", model).pixels.adopt(*self.images.statistics)
        if _is_gpu(self.images.device):
            on_gpu.take_over(model)
        return model.to(self.images.device)

    def _side_by_side(self) -> nn.Module:
        if len(self.models) == 1:
            return self.models[0]
        network = stack(self.models)
        if self.config.execution.channels_last:
            network = network.to(memory_format=torch.channels_last)
        return network

    def _train_block(self, block: Block, epoch: int, log: _Log) -> None:
        outputs = []
        steps = self.images.steps_per_epoch(self.config)
        targets = _smoothed(block.labels.to(self.numbers), self.config.label_smoothing)
        for number, (start, stop) in enumerate(block.bounds, block.first):
            batch = block.pixels[start:stop], targets[start:stop]
            outputs.append(self.replay(self._pass, *batch) if self.replay else self._pass(*batch))
            self.updater.update(self._rate(epoch, steps, number))
        log.add(torch.cat(outputs), targets, block)

    def _pass(self, pixels: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Make the gradients of a batch's loss; its logits, shape (b, members)."""
        logits = self._logits(pixels)
        self.updater.differentiate(_objective(logits, targets))
        return logits.detach()

    def _is_replayed(self) -> bool:
        """Whether passes are recorded, which then keep their memory for themselves.

        So they are not where memory was short; and what is compiled has few kernels as it is.
        """
        compiled = self.config.execution.compile
        return _is_gpu(self.images.device) and not compiled and not self.fallbacks

    def _logits(self, pixels: torch.Tensor) -> torch.Tensor:
        """Shape (b, members), in the numbers of the loss."""
        with self.updater.autocast():
            logits: torch.Tensor = self.compiled(pixels)
        return logits.to(self.numbers).view(len(pixels), len(self.seeds))

    def _rate(self, epoch: int, steps: int, number: int) -> float:
        highest = self.config.optimizer.lr
        return learning_rate(self.config.schedule, highest, (epoch - 1) * steps + number, steps)

    def _diverged(self, epoch: int, log: _Log, block: Block) -> dict[int, Divergence]:
        """The seeds whose loss or whose last logits, which no loss has seen, are not finite."""
        self.network.eval()
        start, stop = block.bounds[-1]
        with torch.no_grad():
            logits = self.network(block.pixels[start:stop]).view(stop - start, -1)
        sound = torch.isfinite(logits).all(0).tolist()
        found = {}
        for seed, lost, finite in zip(self.seeds, log.lost, sound, strict=True):
            if lost is not None:
                found[seed] = Divergence(seed, epoch, *lost)
            elif not finite:
                found[seed] = Divergence(seed, epoch, len(log.sizes), float("nan"))
        return found

    def _states(self, epoch: int, kept: Sequence[int]) -> dict[int, State]:
        """Where some seeds stand; their own networks are brought there too."""
        weights = {name: value.cpu() for name, value in self.network.state_dict().items()}
        optimizer = self.updater.tensors()
        count = len(self.seeds)
        states = {}
        for index, (seed, model) in enumerate(zip(self.seeds, self.models, strict=True)):
            if seed in kept:
                own = part(weights, index, count)
                states[seed] = State(epoch, own, part(optimizer, index, count))
                if model is not self.network:
                    model.load_state_dict(own)
                    model.eval()
        return states

    def _member(self, epoch: int, seed: int, log: _Log, state: State) -> MemberEpoch:
        index = self.seeds.index(seed)
        loss, accuracy = log.means(index)
        batches = len(log.sizes)
        return MemberEpoch(
            seed=seed,
            loss=loss,
            accuracy=accuracy,
            learning_rate=self._rate(epoch, batches, batches - 1),
            model=self.models[index],
            state=state,
            stack=self.seeds,
            fallbacks=self.fallbacks,
            steps=log.steps(index, self.config.log_every) if epoch == 1 else [],
        )

    def _rest(self, kept: list[int], states: Mapping[int, State]) -> _Stack | None:
        if len(kept) == len(self.seeds):
            return self
        if not kept:
            return None
        return _Stack(self.config, tuple(kept), self.images, states, self.fallbacks)


class _Fitted:
    """One run of a model that is fitted at once; its only epoch is the fit."""

    def __init__(self, config: Config, seed: int, images: Images) -> None:
        self.config = config
        self.seeds = (seed,)
        self.data = images.data
        self.model = cast("Boosting", build(config, seed))

    def train_epoch(self, epoch: int) -> _Result:
        (own,) = self.seeds
        seed = own if self.config.init_seed is None else self.config.init_seed
        self.model.fit(self.data.pixels, self.data.labels, self.data.rows, seed)
        labels = self.data.labels[self.data.rows]
        probabilities = predict(self.model, self.data.pixels, self.data.rows)
        found = scores(probabilities, labels)
        weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        member = MemberEpoch(
            seed=own,
            loss=float(found["loss"] or 0.0),
            accuracy=float(found["accuracy"] or 0.0),
            learning_rate=None,
            model=self.model,
            state=State(epoch, weights, {}),
            stack=self.seeds,
        )
        return _Result([member], [], self)


class _Log:
    """Loss and right answers of every batch of an epoch, by member."""

    def __init__(self, members: int) -> None:
        self.blocks: list[tuple[Floats, Floats]] = []
        self.sizes: list[int] = []
        self.lost: list[tuple[int, float] | None] = [None] * members
        """For each member the first batch, from 1, whose loss was infinite or NaN, and the loss."""

    def add(self, logits: torch.Tensor, targets: torch.Tensor, block: Block) -> None:
        """Add a block's batches.

        Args:
            logits: shape (b, members), as they were before each batch's step.
            targets: shape (b, members) or (b, 1).
            block: where batches begin and end.
        """
        sizes = [stop - start for start, stop in block.bounds]
        each = functional.binary_cross_entropy_with_logits(
            logits, targets.expand_as(logits), reduction="none"
        )
        right = (logits >= 0) == (block.labels > 0.5)
        losses = torch.stack([batch.mean(0) for batch in torch.split(each, sizes)])
        correct = torch.stack([batch.sum(0) for batch in torch.split(right, sizes)])
        # Read from the device at once.
        values = losses.double().cpu().numpy()
        self.blocks.append((values, correct.double().cpu().numpy()))
        for member, column in enumerate(values.T):
            bad = np.flatnonzero(~np.isfinite(column))
            if len(bad) and self.lost[member] is None:
                self.lost[member] = len(self.sizes) + int(bad[0]) + 1, float(column[bad[0]])
        self.sizes += sizes

    def means(self, member: int) -> tuple[float, float]:
        """Loss and accuracy over all images."""
        losses, correct = self._of(member)
        return _mean(losses, self.sizes), float(correct.sum()) / sum(self.sizes)

    def steps(self, member: int, every: int) -> list[Step]:
        """The difficulty curve."""
        losses, correct = self._of(member)
        found = []
        for start in range(0, len(losses), every):
            window = slice(start, start + every)
            stop = min(start + every, len(losses))
            loss = _mean(losses[window], self.sizes[window])
            accuracy = float(correct[window].sum()) / sum(self.sizes[window])
            found.append(Step(stop, sum(self.sizes[:stop]), loss, accuracy))
        return found

    def _of(self, member: int) -> tuple[Floats, Floats]:
        losses, correct = (np.concatenate(each) for each in zip(*self.blocks, strict=True))
        return losses[:, member].copy(), correct[:, member].copy()


def _is_gpu(device: str) -> bool:
    return torch.device(device).type == "cuda"


@contextmanager
def _noise_of(config: Config, seed: int, epoch: int, device: str) -> Iterator[None]:
    """Draw what a network draws while it trains, such as dropout, from seed and epoch alone."""
    seed = seed if config.data_seed is None else config.data_seed
    stream = np.random.SeedSequence([_NOISE_STREAM, seed, epoch])
    gpus = [torch.cuda.current_device()] if _is_gpu(device) else []
    with torch.random.fork_rng(gpus):
        torch.manual_seed(int(stream.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        yield


def _objective(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """What is minimised: binary cross-entropy, its mean over images, summed over members.

    No member's gradient depends on another. One alone is divided by the images last, as torch does.
    """
    members = logits.shape[1]
    mean = functional.binary_cross_entropy_with_logits(logits, targets.expand_as(logits))
    return mean if members == 1 else mean * members


def _smoothed(labels: torch.Tensor, share: float) -> torch.Tensor:
    """Labels with a share spread evenly over both classes (Szegedy et al. 2016, section 7)."""
    return labels if share == 0 else labels * (1 - share) + share / 2


def _mean(values: Floats, sizes: Sequence[int]) -> float:
    return float(np.dot(values, sizes) / sum(sizes))
