"""What is measured before stacks are planned."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest

from cifake import training
from cifake.batches import TrainingData
from cifake.config import Config
from cifake.data.pack import Pack
from cifake.speed import Speed


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
def test_a_fast_network_is_measured_for_a_tenth_of_a_second(demo: Pack, schedule: str) -> None:
    """As many epochs as that takes, beyond a schedule's horizon too."""
    horizon = {} if schedule == "constant" else {"horizon": 1}
    config = Config.model_validate({"model": "linear", "schedule": {"name": schedule, **horizon}})
    data = TrainingData(demo.pixels, demo.labels, demo.rows("train"))
    speed = Speed(config, data)
    for _ in range(2):
        begun = time.perf_counter()
        assert speed(2) > 0
        assert time.perf_counter() - begun >= 0.1


def test_a_network_that_comes_to_an_end_is_timed_from_its_start_again(
    demo: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does that diverges, too."""
    monkeypatch.setattr("cifake.speed._MOST_EPOCHS", 1)
    data = TrainingData(demo.pixels, demo.labels, demo.rows("train"))
    speed = Speed(Config.model_validate({"model": "linear"}), data)
    assert all(100 < speed(1) < 1e8 for _ in range(3))


def test_few_batches_of_a_slow_network_are_timed(
    demo: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two dozen of them might take minutes."""
    monkeypatch.setattr("cifake.speed._LONG_ENOUGH", 0.0)
    seen: list[int] = []

    def each_epoch(config: Config, seeds: Sequence[int], few: TrainingData, **how: Any) -> Any:
        seen.append(len(few.rows))
        return training.each_epoch(config, seeds, few, **how)

    monkeypatch.setattr("cifake.speed.each_epoch", each_epoch)
    data = TrainingData(demo.pixels, demo.labels, demo.rows("train"))
    speed = Speed(Config.model_validate({"model": "linear"}), data)
    speed(1)
    speed(1)
    assert seen == [2 * 32]
