"""What the two sweeps of plain Ray Tune have in common: a cluster, and results that are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from ray.tune import ResultGrid

from tests.benchmarks.grids import Cell, Trained


@contextmanager
def cluster(object_store_bytes: int | None = None) -> Iterator[None]:
    """A Ray cluster of all cores that this process may use.

    Its ports ask for a token, which Ray reads from the environment when it is imported.

    Args:
        object_store_bytes: room for objects; by default Ray's own choice.
    """
    ray.init(
        "local",
        num_cpus=len(os.sched_getaffinity(0)),
        include_dashboard=False,
        object_store_memory=object_store_bytes,
        _node_ip_address="127.0.0.1",
    )
    try:
        yield
    finally:
        ray.shutdown()


def trained(
    results: ResultGrid, cell: Callable[[dict[str, Any]], Mapping[str, Any]]
) -> list[Trained]:
    """What every trial said with its last report.

    Args:
        results: of all trials.
        cell: what part of a trial's configuration is its cell.

    Raises:
        RuntimeError: a trial failed.
    """
    if results.errors:
        raise RuntimeError(f"{len(results.errors)} trials failed: {results.errors[0]}")
    found = [results[number] for number in range(len(results))]
    return [_trained(cell(result.config or {}), result.metrics or {}) for result in found]


def _trained(cell: Mapping[str, Any], last: Mapping[str, Any]) -> Trained:
    return Trained(
        Cell(cell["attention"], cell["epochs"], cell["seed"]),
        epochs=last["training_iteration"],
        loss=last["loss"],
        accuracy=last["accuracy"],
        test_accuracy=last["test_accuracy"],
    )
