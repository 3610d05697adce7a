"""Which worker does which task: each in turn, and again where a worker failed. Pure bookkeeping."""

from __future__ import annotations

from collections import Counter, deque


class Handout:
    """Hands tasks, known by their number, to workers that come and go.

    Args:
        attempts: how often a task is tried before it stays failed.
    """

    def __init__(self, attempts: int) -> None:
        self.attempts = attempts
        self.left = 0
        """Tasks that have neither ended nor failed for good."""

        self.ahead = 0
        """Tasks that are expected to be added later."""

        self._added = 0
        self._waiting: deque[int] = deque()
        self._held: dict[str, int] = {}
        self._failures: Counter[int] = Counter()

    @property
    def wanted(self) -> int:
        """Workers there is work for, or will be; with none, all is done."""
        return max(self.left, self.ahead)

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
        if self._failures[task] < self.attempts:
            self._waiting.append(task)
            return None
        self.left -= 1
        return task
