"""What a person sees while a sweep runs."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from sweeps import progress
from sweeps.progress import View
from sweeps.trial import Report


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in seconds, which goes on as it is told to."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def report(epochs: int, accuracy: float = 0.5) -> Report:
    scores = {"validation.accuracy": accuracy}
    return Report(1, epochs, epochs, 1000 * epochs, 1.0, scores, {})


def view_of(*, epochs: int, work: float | None = None) -> View:
    console = Console(file=io.StringIO(), width=200)
    return View(console, runs=4, epochs=epochs, metric="validation.accuracy", mode="max", work=work)


def test_the_time_left_counts_epochs_by_what_they_take(clock: list[float]) -> None:
    view = view_of(epochs=20, work=10 * 9.0 + 10 * 1.0)
    clock[0] = 45.0
    view.epoch(report(5), 5 * 9.0)
    assert "epochs 5/20" in view.line()
    assert "about 55 s left" in view.line(), "of 100 seconds 45 are over, though of 20 epochs 5"


def test_epochs_of_which_nothing_is_known_take_the_same(clock: list[float]) -> None:
    view = view_of(epochs=20)
    assert "left" not in view.line()
    clock[0] = 10.0
    view.epoch(report(5, 0.6))
    view.epoch(report(5, 0.4))
    assert "1,000 images/s · about 10 s left · best validation.accuracy 0.6000" in view.line()
    view.epoch(report(10))
    assert "left" not in view.line()


def test_nothing_is_left_after_the_last_epoch_however_sums_are_rounded(clock: list[float]) -> None:
    view = view_of(epochs=3, work=3 * 0.1 + 1e-12)
    clock[0] = 10.0
    for _ in range(3):
        view.epoch(report(1), 0.1)
    assert "epochs 3/3" in view.line()
    assert "left" not in view.line()
