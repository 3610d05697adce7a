"""How much memory training takes, how much there is, and what says that it was too little."""

from __future__ import annotations

import gc
import os
import resource
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

SHARE = 0.8
"""Of the free memory that is planned with; the rest is for buffers that no probe sees."""

_MEMINFO = Path("/proc/meminfo")
_STATM = Path("/proc/self/statm")
_CGROUP = Path("/sys/fs/cgroup")
_PAGE = os.sysconf("SC_PAGE_SIZE")

_COPIES = 4
"""Of every weight: itself, its gradient, and the optimiser's two moments at most."""


def free(device: str) -> int:
    """Bytes that this process may still take: of a GPU, or of the machine within its limits."""
    if torch.device(device).type == "cuda":
        return _of_gpu(device)
    known = (_of_machine(), _of_cgroup(), _of_process())
    return max(0, min(each for each in known if each is not None))


def taken(network: nn.Module, step: Callable[[], torch.Tensor]) -> int:
    """Bytes that training a network takes: weights with what belongs to them, and activations.

    Args:
        network: what is trained.
        step: its forward pass on one batch, up to the loss.
    """
    saved: dict[int, int] = {}
    passed: list[int] = []

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    _WATCHERS.append(passed.append)
    try:
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = step()
    finally:
        _WATCHERS.remove(passed.append)
    del loss  # it held the activations, so that no two of them had one address
    weights = sum(parameter.nbytes for parameter in network.parameters())
    # A backward pass makes a gradient for every activation, at most all of them at once.
    return _COPIES * weights + 2 * sum(saved.values()) + sum(passed)


_EXHAUSTED = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")
"""What torch's allocator for processors says, a GPU's driver, and the libraries on it."""

_WATCHERS: list[Callable[[int], None]] = []


def passing(*tensors: torch.Tensor) -> None:
    """Tell whoever measures of tensors that a forward pass needs, and does not keep."""
    for tensor in tensors:
        for watch in _WATCHERS:
            watch(tensor.nbytes)


def is_exhausted(error: BaseException) -> bool:
    """Whether an error says that memory ran out; torch has a class of its own for GPUs only."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, RuntimeError) and any(text in str(error) for text in _EXHAUSTED):
        return True
    # What a graph says that is recorded no further can hide what kept it from being recorded.
    return error.__context__ is not None and is_exhausted(error.__context__)


def release() -> None:
    """Give back to all GPUs what torch keeps of what is needed no more."""
    gc.collect()
    torch.cuda.empty_cache()


def _of_gpu(device: str) -> int:
    """What is free there, within the share of all that this process may have.

    What torch keeps for later is given back first, and so is free.
    """
    release()
    number = torch.device(device).index
    gpu = torch.cuda.current_device() if number is None else number
    free, total = torch.cuda.mem_get_info(gpu)
    share = torch.cuda.get_per_process_memory_fraction(gpu)
    return max(0, min(int(free), int(share * total) - torch.cuda.memory_reserved(gpu)))


def _of_machine() -> int:
    """What the machine can give without swapping; all of it where the system does not say."""
    if _MEMINFO.exists():
        fields = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * _PAGE


def _of_cgroup() -> int | None:
    """What a container or a batch system leaves this process."""
    limit, used = _CGROUP / "memory.max", _CGROUP / "memory.current"
    if not limit.exists() or limit.read_text().strip() == "max":
        return None
    return int(limit.read_text()) - int(used.read_text())


def _of_process() -> int | None:
    """What `ulimit -v` leaves this process."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY or not _STATM.exists():
        return None
    return limit - int(_STATM.read_text().split()[0]) * _PAGE
