"""What a sweep was predicted to take, and what it took."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pydantic import TypeAdapter, ValidationError

from cifake.errors import refuse
from sweeps.store import Store
from sweeps.words import duration

FILE = "forecasts.json"
"""File of a sweep with one forecast for each time that it was run."""


@dataclass(frozen=True)
class Forecast:
    """One time that a sweep was run."""

    started_at: datetime.datetime
    epochs: int
    """Epochs left to train then, over all runs."""

    workers: int
    predicted_seconds: float | None
    """Null where nothing was known of the speed."""

    seconds: float | None = None
    """What it took; null while it runs, and where it was stopped."""

    @property
    def error(self) -> float | None:
        """By which share it took longer than predicted."""
        if self.seconds is None or not self.predicted_seconds:
            return None
        return self.seconds / self.predicted_seconds - 1

    def __str__(self) -> str:
        began = self.started_at.astimezone()
        text = f"run at {began:%Y-%m-%d %H:%M}: {self.epochs} epochs"
        if self.predicted_seconds is not None:
            ends = began + datetime.timedelta(seconds=self.predicted_seconds)
            text += f", predicted {duration(self.predicted_seconds)}, until {ends:%H:%M}"
        if self.seconds is None:
            return f"{text}; not ended"
        text += f"; took {duration(self.seconds)}"
        return text if self.error is None else f"{text} ({100 * self.error:+.0f} %)"


_FORECASTS = TypeAdapter(list[Forecast])


@contextlib.contextmanager
def recorded(
    store: Store, sweep: str, *, epochs: int, workers: int, predicted_seconds: float | None
) -> Iterator[None]:
    """Write down a forecast, and what it took when the block ends by itself."""
    before = read(store, sweep)
    now = datetime.datetime.now(datetime.UTC)
    forecast = Forecast(now, epochs, workers, predicted_seconds)
    _write(store, sweep, [*before, forecast])
    yield
    seconds = (datetime.datetime.now(datetime.UTC) - now).total_seconds()
    _write(store, sweep, [*before, replace(forecast, seconds=seconds)])


def read(store: Store, sweep: str) -> list[Forecast]:
    """Every forecast of a sweep, the last one last.

    Raises:
        InputError: the file is damaged.
    """
    try:
        return _FORECASTS.validate_json(store.sweep(sweep).read(FILE))
    except FileNotFoundError:
        return []
    except ValidationError as error:
        where = f"{store.sweep(sweep)}/{FILE}"
        refuse(where, f"{error.errors()[0]['msg']}; delete it: only forecasts are lost")


def _write(store: Store, sweep: str, forecasts: list[Forecast]) -> None:
    store.write_sweep(sweep, FILE, _FORECASTS.dump_json(forecasts, indent=1))
