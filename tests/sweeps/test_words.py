"""Numbers as a person says them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.words import counted, duration

UNITS = {"s": 1, "min": 60, "h": 3600}


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (3569, "59 min"),
        (3599, "1 h 0 min"),
        (10_790, "3 h 0 min"),
        (93_000, "25 h 50 min"),
    ],
)
def test_a_duration_is_said_in_whole_units(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@given(st.floats(0, 1e6))
def test_a_duration_said_is_within_half_its_last_unit_and_counts_below_sixty(
    seconds: float,
) -> None:
    said = duration(seconds)
    parts = [(int(number), unit) for number, unit in re.findall(r"(\d+) (s|min|h)", said)]
    assert all(number < 60 for number, unit in parts if unit != "h")
    total = sum(number * UNITS[unit] for number, unit in parts)
    assert abs(total - seconds) <= UNITS[parts[-1][1]] / 2 + 1e-6


def test_one_is_no_plural() -> None:
    assert [counted(n, "seed") for n in (0, 1, 1000)] == ["0 seeds", "1 seed", "1,000 seeds"]
