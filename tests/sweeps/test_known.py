"""Which points of a search's space the store has, and what they reached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cifake.data.pack import Pack
from cifake.places import open_place
from sweeps.known import history, known_points
from sweeps.parts import single_values
from sweeps.spec import Spec
from sweeps.store import Store
from sweeps.sweep import Sweep
from sweeps.trial import Task
from tests.sweeps.trials import ran

Parse = Callable[..., Spec]

SPEC = """\
name: a
data: {train: demo, validation: 100, train_images: 200}
fixed: {epochs: 2, batch_size: 32}
nuisance: {seed: 2}
search:
  trials: 4
  metric: validation.accuracy
  space:
    optimizer.lr: {log_uniform: [1e-3, 1e-1]}
    attention: {choice: [none, srm]}
    placement: {choice: [both], when: {attention: srm}}
"""


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory, make_task: Callable[..., Task]) -> Task:
    """Two seeds, trained for three epochs at a learning rate of 0.01."""
    task = make_task(tmp_path_factory.mktemp("store") / "s", milestones=(3,))
    ran(task)
    return task


def known(parse_text: Parse, pack: Pack, task: Task, *settings: str) -> list[Any]:
    spec = parse_text(SPEC, *settings)
    assert spec.search is not None
    states = Store(open_place(task.store)).run_states().values()
    return list(known_points(Sweep(spec, {"demo": pack}), spec.search, single_values(spec), states))


def test_a_point_is_known_where_every_seed_is_trained_as_long(
    parse_text: Parse, demo_pack: Pack, task: Task
) -> None:
    (found,) = known(parse_text, demo_pack, task)
    assert found.params == {"optimizer.lr": 0.01, "attention": "none"}
    assert len(found.run_ids) == 2


@pytest.mark.parametrize(
    "setting",
    [
        "seed=3",
        "epochs=4",
        "batch_size=16",
        "data.train_images=100",
        "data.validation=50",
        "search.space.optimizer.lr={log_uniform: [0.02, 0.1]}",
        "search.space.attention={choice: [srm]}",
    ],
)
def test_what_differs_in_anything_is_not_known(
    parse_text: Parse, demo_pack: Pack, task: Task, setting: str
) -> None:
    assert known(parse_text, demo_pack, task, setting) == []


def test_what_a_point_reached_is_the_mean_of_its_rows(
    parse_text: Parse, demo_pack: Pack, task: Task
) -> None:
    (found,) = known(parse_text, demo_pack, task)
    store = Store(open_place(task.store))
    metrics = ["validation.accuracy", "train_seconds"]
    reached = history(found, store, "demo", metrics, 2)
    assert [each.epoch for each in reached] == [1, 2]
    rows = [
        row
        for run_id in found.run_ids
        for row in store.read(run_id, "evaluations").to_pylist()
        if (row["epoch"], row["split"]) == (2, "validation")
    ]
    values = [row["accuracy"] for row in rows]
    assert len(values) == 2
    assert reached[1].scores["validation.accuracy"] == pytest.approx(np.mean(values))
    assert reached[1].stds["validation.accuracy"] == pytest.approx(np.std(values, ddof=1))
    seconds = [
        sum(row["seconds"] for row in store.read(run_id, "epochs").to_pylist()[:2])
        for run_id in found.run_ids
    ]
    assert reached[1].scores["train_seconds"] == pytest.approx(np.mean(seconds))
