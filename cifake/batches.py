"""Which images a seed sees when: order, batches, augmentation, and the pixels of a block."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from cifake.config import Augmentation, Config
from cifake.machine_code import Code

_ORDER_STREAM = 2
_BATCH_STREAM = 3
_AUGMENTATION_STREAM = 4
_BLOCK_IMAGES = 2048
"""Images gathered at once, over all members of a stack."""


Rows = npt.NDArray[np.int64]
Bounds = list[tuple[int, int]]


@dataclass(frozen=True)
class TrainingData:
    """Images to train on."""

    pixels: npt.NDArray[np.uint8]
    """Shape (n, 32, 32, 3), uint8; may be mapped from a file."""

    labels: npt.NDArray[np.int8]
    """Shape (n,), 0 FAKE, 1 REAL."""

    rows: Rows
    """Shape (m,), the rows of both that are trained on."""


@dataclass(frozen=True)
class Order:
    """The images of one epoch in the order they are trained on, and where batches begin and end."""

    rows: Rows
    """Shape (m,)."""

    bounds: Bounds
    """Start and stop of every batch."""


@dataclass(frozen=True)
class Block:
    """Some batches that follow each other, their pixels gathered at once."""

    first: int
    """Number of the first batch within the epoch, from 0."""

    bounds: Bounds
    """Start and stop of every batch within the block."""

    pixels: torch.Tensor
    """Shape (b, 32, 32, 3 · members), uint8, augmented; three channels where members share them."""

    labels: torch.Tensor
    """Shape (b, members), float32, or (b, 1)."""


class Images:
    """Training images where they are trained: mapped from a file, or once and for all on a GPU."""

    def __init__(self, data: TrainingData, device: str) -> None:
        self.data = data
        self.device = device
        self.resident = None
        if device != "cpu":
            # Only what is trained on; rows are renumbered to their places there.
            self.places: Rows = np.zeros(len(data.pixels), np.int64)
            self.places[data.rows] = np.arange(len(data.rows))
            self.resident = torch.from_numpy(np.take(data.pixels, data.rows, axis=0)).to(device)

    def take(self, rows: Rows) -> torch.Tensor:
        """Pixels of some rows, shape (b, 32, 32, 3), uint8, on the device."""
        if self.resident is None:
            return torch.from_numpy(np.take(self.data.pixels, rows, axis=0))
        return self.resident[torch.from_numpy(self.places[rows]).to(self.device)]

    def labels(self, rows: Rows) -> torch.Tensor:
        """Labels of some rows, shape (b,), float32, on the device."""
        return torch.from_numpy(self.data.labels[rows]).to(self.device, torch.float32)

    def steps_per_epoch(self, config: Config) -> int:
        """Batches of one epoch."""
        return len(batch_bounds(len(self.data.rows), config.batch_size))

    def blocks(self, config: Config, seeds: Sequence[int], epoch: int) -> Iterator[Block]:
        """The batches of one epoch in blocks, augmented as the configuration says.

        Each seed has its own images side by side with the others', unless all share one order.
        """
        orders = list(
            dict.fromkeys(s if config.data_seed is None else config.data_seed for s in seeds)
        )
        sources = [self._ordered(config, seed, epoch) for seed in orders]
        bounds = sources[0][0].bounds
        for first, last in _groups(bounds, len(sources)):
            start, stop = bounds[first][0], bounds[last - 1][1]
            local = [(begin - start, end - start) for begin, end in bounds[first:last]]
            labels = [self.labels(order.rows[start:stop]) for order, _ in sources]
            # One after another: all members' pixels twice would be much memory.
            parts = (self._pixels(order, shifts, start, stop) for order, shifts in sources)
            pixels = _side_by_side(parts, len(sources))
            yield Block(first, local, pixels, torch.stack(labels, 1))

    def _ordered(self, config: Config, seed: int, epoch: int) -> tuple[Order, torch.Tensor | None]:
        order = epoch_order(self.data.rows, config, seed, epoch)
        return order, _shifts(config.augmentation, len(order.rows), seed, epoch)

    def _pixels(
        self, order: Order, shifts: torch.Tensor | None, start: int, stop: int
    ) -> torch.Tensor:
        """Pixels of one stretch of an order."""
        pixels = self.take(order.rows[start:stop])
        if shifts is None:
            return pixels
        return shifted(pixels, shifts[start:stop].to(self.device))


def epoch_order(rows: Rows, config: Config, seed: int, epoch: int) -> Order:
    """The order of one epoch: a function of configuration, seed and epoch alone.

    `reshuffle` permutes all images anew. `frozen_batches` draws the batches once; every epoch
    permutes the batches, and the images within each.
    """
    rng = _generator(_ORDER_STREAM, seed, epoch)
    if config.shuffle == "reshuffle":
        return Order(rng.permutation(rows), batch_bounds(len(rows), config.batch_size))
    drawn = _generator(_BATCH_STREAM, seed, 0).permutation(rows)
    bounds = batch_bounds(len(rows), config.batch_size)
    batches = [
        rng.permutation(drawn[slice(*bounds[number])]) for number in rng.permutation(len(bounds))
    ]
    ends = np.cumsum([len(batch) for batch in batches]).tolist()
    return Order(np.concatenate(batches), list(zip([0, *ends[:-1]], ends, strict=True)))


def batch_bounds(images: int, batch_size: int) -> Bounds:
    """Start and stop of every batch. A last batch of one image joins the one before.

    Batch normalisation cannot be trained on a single image.
    """
    starts = list(range(0, images, batch_size))
    if len(starts) > 1 and batch_size > 1 and images - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], images], strict=True))


def shifted(pixels: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    """Images moved and mirrored, black where nothing was.

    Args:
        pixels: shape (b, 32, 32, 3), uint8.
        shifts: shape (b, 3), int64: rows and columns to move by, in −16…16, and 1 for mirrored.
            An image is moved up and to the left, and then mirrored.
    """
    side = pixels.shape[1]
    border = int(shifts[:, :2].abs().max()) if len(shifts) else 0
    steps = torch.arange(side, device=pixels.device)
    backwards = torch.where(shifts[:, 2:] == 1, side - 1 - steps, steps)
    tops = shifts[:, :1] + steps + border
    lefts = shifts[:, 1:2] + backwards + border
    padded = pixels.new_zeros(len(pixels), side + 2 * border, side + 2 * border, pixels.shape[3])
    padded[:, border : border + side, border : border + side] = pixels
    images = torch.arange(len(pixels), device=pixels.device)
    return padded[images[:, None, None], tops[:, :, None], lefts[:, None, :]]


def _shifts(augmentation: Augmentation, images: int, seed: int, epoch: int) -> torch.Tensor | None:
    """How each image of an epoch is moved and mirrored, shape (m, 3); null where none is."""
    if not augmentation.flip and not augmentation.crop:
        return None
    rng = _generator(_AUGMENTATION_STREAM, seed, epoch)
    moves = rng.integers(-augmentation.crop, augmentation.crop, (images, 2), endpoint=True)
    mirrored = rng.integers(0, 1, (images, 1), endpoint=True) * augmentation.flip
    return torch.from_numpy(np.concatenate([moves, mirrored], axis=1))


def _side_by_side(parts: Iterator[torch.Tensor], members: int) -> torch.Tensor:
    """Pixels of shape (b, 32, 32, 3) of each member as (b, 32, 32, 3 · members)."""
    first = next(parts)
    if members == 1:
        return first
    if first.device.type != "cpu":
        return torch.cat([first, *parts], 3)
    channels = first.shape[3]
    together = first.new_empty(*first.shape[:3], members * channels)
    for member, own in enumerate(itertools.chain([first], parts)):
        target = together.data_ptr() + member * channels
        _beside(channels, members)(own.data_ptr(), target, own.numel() // channels)
    return together


@functools.cache
def _beside(channels: int, members: int) -> Callable[..., None]:
    """Copies one member's pixels to their places among all members', three bytes at a time."""
    code = Code("beside", ["own", "together"], ["pixels"], torch.uint8)
    with code.loop(code.arguments["pixels"]) as pixel:
        value = code.load("own", code.place((pixel, channels)), channels)
        code.store(value, "together", code.place((pixel, members * channels)))
    return code.compiled()


def _groups(bounds: Bounds, members: int) -> Bounds:
    """Group batches so that the pixels of a group are gathered at once."""
    per_block = max(1, _BLOCK_IMAGES // (members * (bounds[0][1] - bounds[0][0])))
    starts = range(0, len(bounds), per_block)
    return [(start, min(start + per_block, len(bounds))) for start in starts]


def _generator(stream: int, seed: int, epoch: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([stream, seed, epoch])))
