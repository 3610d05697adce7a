"""The proposals of a study through Ray Tune, each a task of all seeds."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from sweeps.admission import Terms
from sweeps.handout import Handout
from sweeps.objectives import Reached
from sweeps.search.study import Study
from sweeps.trial import Report, Task, run_stack
from sweeps.tuner.cluster import Bundle
from sweeps.tuner.work import ATTEMPTS, LOSSES, Run
from sweeps.tuner.workers import employ

_MANY = 100_000
"""Workers that a study with a budget left could do with: as many as there is room for."""


def run_search(
    study: Study,
    make_task: Callable[[Mapping[str, Any]], Task],
    on_epoch: Callable[[Report], None],
    on_stack: Callable[[Task], None],
    bundle: Bundle,
    terms: Terms | None = None,
    say: Callable[[str], None] = print,
) -> list[str]:
    """Try what a study proposes, each proposal as one task of all seeds, until it has no more.

    A worker gets the next proposal when it asks for one, so that it is made with all that is known
    by then.

    Args:
        study: what proposes, and hears what came of it.
        make_task: from proposed values to a task.
        on_epoch: called after every epoch of every task.
        on_stack: called when a task ends.
        bundle: what a worker gets of the cluster.
        terms: as `employ` takes them.
        say: likewise.

    Returns:
        What went wrong, a line for each task that failed for good.
    """
    proposals = _Proposals(study, make_task, on_epoch, on_stack)
    employ(proposals, bundle, terms=terms, say=say)
    return proposals.problems


@dataclass
class _Tried:
    """A proposal that is being tried."""

    number: int
    """Of the trial in its study."""

    task: Task
    reached: Reached | None = None


class _Proposals:
    """The proposals of a study as work."""

    paced = True  # no epoch is trained beyond the one that a scheduler stops at

    def __init__(
        self,
        study: Study,
        make_task: Callable[[Mapping[str, Any]], Task],
        on_epoch: Callable[[Report], None],
        on_stack: Callable[[Task], None],
    ) -> None:
        self.study = study
        self.make_task = make_task
        self.on_epoch = on_epoch
        self.on_stack = on_stack
        self.handout = Handout(ATTEMPTS, LOSSES)
        self.tried: list[_Tried] = []
        self.has_more = True
        self.problems: list[str] = []

    @property
    def wanted(self) -> int:
        """Tasks in hands or to be tried again; without end while the study may propose more."""
        return _MANY if self.has_more else self.handout.left

    @property
    def expects(self) -> bool:
        """A worker for which there is no proposal ends."""
        return False

    def take(self, worker: str, fit: Container[str]) -> Run | None:
        """What is to be tried again, else a new proposal."""
        del fit
        number = self.handout.take(worker)
        if number is None:
            self._propose()
            number = self.handout.take(worker)
        return None if number is None else partial(run_stack, self.tried[number].task)

    def heard(self, worker: str, report: Any) -> bool:
        """An epoch ended; the study says whether there is another."""
        tried = self._of(worker)
        self.on_epoch(report)
        tried.reached = Reached(report.epoch, report.scores, report.stds)
        return self.study.goes_on(tried.number, tried.reached)

    def ended(self, worker: str) -> None:
        """A task came to its end, or was stopped."""
        tried = self.tried[self.handout.end(worker)]
        self.study.end(tried.number, tried.reached)
        self.on_stack(tried.task)

    def failed(self, worker: str, problem: str) -> None:
        """A task failed."""
        self._end(self.handout.fail(worker), problem)

    def lost(self, worker: str, problem: str) -> None:
        """A task lost its worker."""
        self._end(self.handout.lose(worker), problem)

    def _propose(self) -> None:
        proposal = self.study.propose() if self.has_more else None
        if proposal is None:
            self.has_more = False
            return
        self.tried.append(_Tried(proposal.number, self.make_task(proposal.params)))
        self.handout.add(1)

    def _of(self, worker: str) -> _Tried:
        number = self.handout.held(worker)
        if number is None:
            raise RuntimeError("a worker reports before there is work")
        return self.tried[number]

    def _end(self, number: int | None, problem: str) -> None:
        if number is not None:
            self.study.end(self.tried[number].number, None)
            self.problems.append(problem)
            self.on_stack(self.tried[number].task)
