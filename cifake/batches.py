"""Which images a seed sees when: order, batches, augmentation, and the pixels of a block."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from cifake.config import Augmentation, Config
from cifake.data.decode import PIXELS_SHAPE
from cifake.machine_code import Code

_ORDER_STREAM = 2
_BATCH_STREAM = 3
_AUGMENTATION_STREAM = 4
_BLOCK_IMAGES = 2048
"""Images gathered at once, over all members of a stack."""

_RESIDENT_BLOCK_IMAGES = 8192
"""The same on a GPU, which would wait for the many small ones that a processor's caches hold."""

GATHERING_BYTES = 7 * _RESIDENT_BLOCK_IMAGES * math.prod(PIXELS_SHAPE)
"""What a block takes of a GPU's memory at most while it is gathered: the block before, the images,
the same with the widest border, and what was cut out."""


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


@dataclass(frozen=True)
class _Part:
    """One seed's images of a block."""

    rows: Rows
    shifts: torch.Tensor | None
    """As `shifted` takes them; null where no image is moved."""


class Images:
    """Training images where they are trained: mapped from a file, or once and for all on a GPU."""

    def __init__(self, data: TrainingData, device: str) -> None:
        self.data = data
        self.device = device
        self.resident: _Resident | None = None if device == "cpu" else _Resident(data, device)

    @functools.cached_property
    def statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the channels of what is trained on, measured once for all seeds."""
        return channel_statistics(self.data.pixels, self.data.rows)

    def steps_per_epoch(self, config: Config) -> int:
        """Batches of one epoch."""
        return len(batch_bounds(len(self.data.rows), config.batch_size))

    def blocks(self, config: Config, seeds: Sequence[int], epoch: int) -> Iterator[Block]:
        """The batches of one epoch in blocks, augmented as the configuration says.

        Each seed has its own images side by side with the others', unless all share one order.
        """
        seen = list(
            dict.fromkeys(s if config.data_seed is None else config.data_seed for s in seeds)
        )
        orders = [epoch_order(self.data.rows, config, seed, epoch) for seed in seen]
        bounds = orders[0].bounds
        shifts = [_shifts(config.augmentation, len(self.data.rows), seed, epoch) for seed in seen]
        images = _BLOCK_IMAGES if self.resident is None else _RESIDENT_BLOCK_IMAGES
        for first, last in _groups(bounds, images // len(seen)):
            start, stop = bounds[first][0], bounds[last - 1][1]
            parts = [
                _Part(order.rows[start:stop], None if moved is None else moved[start:stop])
                for order, moved in zip(orders, shifts, strict=True)
            ]
            local = [(begin - start, end - start) for begin, end in bounds[first:last]]
            yield Block(first, local, *self._gathered(parts))

    def _gathered(self, parts: Sequence[_Part]) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels and labels of a block."""
        if self.resident is not None:
            return self.resident.gathered(parts)
        # One after another: all members' pixels twice would be much memory.
        pixels = (
            _moved(torch.from_numpy(np.take(self.data.pixels, part.rows, axis=0)), part.shifts)
            for part in parts
        )
        labels = [torch.from_numpy(self.data.labels[part.rows]).float() for part in parts]
        return _side_by_side(pixels, len(parts)), torch.stack(labels, 1)


def channel_statistics(
    pixels: npt.NDArray[np.uint8], rows: Rows
) -> tuple[torch.Tensor, torch.Tensor]:
    """Means and deviations of the channels over some rows of (n, 32, 32, 3) pixels.

    Returns:
        Each of shape (3,), float64, of 0…255.
    """
    total, squares = np.zeros(3), np.zeros(3)
    for start in range(0, len(rows), 4096):
        block = np.take(pixels, rows[start : start + 4096], axis=0).reshape(-1, 3)
        histograms = [np.bincount(block[:, channel], minlength=256) for channel in range(3)]
        total += [float(np.dot(h, np.arange(256))) for h in histograms]
        squares += [float(np.dot(h, np.arange(256.0) ** 2)) for h in histograms]
    count = len(rows) * pixels.shape[1] * pixels.shape[2]
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1e-12))
    return torch.from_numpy(mean), torch.from_numpy(std)


class _Resident:
    """The images that are trained on, in the memory of a GPU."""

    def __init__(self, data: TrainingData, device: str) -> None:
        self.device = device
        self.pixels = torch.from_numpy(np.take(data.pixels, data.rows, axis=0)).to(device)
        self.labels = torch.from_numpy(data.labels[data.rows]).to(device, torch.float32)
        # Rows are renumbered to their places there.
        self.places: Rows = np.zeros(len(data.pixels), np.int64)
        self.places[data.rows] = np.arange(len(data.rows))

    def gathered(self, parts: Sequence[_Part]) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels and labels of a block, of all members at once: a GPU is told of each as slowly."""
        rows = np.stack([self.places[part.rows] for part in parts], 1)
        places = torch.from_numpy(rows).to(self.device)
        shifts = [part.shifts for part in parts if part.shifts is not None]
        moved = torch.stack(shifts, 1).flatten(0, 1) if shifts else None
        images = _moved(self.pixels[places.flatten()], moved)
        # From (b, members, 32, 32, 3).
        by_member = images.view(*places.shape, *images.shape[1:])
        return by_member.permute(0, 2, 3, 1, 4).flatten(3), self.labels[places]


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
    shifts = shifts.to(pixels.device)
    steps = torch.arange(side, device=pixels.device)
    backwards = torch.where(shifts[:, 2:] == 1, side - 1 - steps, steps)
    tops = shifts[:, :1] + steps + border
    lefts = shifts[:, 1:2] + backwards + border
    padded = pixels.new_zeros(len(pixels), side + 2 * border, side + 2 * border, pixels.shape[3])
    padded[:, border : border + side, border : border + side] = pixels
    images = torch.arange(len(pixels), device=pixels.device)
    return padded[images[:, None, None], tops[:, :, None], lefts[:, None, :]]


def _moved(pixels: torch.Tensor, shifts: torch.Tensor | None) -> torch.Tensor:
    """Images, moved where they are to be."""
    return pixels if shifts is None else shifted(pixels, shifts)


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


def _groups(bounds: Bounds, images: int) -> Bounds:
    """Group batches so that the pixels of a group, of so many images, are gathered at once."""
    per_block = max(1, images // max(stop - start for start, stop in bounds))
    starts = range(0, len(bounds), per_block)
    return [(start, min(start + per_block, len(bounds))) for start in starts]


def _generator(stream: int, seed: int, epoch: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([stream, seed, epoch])))
