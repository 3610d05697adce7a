"""`cifake evaluate`: scores of a network on data sets, groups, and another network beside it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics

from cifake.config import Config
from cifake.data.pack import Pack
from cifake.data.subsets import split_rows
from cifake.evaluation import disagreements
from cifake.models.build import build

from .conftest import Runs, Said

Command = Callable[..., Said]


@pytest.fixture
def asked(command: Command, runs: Runs, few_folder: Path) -> Callable[..., dict[str, Any]]:
    """`cifake evaluate` of the run with attention, as JSON."""

    def run(*arguments: str | Path, data: Path = few_folder) -> dict[str, Any]:
        first = ("evaluate", runs.srm.path, "--data", data, "--json")
        said = command(*first, *arguments)
        assert (said.code, said.err) == (0, "")
        found: dict[str, Any] = json.loads(said.out)
        return found

    return run


# Scores


def test_scores_are_those_of_an_independent_reference(
    asked: Callable[..., dict[str, Any]], runs: Runs, few: Pack
) -> None:
    (row,) = asked()["evaluations"]
    p, y = runs.srm.probabilities[2], few.labels[few.rows("test")]
    called = p >= 0.5
    expected = {
        "accuracy": metrics.accuracy_score(y, called),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, called),
        "precision": metrics.precision_score(y, called),
        "recall": metrics.recall_score(y, called),
        "f1": metrics.f1_score(y, called),
        "auroc": metrics.roc_auc_score(y, p),
        "average_precision": metrics.average_precision_score(y, p),
        "brier": metrics.brier_score_loss(y, p),
    }
    assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-7)
    assert (row["n"], row["dataset"], row["split"]) == (400, "cifake", "test")


def test_threshold_moves_the_calls(
    asked: Callable[..., dict[str, Any]], runs: Runs, few: Pack
) -> None:
    (row,) = asked("--threshold", "0.9", "--classes")["evaluations"]
    p, y = runs.srm.probabilities[2], few.labels[few.rows("test")]
    right = (p >= 0.9) == y
    assert row["accuracy"] == pytest.approx(right.mean())
    assert row["tp"] == np.sum((p >= 0.9) & (y == 1))
    shares = [group["n"] * group["accuracy"] for group in row["classes"]]
    assert sum(shares) == pytest.approx(right.sum())


def test_deduplicated_scores_leave_copies_out(
    asked: Callable[..., dict[str, Any]], runs: Runs, few: Pack
) -> None:
    (row,) = asked()["evaluations"]
    rows = few.rows("test")
    kept = ~few.duplicates(rows)
    right = (runs.srm.probabilities[2] >= 0.5) == few.labels[rows]
    assert row["n_deduplicated"] == kept.sum()
    assert row["accuracy_deduplicated"] == pytest.approx(right[kept].mean())


def test_classes_are_scored_one_by_one(
    asked: Callable[..., dict[str, Any]], runs: Runs, few: Pack
) -> None:
    (row,) = asked("--classes")["evaluations"]
    rows = few.rows("test")
    frame = pd.DataFrame(
        {
            "name": few.words("content_class", rows),
            "real": few.labels[rows] == 1,
            "right": (runs.srm.probabilities[2] >= 0.5) == few.labels[rows],
        }
    )
    found = {group["name"]: group for group in row["classes"] if group["kind"] == "content_class"}
    assert len(found) == 10
    for name, part in frame.groupby("name"):
        group = found[name]
        assert group["accuracy"] == pytest.approx(part["right"].mean())
        assert group["recall_real"] == pytest.approx(part[part["real"]]["right"].mean())
        assert group["recall_fake"] == pytest.approx(part[~part["real"]]["right"].mean())


def test_epoch_of_a_run_is_chosen(
    asked: Callable[..., dict[str, Any]], runs: Runs, few: Pack
) -> None:
    facts = asked("--epoch", "1")
    right = (runs.srm.probabilities[1] >= 0.5) == few.labels[few.rows("test")]
    assert facts["model"]["epoch"] == 1
    assert facts["evaluations"][0]["accuracy"] == pytest.approx(right.mean())


def test_predictions_are_written_with_their_images(
    asked: Callable[..., dict[str, Any]], runs: Runs, few: Pack, tmp_path: Path
) -> None:
    asked("--predictions", tmp_path / "said.parquet")
    written = pd.read_parquet(tmp_path / "said.parquet")
    assert [*written.columns] == ["dataset", "split", "image_id", "probability"]
    assert np.array_equal(written["image_id"], few.rows("test"))
    assert np.array_equal(written["probability"], runs.srm.probabilities[2])
    assert [path.name for path in tmp_path.iterdir()] == ["said.parquet"]


# Another network beside it


def test_disagreements_are_counted_and_tested_exactly(
    asked: Callable[..., dict[str, Any]], runs: Runs, few: Pack
) -> None:
    found = asked("--against", runs.base.path)["evaluations"][0]["against"]
    y = few.labels[few.rows("test")]
    first = (runs.srm.probabilities[2] >= 0.5) == y
    second = (runs.base.probabilities[3] >= 0.5) == y
    table = metrics.confusion_matrix(first, second)
    assert [found["both_wrong"], found["only_second"]] == table[0].tolist()
    assert [found["only_first"], found["both_right"]] == table[1].tolist()
    assert found["p"] == pytest.approx(_exact_p(int(table[1, 0]), int(table[0, 1])))


def test_network_does_not_disagree_with_itself(
    asked: Callable[..., dict[str, Any]], runs: Runs
) -> None:
    found = asked("--against", runs.srm.path)["evaluations"][0]["against"]
    assert (found["only_first"], found["only_second"], found["p"]) == (0, 0, 1)


@pytest.mark.parametrize(("one", "other"), [(0, 0), (5, 0), (1, 9), (30, 41)])
def test_p_is_twice_the_smaller_tail(one: int, other: int) -> None:
    labels = np.ones(one + other, np.int8)
    first = np.arange(one + other) < one
    found = disagreements(first.astype(np.float32), (~first).astype(np.float32), labels)
    assert (found.only_first, found.only_second) == (one, other)
    assert found.p == pytest.approx(_exact_p(one, other))


def _exact_p(one: int, other: int) -> float:
    n = one + other
    tail = sum(math.comb(n, k) for k in range(min(one, other) + 1)) / 2**n
    return min(1.0, 2 * tail)


# Which data sets


def test_data_may_be_a_path_a_name_with_a_path_or_a_name(
    command: Command, runs: Runs, few_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAKE_DATA", str(few_folder.parent))
    forms = (few_folder, few_folder.parent, f"cifake={few_folder}", "cifake")
    said = [command("evaluate", runs.srm.path, "--json", "--data", form) for form in forms]
    said.append(command("evaluate", runs.srm.path, "--json"))
    assert {ended.code for ended in said} == {0}
    assert len({ended.out for ended in said}) == 1


def test_sets_that_data_names_are_evaluated_unless_on_says_which(
    asked: Callable[..., dict[str, Any]],
) -> None:
    def names(*arguments: str) -> list[str]:
        return [row["dataset"] for row in asked(*arguments)["evaluations"]]

    assert names("--data", "demo") == ["demo"]
    assert names("--data", "demo", "--on", "cifake") == ["cifake"]
    assert names("--on", "demo", "--on", "cifake") == ["demo", "cifake"]


def test_undefined_scores_of_one_class_are_null_and_drawn_as_a_dash(
    command: Command, runs: Runs, real_data: Path
) -> None:
    source = f"cifar100={real_data / 'cifar100-test.parquet'}"
    said = command("evaluate", runs.srm.path, "--data", source)
    (line,) = [line for line in said.out.splitlines() if "precision of REAL" in line]
    assert "–" in line
    facts = json.loads(command("evaluate", runs.srm.path, "--data", source, "--json").out)
    (row,) = facts["evaluations"]
    assert (row["n"], row["precision"], row["auroc"]) == (10_000, None, None)
    assert row["recall"] == row["accuracy"]


def test_files_that_cannot_be_read_are_left_out_and_counted(
    command: Command, runs: Runs, few_folder: Path, tmp_path: Path
) -> None:
    """The folder set's own images are scored as they would be without the broken ones."""
    for label in ("REAL", "FAKE"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for number, path in enumerate(sorted((few_folder / "test" / label).iterdir())[:40]):
            content = path.read_bytes()
            broken = label == "FAKE" and number < 3
            name = f"{number:03}.jpg"
            (tmp_path / "set" / label / name).write_bytes(content[:99] if broken else content)
    where = ("evaluate", runs.srm.path, "--data", f"folders={tmp_path / 'set'}")
    (row,) = json.loads(command(*where, "--json").out)["evaluations"]
    assert (row["n"], row["n_unreadable"]) == (77, 3)
    (line,) = [line for line in command(*where).out.splitlines() if "unreadable" in line]
    assert " 3 " in line
    for number in range(3):
        (tmp_path / "set" / "FAKE" / f"{number:03}.jpg").unlink()
    (without,) = json.loads(command(*where, "--json").out)["evaluations"]
    assert without == row | {"n_unreadable": 0}


# Which images


def test_validation_and_training_images_are_those_of_the_run(
    asked: Callable[..., dict[str, Any]], runs: Runs, few: Pack, tmp_path: Path
) -> None:
    parts = split_rows(few, runs.srm.run.config().data)
    for split, rows in (("validation", parts.validation), ("train", parts.train)):
        asked("--split", split, "--predictions", tmp_path / "said.parquet")
        written = pd.read_parquet(tmp_path / "said.parquet")
        assert np.array_equal(written["image_id"], rows)


def test_validation_of_another_set_is_refused(
    command: Command, runs: Runs, few_folder: Path
) -> None:
    arguments = ("--data", few_folder, "--on", "demo", "--split", "validation")
    said = command("evaluate", runs.srm.path, *arguments)
    assert said.code == 2
    assert "demo has no such images of its own; it has train and test" in said.err


def test_validation_images_of_other_data_than_the_run_s_are_refused(
    command: Command, runs: Runs, cifake_folder: Path
) -> None:
    said = command("evaluate", runs.srm.path, "--data", cifake_folder, "--split", "validation")
    assert said.code == 2
    assert "is not the one of the training" in said.err


# The command


def test_network_that_gives_no_numbers_is_refused(
    command: Command, few_folder: Path, tmp_path: Path
) -> None:
    state = build(Config(), 0).state_dict()
    huge = {name: value.sign() * 1e38 for name, value in state.items()}  # sums are inf - inf
    torch.save(huge, tmp_path / "w.pt")
    said = command("evaluate", tmp_path / "w.pt", "--data", few_folder)
    assert said.code == 2
    assert "probability became nan on" in said.err
    said = command("explain", tmp_path / "w.pt", "--data", few_folder, "--out", tmp_path / "s.png")
    assert said.code == 2
    assert "probability became nan on" in said.err
    said = command("predict", tmp_path / "w.pt", few_folder / "test")
    assert said.code == 2
    assert "the network gives NaN" in said.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--on", "cifak"), "did you mean cifake"),
        (("--data", "/nowhere"), "no such file or folder"),
        (("--split", "tset"), "must be one of validation, train, test"),
        (("--against", "0000"), "begins so"),
        (("--predictions", "/nowhere/said.parquet"), "its folder does not exist"),
        (("--predictions", "/"), "is a folder"),
    ],
)
def test_wrong_option_is_refused_with_what_would_be_right(
    arguments: tuple[str, ...], said: str, command: Command, runs: Runs, few_folder: Path
) -> None:
    ended = command(
        "evaluate", runs.srm.run.run_id, "--store", runs.store, "--data", few_folder, *arguments
    )
    assert ended.code == 2
    assert said in ended.err


def test_table_says_what_was_asked_and_how_it_differs(runs: Runs, few_folder: Path) -> None:
    asked = (runs.srm.run.run_id[:8], "--against", runs.base.run.run_id[:8], "--classes")
    where = ("--store", str(runs.store), "--data", str(few_folder))
    ended = subprocess.run(
        [sys.executable, "-m", "cifake", "evaluate", *asked, *where],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    said = ("epoch 2: base with srm both", "accuracy, %", "airplane", "only the second", "McNemar")
    assert all(words in ended.stdout for words in said)


def test_help_loads_neither_torch_nor_matplotlib() -> None:
    program = (
        "import sys, cifake.__main__\n"
        "print({'torch', 'captum', 'matplotlib', 'scipy'} & set(sys.modules))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout.strip() == "set()"
