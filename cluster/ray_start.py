"""How nodes of Ray are started, whoever starts them: their environment, and their options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ENVIRONMENT: Mapping[str, str] = {
    "RAY_AUTH_MODE": "token",
    # A job is stopped as by Ctrl-C, and a sweep then ends in order.
    "RAY_JOB_STOP_SIGNAL": "SIGINT",
    "RAY_JOB_STOP_WAIT_TIME_S": "30",
    # Who ends a node means it, and finished epochs are in the store: nothing is waited for.
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    # Ray would else open a port for its client.
    "RAY_START_HOOK": "cluster.ray_start.without_client",
    # Metrics would be served on every interface to whoever asks; no port is -1.
    "RAY_enable_metrics_collection": "0",
    "DASHBOARD_METRIC_PORT": "-1",
    "AUTOSCALER_METRIC_PORT": "-1",
}
"""Of every node, beside its token: `RAY_AUTH_TOKEN_PATH`, or `RAY_AUTH_TOKEN` from a secret."""

OBJECT_STORE_BYTES = 80 * 2**20
"""Sweeps hand tasks and reports around, and nothing large."""

_EVERY_NODE = (
    "--dashboard-agent-listen-port=0",
    # Any that are free: nodes of several clusters may share a machine.
    *("--min-worker-port=0", "--max-worker-port=0"),
    f"--object-store-memory={OBJECT_STORE_BYTES}",
    "--disable-usage-stats",
)

LOOPBACK = "127.0.0.1"


def without_client(parameters: Any, head: bool) -> None:  # noqa: FBT001 - Ray calls it
    """What `ray start` calls before it starts anything."""
    del head
    parameters.ray_client_server_port = None


def head_options(port: int, dashboard_port: int) -> list[str]:
    """Options of `ray start` for a head, without its address, cores and GPUs.

    Its dashboard and its jobs are on loopback alone, and there is no port for Ray's client.

    Args:
        port: of its control store.
        dashboard_port: of its dashboard and jobs.
    """
    return [
        "--head",
        f"--port={port}",
        "--include-dashboard=true",
        f"--dashboard-host={LOOPBACK}",
        f"--dashboard-port={dashboard_port}",
        *_EVERY_NODE,
    ]


def worker_options(address: str) -> list[str]:
    """The same for a worker.

    Args:
        address: of the head's control store, HOST:PORT.
    """
    return [f"--address={address}", *_EVERY_NODE]
