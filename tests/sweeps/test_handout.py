"""Tasks go to workers in order, each until it ends or has failed too often."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sweeps.handout import Handout


def filled(tasks: int, attempts: int) -> Handout:
    handout = Handout(attempts, losses=4)
    handout.add(tasks)
    return handout


def test_tasks_go_out_from_the_first_to_the_last() -> None:
    handout = filled(3, attempts=2)
    assert [handout.take(worker) for worker in ("a", "b", "c", "d")] == [0, 1, 2, None]


def test_a_task_that_failed_comes_after_all_others() -> None:
    handout = filled(3, attempts=2)
    assert handout.take("a") == 0
    assert handout.fail("a") is None
    assert [handout.take(worker) for worker in ("b", "c", "d")] == [1, 2, 0]


def test_a_task_that_failed_too_often_is_named_and_counts_as_done_with() -> None:
    handout = filled(1, attempts=2)
    handout.take("a")
    assert handout.fail("a") is None
    handout.take("b")
    assert handout.fail("b") == 0
    assert handout.left == 0
    assert handout.take("c") is None


def test_workers_that_die_before_they_have_a_task_come_to_an_end() -> None:
    handout = filled(2, attempts=3)
    failed = [handout.fail("a") for _ in range(6)]
    assert sorted(task for task in failed if task is not None) == [0, 1]
    assert handout.left == 0


def test_a_worker_that_dies_when_all_tasks_are_in_other_hands_costs_none() -> None:
    handout = filled(1, attempts=1)
    handout.take("a")
    assert handout.fail("b") is None
    assert handout.end("a") == 0


def test_a_task_that_lost_its_worker_uses_up_no_attempt() -> None:
    handout = filled(1, attempts=1)
    for worker in "abc":
        assert handout.take(worker) == 0
        assert handout.lose(worker) is None
    assert handout.take("d") == 0
    assert handout.end("d") == 0
    assert handout.left == 0


def test_a_task_that_lost_its_worker_comes_after_all_others() -> None:
    handout = filled(3, attempts=2)
    assert handout.take("a") == 0
    assert handout.lose("a") is None
    assert [handout.take(worker) for worker in ("b", "c", "d")] == [1, 2, 0]


def test_a_task_that_loses_worker_after_worker_fails_in_the_end() -> None:
    handout = filled(1, attempts=2)
    lost = []
    for worker in "abcd":
        handout.take(worker)
        lost.append(handout.lose(worker))
    assert lost == [None, None, None, 0]
    assert handout.left == 0


def test_a_worker_that_is_lost_before_it_has_a_task_costs_none() -> None:
    handout = filled(1, attempts=1)
    assert handout.lose("a") is None
    assert handout.take("b") == 0


def test_failures_and_losses_are_counted_apart() -> None:
    handout = filled(1, attempts=2)
    for worker, happens in zip("abcd", (handout.lose, handout.fail) * 2, strict=True):
        handout.take(worker)
        last = happens(worker)
    assert last == 0, "the second failure, in spite of two losses"


def test_tasks_that_wait_can_be_given_up_for_others() -> None:
    handout = filled(3, attempts=2)
    assert handout.take("a") == 0
    assert (handout.waiting, handout.in_hands) == ([1, 2], 1)
    handout.withdraw([1])
    handout.add(2)
    assert (handout.waiting, handout.left) == ([2, 3, 4], 4)
    assert [handout.take(worker) for worker in "bcd"] == [2, 3, 4]
    for worker in "abcd":
        handout.end(worker)
    assert handout.left == 0


def test_tasks_that_are_expected_want_workers_before_they_are_known() -> None:
    handout = Handout(attempts=2, losses=4)
    assert handout.wanted == 0
    handout.add(1, ahead=3)
    assert (handout.left, handout.wanted) == (1, 3)
    assert [handout.take(worker) for worker in ("a", "b")] == [0, None]
    handout.end("a")
    assert handout.wanted == 3, "the workers stay"
    handout.add(2)
    assert [handout.take(worker) for worker in ("b", "a", "c")] == [1, 2, None]
    assert [handout.end(worker) for worker in ("a", "b")] == [2, 1]
    assert handout.wanted == 0


@given(st.integers(0, 8), st.integers(1, 3), st.lists(st.tuples(st.integers(0, 3), st.booleans())))
def test_every_task_ends_once_or_fails_as_often_as_allowed(
    tasks: int, attempts: int, steps: list[tuple[int, bool]]
) -> None:
    """Whatever four workers do, and whatever is left is done in the end."""
    handout = filled(tasks, attempts)
    held: dict[str, int | None] = {}
    ended: list[int] = []
    tried: dict[int, int] = {}

    def step(worker: str, *, well: bool) -> None:
        if held.get(worker) is None:
            held[worker] = handout.take(worker)
            return
        task = held.pop(worker)
        assert task is not None
        tried[task] = tried.get(task, 0) + 1
        if well:
            assert handout.end(worker) == task
            ended.append(task)
        else:
            assert handout.fail(worker) == (task if tried[task] == attempts else None)
            ended.extend([task] * (tried[task] == attempts))

    for number, well in steps:
        step(f"w{number}", well=well)
    for number in range(4):
        for _ in range(2 * tasks + 1):
            step(f"w{number}", well=True)
    assert sorted(ended) == list(range(tasks))
    assert handout.left == 0
