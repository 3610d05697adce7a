"""Whether a cluster's autoscaler starts a node for what is asked of it."""

from __future__ import annotations

import json
import time

import ray
from ray.autoscaler.sdk import request_resources
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.experimental.internal_kv import _internal_kv_get

_WITHIN = 20.0
"""Seconds in which an autoscaler has looked at what is asked at least twice."""

_STATUS = "__autoscaling_status"
"""Where the first version of the autoscaler says what it does; the second is asked."""


def grows_for(cpus: float, gpus: float) -> bool:
    """Ask for room for one stack, and say whether nodes are started while that is asked.

    Which kinds of nodes there could be nobody is told; a cluster without an autoscaler starts none.
    """
    request_resources(bundles=[{"CPU": cpus, "GPU": gpus}])
    try:
        end = time.monotonic() + _WITHIN
        while time.monotonic() < end:
            if _starting():
                return True
            time.sleep(1)
        return False
    finally:
        request_resources(bundles=[])


def _starting() -> bool:
    """Whether nodes are being started."""
    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    if status.pending_launches or status.pending_nodes:
        return True
    report = json.loads(_internal_kv_get(_STATUS) or "{}").get("autoscaler_report") or {}
    return bool(report.get("pending_launches") or report.get("pending_nodes"))
