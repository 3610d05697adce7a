"""Packs in a store: there whole or not at all, and fetched once a machine, by their content."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cifake.claims import Owner, claim
from cifake.data.locate import open_dataset
from cifake.data.pack import INFO, Pack
from cifake.data.published import FOLDER, damage, open_near, publish, remove
from cifake.errors import InputError
from cifake.places import LocalPlace, Place, open_place
from tests.object_store import ObjectStore
from tests.proxy import Proxy

FILES = ["images.parquet", "pack.json", "pixels.npy", "unreadable.parquet"]


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return open_place(str(tmp_path / "store"))
    return open_place(request.getfixturevalue("bucket"))


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """The demo set, in the cache of the machine that packed it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIFAKE_CACHE", str(tmp_path_factory.mktemp("driver")))
        return open_dataset("demo")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty cache of another machine."""
    monkeypatch.setenv("CIFAKE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def elsewhere(pack: Pack) -> Path:
    """The folder of the pack as a machine sees it that cannot read it."""
    return Path("/nowhere") / pack.folder.name


def published(pack: Pack, root: Place) -> Place:
    with Owner(root, "test") as owner:
        publish(pack, root, owner)
    return root.at(FOLDER).at(pack.folder.name)


def nothing_left(cache: Path) -> bool:
    """Whether nothing lies among the packs that is not a whole one."""
    return not any(entry.name.startswith(".") for entry in (cache / "packs").iterdir())


@pytest.mark.usefixtures("cache")
def test_a_pack_is_put_into_a_store_once(pack: Pack, root: Place) -> None:
    with Owner(root, "test") as owner:
        assert [publish(pack, root, owner) for _ in range(2)] == [True, False]
    place = root.at(FOLDER).at(pack.folder.name)
    assert place.files() == FILES
    for name in FILES:
        assert b"".join(place.parts(name)) == (pack.folder / name).read_bytes()
    assert damage(place) == []


def test_a_machine_without_the_pack_gets_it_from_the_store(
    pack: Pack, root: Place, cache: Path, elsewhere: Path
) -> None:
    published(pack, root)
    found = open_near(elsewhere, root)
    assert found.folder == cache / "packs" / pack.folder.name
    assert found.info == pack.info
    assert isinstance(found.pixels, np.memmap)
    np.testing.assert_array_equal(found.pixels, pack.pixels)
    assert found.images.equals(pack.images)
    assert nothing_left(cache)


def test_a_pack_that_lies_here_is_opened_without_the_store(
    pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAKE_CACHE", str(pack.folder.parents[1]))
    found = open_near(Path("/nowhere") / pack.folder.name, LocalPlace(tmp_path / "no store"))
    assert found.folder == pack.folder
    assert not (tmp_path / "no store").exists()


def test_a_shared_folder_that_can_be_read_is_taken_before_the_store(
    pack: Pack, tmp_path: Path, cache: Path
) -> None:
    found = open_near(pack.folder, LocalPlace(tmp_path / "no store"))
    assert found.folder == cache / "packs" / pack.folder.name
    np.testing.assert_array_equal(found.pixels, pack.pixels)


def test_a_store_on_the_same_file_system_shares_the_blocks(pack: Pack, tmp_path: Path) -> None:
    place = published(pack, LocalPlace(tmp_path))
    assert isinstance(place, LocalPlace)
    for name in FILES:
        assert (place.path / name).samefile(pack.folder / name)


def test_a_store_on_another_file_system_has_a_copy(pack: Pack) -> None:
    shm = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
    if not os.access(shm, os.W_OK) or shm.stat().st_dev == pack.folder.stat().st_dev:
        pytest.skip("no second file system: /dev/shm is none, or cannot be written")
    folder = shm / f"cifake-test-{os.getpid()}"
    folder.mkdir()
    try:
        place = published(pack, LocalPlace(folder))
        assert place.files() == FILES
        assert damage(place) == []
    finally:
        shutil.rmtree(folder)


def test_a_variant_is_published_and_fetched_like_any_other(
    root: Place, cache: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CIFAKE_CACHE", str(tmp_path / "driver"))
    variant = open_dataset("demo@greyscale")
    published(variant, root)
    monkeypatch.setenv("CIFAKE_CACHE", str(cache))
    found = open_near(elsewhere.parent / variant.folder.name, root)
    assert found.info == variant.info
    np.testing.assert_array_equal(found.pixels, variant.pixels)


# What is damaged


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["missing", "cut off", "changed"])
@pytest.mark.usefixtures("cache")
def test_a_damaged_pack_is_refused_and_leaves_nothing(
    pack: Pack, elsewhere: Path, tmp_path: Path, cache: Path, name: str, how: str
) -> None:
    shutil.copytree(pack.folder, tmp_path / "store" / "packs" / pack.folder.name)
    root = LocalPlace(tmp_path / "store")
    place = root.at(FOLDER).at(pack.folder.name)
    content = bytearray(place.read(name))
    if how == "missing":
        place.remove(name)
    else:
        content[-20] ^= 1
        place.write(name, bytes(content[:-40] if how == "cut off" else content))
    with pytest.raises(InputError) as caught:
        open_near(elsewhere, root)
    assert str(place) in str(caught.value)
    assert "sweeps verify --repair" in str(caught.value)
    assert nothing_left(cache)
    if name != INFO:
        (problem,) = damage(place)
        assert problem == f"{name} {'is missing' if how == 'missing' else 'is damaged'}"


def test_pixels_are_judged_by_the_fingerprint_and_not_by_what_the_pack_says_of_itself(
    pack: Pack, elsewhere: Path, tmp_path: Path, cache: Path
) -> None:
    """Every digest is right, and one pixel is another."""
    from cifake.data.pack import digest

    folder = tmp_path / "store" / "packs" / pack.folder.name
    shutil.copytree(pack.folder, folder)
    pixels = np.load(folder / "pixels.npy")
    pixels[7, 3, 3, 0] ^= 1
    np.save(folder / "pixels.npy", pixels)
    info = json.loads((folder / INFO).read_text())
    info["files"]["pixels.npy"] = digest([(folder / "pixels.npy").read_bytes()])
    (folder / INFO).write_text(json.dumps(info))
    root = LocalPlace(tmp_path / "store")
    assert damage(root.at(FOLDER).at(pack.folder.name)) == []
    with pytest.raises(InputError, match="its content has the fingerprint"):
        open_near(elsewhere, root)
    assert nothing_left(cache)


@pytest.mark.usefixtures("cache")
def test_another_pack_under_the_name_is_refused(pack: Pack, tmp_path: Path) -> None:
    name = pack.folder.name.replace(pack.info.fingerprint, "0" * 16)
    shutil.copytree(pack.folder, tmp_path / "store" / "packs" / name)
    with pytest.raises(InputError, match=f"it is {pack.folder.name}"):
        open_near(Path("/nowhere") / name, LocalPlace(tmp_path / "store"))


@pytest.mark.usefixtures("cache")
def test_a_pack_that_nobody_has_is_told_with_both_places(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_near(Path("/nowhere/x-0-v3"), LocalPlace(tmp_path / "store"))
    said = str(caught.value)
    assert "/nowhere/x-0-v3: is not there" in said
    assert f"{tmp_path}/store/packs/x-0-v3: is not there" in said


@pytest.mark.usefixtures("cache")
def test_a_damaged_pack_is_not_published(pack: Pack, tmp_path: Path) -> None:
    folder = tmp_path / pack.folder.name
    shutil.copytree(pack.folder, folder)
    content = bytearray((folder / "pixels.npy").read_bytes())
    content[-1] ^= 1
    (folder / "pixels.npy").write_bytes(content)
    root = LocalPlace(tmp_path / "store")
    from cifake.data.pack import open_pack

    with Owner(root, "test") as owner, pytest.raises(InputError, match=r"pixels.npy is damaged"):
        publish(open_pack(folder), root, owner)
    assert root.at(FOLDER).folders() == []


def test_what_a_killed_publisher_left_counts_for_nothing_and_is_replaced(
    pack: Pack, root: Place, cache: Path, elsewhere: Path
) -> None:
    place = root.at(FOLDER).at(pack.folder.name)
    place.write("pixels.npy", b"half")
    assert damage(place) == []
    with pytest.raises(InputError, match="is not there"):
        open_near(elsewhere, root)
    published(pack, root)
    assert open_near(elsewhere, root).info == pack.info
    assert nothing_left(cache)


def test_a_removed_pack_is_published_again(pack: Pack, root: Place) -> None:
    place = published(pack, root)
    with Owner(root, "test") as owner:
        held = claim(place, owner)
        remove(place)
        assert [file for file in place.files() if not file.startswith("claim-")] == []
        held.release()  # type: ignore[union-attr]
        assert publish(pack, root, owner)


# Many at once, and kills

FETCH = """
import sys
from pathlib import Path
from cifake.data import published
from cifake.places import open_place
class Counted:
    def __init__(self, place): self.place = place
    def __getattr__(self, name): return getattr(self.place, name)
    def __str__(self): return str(self.place)
    def at(self, name): return Counted(self.place.at(name))
    def fetch(self, name, path):
        print("fetch", name, flush=True)
        self.place.fetch(name, path)
pack = published.open_near(Path(sys.argv[1]), Counted(open_place(sys.argv[2])))
print("opened", pack.info.fingerprint, flush=True)
"""


def fetching(elsewhere: Path, root: Place) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FETCH, str(elsewhere), str(root)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.usefixtures("cache")
def test_of_many_processes_of_a_machine_one_fetches(
    pack: Pack, root: Place, elsewhere: Path
) -> None:
    published(pack, root)
    processes = [fetching(elsewhere, root) for _ in range(4)]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert sum(text.count("fetch pixels.npy") for text in said) == 1
    assert all(f"opened {pack.info.fingerprint}" in text for text in said)


def test_a_killed_fetch_is_begun_anew_by_the_next_process(
    pack: Pack, bucket: str, object_store: ObjectStore, cache: Path, elsewhere: Path
) -> None:
    root = open_place(bucket)
    published(pack, root)
    assert object_store.process is not None
    process = fetching(elsewhere, root)
    assert process.stdout is not None
    assert process.stdout.readline() == "fetch pixels.npy\n"
    object_store.process.send_signal(signal.SIGSTOP)  # so that it does not end by itself
    process.kill()
    process.wait()
    object_store.process.send_signal(signal.SIGCONT)
    assert not nothing_left(cache)
    assert open_near(elsewhere, root).info == pack.info
    assert nothing_left(cache)


# A network that fails


class CuttingProxy(Proxy):
    """Cuts off some of the answers of an object store."""

    cuts = 0
    """Large answers that are still to be cut off."""

    cut = 0
    """How many were."""

    def passes(self, passed: int, *, answers: bool) -> bool:
        """Not where an answer is to be cut off."""
        if not (answers and passed > 1_000_000 and self.cuts):
            return True
        self.cuts -= 1
        self.cut += 1
        return False


@pytest.fixture
def proxy(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[CuttingProxy]:
    made = CuttingProxy(object_store.ports["s3"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", made.endpoint)
    yield made
    made.shut()


def test_an_answer_that_is_cut_off_is_asked_for_again(
    pack: Pack, bucket: str, proxy: CuttingProxy, cache: Path, elsewhere: Path
) -> None:
    published(pack, open_place(bucket))
    proxy.cuts = 2
    found = open_near(elsewhere, open_place(bucket))
    assert proxy.cut == 2
    np.testing.assert_array_equal(found.pixels, pack.pixels)
    assert nothing_left(cache)


def test_answers_that_are_always_cut_off_end_in_a_message(
    pack: Pack, bucket: str, proxy: CuttingProxy, cache: Path, elsewhere: Path
) -> None:
    published(pack, open_place(bucket))
    proxy.cuts = 1_000_000
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"pixels\.npy: ") as caught:
        open_near(elsewhere, open_place(bucket, patience=2))
    assert time.monotonic() - begun < 60
    assert bucket in str(caught.value)
    assert nothing_left(cache)


def test_a_full_disk_ends_in_a_message(
    pack: Pack,
    elsewhere: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small_disk: Path,
) -> None:
    published(pack, LocalPlace(tmp_path / "store"))
    monkeypatch.setenv("CIFAKE_CACHE", str(small_disk))
    with pytest.raises(InputError, match="No space left on device"):
        open_near(elsewhere, LocalPlace(tmp_path / "store"))
    assert nothing_left(small_disk)
