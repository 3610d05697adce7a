"""What a process needs no longer than it lives is gone when it ended, however it did."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sweeps.scratch import scratch_folder

HOLD = """
import sys
from sweeps.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "file").write_text("kept")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def started() -> tuple[subprocess.Popen[str], Path]:
    """A process that holds a folder, and the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_folder_is_gone_when_its_block_ends(tmp_path: Path) -> None:
    with scratch_folder() as folder:
        assert list(folder.iterdir()) == []
        (folder / "file").touch()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_leaves_nothing_once_another_has_begun(tmp_path: Path) -> None:
    process, left = started()
    process.kill()
    process.communicate()
    assert (left / "file").exists()
    with scratch_folder():
        assert not left.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_left_alone() -> None:
    process, used = started()
    with scratch_folder() as other:
        assert other != used
        assert (used / "file").read_text() == "kept"
    process.communicate("")
    assert process.returncode == 0
    assert not used.exists()


def test_a_folder_of_that_name_that_is_no_scratch_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "cifake-sweeps-notes"
    mine.mkdir()
    with scratch_folder():
        pass
    assert mine.is_dir()
