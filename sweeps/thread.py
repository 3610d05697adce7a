"""Work in a thread of its own, followed from outside as it reports."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class _End:
    error: BaseException | None = None


def followed(work: Callable[[Callable[[T], None]], None]) -> Iterator[T]:
    """Start work that is given where to report, and yield each report as it is made.

    Raises:
        BaseException: what the work raised, after its last report.
    """
    told: SimpleQueue[T | _End] = SimpleQueue()

    def run() -> None:
        try:
            work(told.put)
        except BaseException as error:  # noqa: BLE001 - it is raised where the reports are read
            told.put(_End(error))
        else:
            told.put(_End())

    threading.Thread(target=run, name="work", daemon=True).start()
    while not isinstance(found := told.get(), _End):
        yield found
    if found.error is not None:
        raise found.error
