"""What the benchmarks of training compare is the same work, and their rows say what was found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cifake import tables
from cifake.data.locate import open_dataset
from cifake.data.pack import Pack
from tests.benchmarks import rows, tutorial
from tests.benchmarks.evaluating import evaluation
from tests.benchmarks.measure import Outcome, Timed, in_turns, speedup
from tests.benchmarks.training import (
    Size,
    configuration,
    flops_per_image,
    one_by_one,
    some_batches,
    trained,
    training,
    with_torch,
)
from tests.benchmarks.tuned import Images, Tuned
from tests.tutorial_net import Net

SMALL = Size(batches=2, seeds=2, repeats=2)


@pytest.fixture(scope="module")
def demo(_isolated_environment: None) -> Pack:
    return open_dataset("demo")


@pytest.fixture(scope="module")
def outcomes(demo: Pack, cifake_folder: Path) -> list[Outcome]:
    """All comparisons of training, on few images."""
    return training(demo, cifake_folder / "train", 8, SMALL)


def test_stack_and_singles_train_on_as_many_images(demo: Pack) -> None:
    config = configuration(8)
    data = some_batches(demo, config, 3)
    together = trained(config, range(2), data, "cpu")
    apart = one_by_one(config, range(2), data, "cpu")
    assert together.work == apart.work == 2 * 3 * 8


def test_every_target_of_training_is_judged(outcomes: list[Outcome]) -> None:
    targets = {outcome.name.partition("8, ")[2]: outcome.target for outcome in outcomes}
    assert targets == {
        "own batches, vs one by one": 1.5,
        "own batches, vs one by one with torch's own operations": 1.5,
        "own batches, vs ImageFolder and DataLoader": 5.0,
        "own batches, vs matrix products": None,
        "one shared order, vs one by one": 2.2,
        "one shared order, vs one by one with torch's own operations": 2.2,
        "one shared order, vs ImageFolder and DataLoader": 7.0,
        "one shared order, vs matrix products": 0.5,
    }
    assert all(len(outcome.values) == SMALL.repeats for outcome in outcomes)


def test_tuned_loop_of_torch_trains_as_much_and_learns(demo: Pack) -> None:
    data = some_batches(demo, configuration(8), 3)
    assert with_torch(8, range(2), data, "cpu").work == 2 * 3 * 8
    torch.manual_seed(0)
    loop = Tuned(Net(), lr=0.01, batch_size=8)
    images = Images(data.pixels[data.rows], data.labels[data.rows].astype(np.float32))
    losses = [loop.epoch(images, np.arange(24)) for _ in range(200)]
    assert losses[-1] < 0.5 * losses[0]


def test_flops_of_an_image_are_those_of_the_layers() -> None:
    """Twice the multiplications of each layer, three times over, but for the pixels' gradient."""
    conv1, conv2 = 28 * 28 * 75 * 6, 10 * 10 * 150 * 16
    dense = 400 * 120 + 120 * 84 + 84
    assert flops_per_image(configuration(8)) == 2 * (2 * conv1 + 3 * (conv2 + dense))


def test_tutorial_trains_the_base_network_on_every_file(
    cifake_folder: Path, cifake_images: dict[str, bytes]
) -> None:
    torch.manual_seed(0)
    loop = tutorial.Tutorial(cifake_folder / "train", 16)
    done = loop.train(1000)
    assert done.work == sum(name.startswith("train/") for name in cifake_images) == 48
    assert sum(p.numel() for p in loop.net.parameters()) == 61_241
    for _ in range(30):
        loop.train(3)
    assert sum(loop.losses[-3:]) < sum(loop.losses[:3])


def test_evaluation_is_held_against_the_training_of_its_epoch(demo: Pack) -> None:
    found = evaluation(demo, seeds=2, epochs=2, data={"validation": 200, "train_images": 200})
    assert len(found.values) == len(found.baselines) == 2
    assert min(found.values) > 0
    assert min(found.baselines) > 0


def test_ways_are_measured_in_turns() -> None:
    order: list[str] = []

    def way(name: str) -> Timed:
        order.append(name)
        return Timed(1, 1, 1)

    found = in_turns(3, lambda: way("a"), lambda: way("b"))
    assert order == ["a", "b"] * 3
    assert [len(each) for each in found] == [3, 3]


def test_a_comparison_is_of_medians_with_the_spread_of_its_turns() -> None:
    ours = [Timed(100, 1, 2), Timed(100, 2, 2), Timed(100, 4, 2)]
    theirs = [Timed(100, 4, 4), Timed(100, 4, 4), Timed(100, 4, 8)]
    found = speedup("x", "images/s", ours, theirs, target=2.0)
    assert (found.value, found.baseline, found.ratio) == (50, 25, 2)
    assert found.spread == (1, 4)
    assert found.cpu_ratios == [2, 2, 4]
    assert found.met


@pytest.mark.parametrize(
    ("judged", "target", "met"),
    [
        ("ratio at least", 1.9, True),
        ("ratio at least", 2.1, False),
        ("ratio at most", 2.1, True),
        ("ratio at most", 1.9, False),
        ("value at most", 4.1, True),
        ("value at most", 3.9, False),
        ("ratio at least", None, None),
    ],
)
def test_a_target_is_met_from_its_side(judged: str, target: float | None, met: bool | None) -> None:
    assert Outcome("x", "s", [4.0], judged, target, [2.0]).met is met  # type: ignore[arg-type]


def test_rows_are_added_to_those_of_earlier_runs(tmp_path: Path, outcomes: list[Outcome]) -> None:
    rows.append(tmp_path, outcomes)
    rows.append(tmp_path, outcomes)
    written = pq.read_table(tmp_path / "benchmarks.parquet")
    assert len(written) == 2 * len(outcomes)
    assert written.column_names[:13] == [
        "name", "value", "unit", "baseline_value", "ratio", "target", "met",
        "commit", "cpu", "cores", "torch", "ray", "measured_at",
    ]  # fmt: skip
    for row in tables.decode(
        "benchmarks", (tmp_path / "benchmarks.parquet").read_bytes()
    ).to_pylist():
        assert row["ratio"] == pytest.approx(row["value"] / row["baseline_value"])
        assert row["met"] == (None if row["target"] is None else row["ratio"] >= row["target"])
        assert row["low"] <= row["high"]


def test_the_page_has_the_newest_row_of_every_benchmark(
    tmp_path: Path, outcomes: list[Outcome]
) -> None:
    rows.append(tmp_path, outcomes)
    rows.append(tmp_path, outcomes)
    lines = (tmp_path / "benchmarks.md").read_text().splitlines()
    named = [line for line in lines if line.startswith("| 2 seeds")]
    assert len(named) == len(outcomes)
    assert {line.count("|") for line in lines if line.startswith("|")} == {12}
