"""What a launcher does is done in order, and undone where it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from cifake.errors import InputError
from cluster.actions import Command, perform


def touch(path: Path) -> tuple[str, ...]:
    return ("touch", str(path))


def remove(path: Path) -> tuple[str, ...]:
    return ("rm", str(path))


def test_what_was_done_before_a_failure_is_undone_the_last_first(tmp_path: Path) -> None:
    folder, file = tmp_path / "folder", tmp_path / "folder" / "file"
    actions = [
        Command(what="make a folder", argv=("mkdir", str(folder)), undo=("rmdir", str(folder))),
        Command(what="make a file", argv=touch(file), undo=remove(file)),
        Command(what="fail", argv=("false",)),
    ]
    with pytest.raises(InputError) as caught:
        perform(actions, [].append)
    assert str(caught.value) == "fail: failed with exit code 1: it said nothing"
    assert not folder.exists()


def test_what_cannot_be_undone_is_told_beside_what_failed(tmp_path: Path) -> None:
    file = tmp_path / "file"
    actions = [
        Command(what="make a machine", argv=touch(file), undo=("sh", "-c", "echo no; exit 3")),
        Command(what="fail", argv=("false",)),
    ]
    with pytest.raises(InputError) as caught:
        perform(actions, [].append)
    assert [mistake.where for mistake in caught.value.mistakes] == ["fail", "make a machine"]
    assert "could not be undone, exit code 3: no" in str(caught.value)


def test_what_was_there_before_is_not_undone(tmp_path: Path) -> None:
    file = tmp_path / "file"
    actions = [
        Command(what="make a file", argv=touch(file), undo=remove(file)),
        Command(what="fail", argv=("false",)),
    ]
    with pytest.raises(InputError, match="fail: failed"):
        perform(actions, [].append, undo=False)
    assert file.exists()
