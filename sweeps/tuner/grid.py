"""Rounds of tasks through Ray Tune."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from functools import partial
from typing import Any

from sweeps.admission import Terms
from sweeps.handout import Handout
from sweeps.rounds import Round
from sweeps.tuner.cluster import Bundle
from sweeps.tuner.placing import Room
from sweeps.tuner.work import ATTEMPTS, LOSSES, Run
from sweeps.tuner.workers import employ


def run_rounds(
    rounds: Iterable[Round],
    bundle: Bundle,
    terms: Terms | None = None,
    say: Callable[[str], None] = print,
    room: Room | None = None,
) -> None:
    """Run every task of every round, as many at the same time as the cluster has room for.

    Args:
        rounds: asked for the next one when all tasks of the last have ended.
        bundle: what a worker gets of the cluster.
        room: how many workers the nodes that are fit have room for now; null where that does not
            change.
        terms: as `employ` takes them.
        say: likewise.

    Raises:
        Exception: what the rounds raise, or hearing a report.
    """
    employ(_Rounds(rounds, room), bundle, terms=terms, say=say)


class _Rounds:
    """Rounds as work."""

    paced = False

    def __init__(self, rounds: Iterable[Round], room: Room | None) -> None:
        self.rounds = iter(rounds)
        self.room = room
        self.handout = Handout(ATTEMPTS, LOSSES)
        self.round: Round | None = None
        self.tasks: list[Any] = []
        """Of the round, those included that came in the place of others."""

        self.first = 0
        """Number of the round's first task."""

        self.divided: tuple[list[int], int] | None = None
        """What waited when it was last tried to divide it, and for how many workers."""

        self._advance()

    @property
    def wanted(self) -> int:
        """Tasks left, or expected."""
        return self.handout.wanted

    @property
    def expects(self) -> bool:
        """Whether a next round will have tasks."""
        return self.handout.ahead > 0

    def take(self, worker: str, fit: Container[str]) -> Run | None:
        """The next task."""
        self._divide(fit)
        number = self.handout.take(worker)
        return None if number is None else partial(self._round.run, self._task(number))

    def heard(self, worker: str, report: Any) -> bool:
        """Every task goes on to its end; a late word of one that was taken away is no news."""
        number = self.handout.held(worker)
        if number is not None:
            self._round.on_report(self._task(number), report)
        return True

    def ended(self, worker: str) -> None:
        """A task is done."""
        self._end(self.handout.end(worker), None)

    def failed(self, worker: str, problem: str) -> None:
        """A task failed."""
        self._end(self.handout.fail(worker), problem)

    def lost(self, worker: str, problem: str) -> None:
        """A task lost its worker."""
        self._end(self.handout.lose(worker), problem)

    @property
    def _round(self) -> Round:
        if self.round is None:
            raise RuntimeError("a worker reports before there is work")
        return self.round

    def _task(self, number: int) -> Any:
        return self.tasks[number - self.first]

    def _divide(self, fit: Container[str]) -> None:
        """Let what waits be divided where workers would have nothing to do."""
        waiting = self.handout.waiting
        if self.room is None or not waiting or self._round.divide is None:
            return
        free = self.room(fit) - self.handout.in_hands
        if len(waiting) >= free or (waiting, free) == self.divided:
            return
        self.divided = (waiting, free)
        parts = self._round.divide([self._task(number) for number in waiting], free)
        self.handout.withdraw([waiting[place] for place in parts])
        added = [part for each in parts.values() for part in each]
        self.tasks += added
        self.handout.add(len(added), ahead=self.handout.ahead)

    def _end(self, number: int | None, problem: str | None) -> None:
        """Tell of a task that is done with, if there is one."""
        if number is not None:
            self._round.on_end(self._task(number), problem)
            self._advance()

    def _advance(self) -> None:
        """Begin the next round that has tasks when the last one is over."""
        while not self.handout.left:
            self.first += len(self.tasks)
            self.round = next(self.rounds, None)
            self.tasks = [] if self.round is None else list(self.round.tasks)
            if self.round is None:
                self.handout.add(0)
                return
            self.handout.add(len(self.tasks), ahead=self.round.ahead)
