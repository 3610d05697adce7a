"""Rounds of tasks through Ray Tune, whose trials are workers that are handed one by one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from sweeps.handout import Handout
from sweeps.rounds import Round
from sweeps.spec import Resources
from sweeps.thread import followed
from sweeps.tuner.fit import ATTEMPTS, fit, last_line

_WAITING = 32
"""Workers that wait for resources, at most."""

_MANY = 100_000
"""Workers at most: the cluster is the limit, and the tasks are."""

_PAUSE = 0.05
"""Seconds after which a worker that waits for the next round asks again."""

Work = Callable[[Callable[[Any], None]], None]


def run_rounds(rounds: Iterable[Round], resources: Resources) -> None:
    """Run every task of every round, as many at the same time as the cluster has room for.

    Tune's trials are workers here, which are handed one task after another: what Tune keeps and
    does for a trial it would otherwise keep and do for every task, and their processes keep what
    they have imported.

    Args:
        rounds: asked for the next one when all tasks of the last have ended.
        resources: of one task.

    Raises:
        Exception: what the rounds raise, or hearing a report.
    """
    handout = Handout(ATTEMPTS)
    workers = _Workers(handout)
    foreman = _Foreman(rounds, handout, workers)
    if not handout.wanted:
        return
    fit(
        _Worker,
        resources,
        foreman,
        tune.TuneConfig(
            search_alg=workers,
            num_samples=-1,
            max_concurrent_trials=_MANY,
            reuse_actors=True,
        ),
        stop=_AllDone(handout),
        checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
    )


class _Worker(tune.Trainable):
    """A trial that does what it is handed; it ends when it is handed nothing."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begin without work."""
        del config
        self.reports: Iterator[Any] | None = None
        self.waits = False

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Serve as another worker."""
        self.setup(new_config)
        return True

    def hand(self, work: Work | None, *, waits: bool) -> None:
        """Take work; where there is none, wait for it or end."""
        self.reports = None if work is None else followed(work)
        self.waits = waits

    def step(self) -> dict[str, Any]:
        """The next report, or that the work is done."""
        if self.reports is None and self.waits:
            time.sleep(_PAUSE)
            return {"waited": True}
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
        if not self.handout.wanted:
            return self.FINISHED
        if len(self.live) >= self.handout.wanted or len(self.waiting) >= _WAITING:
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
    """Ends workers that still wait for resources when no task is left or will come."""

    def __init__(self, handout: Handout) -> None:
        self.handout = handout

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No worker is ended for what it reports."""
        del trial_id, result
        return False

    def stop_all(self) -> bool:
        """Whether no task is left or will come."""
        return not self.handout.wanted


class _Foreman(tune.Callback):
    """Hands each worker its next task, and tells what workers report."""

    def __init__(self, rounds: Iterable[Round], handout: Handout, workers: _Workers) -> None:
        self.rounds = iter(rounds)
        self.handout = handout
        self.workers = workers
        self.round: Round | None = None
        self.first = 0
        """Number of the round's first task."""

        self._advance()

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
        """A task reports or ended, or a worker asks for one."""
        del iteration, trials, info
        if "report" in result:
            self._round.on_report(result["report"])
        elif "ended" in result:
            self._end(self.handout.end(trial.trial_id), None)
            self._hand(trial)
        elif "waited" in result:
            self._hand(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker died, or its task raised an error; Tune starts another worker instead."""
        del iteration, trials, info
        failed = self.handout.fail(trial.trial_id)
        if failed is not None:
            self._end(failed, last_line(Path(trial.error_file).read_text()))

    @property
    def _round(self) -> Round:
        if self.round is None:
            raise RuntimeError("a worker reports before there is work")
        return self.round

    def _end(self, number: int, problem: str | None) -> None:
        self._round.on_end(self._round.tasks[number - self.first], problem)
        self._advance()

    def _advance(self) -> None:
        """Begin the next round that has tasks when the last one is over."""
        while not self.handout.left:
            self.first += 0 if self.round is None else len(self.round.tasks)
            self.round = next(self.rounds, None)
            if self.round is None:
                self.handout.add(0)
                return
            self.handout.add(len(self.round.tasks), ahead=self.round.ahead)

    def _hand(self, trial: Any) -> None:
        number = self.handout.take(trial.trial_id)
        work = None
        if number is not None:
            work = partial(self._round.run, self._round.tasks[number - self.first])
        # Calls of an actor run in the order in which they were made: Tune's next one finds it.
        hand = trial.temporary_state.ray_actor.hand
        hand.remote(work, waits=self.handout.ahead > 0)
