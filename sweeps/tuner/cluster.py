"""The Ray cluster that a sweep runs on, and what each of its stacks gets of it."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
from collections.abc import Iterator
from typing import Any

import joblib
import ray
from ray.exceptions import RayError

from cifake.errors import one_line, refuse
from sweeps.sizing import Sized
from sweeps.tuner.telemetry import leave_out_mlflow
from sweeps.watch import Watch

_OBJECT_STORE_BYTES = 80 * 2**20

_REACHED_WITHIN = 10.0
"""Seconds."""

Bundle = dict[str, float]
"""What Ray sets aside for a stack."""


@contextlib.contextmanager
def cluster(address: str | None, cpus: int | None = None) -> Iterator[None]:
    """Connect to a Ray cluster, or start one for as long as the block lasts.

    Args:
        address: of a running cluster; null starts one on this machine.
        cpus: cores of the cluster to start; by default all.

    Raises:
        InputError: there is no cluster at that address that lets this process in.
        LostClusterError: the one that was started died.
    """
    leave_out_mlflow()
    if address is None:
        ray.init(
            "local",  # never a cluster that happens to run here
            num_cpus=cpus or joblib.cpu_count(),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=_OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
        )
    else:
        _connect(address)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    # Failed trials are told in a line each, and their rows have the traceback.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    with Watch() as watch:
        try:
            # Tune waits for ever for a node that is all there is; a larger cluster may get others.
            with watch.cluster(_has_nodes) if address is None else contextlib.nullcontext():
                yield
        finally:
            _disconnect()


def _disconnect() -> None:
    """Leave the cluster, and end one that was started here."""
    # Not beside what follows, though it takes a second: whoever touches Ray meanwhile, as the
    # garbage collector does, has its C++ core end this process.
    ray.shutdown()
    # Its core has taken our answer to this signal away with its own.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def _interrupt(number: int, frame: Any) -> None:
    """Stop in order, as Ctrl-C does, in place of Ray, to whose core a SIGTERM is a crash.

    Slurm sends one to all processes of a job that ends, to those included that stop already.
    """
    # Not SIG_IGN: Python complains of one that has come already.
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.default_int_handler(number, frame)


def _connect(address: str) -> None:
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():  # else a word of Ray's, such as auto
        try:
            # Ray would ask for minutes whether there is somebody by now.
            socket.create_connection((host.strip("[]"), int(port)), _REACHED_WITHIN).close()
        except (OSError, OverflowError) as error:
            problem = f"cannot be reached ({error}); give the address of a cluster's head"
            refuse("--address", problem, value=address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (RayError, RuntimeError, ConnectionError, ValueError) as error:
        refuse(
            "--address",
            f"no cluster there lets this process in ({one_line(error)}); is it up, and is its "
            "token in RAY_AUTH_TOKEN, or in the file that RAY_AUTH_TOKEN_PATH names?",
            value=address,
        )


def _has_nodes() -> bool:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return any(node["Alive"] for node in nodes)


def bundle(sized: Sized) -> Bundle:
    """What Ray sets aside for a stack."""
    return {"cpu": sized.cpus, "gpu": sized.gpus}
