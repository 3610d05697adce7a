"""Workers on real nodes that join, die, are drained or are unfit, and tasks that outlive them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sweeps.raylets import Raylets

pytestmark = pytest.mark.heavy

DRIVER = """
import json, os, signal, sys, time
from pathlib import Path
from sweeps import authentication
address, store, count, bundle = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
authentication.prepare(address)
from sweeps import tuner
from sweeps.admission import make_terms
from sweeps.rounds import Round
from sweeps.sizing import Sized
from sweeps.store import Store

def log(folder, **facts):
    line = json.dumps({"at": time.time(), **facts}) + "\\n"
    with (Path(folder) / "log").open("a") as file:
        file.write(line)

def task(asked, report):
    '''Report ten times a second until the folder says that the task may end.'''
    import ray
    number, folder = asked
    where = ray.util.get_node_ip_address()
    gpus = ray.get_gpu_ids()
    log(folder, begun=number, where=where, pid=os.getpid(), gpus=gpus)
    for step in range(100_000):
        if (Path(folder) / f"kill-{number}").exists():
            (Path(folder) / f"kill-{number}").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        report(number)
        log(folder, step=step, of=number, where=where)
        if (Path(folder) / "end").exists() or (Path(folder) / f"end-{number}").exists():
            log(folder, ended=number, where=where)
            return
        time.sleep(0.1)

def halved(tasks, workers):
    '''Tasks below ten can be divided.'''
    log(folder, waiting=[number for number, _ in tasks], workers=workers)
    return {
        place: [(10 * number + part, folder) for part in (1, 2)]
        for place, (number, _) in enumerate(tasks)
        if 0 < number < 10
    }

folder = os.getcwd()
opened = Store.open(store, create=True)
with opened.claimed("a"), tuner.cluster(address):
    tuner.run_rounds(
        [
            Round(
                tasks=[(number, folder) for number in range(count)],
                run=task,
                divide=halved,
                on_report=lambda task, report: None,
                on_end=lambda asked, problem: log(folder, over=asked[0], problem=problem),
            )
        ],
        bundle,
        make_terms(opened, []),
        lambda text: log(folder, said=text),
        tuner.room_for(Sized(bundle["cpu"], bundle.get("gpu", 0))),
    )
log(folder, finished=True)
"""

INSPECTOR = """
import sys
from sweeps import authentication
address, store = sys.argv[1:]
authentication.prepare(address)
from sweeps import tuner
from sweeps.admission import make_terms
from sweeps.store import Store

opened = Store.open(store, create=True)
with opened.claimed("a"), tuner.cluster(address):
    print("connected", flush=True)
    sys.stdin.readline()
    tuner.inspect(make_terms(opened, []))
"""


class Tasks:
    """A driver with tasks that go on until they are told to end, and what became of them."""

    def __init__(self, raylets: Raylets, folder: Path, count: int, **bundle: float) -> None:
        self.folder = folder
        folder.mkdir()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", DRIVER, raylets.address, str(folder / "store")),
                *(str(count), json.dumps(bundle or {"cpu": 1})),
            ],
            cwd=folder,
            env=raylets.environment,
            stdout=(folder / "output").open("w"),
            stderr=subprocess.STDOUT,
        )

    def log(self, key: str) -> list[dict[str, Any]]:
        """Lines that tell of something."""
        path = self.folder / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in map(json.loads, lines) if key in line]

    def until(self, condition: Callable[[], Any], within: float = 120) -> Any:
        """Wait for something to be so."""
        end = time.monotonic() + within
        while not (found := condition()):
            assert time.monotonic() < end, self.told()
            assert self.process.poll() is None, self.told()
            time.sleep(0.1)
        return found

    def running(self, number: int) -> str:
        """Where a task was begun last."""
        return str([line["where"] for line in self.log("begun") if line["begun"] == number][-1])

    def begun(self, times: int) -> list[dict[str, Any]]:
        """All beginnings, once there are so many."""
        found: list[dict[str, Any]] = self.until(
            lambda: lines if len(lines := self.log("begun")) >= times else None
        )
        return found

    def say(self, name: str) -> None:
        (self.folder / name).touch()

    def end(self, within: float = 120) -> dict[int, str | None]:
        """Let all tasks end; each one's problem."""
        self.say("end")
        assert self.process.wait(within) == 0, self.told()
        return {line["over"]: line["problem"] for line in self.log("over")}

    def told(self) -> str:
        log = self.folder / "log"
        return (self.folder / "output").read_text()[-3000:] + (
            log.read_text()[-2000:] if log.exists() else ""
        )

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def head(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Raylets]:
    """A head without cores."""
    made = Raylets(tmp_path_factory.mktemp("raylets"), environment)
    made.start(cpus=0)
    yield made
    made.stop()


@pytest.fixture
def raylets(head: Raylets) -> Iterator[Raylets]:
    """The head, and whatever nodes a test starts."""
    yield head
    for node in head.nodes[1:]:
        node.kill()


@pytest.fixture
def run(raylets: Raylets, tmp_path: Path) -> Iterator[Callable[..., Tasks]]:
    started: list[Tasks] = []

    def begin(count: int, **bundle: float) -> Tasks:
        started.append(Tasks(raylets, tmp_path / f"driver-{len(started)}", count, **bundle))
        return started[-1]

    yield begin
    for each in started:
        each.stop()


def test_nodes_that_die_under_a_task_use_up_no_attempt(
    raylets: Raylets, run: Callable[..., Tasks]
) -> None:
    """Three attempts are all that a task has, and three nodes are lost before the fourth."""
    for _ in range(4):
        raylets.start(cpus=1)
    tasks = run(1)
    for lost in range(3):
        where = tasks.begun(lost + 1)[-1]["where"]
        next(node for node in raylets.nodes if node.address == where).kill()
    tasks.begun(4)
    assert tasks.end() == {0: None}
    assert len({line["where"] for line in tasks.log("begun")}) == 4


@pytest.mark.long
def test_a_worker_that_kills_itself_uses_up_an_attempt(
    raylets: Raylets, run: Callable[..., Tasks]
) -> None:
    """Its node lives, and so it was the task: after the third time it stays failed."""
    raylets.start(cpus=1)
    tasks = run(1)
    for attempt in range(3):
        tasks.begun(attempt + 1)
        tasks.say("kill-0")
    problems = tasks.end(within=180)
    assert len(tasks.log("begun")) == 3
    assert problems[0] is not None


def test_a_drained_node_gives_its_task_up_at_the_next_report(
    raylets: Raylets, run: Callable[..., Tasks]
) -> None:
    """Long before its deadline, so that nothing of the task is lost when the node is taken away."""
    first, second = raylets.start(cpus=1), raylets.start(cpus=1)
    tasks = run(1)
    where = tasks.begun(1)[0]["where"]
    node, other = (first, second) if where == first.address else (second, first)
    raylets.drain(node, seconds=300)
    drained = time.time()
    again = tasks.begun(2)[1]
    assert again["where"] == other.address
    late = [line for line in tasks.log("step") if line["where"] == where]
    assert max(line["at"] for line in late) < drained + 10
    assert tasks.end() == {0: None}
    assert len(tasks.log("begun")) == 2


def test_a_node_that_joins_has_all_its_cores_at_work_at_once(
    raylets: Raylets, run: Callable[..., Tasks]
) -> None:
    raylets.start(cpus=1)
    tasks = run(8)
    tasks.begun(1)
    node = raylets.start(cpus=3)
    joined_at = time.time()
    found = tasks.begun(4)
    there = [line for line in found if line["where"] == node.address]
    assert len(there) == 3
    assert max(line["at"] for line in there) - joined_at < 60
    assert tasks.end() == dict.fromkeys(range(8))


def test_what_waits_is_divided_for_a_node_that_joins(
    raylets: Raylets, run: Callable[..., Tasks]
) -> None:
    """One task is begun and stays whole; the other is two by the time that three cores join."""
    raylets.start(cpus=1)
    tasks = run(2)
    tasks.begun(1)
    node = raylets.start(cpus=3)
    found = tasks.begun(3)
    assert found[0]["begun"] == 0
    assert sorted(line["begun"] for line in found[1:]) == [11, 12]
    assert {line["where"] for line in found[1:]} == {node.address}
    assert tasks.end() == dict.fromkeys([0, 11, 12])


def test_an_unfit_node_gets_no_work_and_is_told_once(
    raylets: Raylets, run: Callable[..., Tasks], tmp_path: Path
) -> None:
    """One joins that runs other code; the others go on, and no task has failed on it."""
    fit = raylets.start(cpus=1)
    tasks = run(4)
    tasks.begun(1)
    node = raylets.start(cpus=3, PYTHONPATH=str(other_code(tmp_path)))
    (said,) = tasks.until(lambda: tasks.log("said"))
    assert f"({node.address}) gets no work: has code " in said["said"]
    for number in range(4):
        tasks.until(lambda number=number: len(tasks.log("begun")) > number)
        tasks.say(f"end-{number}")
    assert tasks.end() == dict.fromkeys(range(4))
    assert {line["where"] for line in tasks.log("begun")} == {fit.address}
    assert len(tasks.log("said")) == 1


def test_a_node_that_dies_while_it_is_asked_has_no_say(raylets: Raylets, tmp_path: Path) -> None:
    """The control store believes for three seconds more that it lives."""
    raylets.start(cpus=1)
    dying = raylets.start(cpus=1)
    process = subprocess.Popen(
        [sys.executable, "-c", INSPECTOR, raylets.address, str(tmp_path / "store")],
        env=raylets.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "connected\n"
        dying.kill()
        _, errors = process.communicate("\n", timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, errors


def other_code(folder: Path) -> Path:
    """A copy of this project that differs in a comment."""
    import shutil

    root = Path(__file__).parents[2]
    for package in ("cifake", "sweeps"):
        shutil.copytree(root / package, folder / "other" / package)
    with (folder / "other" / "sweeps" / "trial.py").open("a") as file:
        file.write("# other\n")
    return folder / "other"


def test_shares_of_gpus_are_given_out_and_no_more(
    raylets: Raylets, run: Callable[..., Tasks]
) -> None:
    """Two GPUs that a node says to have hold four halves, whatever its cores would."""
    raylets.start(cpus=8, gpus=2)
    tasks = run(6, cpu=1, gpu=0.5)
    found = tasks.begun(4)
    time.sleep(3)
    assert len(tasks.log("begun")) == 4
    by_gpu = sorted(gpu for line in found for gpu in line["gpus"])
    assert by_gpu == [0, 0, 1, 1]
    assert tasks.end() == dict.fromkeys(range(6))
