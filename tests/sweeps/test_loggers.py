"""What TensorBoard and MLflow are told of runs, read back by their own readers."""

from __future__ import annotations

import io
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from cifake.errors import InputError
from sweeps import specfile
from sweeps.aggregate import METRICS
from sweeps.loggers import following, log_runs, open_loggers
from sweeps.loggers.histories import History, histories
from sweeps.loggers.opening import LoggingError, check_installed
from sweeps.loggers.to_mlflow import LOGGED, RUN_ID, bare, open_mlflow
from sweeps.loggers.to_tensorboard import TensorBoard, encode
from sweeps.parse import parse
from sweeps.spec import Spec
from sweeps.store import Store
from tests.sweeps.trials import planned, train

Parse = Callable[..., Spec]
Command = Callable[..., subprocess.CompletedProcess[str]]
Curves = dict[str, dict[str, list[tuple[int, float]]]]
"""By run and scalar, the value at each step."""

SPEC = """\
name: logged
data: {train: demo, validation: 100, train_images: 200}
scientific: {optimizer.lr: [0.01, 0.02], epochs: [1, 2]}
nuisance: {seed: 1}
fixed: {attention: srm, placement: after_pool1}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two runs of two epochs; nobody writes to it."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "spec.yaml").write_text(SPEC)
    store = Store.open(str(folder / "store"), create=True)
    train(planned(parse(specfile.read(folder / "spec.yaml")), store), store, seed=0)
    return folder / "store"


@pytest.fixture
def store(tmp_path: Path, trained: Path) -> Store:
    """The same for a test of its own."""
    shutil.copytree(trained, tmp_path / "store")
    return Store.open(str(tmp_path / "store"), create=False)


@pytest.fixture(scope="module")
def tables_of_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What MLflow makes of a new database, which takes it seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    open_mlflow(f"sqlite:///{path}").client.search_experiments()
    return path


@pytest.fixture
def uri(tmp_path: Path, tables_of_mlflow: Path) -> str:
    """A tracking store without runs."""
    shutil.copy(tables_of_mlflow, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


def all_of(store: Store) -> list[History]:
    cells = store.read_sweep("logged", "cells")
    assert cells is not None
    return list(histories("logged", store, cells, store.run_states().values()))


def told(store: Store) -> Curves:
    """What the store's tables say, as curves."""
    found: Curves = {}
    for run_id in store.run_ids():
        curves = found.setdefault(run_id, {})
        for row in store.read(run_id, "epochs").to_pylist():
            for name in ("loss", "accuracy", "learning_rate", "seconds"):
                curves.setdefault(f"train/{name}", []).append((row["epoch"], row[name]))
        for row in store.read(run_id, "evaluations").to_pylist():
            for name in METRICS:
                if row[name] is not None:
                    point = (row["epoch"], row[name])
                    curves.setdefault(f"{row['split']}/{name}", []).append(point)
    return found


def of_tensorboard(folder: Path) -> Curves:
    found: Curves = {}
    for run in sorted((folder / "logged").iterdir()):
        reader = EventAccumulator(str(run), {"scalars": 0}).Reload()
        content = reader.PluginTagToContent("hparams")["_hparams_/session_start_info"]
        session = HParamsPluginData.FromString(content).session_start_info
        found[session.group_name] = {
            tag: [(event.step, event.value) for event in reader.Scalars(tag)]
            for tag in reader.Tags()["scalars"]
        }
    return found


def of_mlflow(uri: str) -> Curves:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("logged")
    assert experiment is not None
    found: Curves = {}
    for run in client.search_runs([experiment.experiment_id]):
        assert run.data.tags[RUN_ID] not in found, "a run is there once"
        found[run.data.tags[RUN_ID]] = {
            name: sorted(
                (point.step, point.value)
                for point in client.get_metric_history(run.info.run_id, name)
            )
            for name in run.data.metrics
        }
    return found


def assert_same(found: Curves, expected: Curves, tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for run_id, curves in expected.items():
        assert found[run_id].keys() == curves.keys()
        for name, points in curves.items():
            assert [step for step, _ in found[run_id][name]] == [step for step, _ in points]
            values = [value for _, value in found[run_id][name]]
            assert values == pytest.approx([value for _, value in points], rel=tolerance, abs=1e-12)


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def log(store: Store, *asked: str) -> str:
    """Log all runs, and what was said."""
    said = Console(file=io.StringIO(), width=500)
    log_runs(open_loggers(asked, store.address), "logged", store, said)
    assert isinstance(said.file, io.StringIO)
    return said.file.getvalue()


# What is there


def test_both_have_every_scalar_of_every_run_and_the_store_is_left_as_it_is(
    store: Store, tmp_path: Path, uri: str
) -> None:
    before = files(tmp_path / "store")
    said = log(store, f"tensorboard={tmp_path / 'board'}", f"mlflow={uri}")
    assert said == ""
    expected = told(store)
    assert {len(curves) for curves in expected.values()} != {0}
    assert_same(of_tensorboard(tmp_path / "board"), expected, 1e-6)
    assert_same(of_mlflow(uri), expected, 1e-12)
    assert files(tmp_path / "store") == before
    assert log(store, f"tensorboard={tmp_path / 'board'}", f"mlflow={uri}") == "", "again"
    assert_same(of_tensorboard(tmp_path / "board"), expected, 1e-6)
    assert_same(of_mlflow(uri), expected, 1e-12)


def test_both_know_the_settings_of_a_run(store: Store, tmp_path: Path, uri: str) -> None:
    log(store, f"tensorboard={tmp_path / 'board'}", f"mlflow={uri}")
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("logged")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert {run.data.params["optimizer.lr"] for run in runs} == {"0.01", "0.02"}
    assert {run.data.params["attention"] for run in runs} == {"srm"}
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["cifake.config_id"] for run in runs} == {
        state.config_id for state in store.run_states().values()
    }
    rates = set()
    for folder in (tmp_path / "board" / "logged").iterdir():
        reader = EventAccumulator(str(folder)).Reload()
        content = reader.PluginTagToContent("hparams")["_hparams_/session_start_info"]
        settings = HParamsPluginData.FromString(content).session_start_info.hparams
        rates.add(settings["optimizer.lr"].number_value)
        assert settings["placement"].string_value == "after_pool1"
        assert "schedule.warmup" not in settings, "what is null is no setting"
    assert rates == {0.01, 0.02}


def test_another_data_set_has_names_of_its_own(store: Store) -> None:
    run = all_of(store)[0]
    assert {name.partition("/")[0] for name in run.epochs[0].scalars} == {
        "train",
        "validation",
        "test",
    }
    assert run.epochs[0].seconds > run.started_at


def test_rows_of_an_epoch_that_was_never_committed_are_left_out(store: Store) -> None:
    run_id = store.run_ids()[0]
    state = store.run_state(run_id)
    assert state is not None
    store.run(run_id).commit({**state.row, "epochs_done": 1, "status": "running"}, {})
    (run,) = [each for each in all_of(store) if each.run_id == run_id]
    assert [epoch.epoch for epoch in run.epochs] == [1]


# Again, killed, and gone on


def test_logged_again_no_file_is_touched(store: Store, tmp_path: Path) -> None:
    log(store, f"tensorboard={tmp_path / 'board'}")
    written = files(tmp_path / "board")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "board").rglob("events*")}
    log(store, f"tensorboard={tmp_path / 'board'}")
    assert files(tmp_path / "board") == written
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_sweep_that_went_on_has_the_curves_of_one_that_did_not_stop(
    tmp_path: Path, parse_text: Parse, trained: Path, uri: str
) -> None:
    asked = (f"tensorboard={tmp_path / 'board'}", f"mlflow={uri}")
    stopped = Store.open(str(tmp_path / "stopped"), create=True)
    sweep = planned(parse_text(SPEC), stopped)
    train(sweep, stopped, seed=0, epochs=1)
    log(stopped, *asked)
    first = files(tmp_path / "board")
    train(sweep, stopped, seed=0, epochs=2)
    log(stopped, *asked)
    grown = files(tmp_path / "board")
    assert all(grown[name].startswith(content) for name, content in first.items()), "appended"
    expected = timeless(told(Store.open(str(trained), create=False)))
    assert_same(timeless(of_tensorboard(tmp_path / "board")), expected, 1e-6)
    assert_same(timeless(of_mlflow(uri)), expected, 1e-12)


def timeless(curves: Curves) -> Curves:
    """Curves without how long an epoch took."""
    return {
        run: {name: points for name, points in each.items() if name != "train/seconds"}
        for run, each in curves.items()
    }


@pytest.mark.parametrize("share", [0.0, 0.001, 0.37, 0.5, 0.999])
def test_an_event_file_that_a_kill_cut_off_is_completed(
    store: Store, tmp_path: Path, share: float
) -> None:
    board = TensorBoard(tmp_path / "board")
    run = all_of(store)[0]
    board.log("logged", [run])
    (path,) = (tmp_path / "board").rglob("events.*")
    whole = path.read_bytes()
    assert whole == encode(run)
    path.write_bytes(whole[: int(share * len(whole))])
    board.log("logged", [run])
    assert path.read_bytes() == whole
    path.write_bytes(b"something else" + whole)
    board.log("logged", [run])
    assert path.read_bytes() == whole
    assert {each.name for each in path.parent.iterdir()} == {path.name, ".cifake-sweeps.lock"}


def test_a_run_of_mlflow_that_a_kill_left_half_is_completed(store: Store, uri: str) -> None:
    client = MlflowClient(uri)
    run = all_of(store)[0]
    half = client.create_run(client.create_experiment("logged"), tags={RUN_ID: run.run_id})
    loss = run.epochs[0].scalars["train/loss"]
    client.log_batch(half.info.run_id, metrics=[Metric("train/loss", loss, 5, 1)])
    client.log_param(half.info.run_id, "seed", "0")
    flow = open_mlflow(uri)
    flow.log("logged", [run])
    expected = told(store)
    assert_same(of_mlflow(uri), {run.run_id: expected[run.run_id]}, 1e-12)
    assert LOGGED in client.get_run(half.info.run_id).data.tags


# What goes wrong


class Failing:
    """A logger that fails as it is told, and counts how often it is asked."""

    name = "failing"

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.asked = 0

    def log(self, sweep: str, runs: Sequence[History]) -> None:
        del sweep, runs
        self.asked += 1
        raise self.error


class Hearing:
    """A logger that keeps which epochs it was told of."""

    name = "hearing"

    def __init__(self) -> None:
        self.heard: list[dict[str, int]] = []

    def log(self, sweep: str, runs: Sequence[History]) -> None:
        assert sweep == "logged"
        self.heard.append({run.run_id: len(run.epochs) for run in runs})


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (LoggingError("the server is away"), "the server is away"),
        (ValueError("password=geheim"), "ValueError in the logger"),
    ],
)
def test_a_logger_that_fails_is_told_of_once_and_the_others_go_on(
    store: Store, error: Exception, words: str
) -> None:
    failing, hearing, said = Failing(error), Hearing(), io.StringIO()
    console = Console(file=said, width=500)
    with following([failing, hearing], "logged", store, console, every=0.01):
        while not hearing.heard:
            threading.Event().wait(0.01)
    text = said.getvalue()
    assert text.count("--log failing") == 1
    assert words in text
    assert "sweeps report --log" in text
    assert "geheim" not in text
    assert failing.asked == 2, "once, and again at the end"
    assert hearing.heard[0] == dict.fromkeys(store.run_ids(), 2)


def test_runs_are_followed_while_they_are_trained(tmp_path: Path, parse_text: Parse) -> None:
    store = Store.open(str(tmp_path / "store"), create=True)
    hearing = Hearing()
    with following([hearing], "logged", store, Console(quiet=True), every=0.01):
        sweep = planned(parse_text(SPEC), store)
        train(sweep, store, seed=0, epochs=1)
        while not hearing.heard:
            threading.Event().wait(0.01)
        train(sweep, store, seed=0, epochs=2)
    seen: dict[str, list[int]] = {}
    for each in hearing.heard:
        for run_id, epochs in each.items():
            seen.setdefault(run_id, []).append(epochs)
    assert sorted(seen) == store.run_ids()
    assert {epochs[-1] for epochs in seen.values()} == {2}
    assert all(epochs == sorted(set(epochs)) for epochs in seen.values()), "only what is new"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("wandb", "is no logger; valid: mlflow, tensorboard"),
        ("tensorbord", "did you mean tensorboard?"),
        ("tensorboard=", "says nothing after the ="),
        ("tensorboard=STORE/board", "lies in the store"),
        ("tensorboard=ROOT/file", "is a file"),
        ("mlflow=ftp://user:geheim@host/path", "unsupported URI"),
    ],
)
def test_what_cannot_be_logged_to_is_refused(tmp_path: Path, asked: str, words: str) -> None:
    (tmp_path / "file").write_text("")
    text = asked.replace("STORE", str(tmp_path / "store")).replace("ROOT", str(tmp_path))
    with pytest.raises(InputError) as error:
        open_loggers([text], str(tmp_path / "store"))
    assert words in str(error.value)
    assert "geheim" not in str(error.value)


def test_a_package_that_is_missing_is_named_with_what_to_run() -> None:
    with pytest.raises(InputError, match=r"pip install 'cifake-sweeps\[mlflow\]'"):
        check_installed("a-package-that-nobody-has", "mlflow")


def test_an_address_is_told_without_what_lets_in() -> None:
    assert bare("https://user:geheim@host:80/path?token=geheim") == "https://host:80/path"
    assert bare("postgresql+psycopg://user:ge@heim@host/db") == "postgresql+psycopg://host/db"
    assert bare("sqlite:////tmp/m@flow.db") == "sqlite:////tmp/m@flow.db"


# The commands


@pytest.mark.heavy
def test_a_sweep_is_logged_while_it_runs_and_a_server_that_is_away_does_not_fail_it(
    command: Command, tmp_path: Path, uri: str
) -> None:
    spec, board = tmp_path / "spec.yaml", tmp_path / "board"
    spec.write_text(SPEC)
    arguments: tuple[Any, ...] = (spec, "--store", tmp_path / "store")
    away = ("--log", "mlflow=http://user:geheim@127.0.0.1:9")
    at_once = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    found = command("run", *arguments, "--log", f"tensorboard={board}", *away, **at_once)
    assert found.returncode == 0, found.stderr
    assert "geheim" not in found.stdout + found.stderr
    assert found.stdout.count("--log mlflow=http://127.0.0.1:9") == 1
    assert_same(
        of_tensorboard(board), told(Store.open(str(tmp_path / "store"), create=False)), 1e-6
    )
    found = command("report", *arguments, "--log", f"mlflow={uri}")
    assert (found.returncode, found.stderr) == (0, "")
    assert len(of_mlflow(uri)) == 2


def test_a_logger_is_refused_before_anything_starts(command: Command, tmp_path: Path) -> None:
    found = command("run", "demo", "--store", tmp_path / "store", "--log", "wandb")
    assert found.returncode == 2
    assert "is no logger" in found.stderr
    assert not (tmp_path / "store").exists()
