"""What the best networks look at: which are chosen, what is kept, and what is refused."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from cifake import tables
from cifake.errors import InputError
from cifake.places import LocalPlace
from sweeps import aggregate
from sweeps.explanations import COUNT, FOLDER, MAX_BYTES, choose, explain, outdated, read, small
from sweeps.report.content import Content, Explanations
from sweeps.reporting import report_sweep
from sweeps.spec import Spec
from sweeps.store import Store
from sweeps.trial import Task
from tests.sweeps.reported import BOTH, NONE, POOL, content, run_id
from tests.sweeps.trials import ran, run_of

Command = Callable[..., subprocess.CompletedProcess[str]]
MakeTask = Callable[..., Task]
SILENT = Console(file=io.StringIO())


# Which runs.


def on_validation(made: Content, run: str, epoch: int) -> float:
    """Accuracy of a run."""
    (score,) = (
        row["accuracy"]
        for row in made.evaluations.to_pylist()
        if (row["run_id"], row["epoch"], row["split"]) == (run, epoch, "validation")
    )
    return float(score)


def test_of_each_of_the_best_configs_the_run_is_chosen_that_is_best_on_validation() -> None:
    labels = [NONE, POOL, BOTH, {**POOL, "placement": "after_pool2"}, {**POOL, "placement": "x"}]
    made = content(labels, [1, 3])
    chosen = choose(made)
    assert [run.name for run in chosen] == ["srm · x", "srm · after_pool2", "srm · both"]
    assert len(chosen) == COUNT
    for run, label in zip(chosen, (labels[4], labels[3], labels[2]), strict=True):
        assert run.epoch == 3
        assert run.run_id == run_id(label, run.seed)
        others = [on_validation(made, run_id(label, seed), 3) for seed in range(6)]
        assert on_validation(made, run.run_id, 3) == max(others)


def test_test_scores_choose_nothing() -> None:
    made = content([NONE, POOL], [2])
    rows = made.evaluations.to_pylist()
    for row in rows:
        if row["split"] == "test":
            row["accuracy"] = 1 - row["accuracy"]
    turned = tables.TABLES["evaluations"].from_rows(rows)
    assert choose(replace(made, evaluations=turned)) == choose(made)


def test_runs_that_are_shorter_than_asked_or_have_no_feature_maps_are_passed_over() -> None:
    assert choose(content([NONE], [2], 3, epochs_done=1)) == []
    assert choose(content([NONE], [2], 3, model="linear")) == []
    assert [run.seed for run in choose(content([NONE], [2], 2, missing=[(0, 0)]))] == [1]


def test_without_validation_the_first_configs_and_seeds_are_taken() -> None:
    made = content([NONE, POOL, BOTH], [1], 3)
    kept = [row for row in made.evaluations.to_pylist() if row["split"] == "test"]
    tested = tables.TABLES["evaluations"].from_rows(kept)
    chosen = choose(replace(made, evaluations=tested), 2)
    assert [(run.name, run.seed) for run in chosen] == [
        ("no attention", 0),
        ("srm · after_pool1", 0),
    ]


def test_explanations_of_runs_that_are_no_longer_the_best_are_noted() -> None:
    made = content([NONE, POOL], [1], 3)
    best = {run.run_id: b"png" for run in choose(made)}
    now = replace(made, explanations=Explanations(sheets=best, gates=None))
    assert outdated(now) == outdated(made) == []
    before = {run_id(NONE, 0): b"png", **best}
    (note,) = outdated(replace(made, explanations=Explanations(sheets=before, gates=None)))
    assert "`sweeps report --explain` draws it anew" in note


# What is kept.


@pytest.mark.parametrize("noisy", [False, True])
def test_a_page_is_a_picture_of_at_most_its_size(noisy: bool) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (200, 300, 3)) if noisy else np.full((200, 300, 3), 200)
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    found = small(buffer.getvalue(), 20_000)
    assert len(found) <= 20_000
    picture = Image.open(io.BytesIO(found))
    if noisy:
        assert picture.width < 300
        assert picture.width / picture.height == pytest.approx(1.5, rel=0.03)
    else:
        assert (np.asarray(picture.convert("RGB")) == pixels).all(), "nothing is lost for nothing"


def reported(store: Store, tasks: dict[str, Task]) -> Content:
    """A report on real runs: a config a task."""
    cells = [
        {
            "label": json.dumps({"config": name}),
            "nuisance": "{}",
            "epochs": task.epochs,
            "seed": seed,
            "config_id": name,
            "run_id": run_of(task, seed),
            "stage": "grid",
            "role": "end",
        }
        for name, task in tasks.items()
        for seed in task.seeds
    ]
    asked = tables.TABLES["cells"].from_rows(cells)
    states = store.run_states()
    evaluations = store.read_many(sorted(states), "evaluations")
    return replace(
        content(name="real"),
        cells=asked,
        runs=tables.TABLES["runs"].from_rows(state.row for state in states.values()),
        evaluations=evaluations,
        summary=aggregate.summary("real", asked, evaluations),
    )


@pytest.fixture(scope="module")
def real(
    make_task: MakeTask, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Store, dict[str, Task]]:
    """Two configs with two seeds of two epochs on the demo set, one with attention."""
    folder = tmp_path_factory.mktemp("explained")
    tasks = {
        "plain": make_task(folder),
        "attentive": make_task(folder, attention="srm", placement="both"),
    }
    for task in tasks.values():
        ran(task)
    return Store(LocalPlace(folder)), tasks


def test_the_pages_and_gates_of_the_best_runs_are_kept_and_read_again(
    real: tuple[Store, dict[str, Task]],
) -> None:
    store, tasks = real
    made = reported(store, tasks)
    chosen = choose(made)
    store.sweep("real").at(FOLDER).write("09-0000.png", b"of another time")
    told = explain(made, store, [], SILENT)
    kept = read(store, "real")
    assert kept is not None
    assert list(kept.sheets) == list(told.sheets) == [run.run_id for run in chosen]
    for page in kept.sheets.values():
        assert len(page) <= MAX_BYTES
        assert min(Image.open(io.BytesIO(page)).size) > 600
    assert kept.gates is not None
    assert kept.gates.equals(told.gates)
    rows = kept.gates.to_pylist()
    attentive = {run_of(tasks["attentive"], seed) for seed in (0, 1)}
    assert {row["run_id"] for row in rows} <= attentive, "plain networks have no gates"
    channels = {(row["site"], row["label"]): 0 for row in rows}
    for row in rows:
        assert (row["dataset"], row["split"], row["epoch"]) == ("demo", "test", 2)
        assert 0 <= row["mean"] <= 1
        assert row["channel"] == channels[row["site"], row["label"]]
        channels[row["site"], row["label"]] += 1
    assert sorted(channels.values()) == [6, 6, 16, 16]


def test_a_report_that_explains_holds_the_pages_the_gates_and_their_sources(
    real: tuple[Store, dict[str, Task]], parse_text: Callable[..., Spec]
) -> None:
    store, tasks = real
    spec = parse_text("name: told\ndata: {train: demo, validation: 100}\nfixed: {epochs: 2}\n")
    cells = tables.encode("cells", reported(store, tasks).cells)
    store.write_sweep("told", "cells.parquet", cells)
    report_sweep(spec, store, SILENT, explain=[])
    kept, before = read(store, "told"), read(store, "real")
    assert kept is not None
    assert before is not None
    assert [*kept.sheets] == [*before.sheets]
    names = store.sweep("told").at("figures").files()
    assert {"gates.png", "gates.svg", "gates.pdf"} <= set(names)
    sources = store.sweep("told").at("tables").read("references.bib")
    assert b"{selvaraju2017grad," in sources
    page = store.sweep("told").read("report.html")
    assert page.count(b"data:image/") >= len(kept.sheets)


def test_data_without_explaining_are_refused(command: Command, tmp_path: Path) -> None:
    done = command("report", "demo", "--data", tmp_path, "--store", tmp_path)
    assert done.returncode == 2
    assert "--data" in done.stderr
    assert "--explain" in done.stderr


def test_several_sweeps_cannot_be_explained_at_once(command: Command, tmp_path: Path) -> None:
    Store.open(str(tmp_path), create=True)
    done = command("report", "demo", "placements", "--explain", "--store", tmp_path)
    assert done.returncode == 2
    assert "name one SPEC" in done.stderr


def test_other_images_than_those_of_the_training_are_refused(
    make_task: MakeTask, tmp_path: Path
) -> None:
    task = make_task(tmp_path, seeds=(0,), milestones=(1,), data__fingerprint="0123456789abcdef")
    ran(task)
    store = Store(LocalPlace(tmp_path))
    with pytest.raises(InputError, match="not the one of the training, 0123456789abcdef"):
        explain(reported(store, {"one": task}), store, [], SILENT)
    assert read(store, "real") is None


def test_images_that_are_nowhere_are_refused_with_what_to_give(
    real: tuple[Store, dict[str, Task]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CIFAKE_DATA", str(tmp_path))
    monkeypatch.setenv("CIFAKE_CACHE", str(tmp_path))
    store, tasks = real
    made = reported(store, tasks)
    rows = [{**row, "data.train": "cifake"} for row in made.runs.to_pylist()]
    evaluations = [{**row, "dataset": "cifake"} for row in made.evaluations.to_pylist()]
    summary = [{**row, "dataset": "cifake"} for row in made.summary.to_pylist()]
    elsewhere = replace(
        made,
        runs=tables.TABLES["runs"].from_rows(rows),
        evaluations=tables.TABLES["evaluations"].from_rows(evaluations),
        summary=tables.TABLES["summary"].from_rows(summary),
    )
    with pytest.raises(InputError, match="--data"):
        explain(elsewhere, store, [], SILENT)


def test_without_a_run_that_can_be_explained_it_says_what_to_do(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path), create=True)
    with pytest.raises(InputError, match="no finished run with feature maps"):
        explain(content([NONE], [1], 2, model="linear"), store, [], SILENT)
    assert read(store, "placements") is None


def test_damaged_weights_are_refused_with_what_mends_them(
    make_task: MakeTask, tmp_path: Path
) -> None:
    task = make_task(tmp_path, seeds=(0,), milestones=(1,))
    ran(task)
    (weights,) = (tmp_path / "runs").glob("*/weights-0001.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    store = Store(LocalPlace(tmp_path))
    with pytest.raises(InputError, match="sweeps verify --repair"):
        explain(reported(store, {"one": task}), store, [], SILENT)


def test_a_damaged_table_of_gates_is_refused_with_what_makes_it_anew(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path), create=True)
    place = store.sweep("real").at(FOLDER)
    place.write("01-abcd.png", b"png")
    place.write("gates.parquet", b"not parquet")
    with pytest.raises(InputError, match="sweeps report --explain"):
        read(store, "real")
