"""A file appears whole or not at all, whatever happens to its writer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cifake.files import write_aside

WRITER = """
import sys
from pathlib import Path
from cifake.files import write_aside
path, size = Path(sys.argv[1]), int(sys.argv[2])
number = 0
while True:
    number += 1
    print(number, flush=True)
    write_aside(path, bytes([number % 251]) * size)
"""


@pytest.mark.parametrize(("size", "writes"), [(10, 300), (10**6, 40), (3 * 10**7, 1), (10**7, 6)])
def test_a_killed_writer_leaves_the_old_or_the_new_content(
    tmp_path: Path, size: int, writes: int
) -> None:
    path = tmp_path / "content.bin"
    write_aside(path, b"\0" * size)
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(size)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(writes):
        process.stdout.readline()
    process.kill()
    rest = process.stdout.read().split()
    process.wait()
    process.stdout.close()
    content = path.read_bytes()
    assert len(content) == size, "never half"
    assert len(set(content)) == 1, "never a mixture"
    last = int(rest[-1]) if rest else writes
    assert content[0] in {(last - 1) % 251, last % 251}, "the last write, or the one before"
    write_aside(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_write_that_fails_leaves_the_old_content_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "a" / "file"
    write_aside(path, b"old")
    with pytest.raises(TypeError):
        write_aside(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == ["file"]


def test_a_file_written_aside_can_be_read_by_others(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_aside(path, b"x")
    assert path.stat().st_mode & 0o777 == 0o644
