"""What a stack gets of a cluster: as asked for, or by what it takes of a GPU."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.sizing import (
    MOST_A_GPU,
    SHARE,
    Footprint,
    Machine,
    Sized,
    asked,
    on_gpus,
    placed,
    stacks_on_a_gpu,
)
from sweeps.spec import Resources

GIB = 2**30


def machine(cpus: float, gpus: float = 0) -> Machine:
    return Machine(f"{cpus}-{gpus}", f"node {cpus}", cpus, gpus)


def taking(stack: float, whole: float = 24) -> Footprint:
    """What a stack takes of a GPU, in GiB."""
    return Footprint("A10", int(whole * GIB), int(stack * GIB))


# As asked for


def test_what_is_asked_for_is_what_a_stack_gets() -> None:
    assert asked(Resources(cpus=2, gpus=0.25), gpus=4) == Sized(2, 0.25)
    assert asked(Resources(cpus=1, gpus=0), gpus=4) == Sized(1, 0)


def test_one_core_is_the_default_where_there_is_no_gpu() -> None:
    assert asked(Resources(), gpus=0) == Sized(1, 0)


def test_where_there_are_gpus_the_default_needs_a_look_at_them() -> None:
    assert asked(Resources(), gpus=1) is None


def test_a_gpu_that_is_not_there_is_a_fallback_with_its_reason() -> None:
    found = asked(Resources(gpus=0.25), gpus=0)
    assert found is not None
    assert found.gpus == 0
    assert found.fallbacks == ("trained on the CPU: 0.25 GPU was asked for, and no node has one",)


def test_a_gpu_that_is_not_there_yet_is_waited_for() -> None:
    assert asked(Resources(gpus=0.25), gpus=0, can_grow=True) == Sized(1, 0.25)
    assert asked(Resources(), gpus=0, can_grow=True) == Sized(1, 0)


# By measurement


@pytest.mark.parametrize(
    ("stack", "cores", "stacks"),
    [(1, 64, MOST_A_GPU), (3, 64, 6), (3, 4, 4), (12, 64, 1), (30, 64, 1), (3, 0, 1)],
)
def test_as_many_stacks_share_a_gpu_as_its_memory_and_the_cores_hold(
    stack: float, cores: int, stacks: int
) -> None:
    assert stacks_on_a_gpu(taking(stack), cores) == stacks


@given(stack=st.floats(0.01, 100), whole=st.floats(1, 200), cores=st.integers(0, 256))
def test_stacks_on_a_gpu_never_take_more_than_is_planned_with_unless_there_is_one(
    stack: float, whole: float, cores: int
) -> None:
    count = stacks_on_a_gpu(taking(stack, whole), cores)
    assert count >= 1
    assert count == 1 or (count * stack <= SHARE * whole * 1.001 and count <= cores)


@given(st.floats(0.5, 60), st.integers(1, 8), st.integers(1, 64))
def test_as_many_stacks_fit_a_node_as_its_gpus_hold(stack: float, gpus: int, cores: int) -> None:
    """A share is rounded down: so many of it are never more than a whole."""
    machines = [machine(cores, gpus)]
    found = on_gpus(1, machines, taking(stack))
    count = stacks_on_a_gpu(taking(stack), cores // gpus)
    assert count * found.gpus <= 1
    assert placed(machines, found).slots == min(cores, count * gpus)


def test_the_cores_beside_the_gpus_of_the_poorest_node_count() -> None:
    machines = [machine(64, 1), machine(4, 2), machine(128)]
    assert on_gpus(1, machines, taking(1)).gpus == pytest.approx(0.5)
    assert on_gpus(2, machines, taking(1)).gpus == pytest.approx(1)


def test_how_it_was_decided_is_told() -> None:
    found = on_gpus(1, [machine(8, 1)], taking(3))
    assert found.why == "a stack takes up to 3.0 of the 24.0 GiB of A10"
    assert found.fallbacks == ()


def test_gpus_that_torch_does_not_find_are_not_used() -> None:
    found = on_gpus(1, [machine(8, 2)], None)
    assert (found.cpus, found.gpus) == (1, 0)
    assert "torch finds none" in found.why


# Where they fit


@pytest.mark.parametrize(
    ("sized", "slots", "nodes"),
    [
        (Sized(1, 0), 14, 3),
        (Sized(2, 0), 6, 3),  # of three cores one is left over
        (Sized(4, 0), 2, 1),
        (Sized(1, 0.25), 8, 1),
        (Sized(1, 0.4), 4, 1),  # a share lies on one GPU
        (Sized(2, 0.25), 4, 1),
        (Sized(1, 2), 1, 1),
    ],
)
def test_stacks_are_counted_node_by_node(sized: Sized, slots: int, nodes: int) -> None:
    found = placed([machine(3), machine(8, 2), machine(3)], sized)
    assert (found.slots, found.nodes, found.lacking) == (slots, nodes, None)


@pytest.mark.parametrize(
    ("sized", "lacking"),
    [(Sized(16, 0), ("cpus", 8)), (Sized(1, 3), ("gpus", 2)), (Sized(16, 3), ("cpus", 8))],
)
def test_what_no_node_has_is_named_with_the_most_that_one_has(
    sized: Sized, lacking: tuple[str, float]
) -> None:
    found = placed([machine(3), machine(8, 2)], sized)
    assert (found.slots, found.lacking) == (0, lacking)


def test_a_cluster_without_a_node_lacks_everything() -> None:
    assert placed([], Sized(1, 0)).lacking == ("cpus", 0)
