"""`cifake train`: what it prints, writes, never repeats, and refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cifake.__main__ import app
from cifake.claims import Claim, Owner, claim
from cifake.errors import InputError
from cifake.exits import INTERRUPTED
from cifake.models import catalogue
from cifake.places import LocalPlace
from cifake.runs import RunFolder
from cifake.store import MARKER
from cifake.training_request import Options, Request, read_request

SMALL = ("--dataset", "demo", "--set", "data.train_images=200", "--validation", "100")
TIMES = {"seconds", "train_seconds", "images_per_second", "started_at", "updated_at"}

Train = Callable[..., dict[str, Any]]


@pytest.fixture
def train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Train:
    """Run `cifake train --json` on 200 demo images: what it prints, and its code."""

    def run(*arguments: str, store: str = "store") -> dict[str, Any]:
        folder = str(tmp_path / store)
        code = app(
            ["train", *SMALL, *arguments, "--store", folder, "--json"], standalone_mode=False
        )
        captured = capsys.readouterr()
        return {**json.loads(captured.out), "code": code, "lines": captured.err.splitlines()}

    return run


def folders(store: Path) -> dict[str, RunFolder]:
    return {path.name: RunFolder(LocalPlace(path)) for path in (store / "runs").iterdir()}


def rows(store: Path) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Every table of every run but for times."""
    return {
        run: {
            name: [
                {key: value for key, value in row.items() if key not in TIMES}
                for row in folder.read(name).to_pylist()
            ]
            for name in ("runs", "epochs", "batches", "evaluations", "predictions", "classes")
        }
        for run, folder in folders(store).items()
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What it says and writes


def test_every_epoch_of_every_seed_has_a_line(train: Train) -> None:
    found = train("--epochs", "2", "--seed", "0,1")
    assert found["code"] == 0
    assert [line.split("  ")[:2] for line in found["lines"]] == [
        [f"seed {seed}", f"epoch {epoch}/2"] for epoch in (1, 2) for seed in (0, 1)
    ]
    for line in found["lines"]:
        assert "loss 0." in line
        assert "validation accuracy" in line
        assert line.endswith("images/s")


def test_the_object_says_what_the_tables_say(train: Train, tmp_path: Path) -> None:
    found = train("--epochs", "2", "--seed", "4")
    assert (found["epochs"], found["epochs_trained"]) == (2, 2)
    (run,) = found["runs"]
    folder = RunFolder(LocalPlace(Path(run["folder"])))
    assert folder.place.path == tmp_path / "store" / "runs" / run["run_id"]
    assert folder.config().config_id == found["config_id"]
    assert folder.epochs() == [1, 2]
    state = folder.state()
    assert state is not None
    assert (state.seed, state.status, state.epochs_done) == (4, "complete", 2)
    stored = folder.read("epochs").to_pylist()
    assert [epoch["loss"] for epoch in run["epochs"]] == [epoch["loss"] for epoch in stored]
    assert {row["split"] for row in run["evaluations"]} == {"validation", "test"}
    assert all(row in folder.read("evaluations").to_pylist() for row in _with_run(run))
    assert (tmp_path / "store" / MARKER).is_file()


def _with_run(run: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"run_id": run["run_id"], **row} for row in run["evaluations"]]


def test_without_json_the_test_scores_are_a_table_and_the_folder_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app(["train", *SMALL, "--store", str(tmp_path / "s")], standalone_mode=False) == 0
    said = capsys.readouterr().out
    (run,) = folders(tmp_path / "s").values()
    (row,) = [r for r in run.read("evaluations").to_pylist() if r["split"] == "test"]
    for word in ("demo", "accuracy", "auroc", f"{100 * row['auroc']:.2f}", str(run.place)):
        assert word in said


def test_without_validation_images_no_validation_accuracy_is_shown(train: Train) -> None:
    found = train("--validation", "0")
    assert "validation" not in found["lines"][0]
    assert [row["split"] for row in found["runs"][0]["evaluations"]] == ["test"]


def test_the_store_may_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAKE_STORE", str(tmp_path / "elsewhere"))
    app(["train", *SMALL], standalone_mode=False)
    assert len(folders(tmp_path / "elsewhere")) == 1


# No epoch is trained twice


def test_a_finished_run_is_read_and_no_file_changes(train: Train, tmp_path: Path) -> None:
    first = train("--epochs", "2", "--seed", "0", "--seed", "1")
    before = contents(tmp_path)
    again = train("--epochs", "2", "--seed", "0,1")
    assert again["epochs_trained"] == 0
    assert again["runs"] == first["runs"]
    assert all(line.endswith("from the store") for line in again["lines"])
    assert contents(tmp_path) == before


def test_a_shorter_run_is_continued_to_the_rows_of_one_trained_at_once(
    train: Train, tmp_path: Path
) -> None:
    train("--epochs", "1")
    assert train("--epochs", "3")["epochs_trained"] == 2
    train("--epochs", "3", store="whole")
    extended, whole = rows(tmp_path / "store"), rows(tmp_path / "whole")
    for run, tables in extended.items():
        assert tables["epochs"] == whole[run]["epochs"]
        at_end = [r for r in tables["evaluations"] if r["epoch"] == 3]
        assert at_end == [r for r in whole[run]["evaluations"] if r["epoch"] == 3]


def test_a_longer_run_has_the_scores_of_a_shorter_one(train: Train) -> None:
    train("--epochs", "3")
    found = train("--epochs", "1")
    alone = train("--epochs", "1", store="alone")
    assert found["epochs_trained"] == 0
    assert found["runs"][0]["evaluations"] == alone["runs"][0]["evaluations"]
    assert found["runs"][0]["epochs_done"] == 3


def test_another_seed_joins_without_training_the_first_again(train: Train) -> None:
    train("--epochs", "2", "--seed", "0")
    assert train("--epochs", "2", "--seed", "0,1")["epochs_trained"] == 2


def test_runs_that_another_process_trains_are_refused_with_who_it_is(
    train: Train, tmp_path: Path
) -> None:
    (run,) = train("--seed", "1")["runs"]
    store = LocalPlace(tmp_path / "store")
    with Owner(store, "another") as other:
        assert isinstance(claim(store.at("runs").at(run["run_id"]), other), Claim)
        with pytest.raises(InputError, match="wait for it") as caught:
            train("--seed", "0,1")
    assert f"`another`, process {os.getpid()}" in str(caught.value)
    assert train("--seed", "0,1")["epochs_trained"] == 1


LIMITED = """
import resource, sys
from cifake.__main__ import app
from cifake.errors import run_command

resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
sys.argv[0] = "cifake"
run_command(app, "cifake")
"""


def test_a_file_that_cannot_be_written_is_named_and_nothing_half_written_is_left(
    tmp_path: Path,
) -> None:
    """As on a full disk; here a limit of the process cuts weights of 245 KB."""
    store = tmp_path / "s"
    arguments = ["train", *SMALL, "--seed", "0", "--store", str(store)]
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, *arguments], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    (run,) = folders(store).values()
    where = f"{run.place}/weights-0001.safetensors"
    said = f"cifake: error: {where}: File too large; mend it, and the same command goes on"
    assert ended.stderr.splitlines() == [said]
    state = run.state()
    assert state is not None
    assert (state.status, state.epochs_done) == ("failed", 0)
    assert "File too large" in state.row["error"]
    assert not [path for path in store.rglob("*") if path.name.startswith(".")]
    again = subprocess.run(
        [sys.executable, "-m", "cifake", *arguments], capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    assert list(run.damage()) == []


def test_ctrl_c_leaves_finished_epochs(tmp_path: Path) -> None:
    arguments = [*SMALL, "--epochs", "400", "--store", str(tmp_path / "s")]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "cifake", "train", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "120"},
    )
    assert process.stdout is not None
    for epoch in (1, 2):
        assert f"epoch {epoch}/400" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    said, problems = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert "finished epochs are kept" in said
    assert "Traceback" not in problems
    (run,) = folders(tmp_path / "s").values()
    state = run.state()
    assert state is not None
    assert (state.status, state.row["error"]) == ("running", None)
    assert state.epochs_done >= 2
    assert run.epochs() == list(range(1, state.epochs_done + 1))


# Settings


def asked(*settings: str, **options: Any) -> Request:
    return read_request(Options(settings=settings, **options))


def test_a_value_is_yaml_as_in_a_specification() -> None:
    config = asked(
        "optimizer.lr=1e-4", "optimizer.nesterov=true", "attention=srm", "placement=both"
    ).config("")
    assert config.optimizer.lr == 1e-4
    assert config.optimizer.nesterov is True
    assert (config.attention, config.placement) == ("srm", "both")


@pytest.mark.parametrize("name", ["cosine", "one_cycle"])
def test_a_schedule_spans_the_epochs_unless_its_horizon_is_given(name: str) -> None:
    schedule = f"schedule.name={name}"
    assert asked(schedule, epochs=7).config("").schedule.horizon == 7
    assert asked(schedule, "schedule.horizon=9", epochs=7).config("").schedule.horizon == 9


@pytest.mark.parametrize("model", catalogue.model_names())
def test_a_model_trains_no_longer_than_it_may(model: str) -> None:
    request = asked(model=model, epochs=5)
    assert request.epochs == (1 if model in ("mini", "statistics") else 5)


def test_seeds_may_be_repeated_and_joined() -> None:
    assert asked(seeds=["3", "0, 1"]).seeds == (3, 0, 1)
    assert asked().seeds == (0,)


def test_the_training_set_is_evaluated_unless_others_are_named() -> None:
    assert asked(dataset="demo").evaluate == ("demo",)
    assert asked("data.train=demo").datasets == ["demo"]
    assert asked(dataset="demo", evaluate=["cifar100"]).datasets == ["demo", "cifar100"]


# Refused


def mistakes(*settings: str, **options: Any) -> list[str]:
    with pytest.raises(InputError) as caught:
        asked(*settings, **options)
    return [str(mistake) for mistake in caught.value.mistakes]


@pytest.mark.parametrize(
    ("settings", "options", "said"),
    [
        (["optimizer.lr"], {}, "--set: 'optimizer.lr': must be KEY=VALUE"),
        (["=3"], {}, "KEY=VALUE"),
        (["optimizer.lr=[1"], {}, "--set: optimizer.lr: '[1': must be YAML"),
        (["optimiser.lr=1"], {}, "did you mean optimizer.lr"),
        (["optimizer={lr: 1}"], {}, "--set: optimizer: {'lr': 1}: unknown key"),
        (["optimizer.lr=-1"], {}, "--set: optimizer.lr: -1: must be greater than 0"),
        (["batch_size=3.5"], {}, "--set: batch_size: 3.5: must be a valid integer"),
        (["batch_size='32'"], {}, "batch_size"),
        (["batch_size=1", "batch_size=2"], {}, "batch_size: 2: is given twice"),
        (["model=base"], {"model": "paper"}, "--set: model: 'base': is given twice"),
        (["epochs=3"], {}, "give --epochs"),
        (["seed=3"], {}, "give --seed"),
        (["data.fingerprint=x"], {}, "unknown key"),
        (["data.train=3"], {}, "must name a data set"),
        ([], {"model": "bas"}, "--model: 'bas': unknown model; did you mean base"),
        ([], {"epochs": 0}, "--epochs: 0: must be"),
        ([], {"validation": -1}, "--validation: -1: must be"),
        ([], {"seeds": ["0,x"]}, "--seed: 'x': must be whole numbers"),
        ([], {"seeds": ["-1"]}, "--seed: '-1'"),
        ([], {"seeds": [str(2**63)]}, "--seed"),
        ([], {"seeds": ["1,01"]}, "--seed: '01': is there twice"),
        (
            [],
            {"dataset": "cifak"},
            "--dataset: 'cifak': unknown data set 'cifak'; did you mean cifake",
        ),
        ([], {"dataset": "cifar100"}, "can only be evaluated"),
        ([], {"evaluate": ["demo", "demo"]}, "--evaluate"),
        ([], {"device": "tpu"}, "--device: 'tpu': must be one of cpu, cuda"),
        (["attention=srm"], {}, "cifake train: placement"),
        (["optimizer.nesterov=true", "optimizer.momentum=0"], {}, "optimizer.nesterov: True"),
        (["schedule.name=cosine", "schedule.horizon=2"], {"epochs": 3}, "schedule.horizon: 2"),
    ],
)
def test_a_mistake_is_named_with_its_option_value_and_what_would_be_right(
    settings: Sequence[str], options: dict[str, Any], said: str
) -> None:
    (mistake,) = mistakes(*settings, **options)
    assert said in mistake


def test_all_mistakes_are_named_at_once() -> None:
    found = mistakes(
        "optimizer.lr=0", "unheard=1", model="x", epochs=0, seeds=["a"], dataset="b", device="c"
    )
    assert len(found) == 7


def test_a_mistake_ends_with_code_2_without_traceback_before_anything_is_written(
    tmp_path: Path,
) -> None:
    store = tmp_path / "store"
    arguments = ["--set", "optimizer.lr=-1", "--seed", "x", "--store", str(store)]
    ended = subprocess.run(
        [sys.executable, "-m", "cifake", "train", *SMALL, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert ended.stderr.count("error: ") == 2
    assert not store.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--validation", "4000", "--dataset", "demo"), "must leave at least 2"),
        (("--dataset", "demo", "--set", "data.train_images=3901"), "data.train_images"),
        (("--dataset", "demo", "--data", "demo=/nowhere"), "no such file or folder"),
        (("--dataset", "cifake"), "give --data cifake=PATH"),
    ],
)
def test_data_that_cannot_be_used_is_refused_before_a_store_is_made(
    tmp_path: Path, arguments: Sequence[str], said: str
) -> None:
    whole = ["train", "--validation", "100", *arguments, "--store", str(tmp_path / "store")]
    with pytest.raises(InputError, match=said):
        app(whole, standalone_mode=False)
    assert not (tmp_path / "store").exists()


def test_a_folder_of_something_else_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="is no store"):
        app(["train", *SMALL, "--store", str(tmp_path)], standalone_mode=False)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_run_that_diverges_is_said_to_and_the_command_fails(train: Train) -> None:
    found = train("--epochs", "2", "--set", "optimizer.lr=100", "--set", "optimizer.momentum=0.99")
    assert found["code"] == 1
    (run,) = found["runs"]
    assert run["status"] == "diverged"
    assert "epoch" in run["error"]
    assert found["lines"][-1] == "seed 0  diverged"


def test_help_needs_no_torch() -> None:
    code = "import sys, cifake.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
