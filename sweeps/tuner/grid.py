"""The stacks of a plan through Ray Tune, whose trials are workers that are handed one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from sweeps.handout import Handout
from sweeps.spec import Resources
from sweeps.thread import followed
from sweeps.trial import Report, Task, run_stack
from sweeps.tuner.fit import ATTEMPTS, fit, last_line

_WAITING = 32
"""Workers that wait for resources, at most."""

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
    fit(
        _Worker,
        resources,
        foreman,
        tune.TuneConfig(
            search_alg=workers,
            num_samples=-1,
            max_concurrent_trials=len(tasks),
            reuse_actors=True,
        ),
        stop=_AllDone(handout),
        checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
    )
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
            self.problems.append(last_line(Path(trial.error_file).read_text()))
            self.on_stack(self.tasks[failed])

    def _hand(self, trial: Any) -> None:
        number = self.handout.take(trial.trial_id)
        work = None if number is None else partial(self.run, self.tasks[number])
        # Calls of an actor run in the order in which they were made: Tune's next one finds it.
        trial.temporary_state.ray_actor.hand.remote(work)
