"""How runs are counted by what became of them."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cifake.config import Config
from cifake.runs import RunState
from cifake.tables.of_runs import STATUSES
from sweeps.outcome import count_by_status

RUN = RunState(
    run_id="r",
    config_id=Config().config_id,
    seed=0,
    status="complete",
    epochs_done=1,
    evaluated=frozenset(),
    images_per_second=None,
    stack_width=1,
    stack=(0,),
    row={},
)


@given(statuses=st.lists(st.sampled_from(STATUSES)), waiting=st.integers(0, 3))
def test_the_order_is_that_of_the_statuses_whichever_runs_have_them(
    statuses: list[str], waiting: int
) -> None:
    found = count_by_status(
        [replace(RUN, status=each) for each in statuses], len(statuses) + waiting
    )
    assert list(found) == [each for each in ("waiting", *STATUSES) if each in found]
    assert sum(found.values()) == len(statuses) + waiting
    assert found.get("waiting", 0) == waiting
    assert all(found[each] == statuses.count(each) for each in statuses)
