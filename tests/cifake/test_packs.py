"""A pack is written once, whole or not at all, and is shared by all who open it."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cifake.data.cifake import read
from cifake.data.locate import open_dataset
from cifake.data.pack import Pack, open_pack, write_pack
from cifake.data.raw import RawImage
from cifake.errors import InputError

CopyPack = Callable[[], Path]


def _raw(number: int, **changes: object) -> RawImage:
    """A PPM of one colour, a function of the number."""
    pixels = bytes([number % 256, number // 256, 7]) * (32 * 32)
    values: dict[str, object] = {
        "name": f"{number}.ppm",
        "file_name": f"{number}.ppm",
        "split": "train",
        "label": number % 2,
        "blob": b"P6 32 32 255\n" + pixels,
    }
    return RawImage(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def small_pack(cifake_folder: Path) -> Pack:
    return open_dataset("cifake", {"cifake": cifake_folder}, workers=1)


@pytest.fixture
def copy_pack(small_pack: Pack, tmp_path: Path) -> CopyPack:
    """A copy of a pack that may be damaged."""

    def copy() -> Path:
        folder = tmp_path / small_pack.folder.name
        folder.mkdir()
        for file in small_pack.folder.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        return folder

    return copy


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("CIFAKE_CACHE", str(folder))
    return folder


def test_pixels_are_mapped_read_only(small_pack: Pack) -> None:
    assert isinstance(small_pack.pixels, np.memmap)
    assert small_pack.pixels.shape == (64, 32, 32, 3)
    assert small_pack.pixels.dtype == np.uint8
    with pytest.raises(ValueError, match="read-only"):
        small_pack.pixels[0, 0, 0, 0] = 1


def test_rows_of_the_splits_partition_the_pack(small_pack: Pack) -> None:
    train, test = small_pack.rows("train"), small_pack.rows("test")
    assert len(train) == 48
    assert len(test) == 16
    assert sorted([*train, *test]) == list(range(64))
    assert len(small_pack.rows("validation")) == 0


def test_duplicates_are_the_later_copies_of_the_same_pixels(small_pack: Pack) -> None:
    rows = np.arange(64)
    seen: dict[bytes, int] = {}
    expected = []
    for row in rows:
        content = small_pack.pixels[row].tobytes()
        expected.append(seen.get(content))
        seen.setdefault(content, row)
    assert small_pack.images["duplicate_of"].to_pylist() == expected
    np.testing.assert_array_equal(
        small_pack.duplicates(rows), [first is not None for first in expected]
    )
    assert small_pack.duplicates(small_pack.rows("test")).sum() == 1
    assert small_pack.duplicates(small_pack.rows("train")).sum() == 1


def test_duplicates_of_some_rows_are_those_of_all_at_these_rows(small_pack: Pack) -> None:
    rows = np.random.default_rng(0).permutation(64)[:40]
    np.testing.assert_array_equal(
        small_pack.duplicates(rows), small_pack.duplicates(np.arange(64))[rows]
    )


def test_images_are_ordered_by_split_label_and_class(small_pack: Pack) -> None:
    keys = [
        (row["split"] != "train", row["label"], row["content_class"])
        for row in small_pack.images.to_pylist()
    ]
    assert keys == sorted(keys)
    assert small_pack.images["image_id"].to_pylist() == list(range(64))


@settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32 - 1))
def test_order_of_the_source_is_irrelevant(
    seed: int, cifake_folder: Path, small_pack: Pack, tmp_path: Path
) -> None:
    raw = list(read(cifake_folder))
    shuffled = [raw[i] for i in np.random.default_rng(seed).permutation(len(raw))]
    pack = write_pack(tmp_path / str(seed), "cifake", "shuffled", shuffled, trains=True, workers=1)
    assert pack.info.fingerprint == small_pack.info.fingerprint
    np.testing.assert_array_equal(pack.pixels, small_pack.pixels)
    assert pack.images.equals(small_pack.images)


@pytest.mark.parametrize(
    "change",
    [
        {"split": "test"},
        {"label": 1},
        {"content_class": "cat"},
        {"coarse_class": "pets"},
        {"generator": "gan"},
        {"blob": _raw(9).blob},
    ],
)
def test_fingerprint_covers_what_an_image_shows_and_says(
    change: dict[str, object], tmp_path: Path
) -> None:
    images = [_raw(number) for number in range(4)]
    changed = [_raw(0, **change), *images[1:]]
    packs = [
        write_pack(tmp_path, "x", "source", source, trains=False) for source in (images, changed)
    ]
    assert packs[0].info.fingerprint != packs[1].info.fingerprint


def test_fingerprint_leaves_out_names_and_source(tmp_path: Path) -> None:
    one = [_raw(number) for number in range(4)]
    other = [_raw(number, file_name=None, name="row") for number in range(4)]
    fingerprints = {
        write_pack(tmp_path / source, "x", source, images, trains=False).info.fingerprint
        for source, images in (("a", one), ("b", other))
    }
    assert len(fingerprints) == 1


def test_pack_travels_to_other_processes_as_its_folder(small_pack: Pack) -> None:
    message = pickle.dumps(small_pack)
    assert len(message) < 1000
    travelled = pickle.loads(message)  # noqa: S301
    assert travelled.folder == small_pack.folder
    assert isinstance(travelled.pixels, np.memmap)
    np.testing.assert_array_equal(travelled.pixels, small_pack.pixels)
    assert travelled.images.equals(small_pack.images)


def test_progress_counts_every_image_once(cache: Path, cifake_folder: Path) -> None:
    del cache
    counted: list[int] = []
    open_dataset("cifake", {"cifake": cifake_folder}, counted.append)
    assert sum(counted) == 64


def test_source_is_decoded_once(cache: Path, cifake_folder: Path) -> None:
    first = open_dataset("cifake", {"cifake": cifake_folder})
    decoded: list[int] = []
    again = open_dataset("cifake", {"cifake": cifake_folder}, decoded.append)
    assert decoded == []
    assert again.folder == first.folder
    assert first.folder.parent.parent == cache


def test_removed_pack_is_packed_again(cache: Path, cifake_folder: Path) -> None:
    del cache
    first = open_dataset("cifake", {"cifake": cifake_folder})
    for file in first.folder.iterdir():
        file.unlink()
    first.folder.rmdir()
    again = open_dataset("cifake", {"cifake": cifake_folder})
    assert again.info == first.info


def test_pack_of_an_earlier_release_is_packed_again_and_left_alone(
    cache: Path, cifake_folder: Path
) -> None:
    """It lay under a name without a format, and its memo under another key."""
    first = open_dataset("cifake", {"cifake": cifake_folder})
    old = first.folder.with_name(f"cifake-{first.info.fingerprint}")
    first.folder.rename(old)
    (old / "unreadable.parquet").unlink()
    content = json.loads((old / "pack.json").read_text())
    (old / "pack.json").write_text(json.dumps({**content, "format": 1}))
    for memo in (cache / "sources").iterdir():
        memo.unlink()
    again = open_dataset("cifake", {"cifake": cifake_folder})
    assert again.info == first.info
    assert again.folder == first.folder
    assert old.is_dir()


@pytest.mark.parametrize("content", ["", "{", "{}", "[]"])
def test_damaged_memo_is_forgotten(content: str, cache: Path, cifake_folder: Path) -> None:
    first = open_dataset("cifake", {"cifake": cifake_folder})
    (memo,) = (cache / "sources").iterdir()
    memo.write_text(content)
    assert open_dataset("cifake", {"cifake": cifake_folder}).folder == first.folder


def test_changed_source_is_packed_again(
    cache: Path, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    source = tmp_path / "cifake"
    for name, blob in cifake_images.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(blob)
    found = [open_dataset("cifake", {"cifake": source}).info]
    (source / "train/REAL/0099.jpg").write_bytes(cifake_images["test/REAL/0000.jpg"])
    found.append(open_dataset("cifake", {"cifake": source}).info)
    (source / "train/REAL/0099.jpg").write_bytes(cifake_images["test/REAL/0001.jpg"])
    found.append(open_dataset("cifake", {"cifake": source}).info)
    (source / "train/REAL/0099.jpg").unlink()
    found.append(open_dataset("cifake", {"cifake": source}).info)
    assert [info.images for info in found] == [64, 65, 65, 64]
    assert found[0] == found[3]
    assert len({info.fingerprint for info in found}) == 3
    assert len(list((cache / "packs").iterdir())) == 3


def test_replaced_archive_of_equal_size_is_packed_again(
    cache: Path, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    del cache
    path = tmp_path / "cifake.tar"
    fingerprints = []
    for first, second in (("REAL", "FAKE"), ("FAKE", "REAL")):
        with tarfile.open(path, "w:") as archive:
            for name, blob in cifake_images.items():
                member = tarfile.TarInfo(name.replace("REAL", first[0]).replace("FAKE", second[0]))
                member.name = member.name.replace("/R/", "/REAL/").replace("/F/", "/FAKE/")
                member.size = len(blob)
                archive.addfile(member, io.BytesIO(blob))
        fingerprints.append(open_dataset("cifake", {"cifake": path}).info.fingerprint)
    assert fingerprints[0] != fingerprints[1]


def test_equal_content_from_two_sources_is_one_pack(
    cache: Path, cifake_images: dict[str, bytes], cifake_folder: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "cifake.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        for name, blob in cifake_images.items():
            member = tarfile.TarInfo(name)
            member.size = len(blob)
            file.addfile(member, io.BytesIO(blob))
    first = open_dataset("cifake", {"cifake": cifake_folder})
    second = open_dataset("cifake", {"cifake": archive})
    assert first.folder == second.folder
    assert len(list((cache / "packs").iterdir())) == 1


@pytest.mark.parametrize(
    "name", ["pixels.npy", "images.parquet", "unreadable.parquet", "pack.json"]
)
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "one byte short"])
def test_damaged_pack_is_refused_with_its_folder(
    name: str, damage: str, copy_pack: CopyPack
) -> None:
    folder = copy_pack()
    content = (folder / name).read_bytes()
    if damage == "missing":
        (folder / name).unlink()
    else:
        # A text file ends in a line break, which is no loss.
        size = {"empty": 0, "half": len(content) // 2, "one byte short": len(content) - 2}[damage]
        (folder / name).write_bytes(content[:size])
    with pytest.raises(InputError, match="delete it") as caught:
        open_pack(folder)
    assert str(folder) in str(caught.value)


def test_pack_table_with_a_damaged_page_is_refused(copy_pack: CopyPack) -> None:
    folder = copy_pack()
    content = bytearray((folder / "images.parquet").read_bytes())
    content[4:200] = bytes(196)
    (folder / "images.parquet").write_bytes(content)
    with pytest.raises(InputError, match="delete it"):
        open_pack(folder)


def test_pack_of_a_newer_format_is_refused(copy_pack: CopyPack) -> None:
    folder = copy_pack()
    content = json.loads((folder / "pack.json").read_text())
    (folder / "pack.json").write_text(json.dumps({**content, "format": content["format"] + 1}))
    with pytest.raises(InputError, match=rf"pack format {content['format'] + 1}, .*delete it"):
        open_pack(folder)


def test_pack_with_fewer_pixels_than_images_is_refused(copy_pack: CopyPack) -> None:
    folder = copy_pack()
    np.save(folder / "pixels.npy", np.load(folder / "pixels.npy")[:-1])
    with pytest.raises(InputError, match="differ in number"):
        open_pack(folder)


def test_cache_that_cannot_be_written_is_refused_with_the_variable(
    cifake_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CIFAKE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(InputError, match="CIFAKE_CACHE"):
        open_dataset("cifake", {"cifake": cifake_folder})


def test_unusable_images_leave_nothing_beside_an_existing_pack(
    cache: Path, cifake_images: dict[str, bytes], tmp_path: Path
) -> None:
    source = tmp_path / "cifake"
    for name, blob in cifake_images.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(blob)
    open_dataset("cifake", {"cifake": source})
    before = sorted(cache.rglob("*"))
    (source / "train/REAL/0099.jpg").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"0099\.jpg"):
        open_dataset("cifake", {"cifake": source})
    assert sorted(cache.rglob("*")) == before


def test_concurrent_threads_write_one_whole_pack(tmp_path: Path) -> None:
    images = [_raw(number) for number in range(300)]

    def write(_: int) -> Pack:
        return write_pack(tmp_path / "packs", "x", "source", images, trains=True, workers=1)

    with ThreadPoolExecutor(6) as pool:
        packs = list(pool.map(write, range(12)))
    assert len({pack.folder for pack in packs}) == 1
    assert sorted(tmp_path.rglob("*")) == sorted(
        [tmp_path / "packs", packs[0].folder, *packs[0].folder.iterdir()]
    )
    for pack in packs:
        np.testing.assert_array_equal(pack.pixels, packs[0].pixels)


def test_concurrent_processes_write_one_whole_pack(cifake_folder: Path, tmp_path: Path) -> None:
    script = (
        "import sys, pathlib\n"
        "from cifake.data.locate import open_dataset\n"
        "pack = open_dataset('cifake', {'cifake': pathlib.Path(sys.argv[1])}, workers=1)\n"
        "print(pack.info.fingerprint, int(pack.pixels.sum()))"
    )
    environment = {**os.environ, "CIFAKE_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", script, str(cifake_folder)]
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) for _ in range(3)
    ]
    said = {process.communicate(timeout=400)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(said) == 1
    (pack,) = (tmp_path / "cache" / "packs").iterdir()
    assert sorted(file.name for file in pack.iterdir()) == [
        "images.parquet",
        "pack.json",
        "pixels.npy",
        "unreadable.parquet",
    ]


@pytest.fixture(scope="session")
def many() -> list[RawImage]:
    """More images than one process decodes alone."""
    return [_raw(number) for number in range(8800)]


def test_number_of_workers_is_irrelevant(many: list[RawImage], tmp_path: Path) -> None:
    alone = write_pack(tmp_path / "1", "x", "source", many, trains=True, workers=1)
    counted: list[int] = []
    shared = write_pack(
        tmp_path / "2", "x", "source", many, trains=True, workers=2, advance=counted.append
    )
    assert sum(counted) == len(many)
    assert alone.info == shared.info
    np.testing.assert_array_equal(alone.pixels, shared.pixels)
    assert alone.images.equals(shared.images)


def test_source_that_breaks_while_workers_decode_is_refused(
    many: list[RawImage], tmp_path: Path
) -> None:
    path = tmp_path / "cifake.tar"
    with tarfile.open(path, "w:") as archive:
        for number, image in enumerate([*many, *many]):
            member = tarfile.TarInfo(f"train/{'REAL' if image.label else 'FAKE'}/{number}.png")
            member.size = len(image.blob)
            archive.addfile(member, io.BytesIO(image.blob))
        member = tarfile.TarInfo("elsewhere/0000.png")
        archive.addfile(member)
    with pytest.raises(InputError, match=r"cifake\.tar: elsewhere/0000\.png: must lie in"):
        write_pack(tmp_path / "packs", "x", str(path), read(path), trains=True, workers=2)
    assert not (tmp_path / "packs").exists()


def test_decoding_workers_start_without_torch() -> None:
    script = "import sys, cifake.data.decode; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
