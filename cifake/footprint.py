"""How much of a GPU a stack takes, measured there while it trains on a few batches."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from cifake import memory
from cifake.batches import GATHERING_BYTES, TrainingData
from cifake.config import Config
from cifake.data.decode import PIXELS_SHAPE
from cifake.evaluation import predict
from cifake.training import Epoch, train

_BATCHES = 4
_EPOCHS = 2
_EVALUATED = 1000


@dataclass(frozen=True)
class Gpu:
    """A GPU as it is."""

    name: str
    total: int
    """Bytes of its memory."""


def gpu() -> Gpu | None:
    """The GPU that this process may use; null where torch finds none."""
    if not torch.cuda.is_available():
        return None
    return Gpu(torch.cuda.get_device_name(), int(torch.cuda.mem_get_info()[1]))


def stack_bytes(config: Config, data: TrainingData, width: int) -> int:
    """Bytes of the GPU that a process takes which trains a stack, all that it keeps there included.

    Args:
        config: what is trained.
        data: its images, all of which lie on the GPU while it is trained.
        width: seeds trained as one network.
    """
    # The last batch of an epoch is of another size, and so are those of an evaluation.
    images = (_BATCHES + 1) * config.batch_size - 1
    few = TrainingData(data.pixels, data.labels, data.rows[:images])
    memory.release()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_reserved()

    def evaluate(epoch: Epoch) -> None:
        for member in epoch.members:
            predict(member.model, data.pixels, data.rows[:_EVALUATED])

    train(config, range(width), few, evaluate, epochs=_EPOCHS, device="cuda")
    training = torch.cuda.max_memory_reserved() - before
    pixels = (len(data.rows) - len(few.rows)) * math.prod(PIXELS_SHAPE)
    return training + pixels + GATHERING_BYTES + _context()


def _context() -> int:
    """What a process takes of a GPU before it has a single tensor there.

    Of other processes there are no figures: what they take is counted too, so that on a GPU that
    is shared already fewer stacks are planned.
    """
    free, total = torch.cuda.mem_get_info()
    return max(0, int(total - free) - torch.cuda.memory_reserved())
