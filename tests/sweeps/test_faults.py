"""What goes wrong around a sweep ends it with a message, and the same command goes on."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cifake.claims import OWNERS
from cifake.places import LocalPlace
from sweeps.store import STACKS, Store
from sweeps.sweep import open_sweep, read_spec
from sweeps.upkeep import verify

pytestmark = pytest.mark.heavy

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


# A run that cannot be written

BLOCKED = (
    "demo",
    *("--set", "epochs=[1]"),
    *("--set", "seed=1"),
    *("--set", "placement=after_pool1"),
    *("--set", "data.train_images=400"),
    *("--set", "data.validation=100"),
)
"""Two configs of one run each."""


@contextlib.contextmanager
def owners_watched(folder: Path) -> Iterator[set[str]]:
    """Who claims a run while the block lasts: every attempt at it is an owner of its own."""
    seen: set[str] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.005):
            for path in folder.glob("claim-*.json"):
                with contextlib.suppress(FileNotFoundError):  # it was released since
                    seen.add(json.loads(path.read_bytes())["owner"])

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def test_a_run_that_fails_at_every_attempt_stays_failed_and_is_tried_again_by_the_next_command(
    command: Command, tmp_path: Path
) -> None:
    """A folder lies where a table of one of two runs is to be written."""
    store = Store.open(str(tmp_path / "store"), create=True)
    sweep = open_sweep(read_spec("demo", BLOCKED[2::2]), (), Console(quiet=True))
    blocked, free = (cell.run_id for cell in sweep.cells())
    folder = tmp_path / "store" / "runs" / blocked
    obstacle = folder / "epochs.parquet"
    (obstacle / "in the way").mkdir(parents=True)

    with owners_watched(folder) as owners:
        result = command("run", *BLOCKED, "--store", tmp_path / "store")
    assert result.returncode == 1, result.stdout + result.stderr
    assert len(owners) == 3, "attempts"
    assert "Traceback" not in result.stdout + result.stderr
    assert result.stdout.count("a trial failed: IsADirectoryError: ") == 1
    states = store.run_states()
    assert (states[free].status, states[free].row["error"]) == ("complete", None)
    assert (states[blocked].status, states[blocked].epochs_done) == ("failed", 0)
    assert states[blocked].row["error"].startswith("Traceback (most recent call last):")
    last = states[blocked].row["error"].strip().splitlines()[-1]
    assert last.startswith("IsADirectoryError: ")
    (row,) = store.read(blocked, "runs").to_pylist()
    assert (row["status"], row["error"]) == ("failed", states[blocked].row["error"])

    status = command("status", *BLOCKED, "--store", tmp_path / "store").stdout
    assert "1 of 2 cells done" in status
    assert "2 runs: 1 complete, 1 failed" in status
    assert f"{blocked}: {last}" in status.splitlines()
    report = (tmp_path / "store" / "sweeps" / "demo" / "report.md").read_text()
    (line,) = [line for line in report.splitlines() if blocked in line]
    assert "failed" in line

    shutil.rmtree(obstacle)
    mended = command("run", *BLOCKED, "--store", tmp_path / "store")
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert "2 runs: 1 done, 0 to continue, 1 new (1 failed before)" in mended.stdout
    assert store.run_states()[free].row == states[free].row, "what was complete is left alone"
    state = store.run_states()[blocked]
    assert (state.status, state.epochs_done, state.row["error"]) == ("complete", 1, None)
    done = command("run", *BLOCKED, "--store", tmp_path / "store")
    assert (done.returncode, "failed before" in done.stdout) == (0, False)


def test_the_next_run_of_a_sweep_removes_what_killed_owners_left(
    command: Command, tmp_path: Path
) -> None:
    """One process is killed while it is an owner; another lives."""
    store = Store.open(str(tmp_path / "store"), create=True)
    program = (
        "import sys, time\n"
        "from cifake.claims import Owner\n"
        "from cifake.places import open_place\n"
        "with Owner(open_place(sys.argv[1]), 'test'):\n"
        "    print('begun', flush=True)\n"
        "    time.sleep(600)\n"
    )
    begin = [sys.executable, "-c", program, str(tmp_path / "store")]
    owners = store.root.at(OWNERS)
    left: list[str] = []
    processes = []
    for _ in range(2):
        process = subprocess.Popen(begin, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        left += set(owners.files()) - set(left)
    killed, living = processes
    try:
        killed.kill()
        killed.wait()
        result = command("run", *BLOCKED, "--store", tmp_path / "store")
        assert result.returncode == 0, result.stdout + result.stderr
        assert owners.files() == [left[1]]
    finally:
        living.kill()
        living.wait()
