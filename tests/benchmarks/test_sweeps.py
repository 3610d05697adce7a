"""What the benchmarks of whole sweeps compare is the same work, done, counted and timed in full."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.benchmarks import kills, orchestration
from tests.benchmarks.__main__ import BENCHMARKS, NAMES, SWEEPS
from tests.benchmarks.against_ray import (
    BEST,
    TO_THE_LETTER,
    TUTORIAL,
    Rival,
    against,
    check_alike,
    check_trained,
    learned,
    plain,
    sweep_learned,
)
from tests.benchmarks.grids import Cell, Grid, Trained, read_trained, subset, write_trained
from tests.benchmarks.measure import Timed
from tests.benchmarks.processes import apart, run

pytestmark = pytest.mark.heavy

SMALL = Grid(
    epochs=(1, 10), seeds=2, train_images=1_200, validation=100, test=400, learning_rate=0.03
)
SHORT = Grid(epochs=(4,), seeds=2, train_images=1_200, validation=100, test=400)

FirstImages = Callable[[Mapping[str, int]], dict[str, bytes]]


@pytest.fixture(scope="module")
def files(
    first_images: FirstImages,
    write_tree: Callable[[Path, Mapping[str, bytes]], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Real images, 650 to train and 200 to test of each label."""
    images = first_images({"train": 65, "test": 20})
    return write_tree(tmp_path_factory.mktemp("cifake"), images)


def test_a_grid_is_ten_runs_of_forty_cells() -> None:
    grid = Grid()
    assert len(set(grid.cells)) == 2 * 4 * 5
    assert grid.epochs_of_cells == 2 * 5 * (5 + 10 + 20 + 30)
    assert grid.epochs_of_runs == 2 * 5 * 30
    assert Grid.decode(SMALL.encode()) == SMALL


def test_a_subset_has_both_labels_and_every_class_alike(files: Path, tmp_path: Path) -> None:
    folder = subset(files, tmp_path / "subset", replace(SMALL, train_images=100, test=40))
    names = [path.relative_to(folder) for path in folder.rglob("*.jpg")]
    for split, images in (("train", 200), ("test", 40)):
        for label in ("FAKE", "REAL"):
            found = [name for name in names if name.parts[:2] == (split, label)]
            assert len(found) == images / 2
            assert len({name.stem.partition(" ")[2] for name in found}) == 10


def test_a_subset_is_refused_where_there_are_too_few_images(files: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1000 images are needed"):
        subset(files, tmp_path / "subset", replace(SMALL, train_images=1_900))


@pytest.mark.parametrize(
    ("rival", "orders"),
    [
        (TUTORIAL, ["per_seed"]),
        pytest.param(BEST, ["per_seed", "shared"], marks=pytest.mark.long),
    ],
)
def test_plain_ray_tune_learns_what_a_sweep_learns_from_the_same_files(
    rival: Rival, orders: list[str], files: Path, tmp_path: Path
) -> None:
    outcomes = against(rival, files, tmp_path / "sweeps", SMALL, orders=orders)
    assert [outcome.target for outcome in outcomes] == [rival.targets[order] for order in orders]
    for outcome in outcomes:
        assert outcome.name.endswith(f"vs {rival.name}")
        assert outcome.baseline is not None
        assert min(outcome.value, outcome.baseline, outcome.cpu_ratios[0]) > 0
    trained = read_trained(tmp_path / "sweeps" / "0" / "rival" / "trained.json")
    assert {each.cell for each in trained} == set(SMALL.cells)
    losses = {each.cell: each.loss for each in trained}
    for cell, loss in losses.items():
        if cell.epochs == 1:
            assert losses[replace(cell, epochs=10)] < loss
    assert min(learned(trained).values()) > 0.65
    assert min(sweep_learned(tmp_path / "sweeps" / "0" / "per_seed" / "store").values()) > 0.65


def test_the_tutorial_can_have_the_loaders_and_cores_that_it_asks_for(
    files: Path, tmp_path: Path
) -> None:
    grid = replace(SHORT, epochs=(1,), seeds=1)
    images = subset(files, tmp_path / "images", grid)
    rival = tmp_path / "rival"
    rival.mkdir()
    done = plain(TO_THE_LETTER, grid, images, rival)
    assert done.work == 2
    check_trained(grid, read_trained(rival / "trained.json"))


@pytest.fixture
def trained() -> list[Trained]:
    return [Trained(cell, cell.epochs, 0.5, 0.75, 0.7) for cell in SMALL.cells]


def test_what_trials_say_is_read_as_it_was_written(trained: list[Trained], tmp_path: Path) -> None:
    write_trained(tmp_path / "trained.json", trained)
    assert read_trained(tmp_path / "trained.json") == trained


def test_a_rival_that_left_work_out_is_not_compared(trained: list[Trained]) -> None:
    check_trained(SMALL, trained[::-1])
    with pytest.raises(ValueError, match="7 trials are not the 8 cells"):
        check_trained(SMALL, trained[1:])
    with pytest.raises(ValueError, match="was trained for 9 epochs"):
        check_trained(SMALL, [*trained[:-1], replace(trained[-1], epochs=9)])


def test_sides_that_did_not_learn_alike_are_not_compared() -> None:
    check_alike({"none": 0.75, "srm": 0.8}, {"none": 0.8, "srm": 0.75})
    with pytest.raises(ValueError, match=r"attention srm is 0\.500 in a sweep, and 0\.8"):
        check_alike({"none": 0.75, "srm": 0.8}, {"none": 0.8, "srm": 0.5})
    with pytest.raises(ValueError, match="were trained"):
        check_alike({"none": 0.75}, {"none": 0.75, "srm": 0.8})


def test_only_the_greatest_length_says_what_was_learned(trained: list[Trained]) -> None:
    short = replace(trained[0], cell=Cell("none", 1, 7), test_accuracy=0.1)
    assert learned([*trained, short]) == pytest.approx({"none": 0.7, "srm": 0.7})


@pytest.mark.long
def test_a_sweep_that_is_killed_trains_no_more_than_what_was_in_flight_again(
    files: Path, tmp_path: Path
) -> None:
    # Workers train on until Ray has noticed that the driver is gone: they must not be done by then.
    grid = replace(SHORT, epochs=(40,))
    found = kills.kill(files, tmp_path / "kills", grid, repeats=1)
    assert 0 < found.baselines[0] <= 4
    assert found.values[0] <= found.baselines[0]
    assert found.met


def test_a_sweep_and_the_bare_trainer_train_the_same_stacks(files: Path, tmp_path: Path) -> None:
    size = orchestration.Size(
        rates=(1e-3,), seeds=2, train_images=1_200, validation=100, predicted=2, least=0
    )
    found = orchestration.orchestration(files, tmp_path / "sweeps", size, repeats=1)
    assert found.ratio is not None
    assert found.ratio > 1
    assert found.cpu_ratios[0] > 1


def test_a_sweep_that_is_too_short_is_not_measured() -> None:
    orchestration.check_long(Timed(1, 300, 500), 300)
    with pytest.raises(ValueError, match="a sweep of 299 s is too short: it must take 300 s"):
        orchestration.check_long(Timed(1, 299, 500), 300)


BUSY = """
import subprocess, sys, time
code = "import time\\nend = time.process_time() + 1.5\\nwhile time.process_time() < end: pass"
child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
while open(f"/proc/{child.pid}/stat").read().rpartition(")")[2].split()[0] != "Z": time.sleep(0.05)
"""


def test_processor_time_of_processes_that_nobody_waited_for_is_counted(tmp_path: Path) -> None:
    with apart() as environment:
        done = run(3, [sys.executable, "-c", BUSY], environment, tmp_path)
    assert done.work == 3
    assert 0.9 < done.cpu < 3
    assert done.wall > 1.4


def test_a_command_that_fails_is_told_with_what_it_said(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such thing')"]
    with apart() as environment, pytest.raises(RuntimeError, match="ended with 1:\nno such thing"):
        run(1, command, environment, tmp_path)


def test_nothing_of_a_command_is_left_when_it_has_ended(tmp_path: Path) -> None:
    left = "import subprocess, sys; subprocess.Popen(['sleep', '98765'], start_new_session=True)"
    with apart() as environment:
        run(1, [sys.executable, "-c", left], environment, tmp_path)
    deadline = time.monotonic() + 5
    while _sleeping() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _sleeping()


def _sleeping() -> list[Path]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if file.read_bytes() == b"sleep\x0098765\x00":
                found.append(file)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def test_whole_sweeps_are_measured_only_where_they_are_named() -> None:
    assert not SWEEPS.keys() & BENCHMARKS.keys()
    assert {*SWEEPS, "sweeps"} <= set(NAMES)
