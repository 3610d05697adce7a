"""Work that is known beforehand, and work that follows from what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Run = Callable[[Any, Callable[[Any], None]], None]
"""What does a task, and is given where to report."""


Divide = Callable[[Sequence[Any], int], Mapping[int, Sequence[Any]]]
"""Of tasks that wait, and workers that could do them, the parts that come in the place of some: by
place among the tasks."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """Tasks that do not wait for each other, and all of which end before the next round begins."""

    tasks: Sequence[Any]
    """In the order in which they are begun."""

    run: Run
    """Does one of them, wherever there is room; it travels there."""

    on_report: Callable[[Any, Any], None]
    """Called with a task and whatever it reports."""

    on_end: Callable[[Any, str | None], None]
    """Called when a task ends, or with a line of what went wrong when it has failed for good."""

    divide: Divide | None = None
    """Asked for smaller tasks when there are more workers than tasks that wait."""

    ahead: int = 0
    """Tasks that are expected to follow, so that workers wait for them; 0 for the last round."""
