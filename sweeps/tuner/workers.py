"""Tune's trials as workers that are handed one task after another.

What Tune keeps and does for a trial it would otherwise keep and do for every task, and their
processes keep what they have imported.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle, tune
from ray.exceptions import RayActorError
from ray.tune.search import Searcher

from sweeps.admission import Terms, ready
from sweeps.scratch import scratch_folder
from sweeps.thread import Followed
from sweeps.tuner.nodes import Nodes
from sweeps.tuner.work import Run, Work

_WAITING = 32
"""Workers that wait for resources, at most."""

_MANY = 100_000
"""Workers at most: the cluster is the limit, and the tasks are."""

_PAUSE = 0.05
"""Seconds after which a worker that waits for a task asks again."""

_MENDED = 30.0
"""Seconds after which a worker whose machine is unfit looks whether it still is."""

_DOUBT = 40.0
"""Seconds after which a machine is not to blame that still lives: a dead one is known by then."""


def employ(
    work: Work,
    bundle: dict[str, float],
    *,
    terms: Terms | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Have workers do what there is to do, as many as the cluster has room for at any time.

    Args:
        work: what there is to do.
        bundle: what Ray sets aside for a worker.
        terms: what the machine of a worker must fulfil before it gets a task; null on a machine
            that starts with this process and ends with it.
        say: told what somebody should know.

    Raises:
        Exception: what the work raises.
    """
    if not work.wanted:
        return
    crew = _Crew()
    foreman = _Foreman(work, crew, terms, say)
    with scratch_folder() as scratch:
        run_config = tune.RunConfig(
            name="sweep",
            storage_path=str(scratch),
            verbose=0,
            callbacks=[foreman],
            stop=_AllDone(work),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        )
        tune_config = tune.TuneConfig(
            search_alg=_Workers(foreman, crew),
            num_samples=-1,
            max_concurrent_trials=_MANY,
            reuse_actors=True,
        )
        tune.Tuner(
            tune.with_resources(_Worker, bundle), tune_config=tune_config, run_config=run_config
        ).fit()


def last_line(error: Exception | str) -> str:
    """What an error comes to, without its traceback."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


class _Worker(tune.Trainable):
    """A trial that does what it is handed; it ends when it is handed nothing."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begin without work."""
        del config
        self.reports: Followed[Any] | None = None
        self.waits = False
        self.leaves = False
        self.terms: Terms | None = None
        self.told = False
        self.problems: list[str] | None = []
        self.looked = 0.0

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Serve as another worker."""
        self.setup(new_config)
        return True

    def admit(self, terms: Terms) -> None:
        """Look at the machine before any work."""
        self.terms = terms
        self.problems = None

    def hand(self, run: Run | None, *, waits: bool, paced: bool) -> None:
        """Take a task; where there is none, wait for it or end."""
        self.reports = None if run is None else Followed(run, paced=paced)
        self.waits = waits

    def drop(self) -> None:
        """Give up the task at its next report."""
        if self.reports is not None:
            self.reports.drop()

    def leave(self) -> None:
        """End with the process, which is not to serve again."""
        self.leaves = True

    def step(self) -> dict[str, Any]:
        """The next report, or that the task is done, or what keeps the worker from it."""
        if self.leaves:
            raise RuntimeError("its node leaves the cluster")
        if self.terms is not None and not self.told:
            self.told = True
            return {"node": ray.get_runtime_context().get_node_id()}
        if self.terms is not None and self.problems != []:
            return self._look(self.terms)
        if self.reports is None and self.waits:
            time.sleep(_PAUSE)
            return {"waited": True}
        if self.reports is None:
            return {"done": True}
        for report in self.reports:
            return {"report": report}
        return {"ended": True, "dropped": self.reports.dropped}

    def _look(self, terms: Terms) -> dict[str, Any]:
        """Whether the machine is fit, which is looked at again now and then where it is not."""
        if self.problems is not None and time.monotonic() < self.looked + _MENDED:
            time.sleep(1)
            return {"unfit": None}
        found = ready(terms)
        self.looked = time.monotonic()
        news = found if found != self.problems else None
        self.problems = found
        return {"unfit": news} if found else {"waited": True}


class _Crew:
    """The workers there are."""

    def __init__(self) -> None:
        self.live: set[str] = set()
        self.waiting: set[str] = set()
        """For resources."""

        self.unfit: set[str] = set()
        """On machines that cannot do the work; they keep others from being started there."""

        self.dismissed: set[str] = set()
        """Asked to end, since their machine leaves the cluster."""

    def forget(self, worker: str) -> None:
        """It ended or died."""
        for group in (self.live, self.waiting, self.unfit):
            group.discard(worker)


class _Workers(Searcher):
    """Proposes workers as long as there are tasks for them, some before there is room.

    Those wait for resources: they are what a cluster that grows gives its new nodes at once.
    """

    def __init__(self, foreman: _Foreman, crew: _Crew) -> None:
        super().__init__()
        self.foreman = foreman
        self.crew = crew

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles it to restore an experiment, which we never do: the store resumes.
        return {}

    def suggest(self, trial_id: str) -> Any:
        """Propose a worker, or null where there are enough."""
        self.foreman.settle()
        if not self.foreman.work.wanted:
            return self.FINISHED
        wanted = self.foreman.work.wanted - len(self.foreman.doubts)
        if len(self.crew.live - self.crew.unfit) >= wanted or len(self.crew.waiting) >= _WAITING:
            return None
        self.crew.live.add(trial_id)
        self.crew.waiting.add(trial_id)
        return {}

    def on_trial_complete(self, trial_id: str, *args: Any, **info: Any) -> None:
        """A worker ended or died."""
        del args, info
        self.crew.forget(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store resumes."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the store resumes."""


class _AllDone(tune.Stopper):
    """Ends workers that still wait for resources when no task is left or will come."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No worker is ended for what it reports."""
        del trial_id, result
        return False

    def stop_all(self) -> bool:
        """Whether no task is left or will come."""
        return not self.work.wanted


@dataclass(frozen=True)
class _Doubt:
    """A worker died; it is not known yet whether its machine did."""

    node: str | None
    until: float
    problem: str


class _Foreman(tune.Callback):
    """Hands each worker its next task, and tells what workers report."""

    def __init__(
        self, work: Work, crew: _Crew, terms: Terms | None, say: Callable[[str], None]
    ) -> None:
        self.work = work
        self.crew = crew
        self.terms = terms
        self.say = say
        self.nodes = Nodes()
        self.node_of: dict[str, str] = {}
        self.fit: set[str] = set()
        """Nodes of which a worker has said so."""

        self.doubts: dict[str, _Doubt] = {}
        self.said: set[str] = set()
        self.dropping: set[str] = set()
        """Workers that give up their task, since their machine leaves the cluster."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Tune looks around."""
        del iteration, trials, info
        self.settle()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker has its resources."""
        del iteration, trials, info
        self.crew.waiting.discard(trial.trial_id)
        if self.terms is None:
            self._hand(trial)
        else:
            _actor(trial).admit.remote(self.terms)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A task reports or ended, or a worker asks for one or cannot do any."""
        del iteration, trials, info
        worker = trial.trial_id
        if "report" in result:
            self._heard(trial, result["report"])
        elif "ended" in result:
            if result["dropped"] and worker in self.dropping:
                self.work.lost(worker, "its node left the cluster")
            else:
                self.work.ended(worker)
            self._hand(trial)
        elif "node" in result:
            self.node_of[worker] = result["node"]
        elif "unfit" in result:
            self.crew.unfit.add(worker)
            self.fit.discard(self.node_of[worker])
            self._tell_unfit(worker, result["unfit"])
        elif "waited" in result:
            self.crew.unfit.discard(worker)
            if self.terms is not None:
                self.fit.add(self.node_of[worker])
            self._hand(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker died, or its task raised an error; Tune starts another worker instead."""
        del iteration, trials, info
        worker = trial.trial_id
        node = self.node_of.pop(worker, None)
        self.dropping.discard(worker)
        if worker in self.crew.dismissed:
            self.crew.dismissed.discard(worker)
            return
        problem = last_line(Path(trial.error_file).read_text())
        error = _error(trial)
        if self.terms is None or not isinstance(error, RayActorError):
            self.work.failed(worker, problem)
        elif error.preempted:
            self.work.lost(worker, problem)
        else:
            self.doubts[worker] = _Doubt(node, time.monotonic() + _DOUBT, problem)
            self.settle()

    def settle(self) -> None:
        """Tell the work what became of workers that died, as soon as it is known why."""
        for worker, doubt in list(self.doubts.items()):
            if doubt.node is not None and self.nodes.leaves(doubt.node):
                del self.doubts[worker]
                self.work.lost(worker, doubt.problem)
            elif time.monotonic() > doubt.until:
                del self.doubts[worker]
                self.work.failed(worker, doubt.problem)

    def _heard(self, trial: Any, report: Any) -> None:
        worker = trial.trial_id
        if not self.work.heard(worker, report):
            _actor(trial).drop.remote()
        elif worker not in self.dropping and self._leaves(worker):
            # What it goes on with now would be lost, and others wait for its claim on the runs.
            self.dropping.add(worker)
            _actor(trial).drop.remote()

    def _leaves(self, worker: str) -> bool:
        node = self.node_of.get(worker)
        return node is not None and self.nodes.leaves(node)

    def _hand(self, trial: Any) -> None:
        worker = trial.trial_id
        if self._leaves(worker):
            self.crew.dismissed.add(worker)
            _actor(trial).leave.remote()
            return
        run = self.work.take(worker, self.fit)
        waits = self.work.expects or bool(self.doubts)
        # Calls of an actor run in the order in which they were made: Tune's next one finds it.
        _actor(trial).hand.remote(run, waits=waits, paced=self.work.paced)

    def _tell_unfit(self, worker: str, problems: list[str] | None) -> None:
        """Say once of each machine what is wrong with it."""
        name = self.nodes.name(self.node_of[worker])
        for problem in problems or ():
            text = f"{name} gets no work: {problem}"
            if text not in self.said:
                self.said.add(text)
                self.say(text)


def _actor(trial: Any) -> Any:
    return trial.temporary_state.ray_actor


def _error(trial: Any) -> Any:
    """What a trial failed with; null where that could not be kept."""
    if trial.pickled_error_file is None:
        return None
    return cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
