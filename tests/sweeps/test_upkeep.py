"""A store is checked whole and mended, and rid of what no sweep asks for."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cifake import tables
from cifake.claims import Owner, claimed
from cifake.data.pack import Pack
from cifake.data.published import FOLDER, publish
from cifake.places import Place, open_place
from sweeps import aggregate, upkeep
from sweeps.packs import PACKS, unnamed_packs
from sweeps.store import Store
from sweeps.trial import Task
from tests.sweeps.trials import ran, run_of, trained

MakeTask = Callable[..., Task]
Command = Callable[..., subprocess.CompletedProcess[str]]
Rows = dict[str, list[dict[str, Any]]]
RunRows = Callable[[Path | str, str], Rows]
Near = Callable[[Rows, Rows], None]


@pytest.fixture
def task(make_task: MakeTask, tmp_path: Path) -> Task:
    """Two runs of three epochs in a store of their own."""
    made = make_task(tmp_path / "store", milestones=(3,))
    Store.open(made.store, create=True)
    ran(made)
    return made


def verified(store: str, *, repair: bool = False) -> list[upkeep.Damage]:
    return list(upkeep.verify(Store(open_place(store)), repair=repair, advance=lambda _: None))


def damage(task: Task, file: str, seed: int = 1) -> Path:
    """Turn one bit of a file of a run."""
    path = Path(task.store) / "runs" / run_of(task, seed) / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path


def test_a_sound_store_is_found_sound_and_left_as_it_is(task: Task) -> None:
    files = [path for path in Path(task.store).rglob("*") if path.is_file()]
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
    assert verified(task.store) == verified(task.store, repair=True) == []
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files} == before


@pytest.mark.parametrize(
    "file",
    [
        *(f"{table}.parquet" for table in tables.RUN_TABLES if table != "runs"),
        "weights-0003.safetensors",
        "optimizer-0003.safetensors",
    ],
)
def test_one_turned_bit_is_found_and_mended_by_training_the_run_again(
    task: Task, run_rows: RunRows, assert_near: Near, file: str
) -> None:
    run_id = run_of(task, 1)
    store = Path(task.store)
    before = {seed: run_rows(store, run_of(task, seed)) for seed in (0, 1)}
    damage(task, file)
    (found,) = verified(task.store)
    assert (found.where, found.epochs) == (run_id, 3)
    assert found.problems == (f"{file} is damaged",)
    assert found.seconds > 0
    assert verified(task.store, repair=True) == [found]
    assert verified(task.store) == []
    assert trained(ran(task)) == 3
    assert run_rows(store, run_of(task, 0)) == before[0]
    after = run_rows(store, run_id)
    assert after["runs"][0].pop("fallbacks") == [f"{file} is damaged: trained again from epoch 0"]
    assert_near(after, before[1])


def test_the_table_of_a_row_that_the_head_has_too_costs_no_training(task: Task) -> None:
    before = damage(task, "runs.parquet")
    (found,) = verified(task.store, repair=True)
    assert (found.epochs, found.problems) == (0, ("runs.parquet is damaged",))
    assert verified(task.store) == []
    (row,) = tables.decode("runs", before.read_bytes()).to_pylist()
    assert row == Store(open_place(task.store)).run_state(run_of(task, 1)).row
    assert trained(ran(task)) == 0


def test_weights_of_an_epoch_long_past_cost_no_training(task: Task) -> None:
    damage(task, "weights-0001.safetensors")
    (found,) = verified(task.store, repair=True)
    assert (found.epochs, found.problems) == (0, ("weights-0001.safetensors is damaged",))
    assert verified(task.store) == []
    folder = Store(open_place(task.store)).run(run_of(task, 1))
    assert folder.epochs() == [2, 3]
    assert trained(ran(task)) == 0


def test_a_damaged_head_is_found_and_its_run_trained_anew(task: Task) -> None:
    path = Path(task.store) / "runs" / run_of(task, 0) / "run.json"
    path.write_bytes(path.read_bytes()[:100])
    (found,) = verified(task.store)
    assert found.where == run_of(task, 0)
    assert "run.json is no head of a run" in found.problems[0]
    assert (found.epochs, found.seconds > 0) == (3, True)
    verified(task.store, repair=True)
    assert trained(ran(task)) == 3
    assert verified(task.store) == []


def test_damaged_tables_of_sweeps_are_found_and_removed(task: Task) -> None:
    store = Store(open_place(task.store))
    store.write_sweep("a", "cells.parquet", tables.encode("cells", aggregate.cells_table([])))
    store.write_sweep("a", "summary.parquet", b"nonsense")
    store.write_sweep("a", "report.md", b"# a report")
    (found,) = verified(task.store, repair=True)
    assert found.where == "sweep a"
    assert "summary.parquet" in found.problems[0]
    assert store.sweep("a").files() == ["cells.parquet", "report.md"]
    assert verified(task.store) == []


def test_the_command_says_what_is_damaged_and_what_to_do(command: Command, task: Task) -> None:
    sound = command("verify", "--store", task.store)
    assert (sound.returncode, sound.stdout) == (0, "2 runs checked: nothing is damaged\n")
    path = damage(task, "epochs.parquet")
    told = command("verify", "--store", task.store)
    assert told.returncode == 1
    assert f"{path.parent.name}: 3 epochs, about" in told.stdout
    assert "  epochs.parquet is damaged" in told.stdout
    assert "1 damaged, 3 epochs to train again" in told.stdout
    assert "`sweeps verify --repair`" in told.stdout
    facts = json.loads(command("verify", "--store", task.store, "--json").stdout)
    assert [(each["where"], each["epochs"]) for each in facts] == [(path.parent.name, 3)]
    mended = command("verify", "--store", task.store, "--repair")
    assert mended.returncode == 0
    assert "`sweeps run` trains them" in mended.stdout
    assert command("verify", "--store", task.store).returncode == 0


def test_a_store_in_an_object_store_is_checked_and_mended(make_task: MakeTask, bucket: str) -> None:
    task = make_task(bucket, seeds=(0,), milestones=(1,))
    ran(task)
    assert verified(bucket) == []
    place = Store(open_place(bucket)).run(run_of(task, 0)).place
    place.write("epochs.parquet", b"nonsense")
    place.remove("predictions.parquet")
    (found,) = verified(bucket, repair=True)
    assert found.problems == ("epochs.parquet is damaged", "predictions.parquet is missing")
    assert trained(ran(task)) == 1
    assert verified(bucket) == []


# Runs that nobody asks for


def asked_for(task: Task, seed: int) -> None:
    """Let a sweep ask for a run."""
    store = Store(open_place(task.store))
    row = {
        "run_id": run_of(task, seed),
        "config_id": store.run(run_of(task, seed)).head().row["config_id"],
        "seed": seed,
        "epochs": 3,
        "label": "base",
        "nuisance": "",
        "stage": "grid",
        "role": "end",
    }
    content = tables.encode("cells", tables.TABLES["cells"].from_rows([row]))
    store.write_sweep("a", "cells.parquet", content)


def test_only_runs_that_no_sweep_asks_for_are_listed_and_removed(
    command: Command, task: Task
) -> None:
    asked_for(task, 0)
    other = run_of(task, 1)
    folder = Path(task.store) / "runs" / other
    recent = command("gc", "--store", task.store)
    assert recent.stdout == "every run of the store is asked for by a sweep, or new\n"
    listed = command("gc", "--store", task.store, "--older-than", "0")
    assert listed.returncode == 0
    assert other in listed.stdout
    assert run_of(task, 0) not in listed.stdout
    assert "`sweeps gc --remove` removes them" in listed.stdout
    assert folder.is_dir()
    facts = json.loads(command("gc", "--store", task.store, "--older-than", "0", "--json").stdout)
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert not facts["removed"]
    assert facts["runs"] == [
        {"run_id": other, "model": "base", "seed": 1, "epochs_done": 3, "size": size}
    ]
    command("gc", "--store", task.store, "--older-than", "0", "--remove")
    assert sorted(os.listdir(folder.parent)) == [run_of(task, 0)]
    assert verified(task.store) == []


def test_what_a_sweep_asks_for_must_be_known_before_anything_is_removed(
    command: Command, task: Task
) -> None:
    Store(open_place(task.store)).write_sweep("a", "cells.parquet", b"nonsense")
    refused = command("gc", "--store", task.store, "--older-than", "0", "--remove")
    assert refused.returncode == 2
    assert "cells.parquet" in refused.stderr
    assert len(os.listdir(Path(task.store) / "runs")) == 2


def test_notes_of_a_sweep_that_are_cut_off_are_found_and_removed(task: Task) -> None:
    store = Store(open_place(task.store))
    store.write_sweep("a", "stacks.json", b'{"half')
    store.write_sweep("a", "forecasts.json", b"[]")
    (found,) = verified(task.store)
    assert found.where == "sweep a"
    assert found.problems[0].startswith("stacks.json is no JSON")
    verified(task.store, repair=True)
    assert store.sweep("a").files() == ["forecasts.json"]


def test_a_sweep_whose_cells_were_removed_keeps_its_runs(command: Command, task: Task) -> None:
    store = Store(open_place(task.store))
    store.write_sweep("a", "spec.yaml", b"name: a")
    store.write_sweep("a", "cells.parquet", b"nonsense")
    assert command("verify", "--store", task.store, "--repair").returncode == 0
    refused = command("gc", "--store", task.store, "--older-than", "0", "--remove")
    assert refused.returncode == 2
    assert "sweep a: has no cells.parquet" in refused.stderr
    assert len(os.listdir(Path(task.store) / "runs")) == 2


def test_runs_in_an_object_store_are_removed_whole(make_task: MakeTask, bucket: str) -> None:
    task = make_task(bucket, seeds=(0,), milestones=(1,))
    ran(task)
    store = Store(open_place(bucket))
    (run,) = upkeep.unasked(store, timedelta(0))
    assert run.size == sum(store.run(run.run_id).place.sizes().values()) > 1000
    assert upkeep.remove(store, [run]) == [run]
    assert store.run_states() == {}
    assert store.run(run.run_id).place.files() == []


# Packs, which sweeps on clusters put into their store


def published(store: Store, pack: Pack) -> Place:
    """Put a pack into a store, as a sweep does that names it."""
    with Owner(store.root, "test") as owner:
        publish(pack, store.root, owner)
    return store.root.at(FOLDER).at(pack.folder.name)


def named(store: Store, pack: Pack, sweep: str = "a") -> None:
    store.write_sweep(sweep, PACKS, json.dumps({"demo": pack.folder.name}).encode())


def test_a_damaged_pack_is_found_and_removed(command: Command, task: Task, demo_pack: Pack) -> None:
    place = published(Store(open_place(task.store)), demo_pack)
    assert verified(task.store) == []
    content = bytearray(place.read("pixels.npy"))
    content[-1] ^= 1
    place.write("pixels.npy", bytes(content))
    result = command("verify", "--store", task.store)
    assert result.returncode == 1
    assert f"pack {demo_pack.folder.name}\n  pixels.npy is damaged\n" in result.stdout
    (found,) = verified(task.store, repair=True)
    assert found.problems == ("pixels.npy is damaged",)
    assert place.files() == []
    assert verified(task.store) == []
    assert published(Store(open_place(task.store)), demo_pack).files(), "it is put there again"


def test_a_pack_that_another_puts_there_now_is_left_alone(task: Task, demo_pack: Pack) -> None:
    store = Store(open_place(task.store))
    place = published(store, demo_pack)
    place.remove("images.parquet")
    with Owner(store.root, "test") as owner, claimed([place], owner, lambda _: None):
        (found,) = verified(task.store, repair=True)
        assert found.problems == ("images.parquet is missing", upkeep.LEFT)
        assert upkeep.remove_packs(store, unnamed_packs(store)) == []
    assert "pixels.npy" in place.files()


def test_packs_that_no_sweep_names_are_listed_and_removed(
    command: Command, task: Task, demo_pack: Pack
) -> None:
    store = Store(open_place(task.store))
    place = published(store, demo_pack)
    left = store.root.at(FOLDER).at("other-0-v3")
    left.write("pixels.npy", b"the beginning of a pack")
    named(store, demo_pack)
    listed = command("gc", "--store", task.store).stdout
    assert "pack other-0-v3, 0.0 MB, which no sweep names; `sweeps gc --remove`" in listed
    assert demo_pack.folder.name not in listed
    facts = json.loads(command("gc", "--store", task.store, "--json").stdout)
    assert facts["packs"] == [{"pack": "other-0-v3", "size": 23}]
    assert command("gc", "--store", task.store, "--remove").returncode == 0
    assert left.files() == []
    assert "pixels.npy" in place.files()


def test_what_a_sweep_names_must_be_known_before_a_pack_is_removed(
    command: Command, task: Task, demo_pack: Pack
) -> None:
    store = Store(open_place(task.store))
    place = published(store, demo_pack)
    store.write_sweep("a", PACKS, b"nonsense")
    refused = command("gc", "--store", task.store, "--remove")
    assert refused.returncode == 2
    assert f"{PACKS}: is damaged; delete it" in refused.stderr
    assert "pixels.npy" in place.files()


@pytest.mark.parametrize("name", ["verify", "gc"])
def test_a_place_without_runs_is_refused_and_not_made(
    command: Command, tmp_path: Path, name: str
) -> None:
    refused = command(name, "--store", tmp_path / "nothing")
    assert refused.returncode == 2
    assert "holds no runs; run `sweeps run` first, or give --store" in refused.stderr
    assert not (tmp_path / "nothing").exists()
