"""What of the cluster each stack gets: by what is asked for, or by a look at its GPUs."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

import ray
from ray.exceptions import RayError

from cifake.errors import one_line
from sweeps.probe import Widest, footprint, gpu_memory
from sweeps.sizing import Footprint, Machine, Placed, Sized, asked, on_gpus, placed
from sweeps.spec import Resources
from sweeps.tuner.growth import grows_for
from sweeps.tuner.nodes import Nodes, on_node

Room = Callable[[Container[str]], int]
"""How many stacks nodes have room for, by their ids."""

_SLIVER = 0.001
"""Share of a GPU for a look at it, so that it need not be free."""

_ANSWER = 600.0
"""Seconds that an answer may take: a pack may have to be fetched first."""


def place(resources: Resources, widest: Widest, *, can_grow: bool) -> Placed:
    """Decide what stacks get of the cluster.

    Args:
        resources: what the specification asks for.
        widest: the largest stacks, which are measured where a GPU must hold them.
        can_grow: whether the cluster may have an autoscaler.
    """
    there = Nodes().machines()
    gpus = sum(machine.gpus for machine in there)
    if can_grow and resources.gpus and not gpus:
        can_grow = grows_for(resources.cpus, resources.gpus)
    sized = asked(resources, gpus, can_grow=can_grow)
    if sized is None:
        try:
            sized = on_gpus(resources.cpus, there, _measured(there, widest))
        except RayError as error:
            why = f"what a stack takes of a GPU could not be measured ({one_line(error)})"
            sized = Sized(resources.cpus, 1.0, why=why)
    return placed(there, sized)


def room_for(sized: Sized) -> Room:
    """What says how many stacks some nodes have room for, as far as they are still there."""
    nodes = Nodes()

    def room(node_ids: Container[str]) -> int:
        there = [machine for machine in nodes.machines() if machine.node_id in node_ids]
        return placed(there, sized).slots

    return room


def _measured(there: Sequence[Machine], widest: Widest) -> Footprint | None:
    """What the largest stacks take of the GPU with the least memory; null where torch finds none.

    Raises:
        RayError: a node died over it, or did not answer.
    """
    with_gpus = [machine for machine in there if machine.gpus]
    look = ray.remote(gpu_memory)
    answers = [on_node(machine.node_id, look, num_gpus=_SLIVER) for machine in with_gpus]
    sizes: list[int | None] = ray.get(answers, timeout=_ANSWER)
    usable = [(size, number) for number, size in enumerate(sizes) if size is not None]
    if not usable:
        return None
    smallest = with_gpus[min(usable)[1]]
    answer = on_node(smallest.node_id, ray.remote(footprint), widest, num_gpus=_SLIVER)
    found: Footprint | None = ray.get(answer, timeout=_ANSWER)
    return found
