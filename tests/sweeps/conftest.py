"""What the tests of `sweeps` share: specifications, tasks on the demo set, and rows to compare."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cifake import tables
from cifake.config import Config, nest
from cifake.data.locate import open_dataset
from cifake.data.pack import Pack
from cifake.places import LocalPlace
from sweeps import overrides, specfile
from sweeps.parse import parse
from sweeps.spec import Spec
from sweeps.store import Store
from sweeps.trial import Task
from tests import rows
from tests.rows import Rows

NEAR = (
    ("epochs", "loss", 1e-4),
    ("batches", "loss", 1e-4),
    ("evaluations", "loss", 1e-4),
    ("predictions", "probability", 1e-4),
)
"""How far a run of a few epochs may be from the same run trained in another stack."""


@pytest.fixture
def parse_text(tmp_path: Path) -> Callable[..., Spec]:
    """Write a specification to `spec.yaml`, apply overrides, parse it."""

    def parsed(text: str, *settings: str) -> Spec:
        path = tmp_path / "spec.yaml"
        path.write_text(text)
        return parse(overrides.apply(specfile.read(path), settings))

    return parsed


@pytest.fixture(scope="session")
def demo_pack() -> Pack:
    return open_dataset("demo")


@pytest.fixture(scope="session")
def make_task(demo_pack: Pack) -> Callable[..., Task]:
    """A task on 200 training and 100 validation images of the demo set; all its seeds one stack."""

    def made(
        store: Path,
        seeds: Sequence[int] = (0, 1),
        milestones: Sequence[int] = (2,),
        evaluate: Sequence[str] = ("demo",),
        width: int | None = None,
        **settings: Any,
    ) -> Task:
        values = {
            "batch_size": 32,
            "optimizer.lr": 0.01,
            "data.train": "demo",
            "data.fingerprint": demo_pack.info.fingerprint,
            "data.train_images": 200,
            "data.validation": 100,
            **{name.replace("__", "."): value for name, value in settings.items()},
        }
        return Task(
            config=Config.model_validate(nest(values)).model_dump(),
            seeds=tuple(seeds),
            epochs=max(milestones),
            milestones=tuple(milestones),
            packs={"demo": str(demo_pack.folder)},
            evaluate=tuple(evaluate),
            store=str(store),
            width=width or len(seeds),
        )

    return made


@pytest.fixture(scope="session")
def run_rows() -> Callable[..., Rows]:
    """As `rows.run_rows`."""
    return rows.run_rows


@pytest.fixture(scope="session")
def store_rows() -> Callable[[Path], dict[str, Rows]]:
    """As `rows.store_rows`."""
    return rows.store_rows


@pytest.fixture(scope="session")
def stacks_as_in() -> Callable[[Path, Path, str], None]:
    """Let a sweep in a new store make the stacks that the runs of another store were trained in.

    They are chosen by measurement, and bit for bit equal is only what was trained in equal stacks.
    """

    def write(store: Path, other: Path, sweep: str) -> None:
        stacks: dict[str, list[tuple[int, ...]]] = {}
        for state in Store(LocalPlace(other)).run_states().values():
            found = stacks.setdefault(state.config_id, [])
            if state.stack not in found:
                found.append(state.stack)
        Store.open(str(store), create=True).write_stacks(sweep, stacks)

    return write


@pytest.fixture(scope="session")
def assert_near() -> Callable[[Rows, Rows], None]:
    """Check that a run trained in one stack has the rows of the same run trained in another."""

    def check(found: Rows, expected: Rows) -> None:
        for name, wanted_rows in expected.items():
            keys = tables.TABLES[name].keys
            assert [[row[key] for key in keys] for row in found[name]] == [
                [row[key] for key in keys] for row in wanted_rows
            ]
        for name, column, tolerance in NEAR:
            values, wanted = ([r[column] for r in each[name]] for each in (found, expected))
            assert values == pytest.approx(wanted, abs=tolerance), f"{name}.{column}"

    return check


@pytest.fixture(scope="session")
def environment() -> Iterator[dict[str, str]]:
    """For commands: a folder of our own for Ray, so that no other cluster is near."""
    # A socket's path has at most 107 characters, which pytest's folders would exceed.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    left_out = ("RAY_", "CIFAKE_STORE", "CIFAKE_DATA")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(left_out)}
    yield {**kept, "RAY_TMPDIR": folder, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def command(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `python -m sweeps` in a folder of its own and wait for it."""
    folder = tmp_path_factory.mktemp("commands")

    def run(
        *arguments: str | Path, timeout: float = 240, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sweeps", *map(str, arguments)],
            cwd=folder,
            env={**environment, **variables},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
