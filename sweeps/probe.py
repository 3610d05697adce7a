"""What the stacks of a sweep take of a GPU, asked where there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifake.config import Config
from cifake.data.published import open_near
from cifake.data.subsets import split_rows
from cifake.places import open_place
from sweeps.sizing import Footprint


@dataclass(frozen=True)
class Widest:
    """The largest stacks that may be trained; plain values, as in `Task`."""

    stacks: Sequence[tuple[Mapping[str, Any], int]]
    """A config, dumped, and the seeds trained as one network, of each network there is."""

    pack: str
    """Folder of the images."""

    store: str


def gpu_memory() -> int | None:
    """Bytes of the GPU that this process was given; null where torch finds none."""
    from cifake.footprint import gpu

    found = gpu()
    return None if found is None else found.total


def footprint(widest: Widest) -> Footprint | None:
    """What the largest of some stacks takes of the GPU here; null where torch finds none."""
    import torch

    from cifake.batches import TrainingData
    from cifake.footprint import gpu, stack_bytes

    found = gpu()
    if found is None:
        return None
    torch.set_num_threads(1)
    pack = open_near(Path(widest.pack), open_place(widest.store))
    most = 0
    for dumped, width in widest.stacks:
        config = Config.model_validate(dumped)
        data = TrainingData(pack.pixels, pack.labels, split_rows(pack, config.data).train)
        most = max(most, stack_bytes(config, data, width))
    return Footprint(found.name, found.total, most)
