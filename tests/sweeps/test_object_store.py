"""A store in an object store: the same rows, the same commands, one study of many writers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from cifake import tables
from cifake.errors import InputError
from cifake.places import open_place
from sweeps.search.storage import ObjectJournal, has_storage, open_storage
from sweeps.search.study import ended as ended_trials
from sweeps.store import Store
from sweeps.trial import Task
from tests.object_store import ObjectStore
from tests.sweeps.trials import ran, trained

pytestmark = pytest.mark.heavy

MakeTask = Callable[..., Task]
Command = Callable[..., subprocess.CompletedProcess[str]]
Rows = dict[str, list[dict[str, Any]]]
RunRows = Callable[[Path | str, str], Rows]

LITTLE = """\
name: little
data: {train: demo, validation: 100, train_images: 400}
fixed: {epochs: 2, batch_size: 32}
nuisance: {seed: 2}
search:
  trials: 3
  metric: validation.accuracy
  space:
    optimizer.lr: {log_uniform: [1e-4, 1e-1]}
"""


def test_a_stack_has_the_same_rows_as_in_a_folder(
    make_task: MakeTask, run_rows: RunRows, bucket: str, tmp_path: Path
) -> None:
    """Begun, continued, and asked for again."""
    for length in (1, 3):
        local = make_task(tmp_path, milestones=(length,))
        remote = replace(local, store=bucket)
        assert trained(ran(remote)) == trained(ran(local)) > 0
    assert trained(ran(remote)) == 0
    there, here = open_place(bucket), open_place(str(tmp_path))
    run_ids = Store(here).run_ids()
    assert Store(there).run_ids() == run_ids
    for run_id in run_ids:
        assert run_rows(bucket, run_id) == run_rows(tmp_path, run_id)
        assert list(Store(there).run(run_id).damage()) == []
        assert Store(there).run(run_id).place.files() == Store(here).run(run_id).place.files()


def ended(result: subprocess.CompletedProcess[str], code: int = 0) -> str:
    assert result.returncode == code, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout


def test_every_command_takes_the_url_of_a_store(
    command: Command,
    environment: dict[str, str],
    object_store: ObjectStore,
    bucket: str,
    tmp_path: Path,
) -> None:
    small = ("--set", "seed=2", "--set", "data.train_images=400", "--set", "data.validation=100")
    arguments = ("demo", "--set", "epochs=[1,2]", *small, "--store", bucket)
    where = object_store.variables
    text = ended(command("run", *arguments, **where))
    assert f"report: {bucket}/sweeps/demo/report.md" in text
    assert "0 epochs to train" in ended(command("run", *arguments, **where))
    assert "cells done" in ended(command("status", *arguments, **where))
    facts = json.loads(ended(command("plan", *arguments, "--json", **where)))
    assert (facts["epochs_to_train"], facts["runs_done"]) == (0, facts["runs"])
    store = Store(open_place(bucket))
    assert store.read_sweep("demo", "summary") is not None
    figures = store.sweep("demo").at("figures").files()
    assert {"learning.png", "learning.svg", "learning.pdf", "thresholds.png"} <= set(figures)
    assert "report.html" in store.sweep("demo").files()
    assert "results.tex" in store.sweep("demo").at("tables").files()
    run = store.run_ids()[0]
    asked = subprocess.run(
        [sys.executable, "-m", "cifake", "evaluate", run[:8], "--store", bucket, "--json"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**environment, **where},
    )
    (row,) = json.loads(asked.stdout)["evaluations"]
    stored = [
        each["accuracy"]
        for each in store.read(run, "evaluations").to_pylist()
        if (each["epoch"], each["split"]) == (2, "test")
    ]
    assert [row["accuracy"]] == pytest.approx(stored)
    assert sorted(tables.RUN_TABLES) == sorted(
        name.removesuffix(".parquet")
        for name in store.run(run).place.files()
        if name.endswith(".parquet")
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "access denied"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "cannot be used as a store"),
    ],
)
def test_a_store_that_cannot_be_used_is_refused_before_anything_starts(
    command: Command,
    object_store: ObjectStore,
    bucket: str,
    changes: dict[str, str],
    said: str,
) -> None:
    variables = object_store.variables | changes
    for name in ("plan", "run"):
        result = command(name, "demo", "--store", bucket, **variables)
        ended(result, 2)
        assert said in result.stderr
        assert bucket in result.stderr


# Its studies


@pytest.mark.long
def test_a_search_goes_on_where_it_stopped(
    command: Command, object_store: ObjectStore, bucket: str, tmp_path: Path
) -> None:
    spec = tmp_path / "little.yaml"
    spec.write_text(LITTLE)
    where = object_store.variables
    assert "0 of 3 trials done" in ended(command("run", spec, "--store", bucket, **where))
    again = ("--set", "search.trials=4", "--store", bucket)
    assert "3 of 4 trials done" in ended(command("plan", spec, *again, **where))
    assert "3 of 4 trials done" in ended(command("run", spec, *again, **where))
    assert len(Store(open_place(bucket)).run_ids()) == 4 * 2


def test_finished_trials_outlive_the_storage_that_wrote_them(bucket: str) -> None:
    sweep = open_place(bucket)
    assert not has_storage(sweep)
    study = optuna.create_study(study_name="one", storage=open_storage(sweep, alone=True))
    for value in (0.25, 0.5):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        study.tell(trial, value)
    assert has_storage(sweep)
    found = ended_trials(open_storage(sweep, alone=True), "one")
    assert [(trial.number, trial.values) for trial in found] == [(0, (0.25,)), (1, (0.5,))]
    assert [trial.params for trial in found] == [trial.params for trial in study.trials]


def test_a_damaged_journal_is_refused_with_what_to_do(bucket: str) -> None:
    sweep = open_place(bucket)
    optuna.create_study(study_name="one", storage=open_storage(sweep, alone=True))
    sweep.at("study").write("000000.json", b"nonsense")
    with pytest.raises(InputError, match="delete it"):
        open_storage(sweep, alone=True)


def test_entries_of_many_writers_are_all_kept_and_read_in_one_order(bucket: str) -> None:
    journals = [ObjectJournal(bucket) for _ in range(8)]

    def write(number: int) -> None:
        for entry in range(6):
            journals[number].append_logs([{"writer": number, "entry": entry}] * 2)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    whole = ObjectJournal(bucket).read_logs(0)
    assert len(whole) == 8 * 6 * 2
    for number, journal in enumerate(journals):
        assert list(journal.read_logs(0)) == whole
        assert list(journal.read_logs(90)) == whole[90:]
        own = [entry["entry"] for entry in whole if entry["writer"] == number]
        assert own == [entry for entry in range(6) for _ in range(2)]
