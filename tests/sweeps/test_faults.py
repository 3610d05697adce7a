"""What goes wrong around a sweep ends it with a message, and the same command goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cifake.places import LocalPlace
from sweeps.store import STACKS, Store
from sweeps.upkeep import verify

Command = Callable[..., subprocess.CompletedProcess[str]]
StoreRows = Callable[[Path], dict[str, dict[str, list[dict[str, Any]]]]]

SWEEP = (
    "demo",
    *("--set", "epochs=[1,6]"),
    *("--set", "seed=2"),
    *("--set", "attention=none"),
    *("--set", "data.train_images=400"),
    *("--set", "data.validation=100"),
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB, which a few epochs fill."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small file system can only be mounted by root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_sweep_on_a_full_disk_says_so_and_goes_on_when_there_is_room(
    command: Command, small_disk: Path, store_rows: StoreRows, tmp_path: Path
) -> None:
    store = small_disk / "store"
    full = command("run", *SWEEP, "--store", store)
    assert full.returncode in (1, 2), full.stdout + full.stderr
    assert "Traceback" not in full.stdout + full.stderr
    assert f"a trial failed: OSError: [Errno 28] No space left on device: '{store}/" in full.stdout
    if full.returncode == 2:  # there was no room for the report either
        assert full.stderr.startswith(f"sweeps: error: {store}/")
        assert "No space left on device; mend it, and the same command goes on" in full.stderr
    assert 0 < sum(s.epochs_done for s in Store(LocalPlace(store)).run_states().values()) < 12
    assert list(verify(Store(LocalPlace(store)), repair=False, advance=lambda _: None)) == []
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    room = command("run", *SWEEP, "--store", store)
    assert room.returncode == 0, room.stdout + room.stderr
    whole = tmp_path / "whole"
    Store.open(str(whole), create=True).write_stacks("demo", {})
    shutil.copy(store / "sweeps" / "demo" / STACKS, whole / "sweeps" / "demo")
    assert command("run", *SWEEP, "--store", whole).returncode == 0
    assert store_rows(store) == store_rows(whole)
