"""A sweep on a cluster that is disturbed ends with the tables of one machine.

`make cluster-test` runs all of it; `test_hosts.py` has a short form.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.lab import NODES, Lab, wait_until
from tests.cluster.one_machine import assert_same_tables, run_on_one_machine, write_spec

pytestmark = [pytest.mark.heavy, pytest.mark.long, pytest.mark.timeout(3600)]

MACHINES = ["n1", "n2", "n3", "n4"]
"""A head and three workers."""

WITHIN = 1500.0
"""Seconds in which a disturbed sweep ends, on a machine that is busy."""


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that lasts longer than any disturbance begins after its start."""
    return write_spec(tmp_path_factory.mktemp("sweep"), epochs=40, seeds=4)


@pytest.fixture(scope="module")
def undisturbed(spec: Path) -> str:
    """The store of one machine."""
    return run_on_one_machine(spec)


@pytest.fixture
def running(lab: Lab) -> Iterator[Lab]:
    """Four machines with a cluster, each as it was before the last test."""
    for name in MACHINES:
        machine = lab.network.machines.get(name)
        if machine is None or machine.process is None:
            lab.network.add(name)
        lab.network.machines[name].mend()
    lab.write_profile(MACHINES)
    lab.up()
    yield lab
    for machine in lab.network.machines.values():
        machine.mend()


@pytest.fixture
def assert_survives(
    running: Lab, spec: Path, undisturbed: str, request: pytest.FixtureRequest
) -> Callable[[Callable[[], None]], str]:
    """Run the sweep, disturb it in its midst, and compare its tables; its store."""

    def check(disturb: Callable[[], None]) -> str:
        store = running.url(request.node.name.replace("_", "-").replace("[", "-").rstrip("]"))
        job = running.submit(spec, store)
        running.wait_for_epochs(store, 16)
        disturb()
        assert job.wait(WITHIN) == 0, running.log(store)
        assert_same_tables(store, undisturbed)
        return store

    return check


Check = Callable[[Callable[[], None]], str]


def test_worker_without_power(running: Lab, assert_survives: Check) -> None:
    def disturb() -> None:
        machine = running.network.machines["n3"]
        machine.cut()  # nobody is told, as they would be by a process that ends
        machine.die()

    assert_survives(disturb)


def test_ray_on_a_worker_killed(running: Lab, assert_survives: Check) -> None:
    def disturb() -> None:
        assert running.network.ssh("n2", "pkill -9 -f raylet/raylet").returncode == 0

    assert_survives(disturb)
    usable = f"{NODES}/lab/*/running.json"
    wait_until(lambda: not running.network.ssh("n2", f"ls {usable}").returncode, 120, "n2 is back")


def test_partition_of_sixty_seconds_that_heals(running: Lab, assert_survives: Check) -> None:
    def disturb() -> None:
        running.network.machines["n2"].cut()
        time.sleep(60)
        running.network.machines["n2"].mend()

    assert_survives(disturb)
    nodes = running.run("status", running.profile)
    wait_until(
        lambda: f"worker {running.name('n2')}: " in running.run("status", running.profile).stdout,
        240,
        f"n2 joins again: {nodes.stdout}",
    )


def test_worker_whose_cable_is_loose(running: Lab, assert_survives: Check) -> None:
    with flapping(running, "n4"):
        assert_survives(lambda: None)


@contextmanager
def flapping(lab: Lab, name: str) -> Iterator[None]:
    """A machine that is cut off for two seconds in every ten."""
    ended = threading.Event()

    def flap() -> None:
        while not ended.wait(8):
            lab.network.machines[name].cut()
            ended.wait(2)
            lab.network.machines[name].mend()

    thread = threading.Thread(target=flap)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_new_machine_is_used_at_once(running: Lab, assert_survives: Check) -> None:
    def disturb() -> None:
        running.network.add("n5")
        running.write_profile([*MACHINES, "n5"])
        running.up()

    assert "n5" in running.hosts(assert_survives(disturb))


def test_head_started_anew_goes_on_with_its_jobs(running: Lab, assert_survives: Check) -> None:
    def disturb() -> None:
        assert running.network.ssh("n1", "pkill -9 gcs_server").returncode == 0

    store = assert_survives(disturb)
    assert "the head was started anew, and the sweep goes on" in running.log(store)


def test_head_whose_processes_all_died_goes_on_after_up(
    running: Lab, assert_survives: Check
) -> None:
    def disturb() -> None:
        running.network.ssh("n1", "pkill -9 -f 'cluster.node run|ray'")
        running.up()

    store = assert_survives(disturb)
    assert "the head was started anew, and the sweep goes on" in running.log(store)
