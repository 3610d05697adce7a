"""The original CIFAR-100 files give the parquet's pack, and nothing that a pickle names is run."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cifake.data import pickles
from cifake.data.cifar100 import read
from cifake.data.locate import open_dataset
from cifake.data.pack import write_pack
from cifake.data.parquet import class_names
from cifake.errors import InputError

Pixels = npt.NDArray[np.uint8]
Files = dict[str, Any]


class _Python2Pickler(pickle._Pickler):
    """Writes byte strings as Python 2 did, and numpy's globals under their old names."""

    dispatch = dict(pickle._Pickler.dispatch)

    def _save_string(self, text: bytes) -> None:
        short = len(text) < 256
        self.write(b"U" + bytes([len(text)]) if short else b"T" + struct.pack("<i", len(text)))
        self.write(text)
        self.memoize(text)

    dispatch[bytes] = _save_string


def python2(value: object) -> bytes:
    buffer = io.BytesIO()
    _Python2Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def python3(value: object) -> bytes:
    return pickle.dumps(value, protocol=2)


def flat(pixels: Pixels) -> Pixels:
    """Shape (n, 3072): all red, all green, all blue."""
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).reshape(len(pixels), -1)


def contents(count: int = 6) -> Files:
    """What `test` and `meta` hold of a small set."""
    rng = np.random.default_rng(4)
    return {
        "test": {
            b"batch_label": b"testing batch 1 of 1",
            b"data": rng.integers(0, 256, (count, 3072), np.uint8),
            b"fine_labels": [i % 3 for i in range(count)],
            b"coarse_labels": [i % 2 for i in range(count)],
            b"filenames": [f"apple_s_{i:06}.png".encode() for i in range(count)],
        },
        "meta": {
            b"fine_label_names": [b"apple", b"bed", b"can"],
            b"coarse_label_names": [b"fruit", b"things"],
        },
    }


def write(root: Path, files: Files, encode: Callable[[object], bytes] = python2) -> Path:
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    for name, value in files.items():
        (folder / name).write_bytes(value if isinstance(value, bytes) else encode(value))
    return folder


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        list(read(path))
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("encode", [python2, python3])
def test_images_and_classes_are_those_of_the_file(
    encode: Callable[[object], bytes], tmp_path: Path
) -> None:
    files = contents()
    images = list(read(write(tmp_path, files, encode)))
    for number, image in enumerate(images):
        pixels = np.asarray(Image.open(io.BytesIO(image.blob)))
        for channel in range(3):
            plane = files["test"][b"data"][number][channel * 1024 : (channel + 1) * 1024]
            np.testing.assert_array_equal(pixels[..., channel].ravel(), plane)
        assert image.content_class == ("apple", "bed", "can")[number % 3]
        assert image.coarse_class == ("fruit", "things")[number % 2]
        assert image.file_name == f"apple_s_{number:06}.png"
        assert (image.split, image.label) == ("test", 1)


def test_archive_as_published_is_read_without_its_training_file(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", {**contents(), "train": b"not read", "file.txt~": b""})
    archive = tmp_path / "cifar-100-python.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, "cifar-100-python")
    assert [image.blob for image in read(archive)] == [image.blob for image in read(folder)]


def test_original_files_give_the_published_pack(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "cifar100-test.parquet"
    rows = pq.read_table(source).to_pylist()
    names = class_names(source)
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(row["img"]["bytes"]))) for row in rows])
    files = {
        "test": {
            b"data": flat(pixels),
            b"fine_labels": [row["fine_label"] for row in rows],
            b"coarse_labels": [row["coarse_label"] for row in rows],
            b"filenames": [f"{number}.png".encode() for number in range(len(rows))],
            b"batch_label": b"testing batch 1 of 1",
        },
        "meta": {
            f"{level}_label_names".encode(): [name.encode() for name in names[f"{level}_label"]]
            for level in ("fine", "coarse")
        },
    }
    folder = write(tmp_path, files)
    pack = write_pack(tmp_path / "packs", "cifar100", str(folder), read(folder), trains=False)
    assert pack.info.fingerprint == "77e4ed22ff5fe5d0"
    published = open_dataset("cifar100", {"cifar100": source})
    np.testing.assert_array_equal(pack.pixels, published.pixels)
    assert pack.images.drop_columns("file_name").equals(published.images.drop_columns("file_name"))


# Wrong content


def _changed(name: str, key: bytes, value: object) -> Files:
    files = contents()
    if value is None:
        del files[name][key]
    else:
        files[name][key] = value
    return files


@pytest.mark.parametrize(
    ("name", "key", "value", "said"),
    [
        ("test", b"data", None, "shape (n, 3072)"),
        ("test", b"data", b"text", "shape (n, 3072)"),
        ("test", b"data", np.zeros((6, 3071), np.uint8), "(6, 3071)"),
        ("test", b"data", np.zeros((6, 3072, 1), np.uint8), "(6, 3072, 1)"),
        ("test", b"data", np.zeros((6, 3072), np.int16), "'i2'; must be uint8"),
        ("test", b"data", np.zeros((6, 3072), np.float32), "must be uint8"),
        ("test", b"fine_labels", [0, 1, 2], "6 labels under fine_labels"),
        ("test", b"fine_labels", None, "6 labels under fine_labels"),
        ("test", b"fine_labels", [0, 1, 2, 3, 0, 1], "image 3: fine_labels must be 0 to 2"),
        ("test", b"fine_labels", [0, 1, 2, 0, 0, -1], "image 5: fine_labels must be 0 to 2"),
        ("test", b"coarse_labels", [0, 1, 0, 2, 0, 1], "image 3: coarse_labels must be 0 to 1"),
        ("test", b"coarse_labels", [0, True, 0, 1, 0, 1], "image 1"),
        ("test", b"filenames", [b"one"], "6 names under filenames"),
        ("meta", b"fine_label_names", None, "fine_label_names"),
        ("meta", b"coarse_label_names", [1, 2], "coarse_label_names"),
    ],
)
def test_wrong_content_is_refused_with_the_file_and_what_is_right(
    name: str, key: bytes, value: object, said: str, tmp_path: Path
) -> None:
    text = refusal(write(tmp_path, _changed(name, key, value)))
    assert said in text
    assert f"{tmp_path / 'cifar-100-python'}: {name}" in text


@pytest.mark.parametrize("missing", ["test", "meta"])
def test_missing_file_is_named(missing: str, tmp_path: Path) -> None:
    files = contents()
    del files[missing]
    text = refusal(write(tmp_path, files))
    assert f"holds no file {missing}" in text
    assert "parquet" in text


def test_file_that_holds_no_mapping_is_refused(tmp_path: Path) -> None:
    assert "must hold a dict, not a list" in refusal(write(tmp_path, {**contents(), "meta": [1]}))


# Pickles that would do something


class _Runs:
    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def _with_data(content: object) -> bytes:
    return python3({**contents()["test"], b"data": content})


ATTACKS: dict[str, Callable[[Path], tuple[bytes, str]]] = {
    "os.system": lambda mark: (_with_data(_Runs(os.system, f"touch {mark}")), "posix.system"),
    "builtins.eval": lambda mark: (
        _with_data(_Runs(eval, f"open({str(mark)!r}, 'w')")),
        "builtin",
    ),
    "nested": lambda mark: (
        _with_data([{b"a": (_Runs(os.mkdir, str(mark)),)}]),
        "posix.mkdir",
    ),
    "as an argument": lambda mark: (
        _with_data(_Runs(np.ndarray, _Runs(os.mkdir, str(mark)))),
        "posix.mkdir",
    ),
    "attribute": lambda mark: (
        b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93" + f"({mark})".encode(),
        "numpy.ndarray.tofile",
    ),
    "function of numpy": lambda mark: (
        _with_data(_Runs(np.save, str(mark), [1])),
        "numpy.save",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("name", ["test", "meta"])
def test_malicious_pickle_is_refused_by_what_it_names_and_not_run(
    attack: str, name: str, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    content, named = ATTACKS[attack](mark)
    text = refusal(write(tmp_path, {**contents(), name: content}))
    assert named in text
    assert f"{name}:" in text
    assert not mark.exists()


def test_attack_would_work_without_the_restriction(tmp_path: Path) -> None:
    """Otherwise the tests above would show nothing."""
    mark = tmp_path / "mark"
    pickle.loads(ATTACKS["nested"](mark)[0])  # noqa: S301
    assert mark.exists()


@pytest.mark.parametrize("encoding", ["rot13", "zlib", "unicode_escape"])
def test_no_other_codec_is_called(encoding: str, tmp_path: Path) -> None:
    content = b"\x80\x02c_codecs\nencode\nX\x01\0\0\0aX"
    content += struct.pack("<I", len(encoding)) + encoding.encode() + b"\x86R."
    with pytest.raises(InputError, match="damaged pickle"):
        pickles.load(content, tmp_path, "test")


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    files = _changed("test", b"data", np.asarray([[None] * 3072] * 6, object))
    assert "must be uint8" in refusal(write(tmp_path, files))


def test_memo_of_a_huge_index_takes_no_memory(tmp_path: Path) -> None:
    assert pickles.load(b"\x80\x02]r\xff\xff\xff\x7f.", tmp_path, "test") == []


SMALL = python2(contents(1)["test"])


@settings(deadline=None, max_examples=200)
@given(st.integers(0, len(SMALL) - 1), st.integers(0, 255), st.booleans())
def test_damaged_pickle_is_a_value_or_refused(place: int, value: int, cut: bool) -> None:
    content = SMALL[:place] if cut else SMALL[:place] + bytes([value]) + SMALL[place + 1 :]
    try:
        loaded, said = pickles.load(content, Path("set"), "test"), ""
    except InputError as error:
        loaded, said = None, str(error)
    assert loaded is not None or said.startswith("set: test: ") or not cut


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_refused(content: bytes) -> None:
    try:
        said = repr(pickles.load(content, Path("set"), "test"))
    except InputError as error:
        said = str(error)
    assert said
