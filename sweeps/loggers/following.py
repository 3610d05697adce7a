"""Loggers that follow a sweep: what its store has of it is logged now and then, and at the end."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console

from cifake.errors import InputError, one_line
from sweeps.loggers.opening import Logger, LoggingError
from sweeps.store import Store

if TYPE_CHECKING:
    from sweeps.loggers.histories import History

EVERY = 10.0
"""Seconds between two looks at least."""

_SHARE = 0.1
"""Of its time that a thread may spend logging."""

_AT_ONCE = 50
"""Runs that a logger is given at the same time."""


@dataclass
class _Following:
    """What was logged of a sweep so far, and to whom.

    Args:
        loggers: all of them.
        sweep: its name.
        store: that has its runs.
        console: what goes wrong is told here, once for each logger.
    """

    loggers: Sequence[Logger]
    sweep: str
    store: Store
    console: Console
    logged: dict[str, object] = field(default_factory=dict)
    """By run, when it was written that was logged last."""

    failed: set[int] = field(default_factory=set)
    """Loggers that failed, by their places; they are tried again at the end."""

    told: set[int] = field(default_factory=set)
    """Those of which it was told."""

    def bring_up(self, *, last: bool = False) -> bool:
        """Log what has changed since, and say whether all of it was logged."""
        try:
            return self._brought_up(last=last)
        except (InputError, OSError) as error:
            if last:
                self._tell(f"runs cannot be read to be logged: {one_line(error)}")
            return False

    def _brought_up(self, *, last: bool) -> bool:
        from sweeps.loggers.histories import histories  # imports what reports are made with

        cells = self.store.read_sweep(self.sweep, "cells")
        if cells is None:
            return True
        states = self.store.run_states(cells["run_id"].to_pylist())
        again = last and self.failed
        changed = [
            state
            for run_id, state in states.items()
            if again or self.logged.get(run_id) != state.row["updated_at"]
        ]
        trying = [n for n in range(len(self.loggers)) if last or n not in self.failed]
        self.failed -= set(trying)
        batch: list[History] = []
        for run in histories(self.sweep, self.store, cells, changed):
            batch.append(run)
            if len(batch) == _AT_ONCE:
                self._log(trying, batch)
                batch = []
        self._log(trying, batch)
        self.logged |= {state.run_id: state.row["updated_at"] for state in changed}
        return not self.failed

    def _log(self, trying: Sequence[int], runs: Sequence[History]) -> None:
        for number in trying:
            if runs and number not in self.failed:
                try:
                    self.loggers[number].log(self.sweep, runs)
                except LoggingError as error:
                    self._failed(number, str(error))
                except Exception as error:  # noqa: BLE001 - a logger never fails a sweep
                    # What it says may hold what lets in.
                    self._failed(number, f"{type(error).__name__} in the logger")

    def _failed(self, number: int, problem: str) -> None:
        self.failed.add(number)
        if number not in self.told:
            self.told.add(number)
            advice = "the sweep is not touched; `sweeps report --log` logs it later"
            self._tell(f"--log {self.loggers[number].name}: {problem}; {advice}")

    def _tell(self, text: str) -> None:
        self.console.print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)


def log_runs(loggers: Sequence[Logger], sweep: str, store: Store, console: Console) -> bool:
    """Log every run of a sweep, and say whether all of it was logged."""
    return not loggers or _Following(loggers, sweep, store, console).bring_up(last=True)


@contextlib.contextmanager
def following(
    loggers: Sequence[Logger], sweep: str, store: Store, console: Console, every: float = EVERY
) -> Iterator[None]:
    """Log a sweep's runs in a thread for as long as the block lasts, and once more at its end."""
    if not loggers:
        yield
        return
    follow, ended = _Following(loggers, sweep, store, console), threading.Event()

    def watch() -> None:
        wait = every
        while not ended.wait(wait):
            begun = time.monotonic()
            follow.bring_up()
            wait = max(every, (time.monotonic() - begun) * (1 - _SHARE) / _SHARE)

    thread = threading.Thread(target=watch, name="loggers", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        follow.bring_up(last=True)
