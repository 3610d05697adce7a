"""What a person sees while a sweep runs: a live view on a terminal, plain lines in a log file."""

from __future__ import annotations

import math
import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from sweeps.trial import Report
from sweeps.words import duration

_LOG_EVERY_SECONDS = 15.0
_LOG_WIDTH = 120


def make_console(*, stderr: bool = False) -> Console:
    """Where commands print: as wide as the terminal, or wide enough for tables in a log file."""
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=_LOG_WIDTH)


class View:
    """Runs done and left, epochs, rate, expected end and the best value of a metric so far.

    Args:
        console: to print to.
        runs: in all; null where nobody knows.
        epochs: over all runs; null where nobody knows.
        metric: to be shown.
        mode: which way it is better, `max` or `min`.
        work: that the epochs are, in any unit; by default each is as much.
    """

    def __init__(
        self,
        console: Console,
        *,
        runs: int | None,
        epochs: int | None,
        metric: str,
        mode: str,
        work: float | None = None,
    ) -> None:
        self.console = console
        self.metric = metric
        self.better = max if mode == "max" else min
        self.runs, self.runs_done = runs, 0
        self.epochs, self.epochs_done = epochs, 0
        self.work, self.work_done = epochs if work is None else work, 0.0
        self.images = 0
        self.best: float | None = None
        self.started = time.monotonic()
        self.last_line = self.started
        self.bar: Progress | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.bar = Progress(
                TextColumn("epochs"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.description}"),
                console=self.console,
            )
            self.task = self.bar.add_task("starting", total=self.epochs)
            self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.stop()
        else:
            self.console.print(self.line(), highlight=False, soft_wrap=True)

    def epoch(self, report: Report, work: float | None = None) -> None:
        """A stack finished an epoch, which was so much work."""
        self.epochs_done += report.epochs_trained
        self.work_done += report.epochs_trained if work is None else work
        self.images += report.images
        score = report.scores.get(self.metric, math.nan)
        if not math.isnan(score):
            self.best = score if self.best is None else self.better(self.best, score)
        self._show()

    def stack(self, runs: int) -> None:
        """A stack ended with so many runs."""
        self.runs_done += runs
        self._show()

    def say(self, text: str) -> None:
        """Print a line beside the view."""
        self.console.print(text, highlight=False, soft_wrap=True)

    def line(self) -> str:
        """The state of the sweep in one line."""
        elapsed = time.monotonic() - self.started
        parts = [f"runs {_of(self.runs_done, self.runs)}"]
        if self.bar is None:
            parts.append(f"epochs {_of(self.epochs_done, self.epochs)}")
        if self.images:
            parts.append(f"{self.images / elapsed:,.0f} images/s")
        more = self.epochs is not None and self.epochs_done < self.epochs
        if more and self.work is not None and 0 < self.work_done < self.work:
            left = elapsed / self.work_done * (self.work - self.work_done)
            parts.append(f"about {duration(left)} left")
        if self.best is not None:
            parts.append(f"best {self.metric} {self.best:.4f}")
        return " · ".join(parts)

    def _show(self) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=self.epochs_done, description=self.line())
        elif time.monotonic() - self.last_line >= _LOG_EVERY_SECONDS:
            self.last_line = time.monotonic()
            self.console.print(self.line(), highlight=False, soft_wrap=True)


def _of(done: int, whole: int | None) -> str:
    """How many of how many, where that is known."""
    return str(done) if whole is None else f"{done}/{whole}"
