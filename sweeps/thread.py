"""Work in a thread of its own, followed from outside as it reports."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class DroppedError(BaseException):
    """Raised in work that is dropped; no error of the work, which must not take it for one."""


@dataclass(frozen=True)
class _End:
    error: BaseException | None = None


class Followed(Generic[T]):
    """Work that is given where to report, started at once; its reports are iterated over.

    What the work raises is raised after its last report.

    Args:
        work: what is done.
        paced: whether it waits after each report until the next one is asked for; else it goes on,
            and can be an epoch further by then.
    """

    def __init__(self, work: Callable[[Callable[[T], None]], None], *, paced: bool = False) -> None:
        self.work = work
        self.paced = paced
        self.dropped = False
        """Whether it was dropped and came to no end of its own."""

        self._told: SimpleQueue[T | _End] = SimpleQueue()
        self._may_go_on = threading.Semaphore(0)
        self._waits = False
        self._drop = threading.Event()
        threading.Thread(target=self._run, name="work", daemon=True).start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        if self._waits:
            self._waits = False
            self._may_go_on.release()
        found = self._told.get()
        if isinstance(found, _End):
            self._told.put(_End())
            if found.error is not None:
                raise found.error
            raise StopIteration
        self._waits = self.paced
        return found

    def drop(self) -> None:
        """Let the work end with its last report, or with the next where it has gone on."""
        self._drop.set()

    def _report(self, report: T) -> None:
        self._told.put(report)
        if self.paced:
            self._may_go_on.acquire()
        if self._drop.is_set():
            raise DroppedError

    def _run(self) -> None:
        try:
            self.work(self._report)
        except DroppedError:
            self.dropped = True
            self._told.put(_End())
        except BaseException as error:  # noqa: BLE001 - it is raised where the reports are read
            self._told.put(_End(error))
        else:
            self._told.put(_End())
