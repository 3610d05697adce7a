"""A sweep on folder sets and variants: what it opens, what it refuses, what a trial writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from cifake.data.locate import open_dataset
from cifake.errors import InputError
from cifake.places import open_place
from sweeps.spec import Spec
from sweeps.store import Store
from sweeps.sweep import Sweep, open_sweep
from sweeps.trial import Task, run_stack

MakeTask = Callable[..., Task]
Parse = Callable[..., Spec]

QUIET = Console(quiet=True)


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[[Mapping[str, int]], Path]:
    """A folder set with so many pictures in each folder, and one broken file in each."""

    def made(folders: Mapping[str, int]) -> Path:
        rng = np.random.default_rng(0)
        for folder, count in folders.items():
            (tmp_path / "set" / folder).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (40, 50, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "set" / folder / f"{number}.png")
            (tmp_path / "set" / folder / "broken.jpg").write_bytes(b"nothing")
        return tmp_path / "set"

    return made


def opened(spec: Spec, *data: str) -> Sweep:
    return open_sweep(spec, data, QUIET)


def refusal(spec: Spec, *data: str) -> str:
    with pytest.raises(InputError) as caught:
        opened(spec, *data)
    return str(caught.value)


def test_trial_evaluates_folder_sets_and_variants_under_their_names(
    make_task: MakeTask, make_folder: Callable[[Mapping[str, int]], Path], tmp_path: Path
) -> None:
    folder = make_folder({"real": 7, "fake/sd": 5, "train/real": 3})
    names = ("demo", "demo@jpeg=50", "folders/odd", "folders/odd@filter=box,greyscale")
    packs = {name: open_dataset(name, {"folders/odd": folder}) for name in names}
    task = replace(
        make_task(tmp_path / "store", seeds=(0,), milestones=(1,), evaluate=names),
        packs={name: str(pack.folder) for name, pack in packs.items()},
    )
    run_stack(task, [].append)
    store = Store(open_place(task.store))
    (run_id,) = store.run_ids()
    rows = {
        (row["dataset"], row["split"]): row for row in store.read(run_id, "evaluations").to_pylist()
    }
    assert set(rows) == {("demo", "validation"), *((name, "test") for name in names)}
    found = {key: (row["n"], row["n_unreadable"]) for key, row in rows.items()}
    assert found["demo", "validation"] == (100, 0)
    assert found["demo@jpeg=50", "test"] == (1000, 0)
    assert found["folders/odd", "test"] == (12, 2), "the broken training file is not of the split"
    assert found["folders/odd@filter=box,greyscale", "test"] == (12, 2)
    assert rows["demo", "test"]["loss"] != rows["demo@jpeg=50", "test"]["loss"]
    classes = store.read(run_id, "classes").to_pylist()
    assert ("folders/odd", "sd", 5) in {(c["dataset"], c["name"], c["n"]) for c in classes}
    state = store.run_state(run_id)
    assert state is not None
    assert {key.count(":") for key in state.evaluated} == {2}


def test_folder_set_with_training_images_is_trained_on(
    parse_text: Parse, make_folder: Callable[[Mapping[str, int]], Path]
) -> None:
    folder = make_folder({"train/real": 6, "train/fake": 6, "test/real": 2, "test/fake": 2})
    spec = parse_text("name: a\nfixed: {epochs: 1}\ndata: {train: folders/mine, validation: 4}\n")
    sweep = opened(spec, str(folder))
    assert sweep.train_pack.info.source == str(folder)
    assert sweep.train_pack.unreadable("train") == 2
    (cell,) = sweep.cells()
    assert cell.variant.config.data.fingerprint == sweep.train_pack.info.fingerprint


def test_training_set_and_its_variant_share_a_source(
    parse_text: Parse, cifake_folder: Path
) -> None:
    spec = parse_text(
        "name: a\nfixed: {epochs: 1}\n"
        "data: {train: cifake@jpeg=50, validation: 4, evaluate: [cifake, cifake@jpeg=50]}\n"
    )
    for option in (str(cifake_folder), f"cifake={cifake_folder}"):
        sweep = opened(spec, option)
        assert list(sweep.packs) == ["cifake@jpeg=50", "cifake"]
        assert sweep.fingerprint == sweep.packs["cifake@jpeg=50"].info.fingerprint


@pytest.mark.parametrize(
    ("folders", "data", "said"),
    [
        ({"real": 3, "fake": 3}, "train: folders", ["data.train", "labelled FAKE or REAL"]),
        ({"train/real": 5, "fake": 3}, "train: folders", ["data.train", "labelled FAKE;"]),
        (
            {"train/real": 5, "train/fake": 5},
            "train: folders",
            ["data.evaluate", "'folders'", "no test images"],
        ),
        (
            {"train/real": 5, "train/fake": 5},
            "train: demo, evaluate: [demo, folders]",
            ["data.evaluate", "'folders'", "no test images"],
        ),
    ],
)
def test_folder_set_without_what_is_wanted_of_it_is_refused(
    folders: dict[str, int],
    data: str,
    said: list[str],
    parse_text: Parse,
    make_folder: Callable[[Mapping[str, int]], Path],
) -> None:
    spec = parse_text(f"name: a\nfixed: {{epochs: 1}}\ndata: {{{data}, validation: 0}}\n")
    text = refusal(spec, f"folders={make_folder(folders)}")
    for part in ("spec.yaml", *said):
        assert part in text


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("only: chnia1", ["data.only", "'chnia1'", "china1", "flower5"]),
        ("leave_out: cat", ["data.leave_out", "'cat'", "china1"]),
        ("images_per_class: 201", ["data.images_per_class", "201", "FAKE china1"]),
    ],
)
def test_impossible_subset_is_refused_before_work_starts(
    data: str, said: list[str], parse_text: Parse
) -> None:
    spec = parse_text(
        f"name: a\nfixed: {{epochs: 1}}\ndata: {{train: demo, validation: 0, {data}}}\n"
    )
    text = refusal(spec)
    for part in said:
        assert part in text


def test_every_compared_subset_is_looked_at(parse_text: Parse) -> None:
    scientific: dict[str, Any] = {"data.only": ["china1", "cat"]}
    spec = parse_text(
        f"name: a\nscientific: {scientific}\nfixed: {{epochs: 1}}\n"
        "data: {train: demo, validation: 0}\n"
    )
    assert "'cat'" in refusal(spec)
