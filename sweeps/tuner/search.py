"""The proposals of a study through Ray Tune, each a trial of all seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from sweeps.objectives import Reached
from sweeps.search.study import Study
from sweeps.trial import Report, Task, run_stack
from sweeps.tuner.fit import ATTEMPTS, fit


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
        What went wrong, a line for each trial that failed for good.
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
    retries = tune.FailureConfig(max_failures=ATTEMPTS - 1)
    return fit(trainable, study.resources, callback, tune_config, failure_config=retries)


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
        """Nothing, for the same reason."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, for the same reason."""


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


def _tell(report: Report) -> None:
    tune.report({"report": report})
