"""What workers are asked to do, whoever knows what that is."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, Protocol

ATTEMPTS = 3
"""How often a task is started before it stays failed."""

LOSSES = 50
"""How often a task may lose its machine before it stays failed as well."""

Run = Callable[[Callable[[Any], None]], None]
"""Does a task, and is given where to report; it travels to a worker."""


class Work(Protocol):
    """Tasks for workers, which are told apart by their names."""

    paced: bool
    """Whether a task waits after each report until it is known whether it goes on."""

    @property
    def wanted(self) -> int:
        """Workers there is work for, or will be; with none, all is done."""

    @property
    def expects(self) -> bool:
        """Whether a worker without a task should wait for one."""

    def take(self, worker: str, fit: Container[str]) -> Run | None:
        """Give a worker a task; null where there is none now.

        Args:
            worker: that takes it.
            fit: the nodes that are known to be able to do tasks.
        """

    def heard(self, worker: str, report: Any) -> bool:
        """A task reports. Does it go on?"""

    def ended(self, worker: str) -> None:
        """A worker did its task, or what was wanted of it."""

    def failed(self, worker: str, problem: str) -> None:
        """A worker died or its task raised an error; the task is tried again, some times."""

    def lost(self, worker: str, problem: str) -> None:
        """A worker was taken away with its machine; its task is tried again, many times."""
