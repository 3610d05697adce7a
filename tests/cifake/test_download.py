"""A file is downloaded whole, continued after a cut, and never mixed from two files."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cifake.data import download as downloads
from cifake.data.download import download
from cifake.errors import InputError

BODY = np.random.default_rng(5).bytes(3_000_000)
OTHER = np.random.default_rng(6).bytes(3_000_000)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "PAUSE_SECONDS", 0.0)


def fetch(server: Any, target: Path) -> list[tuple[int, int | None]]:
    seen: list[tuple[int, int | None]] = []
    download(f"{server.url}/file", target, lambda here, total: seen.append((here, total)))
    return seen


def stop_after(size: int, server: Any, target: Path) -> None:
    """Leave a part of at most this size behind: the server sends it, then nothing more."""
    server.offers["/file"].cuts[:] = [size] + [0] * downloads.ATTEMPTS
    with pytest.raises(InputError, match="the same command continues"):
        fetch(server, target)
    server.offers["/file"].cuts.clear()
    server.asked.clear()


def test_whole_file_arrives_and_nothing_else_stays(server: Any, tmp_path: Path) -> None:
    server.offer("/file", BODY)
    seen = fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_cut_connection_is_continued_where_it_was_cut(server: Any, tmp_path: Path) -> None:
    server.offer("/file", BODY, cuts=[1_000_000, 500_000])
    fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY
    assert server.ranges("/file") == [None, "bytes=1000000-", "bytes=1500000-"]


def test_later_call_continues_what_an_earlier_one_left(server: Any, tmp_path: Path) -> None:
    server.offer("/file", BODY)
    stop_after(2_000_000, server, tmp_path / "file")
    assert not (tmp_path / "file").exists()
    fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY
    assert server.ranges("/file") == ["bytes=2000000-"]


@pytest.mark.parametrize("etag", ['"second"', 'W/"second"'])
def test_changed_file_starts_anew(server: Any, tmp_path: Path, etag: str) -> None:
    offer = server.offer("/file", BODY)
    stop_after(2_000_000, server, tmp_path / "file")
    offer.body, offer.etag = OTHER, etag
    fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == OTHER


@pytest.mark.parametrize("etag", ["", 'W/"first"'])
def test_file_without_a_strong_etag_starts_anew(server: Any, tmp_path: Path, etag: str) -> None:
    """Bytes may differ under a weak one, as they do in archives that are made on demand."""
    server.offer("/file", BODY, etag=etag)
    stop_after(2_000_000, server, tmp_path / "file")
    fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY
    assert server.ranges("/file") == [None]


def test_server_without_ranges_starts_anew(server: Any, tmp_path: Path) -> None:
    server.offer("/file", BODY, ranges=False, cuts=[1_000_000, 2_000_000])
    fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY


def test_part_that_is_longer_than_the_file_starts_anew(server: Any, tmp_path: Path) -> None:
    offer = server.offer("/file", BODY)
    stop_after(2_000_000, server, tmp_path / "file")
    offer.body = BODY[:1_500_000]
    fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY[:1_500_000]


def test_damaged_note_beside_a_part_starts_anew(server: Any, tmp_path: Path) -> None:
    server.offer("/file", BODY)
    stop_after(2_000_000, server, tmp_path / "file")
    (tmp_path / "file.part.json").write_text("{")
    fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY


@pytest.mark.parametrize(
    ("status", "said"), [(404, "not found"), (403, "access is refused"), (503, "answers 503")]
)
def test_refusal_of_the_server_is_said(server: Any, tmp_path: Path, status: int, said: str) -> None:
    server.offer("/file", b"", status=status)
    with pytest.raises(InputError, match=said):
        fetch(server, tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_server_that_is_not_there_is_said(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/file"
    with pytest.raises(InputError, match="cannot be reached"):
        download(url, tmp_path / "file", lambda *_: None)


def test_full_disk_leaves_a_part_that_is_continued(server: Any, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the write fails as it does there."""
    server.offer("/file", BODY)
    program = (
        "import resource, sys; from pathlib import Path; "
        "from cifake.data.download import download; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY)); "
        "download(sys.argv[1], Path(sys.argv[2]), lambda *_: None)"
    )
    command = [sys.executable, "-c", program, f"{server.url}/file", str(tmp_path / "file")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "OSError" in result.stderr
    assert (tmp_path / "file.part").stat().st_size == 1_000_000
    fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY
