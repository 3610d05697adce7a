"""The Ray cluster that a sweep runs on, and what each of its trials gets of it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import joblib
import ray

from sweeps.spec import Resources
from sweeps.watch import watched

_OBJECT_STORE_BYTES = 80 * 2**20


@contextlib.contextmanager
def cluster(address: str | None, cpus: int | None = None) -> Iterator[int]:
    """Connect to a Ray cluster, or start one for as long as the block lasts.

    Args:
        address: of a running cluster; null starts one on this machine.
        cpus: cores of the cluster to start; by default all.

    Yields:
        The cores of the cluster.

    Raises:
        LostClusterError: the one that was started died.
    """
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
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    # Failed trials are told in a line each, and their rows have the traceback.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    try:
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        # Tune waits for ever for the node that is all there is; a larger cluster may get others.
        with watched(_has_nodes) if address is None else contextlib.nullcontext():
            yield int(resources.get("CPU", 1))
    finally:
        ray.shutdown()


def _has_nodes() -> bool:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return any(node["Alive"] for node in nodes)


def bundle(resources: Resources) -> dict[str, float]:
    """What Ray sets aside for a trial: no GPU where no node has one, lest it wait for ever."""
    known: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return {"cpu": resources.cpus, "gpu": resources.gpus if known.get("GPU") else 0.0}
