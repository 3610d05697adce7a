"""Where the head of a job's cluster is: this node's address, and ports that are free on it."""

from __future__ import annotations

import os
import socket

from cluster.ray_start import LOOPBACK
from cluster.slurm import queue
from cluster.slurm.folder import Head

_PORTS = 1000
"""Jobs that begin looking for ports at different numbers."""


def find_head(port: int, *, alone: bool) -> Head:
    """This node as a head, on ports that nothing else on it uses.

    Args:
        port: at which to begin looking.
        alone: whether no node of another job joins.

    Raises:
        InputError: Slurm does not answer.
    """
    number = os.environ["SLURM_JOB_ID"]
    # Jobs that begin on one node at the same time must not find the same ones free.
    store, dashboard = free_ports(port + 2 * (int(number) % _PORTS), 2)
    return Head(
        job=number,
        node=os.environ["SLURMD_NODENAME"],
        address=f"{own_address(alone=alone)}:{store}",
        dashboard_port=dashboard,
    )


def own_address(*, alone: bool) -> str:
    """The address by which other nodes reach this one; loopback where there are none.

    Args:
        alone: whether no node of another job joins.

    Raises:
        InputError: Slurm does not answer.
    """
    names = queue.node_names(os.environ["SLURM_JOB_NODELIST"])
    others = [name for name in names if name != os.environ["SLURMD_NODENAME"]]
    if not others and alone:
        return LOOPBACK
    # What its own name stands for here may be loopback: how it reaches others is asked.
    other = queue.node_address(others[0]) if others else queue.controller_address()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((other, 9))
        return str(probe.getsockname()[0])


def free_ports(first: int, count: int) -> list[int]:
    """Ports on which nothing listens, from some number on.

    Raises:
        OSError: there are not so many.
    """
    found: list[int] = []
    for port in range(first, 2**16):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"no {count} ports are free from {first} on")
