"""From tasks to Ray Tune trials. Ray Tune schedules; the store, not its state, is the truth."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import joblib
import ray
from optuna.storages import JournalStorage
from ray import tune
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from sweeps.search import make_search
from sweeps.spec import Resources, Search
from sweeps.trial import Report, Task, run_stack
from sweeps.watch import watched

ATTEMPTS = 3
"""How often a trial is started before it stays failed."""

_OBJECT_STORE_BYTES = 80 * 2**20


@contextlib.contextmanager
def cluster(address: str | None, cpus: int | None = None) -> Iterator[int]:
    """Connect to a Ray cluster, or start one for as long as the block lasts.

    `authentication.prepare` must have been called before this module was imported.

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


def run_tasks(
    tasks: Sequence[Task],
    resources: Resources,
    on_epoch: Callable[[Report], None],
    on_stack: Callable[[Task], None],
) -> list[str]:
    """Run every task as a Tune trial, in the order given.

    Returns:
        What went wrong, a line for each trial that failed for good; the runs' rows tell more.
    """
    if not tasks:
        return []

    def trainable(config: dict[str, Any]) -> None:
        run_stack(tasks[config["task"]], _tell)

    callback = _Callback(on_epoch, lambda config: on_stack(tasks[config["task"]]))
    tuner_arguments: dict[str, Any] = {
        "param_space": {"task": tune.grid_search(list(range(len(tasks))))}
    }
    return _fit(trainable, resources, callback, tune.TuneConfig(reuse_actors=True), tuner_arguments)


@dataclass(frozen=True, kw_only=True)
class Study:
    """What a search needs beside its space."""

    name: str
    storage: JournalStorage
    context: Mapping[str, Any]
    """Parameters with one value; conditions of the space may look at them."""

    trials: int
    """Proposals still to be made."""

    epochs: int
    """Length of a trial."""

    workers: int
    """Trials at the same time."""


def run_search(
    search: Search,
    make_task: Callable[[Mapping[str, Any]], Task],
    resources: Resources,
    on_epoch: Callable[[Report], None],
    on_stack: Callable[[Task], None],
    *,
    study: Study,
) -> list[str]:
    """Run one study: Optuna proposes values, each proposal is one trial of all seeds.

    Args:
        search: the specification's search.
        make_task: from proposed values to a task.
        resources: of one trial.
        on_epoch: called after every epoch of every trial.
        on_stack: called when a trial ends.
        study: which study, and how much of it is left.

    Returns:
        What went wrong, as in `run_tasks`.
    """

    def trainable(config: dict[str, Any]) -> None:
        run_stack(make_task(config), _tell)

    callback = _Callback(on_epoch, lambda config: on_stack(make_task(config)))
    tune_config = tune.TuneConfig(
        search_alg=make_search(search, study.context, study.name, study.storage),
        scheduler=_scheduler(search, study.epochs),
        num_samples=study.trials,
        max_concurrent_trials=study.workers,
        reuse_actors=True,
    )
    return _fit(trainable, resources, callback, tune_config, {})


class _Callback(tune.Callback):
    """Turns Tune's events into calls that know nothing of Tune."""

    def __init__(
        self, on_epoch: Callable[[Report], None], on_stack: Callable[[dict[str, Any]], None]
    ) -> None:
        self.on_epoch = on_epoch
        self.on_stack = on_stack

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles callbacks to restore an experiment, which we never do: the store resumes.
        return {}

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Any],
        trial: Any,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """An epoch ended."""
        del iteration, trials, trial, info
        if "report" in result:
            self.on_epoch(Report(**result["report"]))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ended."""
        del iteration, trials, info
        self.on_stack(trial.config)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed for good."""
        del iteration, trials, info
        self.on_stack(trial.config)


def _fit(
    trainable: Callable[[dict[str, Any]], None],
    resources: Resources,
    callback: _Callback,
    tune_config: tune.TuneConfig,
    arguments: dict[str, Any],
) -> list[str]:
    scratch = Path(tempfile.mkdtemp(prefix="cifake-sweeps-"))
    try:
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": resources.cpus, "gpu": _gpus(resources)}),
            tune_config=tune_config,
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=str(scratch),
                verbose=0,
                callbacks=[callback],
                failure_config=tune.FailureConfig(max_failures=ATTEMPTS - 1),
            ),
            **arguments,
        )
        results = tuner.fit()
        return [_last_line(error) for error in results.errors]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _gpus(resources: Resources) -> float:
    """GPUs of one trial. Where the cluster has none a trial would wait for ever: it falls back."""
    known: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return resources.gpus if known.get("GPU") else 0.0


def _tell(report: Report) -> None:
    tune.report({"report": asdict(report), "epoch": report.epoch, **report.scores})


def _scheduler(search: Search, epochs: int) -> TrialScheduler | None:
    if search.scheduler is None:
        return None
    return ASHAScheduler(
        time_attr="epoch",
        metric=search.metric,
        mode=search.mode,
        grace_period=min(search.scheduler.grace_epochs, epochs),
        max_t=epochs,
    )


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
