"""Tasks through a real Ray: every one is done, and what Tune keeps does not grow with them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.heavy

SCRIPT = """
import gc, json, os, signal, sys, time
from pathlib import Path
from sweeps import authentication
authentication.prepare(None)
from ray.tune.experiment import Trial
from sweeps import tuner
from sweeps.rounds import Round
from sweeps.trial import Report, Task

def null(task, report):
    report(Report(1, 1, 0, 0, 0.0, {}, {}))

def attempts(task):
    with (Path(task.store) / str(task.seeds[0])).open("a") as file:
        file.write("x")
        return file.tell()

def troubled(task, report):
    tried = attempts(task)
    match task.seeds[0], tried:
        case (1, 1):
            raise ValueError("the first time")
        case (2, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        case (3, _):
            raise ValueError("too small\\nby far")
    null(task, report)

def run(name, count, work):
    reports, ended, kept, problems = [], [], [], []
    def end(task, problem):
        if problem is not None:
            problems.append(problem)
        ended.append(task.seeds[0])
        if len(ended) % 50 == 0:
            kept.append(sum(isinstance(each, Trial) for each in gc.get_objects()))
    tasks = [Task({}, (n,), 1, (1,), {}, (), sys.argv[1]) for n in range(count)]
    def hear(task, report):
        reports.append(report)
    only = Round(tasks=tasks, run=work, on_report=hear, on_end=end)
    tuner.run_rounds([only], {"cpu": 1})
    found = {"problems": problems, "reports": len(reports), "ended": sorted(ended), "kept": kept}
    print("result:", json.dumps({"name": name, **found}), flush=True)

def where(task, report):
    report((task, os.getpid(), time.time()))
    time.sleep(0.5)

def follow():
    heard, ended = [], []
    def hear(task, report):
        assert task == report[0]
        heard.append(report)
    def rounds():
        for first, tasks in ((0, 1), (1, 0), (1, 4)):
            ended.append(len(heard))
            yield Round(
                tasks=range(first, first + tasks),
                run=where,
                on_report=hear,
                on_end=lambda task, problem: None,
                ahead=4 if first == 0 else 0,
            )
        ended.append(len(heard))
    tuner.run_rounds(rounds(), {"cpu": 1})
    heard.sort()
    found = {"pids": [pid for _, pid, _ in heard], "heard": ended}
    print("result:", json.dumps({"name": "rounds", **found}), flush=True)

def broken():
    def rounds():
        yield Round(tasks=[0], run=where, on_report=print, on_end=lambda task, problem: None)
        raise ValueError("no second round")
    try:
        tuner.run_rounds(rounds(), {"cpu": 1})
    except Exception as error:
        print("result:", json.dumps({"name": "broken", "error": str(error)}), flush=True)

with tuner.cluster(None, 2):
    run("few", 100, null)
    run("many", 500, null)
    run("troubled", 6, troubled)
    follow()
    broken()
heavy = [name for name in ("mlflow", "optuna", "sweeps.statistics") if name in sys.modules]
print("result:", json.dumps({"name": "imports", "heavy": heavy}))
"""


@pytest.fixture(scope="module")
def attempts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file a task, which has a letter an attempt."""
    return tmp_path_factory.mktemp("attempts")


@pytest.fixture(scope="module")
def results(attempts: Path, environment: dict[str, str]) -> dict[str, dict[str, Any]]:
    """What a driver says that runs tasks on a Ray of its own."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(attempts)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("result: ")]
    found = [json.loads(line.removeprefix("result: ")) for line in lines]
    return {each["name"]: each for each in found}


def test_every_task_is_done_once_and_heard(results: dict[str, dict[str, Any]]) -> None:
    for name, count in (("few", 100), ("many", 500)):
        assert results[name]["ended"] == list(range(count))
        assert results[name]["reports"] == count
        assert results[name]["problems"] == []


def test_what_tune_keeps_does_not_grow_with_the_tasks(results: dict[str, dict[str, Any]]) -> None:
    """It would keep some 50 KB for every task that is a trial of its own, and look through all."""
    # Those of the fit before may not be collected yet: two workers and some that wait.
    assert max(results["many"]["kept"]) <= 2 * max(results["few"]["kept"]) + 2
    assert max(results["many"]["kept"]) < 100


def test_a_task_whose_worker_failed_or_was_killed_is_done_by_another(
    results: dict[str, dict[str, Any]], attempts: Path
) -> None:
    assert results["troubled"]["ended"] == list(range(6))
    tries = {path.name: len(path.read_text()) for path in attempts.iterdir()}
    assert tries == {"0": 1, "1": 2, "2": 2, "3": 3, "4": 1, "5": 1}


def test_a_task_that_always_fails_is_told_in_a_line(results: dict[str, dict[str, Any]]) -> None:
    assert results["troubled"]["problems"] == ["by far"]


def test_a_round_begins_when_the_last_has_ended_and_finds_the_same_workers(
    results: dict[str, dict[str, Any]],
) -> None:
    found = results["rounds"]
    assert found["heard"] == [0, 1, 1, 5], "reports before each round and after all"
    pids = found["pids"]
    assert len(pids) == 5
    assert len(set(pids)) == 2
    assert pids[0] in pids[1:], "the worker of the first round works on"


def test_an_error_between_two_rounds_is_raised(results: dict[str, dict[str, Any]]) -> None:
    assert "no second round" in results["broken"]["error"]


def test_what_a_grid_does_not_need_is_not_imported(results: dict[str, dict[str, Any]]) -> None:
    """Tune would import MLflow to count who logs to it, and every worker what a search needs."""
    assert results["imports"]["heavy"] == []
