"""A place gives back what it was given, whether it is a folder or a prefix of an object store."""

from __future__ import annotations

import filecmp
import pickle
import random
import signal
import string
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cifake.errors import InputError
from cifake.places import LocalPlace, ObjectPlace, Place, open_place
from tests.object_store import ObjectStore
from tests.proxy import Proxy


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return open_place(str(tmp_path / "store"))
    return open_place(request.getfixturevalue("bucket"))


def test_a_file_comes_back_as_it_was_written_last(place: Place) -> None:
    for content in (b"first", b"", b"\0\xff" * 2_000_000, b"last"):
        place.write("a file.bin", content)
        assert place.read("a file.bin") == content
    assert place.files() == ["a file.bin"]


@pytest.mark.parametrize("size", [0, 1, 16 * 2**20, 40 * 2**20 + 7])
def test_a_local_file_is_sent_and_fetched_whole(place: Place, tmp_path: Path, size: int) -> None:
    content = random.Random(size).randbytes(size)  # noqa: S311 - no secret
    (tmp_path / "mine").write_bytes(content)
    place.write("theirs", b"before")
    place.send("theirs", tmp_path / "mine")
    assert place.files() == ["theirs"]
    assert place.sizes() == {"theirs": size}
    place.fetch("theirs", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content
    parts = list(place.parts("theirs"))
    assert b"".join(parts) == content
    assert max(map(len, parts), default=0) <= 16 * 2**20
    (tmp_path / "mine").unlink()
    assert place.read("theirs") == content


def test_what_is_not_there_cannot_be_fetched(place: Place, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(place.parts("nothing"))
    with pytest.raises(FileNotFoundError):
        place.fetch("nothing", tmp_path / "back")
    with pytest.raises(FileNotFoundError):
        place.send("theirs", tmp_path / "nothing")
    assert place.files() == []


TRANSFER = """
import re, sys
from pathlib import Path
from cifake.places import open_place
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
place, folder = open_place(sys.argv[1]), Path(sys.argv[2])
place.write("x", b"x")
place.read("x")
before = peak()
place.send("large", folder / "mine")
place.fetch("large", folder / "back")
print(peak() - before)
"""


def test_a_large_file_is_never_wholly_in_memory(bucket: str, tmp_path: Path) -> None:
    mib = 256
    with (tmp_path / "mine").open("wb") as file:
        for number in range(mib):
            file.write(number.to_bytes(2, "big") * 2**19)
    done = subprocess.run(
        [sys.executable, "-c", TRANSFER, bucket, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) < mib / 2
    assert filecmp.cmp(tmp_path / "mine", tmp_path / "back", shallow=False)


NAMES = st.text(string.ascii_letters + string.digits + "-_.é ", min_size=1, max_size=20)


@settings(
    deadline=None,
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(name=NAMES.filter(lambda name: name.strip(". ") == name), content=st.binary(max_size=50))
def test_any_usual_name_is_written_read_listed_and_removed(
    place: Place, name: str, content: bytes
) -> None:
    below = place.at(name)
    assert below.name == name
    below.write(name, content)
    assert below.read(name) == content
    assert (below.files(), name in place.folders()) == ([name], True)
    below.remove(name)
    assert below.files() == []


def test_what_is_not_there_is_not_found_and_removed_in_silence(place: Place) -> None:
    with pytest.raises(FileNotFoundError):
        place.read("nothing")
    with pytest.raises(FileNotFoundError):
        place.at("no").at("folder").read("nothing")
    place.remove("nothing")
    assert (place.files(), place.folders()) == ([], [])
    assert (place.at("no").files(), place.at("no").folders()) == ([], [])


def test_folders_and_files_are_listed_apart_and_in_order(place: Place) -> None:
    for name in ("r10", "r2", "r1"):
        place.at("runs").at(name).write("run.json", b"{}")
    place.at("runs").write("z", b"")
    place.at("runs").write("a", b"")
    assert place.folders() == ["runs"]
    assert place.at("runs").folders() == ["r1", "r10", "r2"]
    assert place.at("runs").files() == ["a", "z"]
    assert place.at("run").files() == []


def test_more_files_than_a_page_of_a_listing_are_all_listed(place: Place) -> None:
    names = [f"{number:04}" for number in range(1_100)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: place.write(name, b"x"), names))
    assert place.files() == names


def test_a_name_is_created_once(place: Place) -> None:
    assert place.create("lock", b"mine")
    assert not place.create("lock", b"theirs")
    assert place.read("lock") == b"mine"
    place.remove("lock")
    assert place.create("lock", b"theirs")


def test_of_many_who_create_one_name_one_does(place: Place) -> None:
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda who: place.create("lock", str(who).encode()), range(32)))
    assert won.count(True) == 1
    assert place.read("lock") == str(won.index(True)).encode()


def test_the_files_of_a_folder_hide_what_is_being_written(tmp_path: Path) -> None:
    place = LocalPlace(tmp_path)
    place.write("whole", b"x")
    (tmp_path / ".whole-x7y").write_bytes(b"half")
    assert place.files() == ["whole"]


def test_a_url_is_taken_apart(object_store: ObjectStore) -> None:
    del object_store
    place = open_place("s3://bucket/some/prefix/")
    assert isinstance(place, ObjectPlace)
    assert (place.prefix, str(place), place.name) == (
        "some/prefix",
        "s3://bucket/some/prefix",
        "prefix",
    )
    assert str(open_place("s3://bucket").at("runs")) == "s3://bucket/runs"
    assert isinstance(open_place("gs://bucket/x"), ObjectPlace)


@pytest.mark.parametrize("where", ["http://host/x", "s3://", "s3:///x", "file:///x", "://x"])
def test_another_kind_of_url_is_refused_with_those_there_are(where: str) -> None:
    with pytest.raises(InputError, match="s3://BUCKET/PREFIX") as caught:
        open_place(where)
    assert where in str(caught.value)


# An object store that fails


def test_who_has_no_right_key_is_told(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_place(bucket).write("x", b"")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(PermissionError, match="access denied") as caught:
        open_place(bucket).read("x")
    assert caught.value.filename == f"{bucket}/x"


def test_a_store_that_does_not_answer_is_waited_for(bucket: str, object_store: ObjectStore) -> None:
    assert object_store.process is not None
    place = open_place(bucket)
    place.write("x", b"before")
    object_store.process.send_signal(signal.SIGSTOP)
    resume = threading.Timer(3, object_store.process.send_signal, [signal.SIGCONT])
    resume.start()
    begun = time.monotonic()
    place.write("x", b"after")
    assert time.monotonic() - begun > 2
    assert place.read("x") == b"after"


def test_a_store_that_is_gone_for_a_while_is_tried_again(
    bucket: str, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens on its port for two seconds; what was connected is cut off."""
    proxy = Proxy(object_store.ports["s3"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    place, hasty = open_place(bucket), open_place(bucket, patience=1)
    place.write("x", b"before")
    proxy.shut()
    with pytest.raises(OSError, match=f"{bucket}/x"):
        hasty.read("x")
    again = threading.Timer(2, proxy.open)
    again.start()
    begun = time.monotonic()
    assert place.read("x") == b"before"
    assert time.monotonic() - begun > 1
    again.join()
    proxy.shut()


def test_a_place_in_an_object_store_travels_to_other_processes(bucket: str) -> None:
    place = open_place(bucket).at("runs")
    place.write("x", b"1")
    assert pickle.loads(pickle.dumps(place)).read("x") == b"1"  # noqa: S301 - our own


def test_what_writers_that_were_killed_left_is_told_by_the_names_they_wrote(tmp_path: Path) -> None:
    place = LocalPlace(tmp_path)
    place.write("index.json", b"whole")
    for name in (".index.json-1234", ".claim-000001.json-1234"):
        (tmp_path / name).write_bytes(b"half")
    assert place.remains(("index.json",)) == [".index.json-1234"]
    place.remove(".index.json-1234")
    assert place.remains(("index.json",)) == []
    assert place.files() == ["index.json"]


def test_what_is_kept_can_be_made_to_outlive_a_power_cut(place: Place) -> None:
    place.write("a", b"content")
    place.persist()
    assert place.read("a") == b"content"
    assert place.remains(("a",)) == []
