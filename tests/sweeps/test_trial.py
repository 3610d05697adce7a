"""One stack on the demo set: what it writes and what it never repeats."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from sklearn import metrics

from cifake import tables
from cifake.config import Config
from cifake.data.pack import Pack
from cifake.data.subsets import split_rows
from cifake.errors import InputError
from cifake.evaluation import at_temperature, best_temperature
from cifake.places import LocalPlace, open_place
from sweeps.store import Store
from sweeps.trial import Report, Task
from tests.sweeps.trials import ran, run_of, trained

MakeTask = Callable[..., Task]
Rows = dict[str, list[dict[str, Any]]]
RunRows = Callable[..., Rows]
StoreRows = Callable[[Path], dict[str, Rows]]
Near = Callable[[Rows, Rows], None]


def files(store: Path) -> dict[str, tuple[int, int, bytes]]:
    found = {}
    for path in sorted(store.rglob("*")):
        if path.is_file():
            status = path.stat()
            key = str(path.relative_to(store))
            found[key] = (status.st_ino, status.st_mtime_ns, path.read_bytes())
    return found


@pytest.fixture(scope="module")
def undisturbed(
    make_task: MakeTask, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Task, list[Report]]:
    """Seeds 0 and 1 for four epochs, evaluated at the second and the fourth."""
    store = tmp_path_factory.mktemp("undisturbed")
    task = make_task(store, milestones=(2, 4))
    return task, ran(task)


def test_every_run_has_every_table_with_its_rows(
    undisturbed: tuple[Task, list[Report]], run_rows: RunRows
) -> None:
    task, _ = undisturbed
    store = Store(open_place(task.store))
    assert store.run_ids() == sorted(run_of(task, seed) for seed in task.seeds)
    for seed in task.seeds:
        identity = run_of(task, seed)
        for name in tables.RUN_TABLES:
            content = store.run(identity).place.read(f"{name}.parquet")
            assert tables.decode(name, content).schema.equals(tables.TABLES[name].schema)
        rows = run_rows(Path(task.store), identity)
        assert [(b["epoch"], b["batch"], b["images_seen"]) for b in rows["batches"]] == [
            (1, 7, 200)
        ]
        assert [epoch["epoch"] for epoch in rows["epochs"]] == [1, 2, 3, 4]
        evaluations = [(e["epoch"], e["split"], e["n"]) for e in rows["evaluations"]]
        validation = [(epoch, "validation", 100) for epoch in (1, 2, 3, 4)]
        assert sorted(evaluations) == sorted([*validation, (2, "test", 1000), (4, "test", 1000)])
        thresholds = Counter((t["epoch"], t["split"]) for t in rows["thresholds"])
        assert thresholds == {(epoch, split): 99 for epoch, split, _ in evaluations}
        predictions = Counter((p["epoch"], p["split"]) for p in rows["predictions"])
        assert predictions == {
            (2, "validation"): 100,
            (2, "test"): 1000,
            (4, "validation"): 100,
            (4, "test"): 1000,
        }
        classes = Counter((c["epoch"], c["split"], c["kind"]) for c in rows["classes"])
        assert classes[2, "test", "content_class"] == 10
        assert classes[2, "test", "generator"] == 1
        assert {(epoch, split) for epoch, split, _ in classes} == set(thresholds)
        assert {row["run_id"] for table in rows.values() for row in table} == {identity}


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "paper": {"model_options__filters": 4},
    "convnet": {"model_options__filters": 4, "attention": "se", "placement": "all"},
    "resnet": {"model_options__depth": 8, "model_options__width": 4, "normalization": "dataset"},
    "linear": {"input": "high_pass"},
    "statistics": {"model_options__trees": 5},
}


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_every_architecture_gives_rows_of_the_same_tables_and_weights_that_give_them_again(
    make_task: MakeTask, run_rows: RunRows, tmp_path: Path, model: str
) -> None:
    settings = {"model": model, **ARCHITECTURES[model]}
    task = make_task(tmp_path / "at-once", seeds=(0,), milestones=(1,), **settings)
    late = make_task(tmp_path / "late", seeds=(0,), milestones=(1,), evaluate=(), **settings)
    ran(task)
    ran(late)
    ran(replace(late, evaluate=("demo",)))
    rows = run_rows(Path(task.store), run_of(task, 0))
    (row,) = rows["runs"]
    assert (row["status"], row["model"], row["epochs_done"]) == ("complete", model, 1)
    assert row["parameters"] > 0
    evaluations = {(e["epoch"], e["split"]): e["n"] for e in rows["evaluations"]}
    assert evaluations == {(1, "validation"): 100, (1, "test"): 1000}
    again = run_rows(Path(late.store), run_of(late, 0))
    for table in ("evaluations", "thresholds", "classes", "predictions"):
        assert again[table] == rows[table]


def test_the_row_of_a_run_says_what_it_is(undisturbed: tuple[Task, list[Report]]) -> None:
    task, _ = undisturbed
    for seed in task.seeds:
        state = Store(open_place(task.store)).run_state(run_of(task, seed))
        assert state is not None
        assert (state.status, state.epochs_done, state.seed) == ("complete", 4, seed)
        assert state.row["error"] is None
        assert state.row["parameters"] == 61_241
        assert state.row["train_seconds"] > 0
        assert state.stack_width == 2
        assert state.row["optimizer.lr"] == 0.01
        assert state.row["data.train_images"] == 200
        assert state.row["started_at"] <= state.row["updated_at"]
        assert "torch" in json.loads(state.row["versions"])
        assert state.evaluated == {
            f"{epoch}:demo:{split}" for epoch in (2, 4) for split in ("validation", "test")
        }


def test_keys_are_unique_in_every_table(
    undisturbed: tuple[Task, list[Report]], run_rows: RunRows
) -> None:
    task, _ = undisturbed
    rows = run_rows(Path(task.store), run_of(task, 0))
    for name, found in rows.items():
        keys = [tuple(row[key] for key in tables.TABLES[name].keys) for row in found]
        assert len(set(keys)) == len(keys), name


def test_reports_say_what_the_tables_say(
    undisturbed: tuple[Task, list[Report]], run_rows: RunRows
) -> None:
    task, reports = undisturbed
    assert [report.epoch for report in reports] == [1, 2, 3, 4]
    assert trained(reports) == 8
    assert [report.images for report in reports] == [400] * 4
    evaluations = [
        row
        for seed in task.seeds
        for row in run_rows(Path(task.store), run_of(task, seed))["evaluations"]
    ]
    for report in reports:
        for score in ("accuracy", "auroc", "loss"):
            values = [
                row[score]
                for row in evaluations
                if row["split"] == "validation" and row["epoch"] == report.epoch
            ]
            assert len(values) == 2
            assert report.scores[f"validation.{score}"] == pytest.approx(np.mean(values), rel=1e-12)


def test_metrics_recomputed_from_predictions_are_those_of_the_row(
    undisturbed: tuple[Task, list[Report]], run_rows: RunRows, demo_pack: Pack
) -> None:
    task, _ = undisturbed
    rows = run_rows(Path(task.store), run_of(task, 1))
    checked = 0
    for row in rows["evaluations"]:
        kept = [
            p
            for p in rows["predictions"]
            if (p["epoch"], p["split"]) == (row["epoch"], row["split"])
        ]
        if not kept:
            assert row["epoch"] in (1, 3)
            continue
        checked += 1
        labels = demo_pack.labels[[p["image_id"] for p in kept]]
        p = np.asarray([p["probability"] for p in kept], np.float64)
        called = p >= 0.5
        assert row["n"] == len(kept)
        assert row["accuracy"] == pytest.approx(metrics.accuracy_score(labels, called))
        assert row["balanced_accuracy"] == pytest.approx(
            metrics.balanced_accuracy_score(labels, called)
        )
        assert row["f1"] == pytest.approx(metrics.f1_score(labels, called))
        assert row["auroc"] == pytest.approx(metrics.roc_auc_score(labels, p))
        assert row["average_precision"] == pytest.approx(metrics.average_precision_score(labels, p))
        assert row["loss"] == pytest.approx(metrics.log_loss(labels, p))
        assert row["brier"] == pytest.approx(metrics.brier_score_loss(labels, p))
        tn, fp, fn, tp = metrics.confusion_matrix(labels, called).ravel()
        assert (row["tn"], row["fp"], row["fn"], row["tp"]) == (tn, fp, fn, tp)
        for threshold in rows["thresholds"]:
            if (threshold["epoch"], threshold["split"]) == (row["epoch"], row["split"]):
                right = np.mean((p >= threshold["threshold"]) == (labels == 1))
                assert threshold["accuracy"] == pytest.approx(right)
    assert checked == 4


def test_images_evaluated_are_never_trained_on(
    undisturbed: tuple[Task, list[Report]], run_rows: RunRows, demo_pack: Pack
) -> None:
    task, _ = undisturbed
    config = Config.model_validate(task.config)
    split = split_rows(demo_pack, config.data)
    predictions = run_rows(Path(task.store), run_of(task, 0))["predictions"]
    evaluated = {
        name: {p["image_id"] for p in predictions if p["split"] == name}
        for name in ("validation", "test")
    }
    assert evaluated["validation"] == set(split.validation.tolist())
    assert evaluated["test"] == set(demo_pack.rows("test").tolist())
    assert not (evaluated["validation"] | evaluated["test"]) & set(split.train.tolist())


def test_the_threshold_is_chosen_on_validation_and_applied_to_test(
    undisturbed: tuple[Task, list[Report]], run_rows: RunRows
) -> None:
    task, _ = undisturbed
    rows = run_rows(Path(task.store), run_of(task, 0))
    for epoch in (2, 4):
        curve = {
            split: {
                t["threshold"]: t["accuracy"]
                for t in rows["thresholds"]
                if (t["epoch"], t["split"]) == (epoch, split)
            }
            for split in ("validation", "test")
        }
        for row in rows["evaluations"]:
            if row["epoch"] == epoch:
                chosen = row["validation_threshold"]
                assert curve["validation"][chosen] == max(curve["validation"].values())
                assert row["accuracy_at_validation_threshold"] == curve[row["split"]][chosen]


def test_the_temperature_is_fitted_on_validation_and_applied_to_test(
    undisturbed: tuple[Task, list[Report]], run_rows: RunRows, demo_pack: Pack
) -> None:
    task, _ = undisturbed
    rows = run_rows(Path(task.store), run_of(task, 0))
    for epoch in (2, 4):
        of_epoch = [row for row in rows["evaluations"] if row["epoch"] == epoch]
        kept = {
            split: [p for p in rows["predictions"] if (p["epoch"], p["split"]) == (epoch, split)]
            for split in ("validation", "test")
        }
        arrays = {
            split: (
                np.asarray([p["probability"] for p in found], np.float32),
                demo_pack.labels[[p["image_id"] for p in found]],
            )
            for split, found in kept.items()
        }
        fitted = best_temperature(*arrays["validation"])
        assert {row["temperature"] for row in of_epoch} == {fitted}
        assert best_temperature(*arrays["test"]) != fitted
        for row in of_epoch:
            p, labels = arrays[row["split"]]
            cooled = at_temperature(p, fitted or 1.0)
            assert row["loss_at_temperature"] == pytest.approx(metrics.log_loss(labels, cooled))
            assert row["brier_at_temperature"] == pytest.approx(
                metrics.brier_score_loss(labels, cooled)
            )


def test_weights_of_every_epoch_and_the_last_optimizer_state_are_kept(
    undisturbed: tuple[Task, list[Report]],
) -> None:
    task, _ = undisturbed
    for folder in Path(task.store, "runs").iterdir():
        states = sorted(path.name for path in folder.glob("*.safetensors"))
        weights = [f"weights-000{epoch}.safetensors" for epoch in (1, 2, 3, 4)]
        assert states == ["optimizer-0004.safetensors", *weights]


def test_a_second_call_trains_nothing_and_changes_no_file(
    undisturbed: tuple[Task, list[Report]],
) -> None:
    task, _ = undisturbed
    before = files(Path(task.store))
    assert trained(ran(task)) == 0
    assert files(Path(task.store)) == before


def test_what_was_there_already_is_reported_once(undisturbed: tuple[Task, list[Report]]) -> None:
    task, first = undisturbed
    (report,) = ran(task)
    assert (report.epoch, report.epochs_trained, report.images) == (4, 0, 0)
    assert report.scores == pytest.approx(first[-1].scores, rel=0, abs=0, nan_ok=True)


def test_an_extended_run_has_the_rows_of_one_trained_at_once(
    undisturbed: tuple[Task, list[Report]],
    make_task: MakeTask,
    store_rows: StoreRows,
    tmp_path: Path,
) -> None:
    task, _ = undisturbed
    assert trained(ran(make_task(tmp_path, milestones=(2,)))) == 4
    assert trained(ran(make_task(tmp_path, milestones=(2, 4)))) == 4
    assert store_rows(tmp_path) == store_rows(Path(task.store))


def test_a_milestone_asked_for_later_is_evaluated_from_kept_weights(
    undisturbed: tuple[Task, list[Report]],
    make_task: MakeTask,
    store_rows: StoreRows,
    tmp_path: Path,
) -> None:
    task, _ = undisturbed
    ran(make_task(tmp_path, milestones=(4,)))
    later = make_task(tmp_path, milestones=(2, 4))
    assert store_rows(tmp_path) != store_rows(Path(task.store))
    assert trained(ran(later)) == 0
    assert store_rows(tmp_path) == store_rows(Path(task.store))


def test_a_data_set_asked_for_later_is_evaluated_without_training(
    undisturbed: tuple[Task, list[Report]],
    make_task: MakeTask,
    store_rows: StoreRows,
    tmp_path: Path,
) -> None:
    task, _ = undisturbed
    ran(make_task(tmp_path, milestones=(2, 4), evaluate=()))
    assert trained(ran(make_task(tmp_path, milestones=(2, 4)))) == 0
    assert store_rows(tmp_path) == store_rows(Path(task.store))


def test_seeds_differ(undisturbed: tuple[Task, list[Report]], run_rows: RunRows) -> None:
    task, _ = undisturbed
    zero, one = (run_rows(Path(task.store), run_of(task, seed)) for seed in (0, 1))
    assert [e["loss"] for e in zero["epochs"]] != [e["loss"] for e in one["epochs"]]


def test_without_validation_images_only_test_is_evaluated(
    make_task: MakeTask, run_rows: RunRows, tmp_path: Path
) -> None:
    task = make_task(tmp_path, seeds=(0,), milestones=(1,), data__validation=0)
    (report,) = ran(task)
    assert np.isnan(report.scores["validation.accuracy"])
    rows = run_rows(tmp_path, run_of(task, 0))
    assert [row["split"] for row in rows["evaluations"]] == ["test"]
    assert rows["evaluations"][0]["validation_threshold"] is None
    assert rows["evaluations"][0]["accuracy_at_validation_threshold"] is None


def test_evaluating_a_diverged_run_again_keeps_its_error(
    make_task: MakeTask, tmp_path: Path
) -> None:
    task = make_task(tmp_path, seeds=(0,), milestones=(2,))
    ran(task)
    store = Store(LocalPlace(tmp_path))
    state = store.run_state(run_of(task, 0))
    assert state is not None
    row = {**state.row, "status": "diverged", "error": "loss became nan in epoch 3, batch 4"}
    store.run(state.run_id).commit(row, {})
    ran(make_task(tmp_path, seeds=(0,), milestones=(1, 2)))
    again = store.run_state(state.run_id)
    assert again is not None
    assert "1:demo:test" in again.evaluated
    assert (again.status, again.row["error"]) == ("diverged", row["error"])


# Probabilities that are no numbers


def poisoned(task: Task, seed: int, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change a run's weights after its first epoch, as a damaged disk or a bad update would."""
    folder = Store(open_place(task.store)).run(run_of(task, seed))
    weights = folder.read_weights(1)
    change(weights)
    folder.commit(folder.head().row, {"weights-0001.safetensors": save(weights)})


def everywhere(weights: dict[str, torch.Tensor]) -> None:
    weights["fc3.bias"].fill_(float("nan"))


def test_a_kept_epoch_that_predicts_nan_ends_its_run_alone(
    make_task: MakeTask, tmp_path: Path, run_rows: RunRows
) -> None:
    task = make_task(tmp_path, milestones=(2,))
    ran(task)
    before = run_rows(tmp_path, run_of(task, 0))
    poisoned(task, 0, everywhere)
    longer = make_task(tmp_path, milestones=(1, 3))
    assert trained(ran(longer)) == 1
    lost, sound = (Store(LocalPlace(tmp_path)).run_state(run_of(task, seed)) for seed in (0, 1))
    assert lost is not None
    assert sound is not None
    assert (lost.status, lost.epochs_done) == ("diverged", 2)
    assert lost.row["error"] == (
        "probability became nan on 100 of 100 images of demo validation, in epoch 1"
    )
    after = run_rows(tmp_path, run_of(task, 0))
    assert {k: v for k, v in after.items() if k != "runs"} == {
        k: v for k, v in before.items() if k != "runs"
    }
    assert (sound.status, sound.epochs_done, sound.row["error"]) == ("complete", 3, None)


def test_an_epoch_that_trains_well_but_predicts_nan_on_a_test_image_is_a_divergence(
    make_task: MakeTask, assert_near: Near, run_rows: RunRows, demo_pack: Pack, tmp_path: Path
) -> None:
    """The first convolution is poisoned to overflow where red is brighter than in training."""
    settings = {"data__train_images": 2, "data__validation": 0}
    for draw in range(100):
        task = make_task(tmp_path, milestones=(1,), **settings, data__validation_seed=draw)
        rows = split_rows(demo_pack, Config.model_validate(task.config).data).train
        brightest = float(demo_pack.pixels[rows][..., 0].max()) / 127.5 - 1
        if brightest < 0.9:
            break
    ran(replace(task, evaluate=()))
    kept = run_rows(tmp_path, run_of(task, 0))

    def where_bright(weights: dict[str, torch.Tensor]) -> None:
        weights["conv1.weight"][0] = 0
        weights["conv1.weight"][0, 0, 2, 2] = 1e38
        weights["conv1.bias"][0] = -1e38 * (brightest + 0.05)
        weights["conv2.weight"][:, 0] = 1e38

    poisoned(task, 0, where_bright)
    reports = ran(replace(task, epochs=3, milestones=(2, 3)))
    assert [report.diverged for report in reports] == [(), (0,), ()]
    assert [report.width for report in reports] == [2, 1, 1]
    lost, sound = (Store(LocalPlace(tmp_path)).run_state(run_of(task, seed)) for seed in (0, 1))
    assert lost is not None
    assert sound is not None
    assert (lost.status, lost.epochs_done) == ("diverged", 1)
    assert "of 1,000 images of demo test, in epoch 2" in lost.row["error"]
    assert run_rows(tmp_path, lost.run_id)["epochs"] == kept["epochs"], "the epoch is given up"
    assert (sound.status, sound.epochs_done) == ("complete", 3)
    alone = replace(task, store=str(tmp_path / "alone"), seeds=(1,), epochs=3, milestones=(2, 3))
    ran(alone)
    assert_near(run_rows(tmp_path, sound.run_id), run_rows(tmp_path / "alone", sound.run_id))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to train on")
def test_a_gpu_that_is_not_there_is_a_recorded_fallback(
    make_task: MakeTask, tmp_path: Path
) -> None:
    task = make_task(tmp_path, seeds=(0,), milestones=(1,))
    ran(replace(task, gpus=0.25))
    state = Store(LocalPlace(tmp_path)).run_state(run_of(task, 0))
    assert state is not None
    (fallback,) = state.row["fallbacks"]
    assert "CPU" in fallback
    assert "0.25 GPU" in fallback
    assert state.row["device"].startswith("cpu")


@pytest.mark.parametrize(
    "name", ["weights-0002.safetensors", "optimizer-0002.safetensors", "predictions.parquet"]
)
@pytest.mark.parametrize("size", [None, 0, 1000])
def test_what_is_damaged_is_trained_again_and_the_row_says_so(
    make_task: MakeTask,
    undisturbed: tuple[Task, list[Report]],
    tmp_path: Path,
    run_rows: RunRows,
    assert_near: Near,
    name: str,
    size: int | None,
) -> None:
    """The file of one of two runs is missing, empty or cut; the other goes on as if it were not."""
    whole, _ = undisturbed
    ran(make_task(tmp_path, milestones=(2,)))
    longer = make_task(tmp_path, milestones=(2, 4))
    lost = tmp_path / "runs" / run_of(longer, 1) / name
    content = lost.read_bytes()
    lost.unlink()
    if size is not None:
        lost.write_bytes(content[:size])
    assert trained(ran(longer)) == 2 + 4
    states = [Store(LocalPlace(tmp_path)).run_state(run_of(longer, seed)) for seed in (0, 1)]
    for state in states:
        assert state is not None
        assert (state.status, state.row["error"]) == ("complete", None)
        found = run_rows(tmp_path, state.run_id)
        assert_near(found, run_rows(Path(whole.store), state.run_id))
    said = f"{name} is {'missing' if size is None else 'damaged'}: trained again from epoch 0"
    assert [state.row["fallbacks"] for state in states if state] == [[], [said]]
    assert trained(ran(longer)) == 0


def test_a_pack_that_cannot_be_opened_is_written_into_the_rows(
    make_task: MakeTask, demo_pack: Pack, tmp_path: Path
) -> None:
    damaged = tmp_path / "pack"
    damaged.mkdir()
    for path in demo_pack.folder.iterdir():
        content = path.read_bytes()
        (damaged / path.name).write_bytes(content[:500] if path.name == "pixels.npy" else content)
    task = replace(make_task(tmp_path / "store"), packs={"demo": str(damaged)})
    with pytest.raises(InputError, match="not a whole pack"):
        ran(task)
    for seed in task.seeds:
        state = Store(LocalPlace(tmp_path / "store")).run_state(run_of(task, seed))
        assert state is not None, "a failed run stays a row with its error"
        assert state.status == "failed"
        assert "not a whole pack" in state.row["error"]
