"""One study: proposals, what came of them, and what may still be spent on it.

The storage is the truth. What another process left running is proposed again, and so is what the
budget cut off.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweeps.budget import Spent, used_up
from sweeps.objectives import Reached
from sweeps.search.methods import make_pruner, make_sampler
from sweeps.search.space import Space
from sweeps.spec import Resources, Search, points

_SHORT = "short"
_KNOWN = "known"
_COSTS = ("core_seconds", "gpu_seconds")
_SECONDS = "seconds"

_MAX_POINTS = 100_000
"""Points of the largest space of which it is known when it is exhausted."""

_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


@dataclass(frozen=True)
class Proposal:
    """Values to be tried."""

    number: int
    """Of the trial in its study."""

    params: Mapping[str, Any]


@dataclass(frozen=True)
class Ended:
    """A proposal that is done with."""

    number: int
    params: Mapping[str, Any]
    state: str
    """`complete`, `pruned` or `failed`."""

    values: tuple[float, ...] | None
    """Mean over seeds of each metric; null unless it is complete."""

    stds: tuple[float | None, ...]
    """Standard deviation over seeds of each metric, where it is defined."""

    known: bool
    """Whether it was in the store before anyone proposed it."""


@dataclass(frozen=True)
class _Running:
    """A proposal that is being trained."""

    trial: optuna.Trial
    began: float
    length: int
    """Epochs at which it ends by itself."""


class Study:
    """The proposals of a search under one combination of scientific values.

    Args:
        search: the specification's.
        context: parameters with one value; conditions of the space may look at them.
        name: of the study.
        storage: where it is kept.
        epochs: length of the longest trial.
        resources: of a trial.
        length: that of a trial with some values; by default each is as long as the longest.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        search: Search,
        context: Mapping[str, Any],
        name: str,
        storage: JournalStorage,
        *,
        epochs: int,
        resources: Resources,
        length: Callable[[Mapping[str, Any]], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.search = search
        self.space = Space(search, context)
        self.epochs = epochs
        self.resources = resources
        self.length = length or (lambda _: epochs)
        self.clock = clock
        self.began = clock()
        made = len(_trials(storage, name))
        # A search that goes on must not draw again what it drew at first.
        seed = int(np.random.SeedSequence([search.seed, made]).generate_state(1)[0])
        self.study = optuna.create_study(
            study_name=name,
            storage=storage,
            sampler=make_sampler(search, seed),
            pruner=make_pruner(search.scheduler, epochs),
            directions=[_DIRECTIONS[mode] for mode in search.mode],
            load_if_exists=True,
        )
        self.worked_before = float(self.study.user_attrs.get(_SECONDS, 0.0))
        self.running: dict[int, _Running] = {}
        self.reported: dict[int, int] = {}
        self.cut_off: set[int] = set()
        self._resume()
        self.spent_before = _spent(self.study.get_trials(deepcopy=False))
        self.distinct = _distinct(self.study.get_trials(deepcopy=False))
        self.size = self._size()
        self.times = _times(self.study.get_trials(deepcopy=False))

    def knows(self, params: Mapping[str, Any]) -> bool:
        """Whether a point was proposed or told before."""
        return _key(params) in self.distinct

    def tell_known(self, params: Mapping[str, Any], reached: Sequence[Reached]) -> bool:
        """Add what the store has of a point that nobody proposed.

        Args:
            params: of the point.
            reached: what is known of it, by epoch, to its end.

        Returns:
            Whether it was added: one without a value is not.
        """
        last = next(filter(self._is_there, reached), reached[-1])
        values = [last.scores[metric] for metric in self.search.metric]
        if not all(math.isfinite(last.scores[metric]) for metric in self.search.read):
            return False
        metric = self.search.metric[0]
        by_epoch = {each.epoch: each.scores[metric] for each in reached}
        steps = {epoch: value for epoch, value in by_epoch.items() if math.isfinite(value)}
        single = len(self.search.metric) == 1
        self.study.add_trial(
            optuna.create_trial(
                state=TrialState.COMPLETE,
                values=values,
                params=dict(params),
                distributions=self.space.distributions(params),
                intermediate_values=steps if single else None,
                user_attrs={_KNOWN: True, **self._facts(last)},
                constraints=self._constraints(last),
            )
        )
        if self._is_there(last):
            self.times.append(values[0])
        self.distinct.add(_key(params))
        return True

    def queue_grid(self) -> None:
        """Queue the points of a grid that were never proposed."""
        known = self.distinct | {_key(_fixed(trial)) for trial in self._waiting()}
        for params in points(self.search, self.space.context):
            if _key(params) not in known:
                self.study.enqueue_trial(params)

    def propose(self) -> Proposal | None:
        """What to try next; null where nothing is left of the budget or of the space."""
        if not self.has_more():
            return None
        trial = self.study.ask()
        params = self.space(trial)
        self.running[trial.number] = _Running(trial, self.clock(), self.length(params))
        self.distinct.add(_key(params))
        return Proposal(trial.number, params)

    def goes_on(self, number: int, reached: Reached) -> bool:
        """Take down what a proposal reached, and say whether it is to be trained on."""
        trial, length = self.running[number].trial, self.running[number].length
        value = reached.scores[self.search.watched[0]]
        if not math.isfinite(value) or self._is_there(reached):
            return False
        prunes = len(self.search.metric) == 1 and self.search.reach is None
        # A trial that is started again reports once more what it had.
        if prunes and reached.epoch > self.reported.get(number, 0):
            trial.report(value, reached.epoch)
            self.reported[number] = reached.epoch
        if reached.epoch >= length:
            return True
        if used_up(_without_trials(self.search.budget), self.spent()) is not None:
            self.cut_off.add(number)
            return False
        if self.search.reach is not None:
            return reached.scores[self.search.metric[0]] < self._longest()
        return not (prunes and trial.should_prune())

    def end(self, number: int, reached: Reached | None) -> None:
        """Take down that a proposal ended.

        Args:
            number: of the proposal.
            reached: how far it came; null where it failed.
        """
        ended = self.running.pop(number)
        trial, seconds = ended.trial, self.clock() - ended.began
        cost = {"core_seconds": self.resources.cpus, "gpu_seconds": self.resources.gpus or 0.0}
        for name, units in cost.items():
            trial.set_user_attr(name, seconds * units)
        self.spent_before = _plus(self.spent_before, seconds, self.resources)
        self.study.set_user_attr(_SECONDS, self.spent().seconds)
        if number in self.cut_off:
            return  # as if a kill had: it is proposed first when there is a budget again
        if reached is None:
            self.study.tell(trial, state=TrialState.FAIL)
            return
        for name, fact in self._facts(reached).items():
            trial.set_user_attr(name, fact)
        finite = all(math.isfinite(reached.scores[metric]) for metric in self.search.read)
        there = self._is_there(reached)
        if not finite or not (there or reached.epoch >= ended.length):
            self.study.tell(trial, state=TrialState.PRUNED)
            return
        values = [reached.scores[metric] for metric in self.search.metric]
        for name, short in self._constraints(reached).items():
            trial.set_constraint(name, short)
        self.study.tell(trial, values)
        if there:
            self.times.append(values[0])

    def spent(self) -> Spent:
        """What it has cost so far."""
        now = self.clock()
        running = sum(now - each.began for each in self.running.values())
        spent = _plus(self.spent_before, running, self.resources, trials=len(self.running))
        return Spent(
            trials=spent.trials,
            seconds=self.worked_before + now - self.began,
            core_seconds=spent.core_seconds,
            gpu_seconds=spent.gpu_seconds,
        )

    def used_up(self) -> str | None:
        """The part of the budget that is spent, in words; null while some is left of each."""
        return used_up(self.search.budget, self.spent())

    def has_more(self) -> bool:
        """Whether something is left of the budget and of the space."""
        return self.used_up() is None and not self.is_exhausted()

    def trials_left(self) -> int | None:
        """Proposals to come; null where neither the budget nor the space bounds them."""
        bounds = []
        if self.search.trials is not None:
            bounds.append(self.search.trials - self.spent().trials)
        if self.size is not None and self.search.sampler == "grid":
            bounds.append(len(self._waiting()))
        return max(0, min(bounds)) if bounds else None

    def is_exhausted(self) -> bool:
        """Whether every point of the space was proposed."""
        return self.size is not None and len(self.distinct) >= self.size and not self._waiting()

    def _is_there(self, reached: Reached) -> bool:
        """Whether the score that is to be reached is."""
        reach = self.search.reach
        return reach is not None and reach.short(reached.scores[reach.metric]) <= 0

    def _constraints(self, reached: Reached) -> dict[str, float]:
        """By how much that score is short, as the sampler is told: it learns where it is not."""
        reach = self.search.reach
        return {} if reach is None else {_SHORT: reach.short(reached.scores[reach.metric])}

    def _longest(self) -> float:
        """Seconds by which a proposal has lost: as many as will be taken reached it in less."""
        taken = 1 if self.search.confirm is None else self.search.confirm.top
        return sorted(self.times)[taken - 1] if len(self.times) >= taken else math.inf

    def _size(self) -> int | None:
        """Points of the space; null for a space without end, or one too large to be exhausted."""
        found = 0
        try:
            for _ in points(self.search, self.space.context):
                found += 1
                if found > _MAX_POINTS:
                    return None
        except ValueError:
            return None
        return found

    def _waiting(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))

    def _facts(self, reached: Reached) -> dict[str, Any]:
        stds = [reached.stds[metric] for metric in self.search.metric]
        return {
            "epochs": reached.epoch,
            "stds": [each if math.isfinite(each) else None for each in stds],
        }

    def _resume(self) -> None:
        """Propose again what was left running and what failed, before anything new."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self.study.tell(trial.number, state=TrialState.FAIL)
        trials = self.study.get_trials(deepcopy=False)
        again = _tried_again(trials)
        for trial in trials:
            if trial.state == TrialState.FAIL and trial.number not in again:
                self.study.enqueue_trial(trial.params)


_DIRECTIONS = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}


def ended(storage: JournalStorage, name: str) -> list[Ended]:
    """Every proposal of a study that is done with, in their order.

    One that was left or failed is not where it is proposed again.
    """
    trials = _trials(storage, name)
    again = _tried_again(trials)
    return [
        Ended(
            number=trial.number,
            params=trial.params,
            state=_STATES[trial.state],
            values=tuple(trial.values) if trial.state == TrialState.COMPLETE else None,
            stds=tuple(trial.user_attrs.get("stds", ())),
            known=_is_known(trial),
        )
        for trial in trials
        if trial.state.is_finished() and trial.number not in again
    ]


def _trials(storage: JournalStorage, name: str) -> list[FrozenTrial]:
    if name not in optuna.get_all_study_names(storage):
        return []
    return optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)


def _tried_again(trials: Sequence[FrozenTrial]) -> set[int]:
    """Numbers of failed trials whose point was proposed again, or is queued to be.

    So is one that was left before it had a point: there is nothing to propose again.
    """
    last = {_key(trial.params or _fixed(trial)): trial.number for trial in trials}
    failed = (trial for trial in trials if trial.state == TrialState.FAIL)
    return {t.number for t in failed if not t.params or last[_key(t.params)] != t.number}


def _is_known(trial: FrozenTrial) -> bool:
    return _KNOWN in trial.user_attrs


def _fixed(trial: FrozenTrial) -> Mapping[str, Any]:
    """The values that a queued trial will have."""
    fixed: Mapping[str, Any] = trial.system_attrs.get("fixed_params", {})
    return fixed


def _spent(trials: Sequence[FrozenTrial]) -> Spent:
    """What trials cost that are no longer trained; those that failed are proposed again."""
    own = [t for t in trials if t.state.is_finished() and not _is_known(t)]
    costs = [sum(t.user_attrs.get(name, 0.0) for t in own) for name in _COSTS]
    count = sum(trial.state != TrialState.FAIL for trial in own)
    return Spent(trials=count, core_seconds=costs[0], gpu_seconds=costs[1])


def _plus(spent: Spent, seconds: float, resources: Resources, trials: int = 1) -> Spent:
    return Spent(
        trials=spent.trials + trials,
        core_seconds=spent.core_seconds + seconds * resources.cpus,
        gpu_seconds=spent.gpu_seconds + seconds * (resources.gpus or 0.0),
    )


def _times(trials: Sequence[FrozenTrial]) -> list[float]:
    """Seconds of the trials that reached the score that was to be reached."""
    return [
        trial.values[0]
        for trial in trials
        if trial.state == TrialState.COMPLETE and trial.constraints.get(_SHORT, math.inf) <= 0
    ]


def _distinct(trials: Sequence[FrozenTrial]) -> set[str]:
    """The points that were proposed, without those that are to be proposed again."""
    done = [t for t in trials if t.state.is_finished() and t.state != TrialState.FAIL]
    return {_key(trial.params) for trial in done}


def _key(params: Mapping[str, Any]) -> str:
    return repr(sorted(params.items()))


def _without_trials(budget: Mapping[str, float]) -> dict[str, float]:
    """What ends trials that are being trained, too."""
    return {kind: most for kind, most in budget.items() if kind != "trials"}
