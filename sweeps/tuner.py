"""From tasks to Ray Tune trials. Ray Tune schedules; the store, not its state, is the truth."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from sweeps.handout import Handout
from sweeps.objectives import Reached
from sweeps.scratch import scratch_folder
from sweeps.search.study import Study
from sweeps.spec import Resources
from sweeps.thread import followed
from sweeps.trial import Report, Task, run_stack
from sweeps.watch import watched

ATTEMPTS = 3
"""How often a trial is started before it stays failed."""

_WAITING = 32
"""Workers that wait for resources, at most."""

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


Run = Callable[[Task, Callable[[Report], None]], None]
"""What does a task, and is given where to report."""


def run_tasks(
    tasks: Sequence[Task],
    resources: Resources,
    on_epoch: Callable[[Report], None],
    on_stack: Callable[[Task], None],
    *,
    run: Run = run_stack,
) -> list[str]:
    """Run every task, in the order given, as many at the same time as the cluster has room for.

    Tune's trials are workers here, which are handed one task after another: what Tune keeps and
    does for a trial it would otherwise keep and do for every task.

    Args:
        tasks: to be done.
        resources: of one task.
        on_epoch: called after every epoch of every task.
        on_stack: called when a task ends or has failed for good.
        run: what does a task.

    Returns:
        What went wrong, a line for each task that failed for good; the runs' rows tell more.
    """
    if not tasks:
        return []
    handout = Handout(len(tasks), ATTEMPTS)
    workers = _Workers(handout)
    foreman = _Foreman(tasks, run, handout, workers, on_epoch, on_stack)
    with scratch_folder() as scratch:
        tune.Tuner(
            tune.with_resources(_Worker, {"cpu": resources.cpus, "gpu": _gpus(resources)}),
            tune_config=tune.TuneConfig(
                search_alg=workers,
                num_samples=-1,
                max_concurrent_trials=len(tasks),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=str(scratch),
                verbose=0,
                callbacks=[foreman],
                stop=_AllDone(handout),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()
    return foreman.problems


class _Worker(tune.Trainable):
    """A trial that does what it is handed; it ends when it is handed nothing."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begin without work."""
        del config
        self.reports: Iterator[Report] | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Serve as another worker."""
        self.setup(new_config)
        return True

    def hand(self, work: Callable[[Callable[[Report], None]], None] | None) -> None:
        """Take work, or null where there is none."""
        self.reports = None if work is None else followed(work)

    def step(self) -> dict[str, Any]:
        """The next report, or that the work is done."""
        if self.reports is None:
            return {"done": True}
        report = next(self.reports, None)
        return {"ended": True} if report is None else {"report": report}


class _Workers(Searcher):
    """Proposes workers as long as there are tasks for them, some before there is room.

    Those wait for resources: they are what a cluster that grows gives its new nodes at once.
    """

    def __init__(self, handout: Handout) -> None:
        super().__init__()
        self.handout = handout
        self.live: set[str] = set()
        self.waiting: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles it to restore an experiment, which we never do: the store resumes.
        return {}

    def suggest(self, trial_id: str) -> Any:
        """Propose a worker, or null where there are enough."""
        if not self.handout.left:
            return self.FINISHED
        if len(self.live) >= self.handout.left or len(self.waiting) >= _WAITING:
            return None
        self.live.add(trial_id)
        self.waiting.add(trial_id)
        return {}

    def on_trial_complete(self, trial_id: str, *args: Any, **info: Any) -> None:
        """A worker ended or died."""
        del args, info
        self.live.discard(trial_id)
        self.waiting.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store resumes."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the store resumes."""


class _AllDone(tune.Stopper):
    """Ends workers that still wait for resources when no task is left."""

    def __init__(self, handout: Handout) -> None:
        self.handout = handout

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No worker is ended for what it reports."""
        del trial_id, result
        return False

    def stop_all(self) -> bool:
        """Whether no task is left."""
        return not self.handout.left


class _Foreman(tune.Callback):
    """Hands each worker its next task, and tells what workers report."""

    def __init__(
        self,
        tasks: Sequence[Task],
        run: Run,
        handout: Handout,
        workers: _Workers,
        on_epoch: Callable[[Report], None],
        on_stack: Callable[[Task], None],
    ) -> None:
        self.tasks = tasks
        self.run = run
        self.handout = handout
        self.workers = workers
        self.on_epoch = on_epoch
        self.on_stack = on_stack
        self.problems: list[str] = []

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker is ready."""
        del iteration, trials, info
        self.workers.waiting.discard(trial.trial_id)
        self._hand(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch or a task ended."""
        del iteration, trials, info
        if "report" in result:
            self.on_epoch(result["report"])
        elif "ended" in result:
            self.on_stack(self.tasks[self.handout.end(trial.trial_id)])
            self._hand(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker died, or its task raised an error; Tune starts another worker instead."""
        del iteration, trials, info
        failed = self.handout.fail(trial.trial_id)
        if failed is not None:
            self.problems.append(_last_line(Path(trial.error_file).read_text()))
            self.on_stack(self.tasks[failed])

    def _hand(self, trial: Any) -> None:
        number = self.handout.take(trial.trial_id)
        work = None if number is None else partial(self.run, self.tasks[number])
        # Calls of an actor run in the order in which they were made: Tune's next one finds it.
        trial.temporary_state.ray_actor.hand.remote(work)


def run_search(
    study: Study,
    make_task: Callable[[Mapping[str, Any]], Task],
    on_epoch: Callable[[Report], None],
    on_stack: Callable[[Task], None],
    *,
    workers: int,
) -> list[str]:
    """Try what a study proposes, each proposal as one trial of all seeds, until it has no more.

    Args:
        study: what proposes, and hears what came of it.
        make_task: from proposed values to a task.
        on_epoch: called after every epoch of every trial.
        on_stack: called when a trial ends.
        workers: trials at the same time.

    Returns:
        What went wrong, as in `run_tasks`.
    """

    def trainable(config: dict[str, Any]) -> None:
        run_stack(config["task"], _tell)

    callback = _Callback(on_epoch, lambda config: on_stack(config["task"]))
    tune_config = tune.TuneConfig(
        search_alg=_Proposals(study, make_task),
        scheduler=_Stopping(study),
        num_samples=-1,
        max_concurrent_trials=workers,
        reuse_actors=True,
        trial_dirname_creator=lambda trial: str(trial.trial_id),  # else it tells the whole task
    )
    return _fit(trainable, study.resources, callback, tune_config)


class _Proposals(Searcher):
    """What a study proposes, as Tune asks for it."""

    def __init__(self, study: Study, make_task: Callable[[Mapping[str, Any]], Task]) -> None:
        super().__init__()
        self.study = study
        self.make_task = make_task
        self.numbers: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles it to restore an experiment, which we never do: the study's storage resumes.
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next proposal."""
        proposal = self.study.propose()
        if proposal is None:
            finished: Any = Searcher.FINISHED  # a word, which Ray's signature leaves out
            return finished  # type: ignore[no-any-return]
        self.numbers[trial_id] = proposal.number
        return {"number": proposal.number, "task": self.make_task(proposal.params)}

    def on_trial_complete(
        self,
        trial_id: str,
        result: dict[str, Any] | None = None,
        error: bool = False,  # noqa: FBT001, FBT002 - Ray calls it so
    ) -> None:
        """A trial ended."""
        reached = None if error or result is None else _reached(result)
        self.study.end(self.numbers.pop(trial_id), reached)

    def save(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""


class _Stopping(FIFOScheduler):
    """Trials in the order of their proposals, each as long as its study wants it."""

    def __init__(self, study: Study) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.study = study

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """An epoch ended."""
        del tune_controller
        reached = _reached(result)
        stays = reached is None or self.study.goes_on(trial.config["number"], reached)
        return TrialScheduler.CONTINUE if stays else TrialScheduler.STOP


def _reached(result: Mapping[str, Any]) -> Reached | None:
    """How far a trial is; null where it has not reported yet."""
    if "report" not in result:
        return None
    report: Report = result["report"]
    return Reached(report.epoch, report.scores, report.stds)


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
            self.on_epoch(result["report"])

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
) -> list[str]:
    with scratch_folder() as scratch:
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
        )
        results = tuner.fit()
        return [_last_line(error) for error in results.errors]


def _gpus(resources: Resources) -> float:
    """GPUs of one trial. Where the cluster has none a trial would wait for ever: it falls back."""
    known: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return resources.gpus if known.get("GPU") else 0.0


def _tell(report: Report) -> None:
    tune.report({"report": report})


def _last_line(error: Exception | str) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
