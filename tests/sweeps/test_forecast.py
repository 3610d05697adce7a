"""What a sweep was predicted to take is written down beside what it took."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from cifake.errors import InputError
from sweeps.forecast import FILE, Forecast, read, recorded
from sweeps.store import Store

BEGAN = datetime.datetime(2026, 11, 25, 18, 0, tzinfo=datetime.UTC)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"), create=True)


def test_every_time_that_a_sweep_is_run_has_a_forecast(store: Store) -> None:
    assert read(store, "demo") == []
    for epochs in (12, 3):
        with recorded(store, "demo", epochs=epochs, workers=2, predicted_seconds=60.0):
            assert read(store, "demo")[-1].seconds is None
    first, second = read(store, "demo")
    assert (first.epochs, second.epochs, first.workers) == (12, 3, 2)
    assert first.predicted_seconds == 60.0
    assert first.seconds is not None
    assert second.seconds is not None
    assert 0 <= first.seconds < 10
    assert second.started_at >= first.started_at + datetime.timedelta(seconds=first.seconds)
    assert first.error == pytest.approx(first.seconds / 60 - 1)


def test_a_sweep_that_was_stopped_took_no_known_time(store: Store) -> None:
    def stop() -> None:
        with recorded(store, "demo", epochs=1, workers=1, predicted_seconds=1.0):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    (forecast,) = read(store, "demo")
    assert (forecast.seconds, forecast.error) == (None, None)
    assert str(forecast).endswith("not ended")


@pytest.mark.parametrize(
    ("predicted", "took", "said"),
    [
        (600.0, 660.0, "12 epochs, predicted 10 min, until {}; took 11 min (+10 %)"),
        (600.0, 300.0, "12 epochs, predicted 10 min, until {}; took 5 min (-50 %)"),
        (600.0, None, "12 epochs, predicted 10 min, until {}; not ended"),
        (None, 300.0, "12 epochs; took 5 min"),
        (None, None, "12 epochs; not ended"),
    ],
)
def test_a_forecast_is_said_in_one_line(
    predicted: float | None, took: float | None, said: str
) -> None:
    text = str(Forecast(BEGAN, 12, 2, predicted, took))
    ends = (BEGAN + datetime.timedelta(seconds=600)).astimezone()
    assert text == f"run at {BEGAN.astimezone():%Y-%m-%d %H:%M}: " + said.format(f"{ends:%H:%M}")


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b'[{"epochs": 3}]', b"\xff"])
def test_damaged_forecasts_are_refused_with_what_to_do(store: Store, content: bytes) -> None:
    store.write_sweep("demo", FILE, content)
    with pytest.raises(InputError, match="delete it") as caught:
        read(store, "demo")
    assert FILE in str(caught.value)
