"""The commands as a user types them, through real Ray, on the demo set and on real images."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from cifake import tables
from cifake.errors import run_command
from cifake.exits import INTERRUPTED
from cifake.places import LocalPlace
from sweeps.__main__ import app
from sweeps.forecast import FILE
from sweeps.store import STACKS, Store
from tests.sweeps.drivers import Driver, command_line, launch

pytestmark = pytest.mark.heavy

Command = Callable[..., subprocess.CompletedProcess[str]]
StacksAsIn = Callable[[Path, Path, str], None]
StoreRows = Callable[[Path], dict[str, dict[str, list[dict[str, Any]]]]]

SMALL = ("--set", "seed=2", "--set", "data.train_images=400", "--set", "data.validation=100")
LONGER = ("demo", "--set", "epochs=[1,2,3]", *SMALL)
ONE_RUN = ("--set", "seed=1", "--set", "attention=none", "--set", "epochs=1", *SMALL[2:])

SEARCH = """\
name: little
question: Does a search end and go on?
data: {train: demo, validation: 100, train_images: 400}
fixed: {epochs: 3}
nuisance: {seed: 2}
search:
  trials: 4
  metric: validation.accuracy
  scheduler: {name: asha, grace_epochs: 1}
  space:
    optimizer.lr: {log_uniform: [1e-4, 1e-1]}
    attention: {choice: [none, srm]}
    placement: {choice: [after_pool1, both], when: {attention: srm}}
"""


def ended(result: subprocess.CompletedProcess[str], code: int = 0) -> str:
    """The output of a command that ended as expected."""
    assert result.returncode == code, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout


def epochs_done(store: Path) -> int:
    return sum(state.epochs_done for state in Store(LocalPlace(store)).run_states().values())


# Without training.


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """The same as `command` in this process, which has imported everything."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        out, err = io.StringIO(), io.StringIO()
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setenv("COLUMNS", "120")
            patch.setattr(sys, "argv", ["sweeps", *arguments])
            with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as stop:
                run_command(app, "sweeps")
        code = stop.value.code
        assert isinstance(code, int)
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

    return run


@pytest.mark.parametrize("name", [None, "list", "plan", "run", "status", "report"])
def test_help_of_every_command_names_what_it_takes(typed: Command, name: str | None) -> None:
    text = ended(typed(*([name] if name else []), "--help"))
    assert "Usage" in text
    if name is None:
        assert all(word in text for word in ("list", "plan", "run", "status", "report"))
    elif name != "list":
        assert all(word in text for word in ("SPEC", "--set", "--store"))


def test_the_studies_that_ship_are_listed(typed: Command) -> None:
    text = ended(typed("list"))
    assert all(name in text for name in ("demo", "placements", "search", "style recalibration"))


def test_a_plan_is_json_and_leaves_no_store_behind(command: Command, tmp_path: Path) -> None:
    store = tmp_path / "nowhere"
    plan = json.loads(ended(command("plan", "demo", "--json", *SMALL, "--store", store)))
    assert plan["sweep"] == "demo"
    assert (plan["cells"], plan["runs_new"], plan["runs_done"]) == (12, 6, 0)
    assert (plan["epochs_to_train"], plan["epochs_saved"]) == (6 * 5, 6 * 2)
    assert plan["predicted_seconds"] > 0
    assert not store.exists()


def test_a_plan_of_a_search_says_how_much_is_left_at_most(command: Command, tmp_path: Path) -> None:
    spec = tmp_path / "little.yaml"
    spec.write_text(SEARCH)
    store = tmp_path / "nowhere"
    plan = json.loads(ended(command("plan", spec, "--json", "--store", store)))
    assert (plan["trials"], plan["trials_done"], plan["epochs_to_train"]) == (4, 0, 4 * 2 * 3)
    assert not store.exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["plan", "demmo"], ["demmo", "mean demo"]),
        (["plan", "demo", "--set", "epochs=0"], ["demo.yaml", "epochs", "greater"]),
        (["run", "demo", "--set", "epoch=2"], ["--set", "epoch", "mean epochs"]),
        (["run", "demo", "--set", "epochs"], ["--set", "key=value"]),
        (["run", "demo", "--set", "data.validation=99999"], ["data.validation", "4,000"]),
        (["run", "placements"], ["cifake", "--data cifake=PATH", "CIFAKE_DATA"]),
        (["run", "placements", "--data", "cifake=/no/such"], ["--data", "/no/such", "no such"]),
        (["run", "placements", "--data", "cifke=/tmp"], ["--data", "mean cifake"]),
        (["run", "demo", "--store", "/proc/version"], ["/proc/version", "--store"]),
        (["run", "demo", "--store", "/usr"], ["/usr", "not empty", "--store"]),
        (["run", "demo", "--store", "/proc/version/store"], ["/proc/version/store", "--store"]),
        (["status", "demo", "--store", "nothing"], ["nothing", "sweeps run"]),
        (["report", "demo", "--store", "nothing"], ["nothing", "sweeps run"]),
        (["plan"], ["SPEC"]),
        (["plan", "demo", "--stoer", "x"], ["--stoer"]),
        (["plna"], ["plna"]),
    ],
)
def test_bad_input_is_refused_before_work_starts(
    typed: Command, arguments: list[str], parts: list[str]
) -> None:
    result = typed(*arguments)
    assert ended(result, code=2).strip() == ""
    for part in parts:
        assert part in result.stderr


def test_every_mistake_of_a_specification_is_on_a_line_of_its_own(
    command: Command, tmp_path: Path
) -> None:
    spec = tmp_path / "bad.yaml"
    spec.write_text("name: a\nfixed:\n  epochs: -1\n  batch_size: 0\n  modle: base\n")
    result = command("run", spec)
    assert ended(result, code=2).strip() == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"sweeps: error: {spec}:")
    found = {line.partition("bad.yaml:")[2].partition(":")[0] for line in lines}
    assert found == {"3", "4", "5"}


@pytest.mark.parametrize("name", ["plan", "run"])
def test_damaged_stacks_are_refused_before_work_starts(
    command: Command, tmp_path: Path, name: str
) -> None:
    path = Store.open(str(tmp_path), create=True).write_sweep("demo", STACKS, b'{"c1": [[0')
    result = command(name, "demo", *SMALL, "--store", tmp_path)
    assert ended(result, code=2).strip() == ""
    assert str(path) in result.stderr
    assert "delete it" in result.stderr
    assert Path(path).read_bytes() == b'{"c1": [[0'


def test_a_name_that_no_file_can_have_is_refused(typed: Command) -> None:
    ended(typed("plan", "x" * 300), code=2)


# The whole chain.


@dataclass
class Chain:
    """A sweep run, run again, made longer, looked at and reported."""

    store: Path
    steps: dict[str, subprocess.CompletedProcess[str]] = field(default_factory=dict)
    rows: dict[str, dict[str, dict[str, list[dict[str, Any]]]]] = field(default_factory=dict)
    ray_sessions: dict[str, int] = field(default_factory=dict)


@pytest.fixture(scope="module")
def chain(
    command: Command,
    store_rows: StoreRows,
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Chain:
    made = Chain(tmp_path_factory.mktemp("chain") / "store")

    def step(name: str, *arguments: str) -> None:
        made.steps[name] = command(*arguments, *SMALL, "--store", made.store)
        made.rows[name] = store_rows(made.store)
        sessions = Path(environment["RAY_TMPDIR"]).rglob("session_2*")
        made.ray_sessions[name] = sum(path.is_dir() for path in sessions)

    step("first", "run", "demo", "--set", "epochs=[1,2]")
    step("again", "run", "demo", "--set", "epochs=[1,2]")
    step("longer", "run", "demo", "--set", "epochs=[1,2,3]")
    return made


def test_a_sweep_runs_to_its_report(chain: Chain) -> None:
    text = ended(chain.steps["first"])
    assert "12 cells in 6 runs: 0 done, 0 to continue, 6 new" in text
    assert "12 epochs to train" in text
    assert len(chain.rows["first"]) == 6
    folder = chain.store / "sweeps" / "demo"
    assert f"report: {folder / 'report.md'}" in text
    assert f"page: {folder / 'report.html'}" in text
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    assert (folder / "figures" / "learning.png").read_bytes().startswith(b"\x89PNG")
    for name in ("cells", "summary", "comparisons", "ranking", "effects"):
        content = (folder / f"{name}.parquet").read_bytes()
        assert len(tables.decode(name, content))


def test_the_stacks_of_a_plan_are_written_down_and_are_those_that_were_trained(
    chain: Chain,
) -> None:
    written = Store(LocalPlace(chain.store)).read_stacks("demo")
    states = Store(LocalPlace(chain.store)).run_states()
    assert {state.config_id for state in states.values()} == written.keys()
    for state in states.values():
        assert list(state.stack) in written[state.config_id]
        assert state.stack_width == len(state.stack)


def test_a_sweep_run_again_trains_nothing_and_starts_no_ray(chain: Chain) -> None:
    text = ended(chain.steps["again"])
    assert "6 runs: 6 done, 0 to continue, 0 new" in text
    assert "0 epochs to train" in text
    assert chain.rows["again"] == chain.rows["first"]
    assert chain.ray_sessions["first"] > 0
    assert chain.ray_sessions["again"] == chain.ray_sessions["first"]


def test_a_longer_sweep_continues_its_runs(chain: Chain) -> None:
    text = ended(chain.steps["longer"])
    assert "0 done, 6 to continue, 0 new" in text
    assert "6 epochs to train" in text
    assert chain.rows["longer"].keys() == chain.rows["first"].keys()
    for run_id, tables_ in chain.rows["first"].items():
        longer = chain.rows["longer"][run_id]
        for name in tables.RUN_TABLES:
            if name != "runs":
                early = [row for row in longer[name] if row["epoch"] <= 2]
                assert early == tables_[name], "rows of finished epochs are left alone"
        assert [row["epoch"] for row in longer["epochs"]] == [1, 2, 3]


def test_a_sweep_with_a_width_has_the_same_bits_however_many_workers_there_are(
    command: Command, store_rows: StoreRows, tmp_path: Path
) -> None:
    found = []
    for cpus in ("1", "0.25"):
        settings = ("seed=5", "resources.width=2", f"resources.cpus={cpus}", "epochs=[1]")
        arguments = (*ONE_RUN, *(part for each in settings for part in ("--set", each)))
        store = tmp_path / cpus
        text = ended(command("run", "demo", *arguments, "--store", store))
        assert "3 stacks of 1 to 2 runs (resources.width: 2)" in text
        states = Store(LocalPlace(store)).run_states().values()
        assert {state.stack for state in states} == {(0, 1), (2, 3), (4,)}
        assert (store / "sweeps/demo/spec.yaml").read_text().count("width: 2") == 1
        found.append(store_rows(store))
    assert found[0] == found[1]


def test_a_finished_sweep_says_so(chain: Chain, command: Command) -> None:
    longer = (*LONGER, "--store", str(chain.store))
    text = ended(command("status", *longer))
    assert "18 of 18 cells done" in text
    assert re.search(r"6 epochs, predicted \d+ s, until \d\d:\d\d; took \d+ s \([+-]\d+ %\)", text)
    status = json.loads(ended(command("status", *longer, "--json")))
    assert (status["cells"], status["cells_done"], status["runs"]) == (18, 18, 6)
    assert status["by_status"]["complete"] == 6
    assert status["errors"] == {}
    plan = json.loads(ended(command("plan", *longer, "--json")))
    assert (plan["runs_done"], plan["epochs_to_train"], plan["predicted_seconds"]) == (6, 0, 0)
    assert plan["epochs_saved"] == 6 * (1 + 2 + 3)
    assert plan["seconds_saved"] > 0


def test_a_report_deleted_is_written_again(chain: Chain, command: Command) -> None:
    folder = chain.store / "sweeps" / "demo"
    kept = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    for path in kept:
        if path.name not in ("cells.parquet", "labels.parquet", "spec.yaml", STACKS, FILE):
            path.unlink()
    ended(command("report", *LONGER, "--store", chain.store))
    found = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    assert found == kept


def test_the_report_tells_every_number_of_the_summary(chain: Chain) -> None:
    folder = chain.store / "sweeps" / "demo"
    text = (folder / "report.md").read_text()
    rows = tables.decode("summary", (folder / "summary.parquet").read_bytes()).to_pylist()
    shown = [r for r in rows if r["metric"] == "accuracy"]
    assert len(shown) == 3 * 3 * 2
    for row in shown:
        assert f"{100 * row['mean']:.2f} ± {50 * (row['high'] - row['low']):.2f}" in text


# What ends a sweep early.


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    """Start a sweep and come back when the store holds its first finished epoch."""
    started: list[Driver] = []

    def begin(store: Path, *arguments: str) -> Driver:
        driver = launch([*arguments, "--store", str(store)], environment, tmp_path / "driver.log")
        started.append(driver)
        deadline = time.monotonic() + 120
        while not (store.is_dir() and epochs_done(store)):
            assert driver.process.poll() is None, (tmp_path / "driver.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return driver

    yield begin
    for driver in started:
        driver.end()


def test_a_killed_driver_repeats_no_finished_epoch_and_loses_no_row(
    chain: Chain,
    command: Command,
    start: Callable[..., Driver],
    store_rows: StoreRows,
    stacks_as_in: StacksAsIn,
    tmp_path: Path,
) -> None:
    store = tmp_path / "store"
    stacks_as_in(store, chain.store, "demo")
    driver = start(store, *LONGER)
    os.killpg(driver.process.pid, signal.SIGKILL)
    done = epochs_done(store)
    assert 0 < done < 18, "killed half way"
    # At once, while the workers of the killed driver may still be about to end.
    text = ended(command("run", *LONGER, "--store", store))
    (left,) = [int(line.split()[0]) for line in text.splitlines() if "epochs to train" in line]
    assert 0 < left <= 18 - done
    assert store_rows(store) == chain.rows["longer"]
    summaries = [
        tables.decode("summary", (root / "sweeps/demo/summary.parquet").read_bytes())
        for root in (store, chain.store)
    ]
    assert summaries[0].equals(summaries[1])
    driver.process.wait()
    assert driver.gone(within=60), "Ray's processes end with their driver"


def test_a_killed_worker_repeats_no_finished_epoch(
    chain: Chain,
    start: Callable[..., Driver],
    store_rows: StoreRows,
    stacks_as_in: StacksAsIn,
    tmp_path: Path,
) -> None:
    store = tmp_path / "store"
    stacks_as_in(store, chain.store, "demo")
    driver = start(store, *LONGER)
    workers = [
        pid for pid in driver.relatives() if command_line(pid).startswith("ray::ResourceTrainable")
    ]
    assert workers
    assert epochs_done(store) < 18
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    assert driver.process.wait(timeout=120) == 0, (tmp_path / "driver.log").read_text()
    assert store_rows(store) == chain.rows["longer"]


def test_an_interrupted_sweep_ends_at_once_and_goes_on_later(
    chain: Chain,
    command: Command,
    start: Callable[..., Driver],
    store_rows: StoreRows,
    stacks_as_in: StacksAsIn,
    tmp_path: Path,
) -> None:
    store = tmp_path / "store"
    stacks_as_in(store, chain.store, "demo")
    driver = start(store, *LONGER)
    driver.process.send_signal(signal.SIGINT)
    driver.process.send_signal(signal.SIGTERM)  # as a batch system does to all of a job
    code = driver.process.wait(timeout=20)
    log = (tmp_path / "driver.log").read_text()
    assert code == INTERRUPTED, log
    assert "stopped; finished epochs are kept" in log
    assert "Traceback" not in log
    assert epochs_done(store) < 18
    assert driver.gone(within=20)
    ended(command("run", *LONGER, "--store", store))
    assert store_rows(store) == chain.rows["longer"]


def test_a_diverged_config_exits_1_and_is_in_the_report(command: Command, tmp_path: Path) -> None:
    bad = ("--set", "optimizer.lr=100", "--set", "optimizer.momentum=0.99")
    arguments = ("demo", "--set", "epochs=[1]", *SMALL, *bad, "--store", str(tmp_path / "store"))
    text = ended(command("run", *arguments), code=1)
    states = Store(LocalPlace(tmp_path / "store")).run_states()
    diverged = {run for run, state in states.items() if state.status == "diverged"}
    assert diverged
    assert len(states) == 6, "the sweep goes on"
    report = (tmp_path / "store" / "sweeps" / "demo" / "report.md").read_text()
    for run in diverged:
        (line,) = [line for line in report.splitlines() if run in line]
        assert "diverged" in line
        assert "epoch 1, batch" in line
    assert ("No run has been evaluated yet." in text) == (len(diverged) == 6)
    assert "report:" in text
    status = json.loads(ended(command("status", *arguments, "--json")))
    assert set(status["errors"]) == diverged
    again = ended(command("run", *arguments), code=1)
    assert "0 epochs to train" in again
    assert "diverged before and would again" in again


@dataclass
class Odd:
    """One run where another's Ray cluster seems to be, with a GPU asked for."""

    result: subprocess.CompletedProcess[str]
    store: Path


@pytest.fixture(scope="module")
def odd(
    command: Command, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Odd]:
    store = tmp_path_factory.mktemp("odd") / "store"
    # `ray start` leaves its address here; it may be another's cluster, or one that is gone.
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir=Path(environment["RAY_TMPDIR"]).parent))
    for place in (folder, folder / "ray"):
        place.mkdir(exist_ok=True)
        (place / "ray_current_cluster").write_text("127.0.0.1:1")
    arguments = (*ONE_RUN, "--set", "resources.gpus=0.25", "--store", store)
    yield Odd(command("run", "demo", *arguments, RAY_TMPDIR=str(folder)), store)
    shutil.rmtree(folder, ignore_errors=True)


def test_another_ray_on_the_machine_is_left_alone(odd: Odd) -> None:
    ended(odd.result)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to train on")
def test_a_sweep_that_asks_for_a_gpu_falls_back_where_there_is_none(odd: Odd) -> None:
    ended(odd.result)
    (state,) = Store(LocalPlace(odd.store)).run_states().values()
    assert state.status == "complete"
    (fallback,) = state.row["fallbacks"]
    assert "0.25 GPU was asked for" in fallback


# Two at once.


def test_a_sweep_that_another_process_runs_is_refused_with_who_it_is(
    command: Command, tmp_path: Path
) -> None:
    store = Store.open(str(tmp_path / "store"), create=True)
    arguments = ("run", "demo", *ONE_RUN, "--store", str(tmp_path / "store"))
    with store.claimed("demo"):
        result = command(*arguments)
        ended(result, 2)
        assert "sweep demo" in result.stderr
        assert f"`sweeps run demo`, process {os.getpid()}" in result.stderr
        assert "wait for it" in result.stderr
        assert store.run_ids() == []
    ended(command(*arguments))
    assert len(store.run_ids()) == 1


# A search.


def test_the_best_of_a_search_are_confirmed_with_fresh_seeds_on_test(
    command: Command, store_rows: StoreRows, tmp_path: Path
) -> None:
    spec = tmp_path / "little.yaml"
    more = "resources: {width: 2}\nsearch:\n  confirm: {top: 2, seeds: 3}\n"
    spec.write_text(SEARCH.replace("search:\n", more))
    store = tmp_path / "store"
    planned = ended(command("plan", spec, "--store", store))
    assert "then the best are confirmed with fresh seeds: 6 runs" in planned
    assert "seeds are trained 2 at a time" in planned
    output = ended(command("run", spec, "--store", store))
    assert "the best 2 are confirmed with fresh seeds" in output
    opened = Store(LocalPlace(store))
    cells = opened.read_sweep("little", "cells").to_pylist()
    best = [cell for cell in cells if cell["stage"] == "confirm"]
    assert {cell["seed"] for cell in best} == {2, 3, 4}
    assert len(best) == 2 * 3
    assert {cell["label"] for cell in best} < {c["label"] for c in cells if c["stage"] == "search"}
    tested = {
        run_id
        for run_id, rows in store_rows(store).items()
        if any(row["split"] == "test" for row in rows["evaluations"])
    }
    assert tested == {cell["run_id"] for cell in best}
    summary = opened.read_sweep("little", "summary").to_pylist()
    assert {row["stage"] for row in summary if row["split"] == "test"} == {"confirm"}
    report = (store / "sweeps" / "little" / "report.md").read_text()
    assert "## The best, confirmed" in report

    before = opened.run_states()
    assert {state.stack for state in before.values()} == {(0, 1), (2, 3), (4,)}
    again = ended(command("run", spec, "--store", store))
    assert "6 done, 0 to continue, 0 new" in again
    assert opened.run_states() == before


def test_a_search_for_the_least_time_to_a_score_confirms_after_as_many_epochs(
    command: Command, store_rows: StoreRows, tmp_path: Path
) -> None:
    """Learning rates of logistic regression, of which the lowest learns nothing."""
    spec = tmp_path / "soon.yaml"
    spec.write_text(
        "name: soon\n"
        "data: {train: demo, validation: 200, train_images: 300}\n"
        "fixed: {model: linear, batch_size: 32, epochs: 5, schedule: {name: one_cycle}}\n"
        "nuisance: {seed: 2}\n"
        "resources: {width: 1}\n"
        "search:\n"
        "  sampler: grid\n"
        "  reach: {metric: validation.auroc, value: 0.6}\n"
        "  confirm: {top: 1, seeds: 2}\n"
        "  space:\n"
        "    optimizer.lr: {choice: [1.0e-8, 0.003]}\n"
        "    schedule.horizon: {choice: [2, 9]}\n"
    )
    store = tmp_path / "store"
    text = ended(command("run", spec, "--store", store))
    assert "of 4 proposals reached a validation.auroc of 0.6" in text
    opened = Store(LocalPlace(store))
    cells = opened.read_sweep("soon", "cells").to_pylist()
    longest = {json.loads(c["label"])["schedule.horizon"]: c["epochs"] for c in cells}
    assert longest.keys() == {2, 9}
    best = [cell for cell in cells if cell["stage"] == "confirm"]
    assert [cell["seed"] for cell in best] == [2, 3]
    assert {json.loads(cell["label"])["optimizer.lr"] for cell in best} == {0.003}
    (asked,) = {cell["epochs"] for cell in best}
    tried = [c for c in cells if c["label"] == best[0]["label"] and c["stage"] == "search"]
    scores = [
        [row["auroc"] for row in store_rows(store)[cell["run_id"]]["evaluations"]] for cell in tried
    ]
    means = [sum(each) / len(each) for each in zip(*scores, strict=False)]
    assert asked == next(epoch for epoch, mean in enumerate(means, 1) if mean >= 0.6)
    for cell in best:
        (row,) = store_rows(store)[cell["run_id"]]["runs"]
        assert (row["epochs_done"], row["status"]) == (asked, "complete")
    assert "0 new" in ended(command("run", spec, "--store", store))


def test_a_search_is_told_what_the_store_has_and_a_grid_of_points_trains_the_rest(
    command: Command, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shape = "data: {train: demo, validation: 100, train_images: 400}\nnuisance: {seed: 2}\n"
    grid = tmp_path / "grid.yaml"
    grid.write_text(
        f"name: grid\n{shape}fixed: {{epochs: 3}}\nscientific:\n  batch_size: [16, 32]\n"
    )
    ended(command("run", grid, "--store", store))
    spec = tmp_path / "points.yaml"
    spec.write_text(
        f"name: points\n{shape}fixed: {{epochs: 2}}\nsearch:\n  sampler: grid\n"
        "  metric: [validation.accuracy, train_seconds]\n  mode: [max, min]\n"
        "  space:\n    batch_size: {choice: [16, 32, 64]}\n"
    )
    plan = json.loads(ended(command("plan", spec, "--store", store, "--json")))
    assert (plan["trials"], plan["trials_known"], plan["epochs_to_train"]) == (1, 2, 4)
    output = ended(command("run", spec, "--store", store))
    assert "2 more points of its space known to the store" in output
    assert "On the front of 3 proposals after 2 epochs" in output
    done = {
        s.row["batch_size"]: s.epochs_done for s in Store(LocalPlace(store)).run_states().values()
    }
    assert done == {16: 3, 32: 3, 64: 2}
    # A study that is lost is made again from the store.
    (store / "sweeps" / "points" / "study.journal").unlink()
    assert "3 more points" in ended(command("run", spec, "--store", store))
    assert epochs_done(store) == 2 * (3 + 3 + 2)


def test_a_broken_journal_is_refused_before_anything_starts(
    command: Command, tmp_path: Path
) -> None:
    spec = tmp_path / "little.yaml"
    spec.write_text(SEARCH)
    store = tmp_path / "store"
    Store.open(str(store), create=True).write_sweep("little", "study.journal", b"nonsense\n")
    for name in ("plan", "run"):
        result = command(name, spec, "--store", store)
        assert result.returncode == 2
        assert "study.journal" in result.stderr
        assert "delete it" in result.stderr
        assert "Traceback" not in result.stderr


def test_a_search_goes_on_where_it_stopped(
    command: Command, store_rows: StoreRows, tmp_path: Path
) -> None:
    spec = tmp_path / "little.yaml"
    spec.write_text(SEARCH)
    store = tmp_path / "store"
    first = ended(command("run", spec, "--store", store))
    assert "0 of 4 trials done" in first
    before = store_rows(store)
    cells = Store(LocalPlace(store)).read_sweep("little", "cells")
    assert cells is not None
    assert len(set(cells["label"].to_pylist())) == 4
    assert len(before) == 4 * 2
    counts = Counter(state.status for state in Store(LocalPlace(store)).run_states().values())
    assert set(counts) <= {"complete", "pruned"}
    assert counts["complete"] >= 2

    six = ("--set", "search.trials=6", "--store", str(store))
    second = ended(command("run", spec, *six))
    assert "4 of 6 trials done" in second
    after = store_rows(store)
    assert len(after) == 6 * 2
    assert {run: rows for run, rows in after.items() if run in before} == before
    assert {row["split"] for rows in after.values() for row in rows["evaluations"]} == {
        "validation"
    }, "the test split chooses nothing"

    plan = json.loads(ended(command("plan", spec, *six, "--json")))
    assert (plan["trials"], plan["trials_done"], plan["epochs_to_train"]) == (6, 6, 0)
    report = (store / "sweeps" / "little" / "report.md").read_text()
    assert "Best of 6 proposals" in report
    status = ended(command("status", spec, *six))
    assert "12 runs" in status


def test_a_search_shows_what_it_has_tried_while_it_runs(
    command: Command, environment: dict[str, str], tmp_path: Path
) -> None:
    spec = tmp_path / "little.yaml"
    spec.write_text(SEARCH.replace("trials: 4", "trials: 40"))
    store = tmp_path / "store"
    driver = launch([str(spec), "--store", str(store)], environment, tmp_path / "log")
    try:
        deadline = time.monotonic() + 120
        while not (store / "sweeps/little/cells.parquet").exists():
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.1)
        text = ended(command("report", spec, "--store", store))
        assert driver.process.poll() is None, "it runs still"
        assert re.search(r"Best of \d+ proposals? after \d epochs?", text)
    finally:
        driver.end()


# Real images.


@pytest.fixture(scope="module")
def real_sample(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 500 images of each label and split, as a folder in the published layout."""
    folder = tmp_path_factory.mktemp("real") / "cifake"
    counts = Counter[str]()
    with tarfile.open(real_data / "cifake.tar.xz", "r|*") as archive:
        for member in archive:
            path = Path(member.name)
            group = "/".join(path.parts[-3:-1])
            if not member.isreg() or counts[group] == 500:
                continue
            content = archive.extractfile(member)
            assert content is not None
            target = folder / group / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.read())
            counts[group] += 1
            if counts.total() == 2000:
                break
    assert set(counts) == {f"{s}/{label}" for s in ("train", "test") for label in ("REAL", "FAKE")}
    return folder


def test_a_sweep_on_real_images(command: Command, real_sample: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    arguments = ("--set", "epochs=[1]", "--set", "seed=1", "--set", "data.validation=200")
    text = ended(
        command(
            "run", "placements", "--data", f"cifake={real_sample}", *arguments, "--store", store
        )
    )
    assert "4 cells in 4 runs" in text
    states = Store(LocalPlace(store)).run_states()
    assert {state.status for state in states.values()} == {"complete"}
    for state in states.values():
        evaluations = Store(LocalPlace(store)).read(state.run_id, "evaluations").to_pylist()
        assert {row["split"]: row["n"] for row in evaluations} == {"validation": 200, "test": 1000}
        assert all(row["dataset"] == "cifake" for row in evaluations)
        losses = Store(LocalPlace(store)).read(state.run_id, "epochs")["loss"].to_pylist()
        assert 0 < losses[0] < 1
    report = (store / "sweeps" / "placements" / "report.md").read_text()
    assert "cifake test" in report
