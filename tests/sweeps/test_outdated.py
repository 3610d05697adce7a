"""A plan says which runs of the store it passes over since their data or trainer was another."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cifake.config import TRAINER_VERSION, Config, nest, run_id
from cifake.places import LocalPlace
from cifake.runs import RunState
from sweeps import outdated
from sweeps.store import Store

Command = Callable[..., subprocess.CompletedProcess[str]]

NOW, BEFORE = "ab" * 8, "cd" * 8
VERSION_BEFORE = TRAINER_VERSION - 1


def config(fingerprint: str = NOW, **settings: object) -> Config:
    values = {"data.fingerprint": fingerprint, **settings}
    return Config.model_validate(nest(values))


def run(of: Config, seed: int = 0, version: int = TRAINER_VERSION, epochs: int = 3) -> RunState:
    """A run as a store has it; the identity of one by another trainer is another."""
    config_id = of.config_id if version == TRAINER_VERSION else f"{version:016}"
    return RunState(
        run_id=run_id(config_id, seed),
        config_id=config_id,
        seed=seed,
        status="complete",
        epochs_done=epochs,
        evaluated=frozenset(),
        images_per_second=None,
        stack_width=1,
        stack=(seed,),
        row={**of.flat(), "trainer_version": version},
    )


def noted(known: list[RunState], *new: tuple[Config, int]) -> list[str]:
    return list(outdated.notes(new or [(config(), 0), (config(), 1)], known))


def test_runs_on_other_data_of_the_same_name_are_noted_with_both_fingerprints() -> None:
    (note,) = noted([run(config(BEFORE), seed) for seed in (0, 1, 2)])
    assert note == (
        "2 runs of the store with the settings of new ones were trained on other data "
        "(fingerprint cdcdcdcd, now abababab): not used"
    )


def test_runs_by_another_trainer_are_noted_with_both_versions() -> None:
    (note,) = noted([run(config(), 1, VERSION_BEFORE)])
    assert note == (
        "1 run of the store with the settings of new ones was trained by trainer version "
        f"{VERSION_BEFORE}, now {TRAINER_VERSION}: not used"
    )


def test_both_may_differ_and_every_kind_has_its_note() -> None:
    notes = noted([run(config(BEFORE), 0, VERSION_BEFORE), run(config(BEFORE), 0)])
    assert len(notes) == 2
    both = [note for note in notes if "other data" in note and "trainer version" in note]
    assert len(both) == 1
    assert " and by trainer version " in both[0]


@pytest.mark.parametrize(
    "known",
    [
        run(config(BEFORE, batch_size=64)),
        run(config(BEFORE, **{"optimizer.lr": 0.5})),
        run(config(BEFORE, **{"data.train": "another"})),
        run(config(BEFORE), seed=7),
        run(config(BEFORE), epochs=0),
        run(config()),
    ],
)
def test_runs_that_differ_in_more_or_not_at_all_are_not_noted(known: RunState) -> None:
    assert noted([known]) == []


def test_a_setting_that_changes_no_result_hides_no_run() -> None:
    assert len(noted([run(config(BEFORE, log_every=7))])) == 1


def test_ten_thousand_runs_are_looked_at_in_no_time() -> None:
    configs = [config(batch_size=size) for size in range(2, 1002)]
    before = [run(config(BEFORE, batch_size=size)) for size in range(2, 1002)]
    known = [replace(state, seed=seed) for state in before for seed in range(10)]
    new = [(each, seed) for each in configs for seed in range(10)]
    begun = time.process_time()
    (note,) = noted(known, *new)
    assert time.process_time() - begun < 2
    assert note.startswith("10000 runs of the store")


# A folder of images that changes


SPEC = """\
name: changing
question: Is it seen that the images have changed?
data: {train: folders/mine, validation: 4, evaluate: []}
scientific: {epochs: [1]}
nuisance: {seed: 2}
fixed: {model: linear, batch_size: 8}
"""


def write_images(folder: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for label in ("real", "fake"):
        (folder / "train" / label).mkdir(parents=True, exist_ok=True)
        for number in range(12):
            pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "train" / label / f"{number}.png")


def other_data(plan: Mapping[str, Any]) -> list[str]:
    return [note for note in plan["notes"] if "on other data" in note]


@pytest.mark.heavy
def test_a_folder_that_changed_between_two_runs_of_a_sweep_is_told(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC)
    images, store = tmp_path / "images", tmp_path / "store"
    arguments = (tmp_path / "spec.yaml", "--data", f"folders/mine={images}", "--store", store)
    write_images(images, seed=0)
    first = command("run", *arguments)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "other data" not in first.stdout
    (before,) = {s.row["data.fingerprint"] for s in Store(LocalPlace(store)).run_states().values()}

    write_images(images, seed=1)
    plan = json.loads(command("plan", *arguments, "--json").stdout)
    (note,) = other_data(plan)
    assert (plan["runs_done"], plan["runs_new"]) == (0, 2)
    second = command("run", *arguments)
    assert second.returncode == 0, second.stdout + second.stderr
    states = Store(LocalPlace(store)).run_states().values()
    assert len(states) == 4
    (after,) = {state.row["data.fingerprint"] for state in states} - {before}
    assert note == (
        "2 runs of the store with the settings of new ones were trained on other data "
        f"(fingerprint {before[:8]}, now {after[:8]}): not used"
    )
    assert f"note: {note}" in " ".join(second.stdout.split())

    done = json.loads(command("plan", *arguments, "--json").stdout)
    assert (done["runs_done"], other_data(done)) == (2, [])
