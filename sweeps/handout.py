"""Which worker does which task: each in turn, and again where a worker failed. Pure bookkeeping."""

from __future__ import annotations

from collections import Counter, deque


class Handout:
    """Hands tasks, known by their number, to workers that come and go.

    Args:
        tasks: how many there are; they are handed out from the first to the last.
        attempts: how often a task is tried before it stays failed.
    """

    def __init__(self, tasks: int, attempts: int) -> None:
        self.attempts = attempts
        self.left = tasks
        """Tasks that have neither ended nor failed for good."""

        self._waiting = deque(range(tasks))
        self._held: dict[str, int] = {}
        self._failures: Counter[int] = Counter()

    def take(self, worker: str) -> int | None:
        """Give a worker the next task; null where all are done or in other hands."""
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
