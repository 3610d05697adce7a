"""`cifake train` and a sweep write the same runs, and neither trains what the other has."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cifake.__main__ import app
from cifake.places import LocalPlace
from sweeps.plan import Plan
from sweeps.run_grid import plan_grid
from sweeps.spec import Spec
from sweeps.store import Store
from sweeps.sweep import Sweep, open_sweep
from sweeps.trial import Report, run_stack

EACH = {"train": 12, "test": 4}
SPEC = """
name: shared
data: {{train: {name}, validation: 40, train_images: 120}}
scientific: {{attention: [none, srm], placement: [after_pool1]}}
nuisance: {{seed: [0, 1]}}
fixed:
  epochs: {epochs}
  batch_size: 16
  optimizer: {{lr: 0.01}}
  augmentation: {{flip: true, crop: 2}}
"""
SETTINGS = (
    "data.train_images=120",
    "batch_size=16",
    "optimizer.lr=0.01",
    "augmentation.flip=true",
    "augmentation.crop=2",
)

Parse = Callable[..., Spec]
StacksAsIn = Callable[[Path, Path, str], None]
StoreRows = Callable[[Path], dict[str, Any]]


@pytest.fixture(scope="session")
def small_cifake(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 12 training and 4 test images of every class and label of CIFAKE."""
    root = tmp_path_factory.mktemp("real") / "cifake"
    taken: Counter[tuple[str, ...]] = Counter()
    with tarfile.open(real_data / "cifake.tar.xz", "r|xz") as archive:
        for member in archive:
            split, label, name = ("", "", *member.name.removeprefix("./").split("/"))[-3:]
            stratum = (split, label, name.removesuffix(".jpg").partition(" ")[2])
            if not member.isreg() or taken[stratum] == EACH[split]:
                continue
            stream = archive.extractfile(member)
            assert stream is not None
            taken[stratum] += 1
            path = root / split / label / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(stream.read())
    return root


@pytest.fixture(params=["demo", "cifake"])
def source(request: pytest.FixtureRequest) -> tuple[str, list[str]]:
    """A data set and the `--data` options that say where it lies."""
    if request.param == "demo":
        return "demo", []
    return "cifake", [str(request.getfixturevalue("small_cifake"))]


def opened(parse_text: Parse, source: tuple[str, list[str]], epochs: int) -> Sweep:
    name, data = source
    spec = parse_text(SPEC.format(name=name, epochs=epochs))
    return open_sweep(spec, data, Console(stderr=True))


def planned(sweep: Sweep, store: Path) -> Plan:
    return plan_grid(sweep, Store.open(str(store), create=True), workers=1)


def swept(sweep: Sweep, store: Path) -> int:
    """Train what a store lacks of a sweep, as its trials do; the epochs trained."""
    reports: list[Report] = []
    for stack in planned(sweep, store).stacks:
        task = sweep.task(stack, Store(LocalPlace(store)), None, width=len(stack.seeds))
        run_stack(task, reports.append)
    return sum(report.epochs_trained for report in reports)


@pytest.fixture
def trained(
    source: tuple[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> Callable[..., int]:
    """Train the same by `cifake train`; the epochs trained."""
    name, data = source

    def run(store: Path, epochs: int, *seeds: int) -> int:
        options = [f"--dataset={name}", "--validation=40", f"--epochs={epochs}", "--json"]
        options += [f"--data={path}" for path in data] + [f"--set={text}" for text in SETTINGS]
        options += [f"--seed={seed}" for seed in seeds] + [f"--store={store}"]
        total = 0
        for attention in (["attention=none"], ["attention=srm", "placement=after_pool1"]):
            chosen = [f"--set={text}" for text in attention]
            assert app(["train", *options, *chosen], standalone_mode=False) == 0
            total += json.loads(capsys.readouterr().out)["epochs_trained"]
        return total

    return run


def states(store: Path) -> dict[str, bytes]:
    files = sorted((store / "runs").glob("*/*.safetensors"))
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


def test_both_write_the_same_rows_and_weights_bit_for_bit(
    parse_text: Parse,
    source: tuple[str, list[str]],
    trained: Callable[..., int],
    store_rows: StoreRows,
    stacks_as_in: StacksAsIn,
    tmp_path: Path,
) -> None:
    assert trained(tmp_path / "trained", 2, 0, 1) == 8
    stacks_as_in(tmp_path / "swept", tmp_path / "trained", "shared")
    assert swept(opened(parse_text, source, 2), tmp_path / "swept") == 8
    assert store_rows(tmp_path / "trained") == store_rows(tmp_path / "swept")
    assert states(tmp_path / "trained") == states(tmp_path / "swept")


def test_a_sweep_trains_nothing_that_the_command_has_trained(
    parse_text: Parse, source: tuple[str, list[str]], trained: Callable[..., int], tmp_path: Path
) -> None:
    assert trained(tmp_path / "s", 2, 0, 1) == 8
    plan = planned(opened(parse_text, source, 2), tmp_path / "s")
    assert (plan.runs_done, plan.epochs_to_train) == (4, 0)
    assert swept(opened(parse_text, source, 3), tmp_path / "s") == 4


def test_the_command_trains_nothing_that_a_sweep_has_trained(
    parse_text: Parse, source: tuple[str, list[str]], trained: Callable[..., int], tmp_path: Path
) -> None:
    swept(opened(parse_text, source, 2), tmp_path / "s")
    assert trained(tmp_path / "s", 2, 0, 1) == 0
    assert trained(tmp_path / "s", 3, 1) == 2
