"""What is measured before stacks are planned."""

from __future__ import annotations

import time

import pytest

from cifake.batches import TrainingData
from cifake.config import Config
from cifake.data.pack import Pack
from cifake.speed import images_per_second


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
def test_a_fast_network_is_measured_for_a_tenth_of_a_second(demo: Pack, schedule: str) -> None:
    """As many epochs as that takes, beyond a schedule's horizon too."""
    horizon = {} if schedule == "constant" else {"horizon": 1}
    config = Config.model_validate({"model": "linear", "schedule": {"name": schedule, **horizon}})
    data = TrainingData(demo.pixels, demo.labels, demo.rows("train"))
    begun = time.perf_counter()
    speed = images_per_second(config, data, width=2)
    assert time.perf_counter() - begun >= 0.1
    assert speed > 0
