"""Which worker does which task: each in turn, and again where a worker failed. Pure bookkeeping."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection


class Handout:
    """Hands tasks, known by their number, to workers that come and go.

    Args:
        attempts: how often a task is tried before it stays failed.
        losses: how often it may lose its worker through no fault of its own before it stays failed
            as well, so that there is an end.
    """

    def __init__(self, attempts: int, losses: int) -> None:
        self.attempts = attempts
        self.losses = losses
        self.left = 0
        """Tasks that have neither ended nor failed for good."""

        self.ahead = 0
        """Tasks that are expected to be added later."""

        self._added = 0
        self._waiting: deque[int] = deque()
        self._held: dict[str, int] = {}
        self._failures: Counter[int] = Counter()
        self._lost: Counter[int] = Counter()

    @property
    def wanted(self) -> int:
        """Workers there is work for, or will be; with none, all is done."""
        return max(self.left, self.ahead)

    @property
    def waiting(self) -> list[int]:
        """Tasks in nobody's hands, in the order in which they are handed out."""
        return list(self._waiting)

    @property
    def in_hands(self) -> int:
        """How many others there are."""
        return len(self._held)

    def withdraw(self, tasks: Collection[int]) -> None:
        """Give up tasks that wait; others come in their place."""
        self._waiting = deque(task for task in self._waiting if task not in tasks)
        self.left -= len(tasks)

    def add(self, tasks: int, *, ahead: int = 0) -> None:
        """Add some tasks, numbered on from the last; they are handed out in this order.

        Args:
            tasks: how many.
            ahead: how many more are expected.
        """
        self._waiting.extend(range(self._added, self._added + tasks))
        self._added += tasks
        self.left += tasks
        self.ahead = ahead

    def take(self, worker: str) -> int | None:
        """Give a worker the next task; null where all are done, in other hands or not yet known."""
        if not self._waiting:
            return None
        self._held[worker] = self._waiting.popleft()
        return self._held[worker]

    def held(self, worker: str) -> int | None:
        """The task that a worker has."""
        return self._held.get(worker)

    def end(self, worker: str) -> int:
        """A worker did its task. Which?"""
        self.left -= 1
        return self._held.pop(worker)

    def fail(self, worker: str) -> int | None:
        """A worker failed or died; its task is tried again after all others.

        One that died before it had a task counts against the next: workers that cannot even start
        must come to an end as well.

        Returns:
            The task if it failed for good.
        """
        task = self._held.pop(worker, None)
        if task is None:
            if not self._waiting:
                return None
            task = self._waiting.popleft()
        self._failures[task] += 1
        return self._again(task, for_good=self._failures[task] >= self.attempts)

    def lose(self, worker: str) -> int | None:
        """A worker was taken away, as with its machine; its task is tried again after all others.

        Returns:
            The task if that happened too often.
        """
        task = self._held.pop(worker, None)
        if task is None:
            return None
        self._lost[task] += 1
        return self._again(task, for_good=self._lost[task] >= self.losses)

    def _again(self, task: int, *, for_good: bool) -> int | None:
        if not for_good:
            self._waiting.append(task)
            return None
        self.left -= 1
        return task
