"""What of a cluster each stack gets, and how many stacks fit. Pure: numbers in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sweeps.spec import GPU_SHARES, Resources

SHARE = 0.8
"""Of a GPU's memory that is planned with; the rest is for buffers that no probe sees."""

MOST_A_GPU = 16
"""Stacks on one GPU at most: each has a process, and all share its arithmetic."""


@dataclass(frozen=True)
class Machine:
    """A node of a cluster."""

    node_id: str
    name: str
    """For people."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Footprint:
    """What a stack takes of a GPU, measured there."""

    gpu: str
    """Its name."""

    gpu_bytes: int
    """All of its memory."""

    stack_bytes: int
    """What the process of the largest stack takes."""


@dataclass(frozen=True)
class Sized:
    """What each stack gets."""

    cpus: float
    gpus: float
    """Graphics processors, or a share of one; 0 where it is trained on the CPU."""

    fallbacks: tuple[str, ...] = ()
    """Why it is less than was asked for; kept in the rows of the runs."""

    why: str = ""
    """How it was decided, for people."""


@dataclass(frozen=True)
class Placed:
    """How the stacks of a sweep fit a cluster as it is now."""

    sized: Sized
    slots: int
    """Stacks that train at the same time."""

    nodes: int
    lacking: tuple[str, float] | None
    """As `lacking` tells."""


def placed(machines: Sequence[Machine], sized: Sized) -> Placed:
    """How stacks fit some machines."""
    fitting = [slots for machine in machines if (slots := _slots(machine, sized))]
    return Placed(sized, sum(fitting), len(fitting), lacking(machines, sized))


def asked(resources: Resources, gpus: float, *, can_grow: bool = False) -> Sized | None:
    """What stacks get as far as the specification says; null where a GPU must be looked at.

    Args:
        resources: what the specification asks for.
        gpus: that the cluster has now.
        can_grow: whether nodes with GPUs may be started for it.
    """
    wanted = resources.gpus
    if wanted is None:
        return None if gpus else Sized(resources.cpus, 0.0)
    if wanted and not gpus and not can_grow:
        why = f"trained on the CPU: {wanted:g} GPU was asked for, and no node has one"
        return Sized(resources.cpus, 0.0, (why,))
    return Sized(resources.cpus, wanted)


def on_gpus(cpus: float, machines: Iterable[Machine], found: Footprint | None) -> Sized:
    """What stacks get of GPUs when nobody said how much.

    Args:
        cpus: cores of a stack.
        machines: the nodes of the cluster.
        found: what the largest stack takes of the GPU with the least memory; null where torch found
            no GPU that it can use.
    """
    if found is None:
        return Sized(cpus, 0.0, why="the nodes' GPUs are not used: torch finds none there")
    cores = min(math.floor(m.cpus / cpus / m.gpus) for m in machines if m.gpus)
    count = stacks_on_a_gpu(found, cores)
    share = math.floor(GPU_SHARES / count) / GPU_SHARES
    taken, whole = (each / 2**30 for each in (found.stack_bytes, found.gpu_bytes))
    why = f"a stack takes up to {taken:.1f} of the {whole:.1f} GiB of {found.gpu}"
    return Sized(cpus, share, why=why)


def stacks_on_a_gpu(found: Footprint, cores: int) -> int:
    """How many stacks train on one GPU at the same time, one at least.

    Args:
        found: what the largest takes.
        cores: stacks that the cores beside each GPU can serve.
    """
    fitting = math.floor(SHARE * found.gpu_bytes / max(1, found.stack_bytes))
    return max(1, min(fitting, cores, MOST_A_GPU))


def lacking(machines: Iterable[Machine], sized: Sized) -> tuple[str, float] | None:
    """What no machine has enough of for one stack, and the most that one has; null where one has.

    Returns:
        `cpus` or `gpus`, and a number.
    """
    known = list(machines)
    if any(_slots(machine, sized) for machine in known):
        return None
    most = max((machine.cpus for machine in known), default=0.0)
    if most < sized.cpus:
        return "cpus", most
    return "gpus", max((machine.gpus for machine in known), default=0.0)


def _slots(machine: Machine, sized: Sized) -> int:
    by_cores = math.floor(machine.cpus / sized.cpus)
    if not sized.gpus:
        return by_cores
    if sized.gpus >= 1:
        return min(by_cores, math.floor(machine.gpus / sized.gpus))
    # A share lies on one GPU: what is left of each is lost where it does not divide.
    return min(by_cores, math.floor(machine.gpus) * math.floor(1 / sized.gpus))
