"""`cifake predict`: image files of any kind, and what is said of those that cannot be read."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cifake.data.any_image import read_image
from cifake.data.pack import Pack

from .conftest import Runs, Said

Ask = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def ask(command: Callable[..., Said], runs: Runs) -> Ask:
    """`cifake predict` of the run with attention, as JSON; all images must be readable."""

    def run(*arguments: str | Path) -> list[dict[str, Any]]:
        said = command("predict", runs.srm.path, *arguments, "--json")
        assert (said.code, said.err) == (0, "")
        found: list[dict[str, Any]] = json.loads(said.out)
        return found

    return run


@pytest.fixture
def photograph(few_folder: Path) -> Image.Image:
    """A test photograph of CIFAKE, 32×32 RGB."""
    path = next(iter(sorted((few_folder / "test" / "REAL").iterdir())))
    return Image.open(path).convert("RGB")


def _said(ask: Ask, path: Path, *options: str) -> float:
    (row,) = ask(path, *options)
    return float(row["probability"])


# Probabilities


def test_files_of_a_data_set_get_the_probabilities_of_its_evaluation(
    ask: Ask, runs: Runs, few: Pack, few_folder: Path
) -> None:
    rows = few.rows("test")
    expected = {}
    for row, probability in zip(rows, runs.srm.probabilities[2], strict=True):
        label = "REAL" if few.labels[row] else "FAKE"
        name = few.images["file_name"][int(row)].as_py()
        expected[str(few_folder / "test" / label / name)] = float(probability)
    found = ask(few_folder / "test")
    assert {row["file"]: row["probability"] for row in found} == pytest.approx(expected, abs=1e-6)
    assert all(row["label"] == ("REAL" if row["probability"] >= 0.5 else "FAKE") for row in found)


def test_threshold_moves_the_label(ask: Ask, few_folder: Path) -> None:
    labels = {row["label"] for row in ask(few_folder / "test", "--threshold", "0")}
    assert labels == {"REAL"}
    assert {row["label"] for row in ask(few_folder / "test", "--threshold", "1")} == {"FAKE"}


# Any size and mode


def test_image_of_double_size_is_the_same_through_a_box_filter(
    ask: Ask, photograph: Image.Image, tmp_path: Path
) -> None:
    photograph.save(tmp_path / "one.png")
    photograph.resize((64, 64), Image.Resampling.NEAREST).save(tmp_path / "two.png")
    assert _said(ask, tmp_path / "two.png", "--filter", "box") == _said(ask, tmp_path / "one.png")


def test_filters_differ(ask: Ask, photograph: Image.Image, tmp_path: Path) -> None:
    photograph.resize((50, 70)).save(tmp_path / "odd.png")
    names = ("nearest", "bilinear", "lanczos")
    said = [_said(ask, tmp_path / "odd.png", "--filter", name) for name in names]
    assert len(set(said)) == 3
    assert _said(ask, tmp_path / "odd.png") == said[1]


def test_modes_that_show_the_same_are_read_the_same(
    photograph: Image.Image, tmp_path: Path
) -> None:
    grey = photograph.convert("L")
    few_colours = photograph.quantize(64)
    clear = photograph.convert("RGBA")
    clear.putalpha(0)
    wide = np.asarray(grey).astype(np.uint16) * 257
    turned = photograph.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    pairs: dict[str, tuple[Image.Image, Image.Image, dict[str, Any]]] = {
        "grey.png": (grey, grey.convert("RGB"), {}),
        "grey16.png": (Image.fromarray(wide), grey.convert("RGB"), {}),
        "palette.png": (few_colours, few_colours.convert("RGB"), {}),
        "clear.png": (clear, Image.new("RGB", (32, 32), "white"), {}),
        "turned.png": (turned, photograph, {"exif": exif}),
        "cmyk.tif": (photograph.convert("CMYK"), photograph, {}),
    }
    for name, (given, shown, options) in pairs.items():
        given.save(tmp_path / name, **options)
        read = read_image(tmp_path / name, "bilinear")
        assert np.array_equal(read, np.asarray(shown)), name


# What cannot be read


def _png_that_claims(side: int) -> bytes:
    """A PNG of a few bytes whose header says it has side×side pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data)


@pytest.fixture
def unreadable(photograph: Image.Image, tmp_path: Path) -> dict[Path, str]:
    """Files that are no images, and what must be said of each."""
    photograph.resize((200, 200)).save(tmp_path / "whole.jpg")
    contents = {
        "cut.jpg": ((tmp_path / "whole.jpg").read_bytes()[:1500], "cannot be read as an image"),
        "large.png": (
            _png_that_claims(12_000),
            "claims a size of 12000×12000 pixels; at most 100,000,000",
        ),
        "bomb.png": (_png_that_claims(60_000), "claims a size of more than the 100,000,000 pixels"),
        "text[b].jpg": (b"no image", "cannot be read as an image"),
        "empty.png": (b"", "cannot be read as an image"),
    }
    (tmp_path / "whole.jpg").unlink()
    for name, (content, _) in contents.items():
        (tmp_path / name).write_bytes(content)
    said = {tmp_path / name: words for name, (_, words) in contents.items()}
    return {**said, tmp_path / "nowhere.png": "no such file"}


def test_unreadable_images_are_named_and_the_others_predicted(
    command: Callable[..., Said],
    runs: Runs,
    unreadable: dict[Path, str],
    photograph: Image.Image,
    tmp_path: Path,
) -> None:
    (tmp_path / "good").mkdir()
    photograph.save(tmp_path / "good" / "photo.png")
    arguments = ("predict", runs.srm.path, tmp_path / "good", *unreadable)
    for ended in (command(*arguments), command(*arguments, "--json")):
        assert ended.code == 1
        lines = ended.err.splitlines()
        assert len(lines) == len(unreadable)
        for line, (path, words) in zip(lines, unreadable.items(), strict=True):
            assert line.startswith(f"cifake: error: {path}: ")
            assert words in line
    found = json.loads(ended.out)
    assert [row["problem"] is None for row in found] == [True] + [False] * len(unreadable)
    assert found[1]["probability"] is None


def test_nothing_readable_is_an_error_that_names_all(
    command: Callable[..., Said], runs: Runs, unreadable: dict[Path, str], tmp_path: Path
) -> None:
    (tmp_path / "none").mkdir()
    ended = command("predict", runs.srm.path, *unreadable, tmp_path / "none")
    assert (ended.code, ended.out) == (2, "")
    assert all(f"{path}: " in ended.err for path in unreadable)
    assert "holds no images" in ended.err


def test_folder_stands_for_the_images_below_it(
    ask: Ask, photograph: Image.Image, tmp_path: Path
) -> None:
    for name in ("b.PNG", "a.jpeg", "inner/c.webp", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        photograph.save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    found = [Path(row["file"]).relative_to(tmp_path).as_posix() for row in ask(tmp_path)]
    assert found == ["a.jpeg", "b.PNG", "inner/c.webp"]


def test_unknown_filter_is_refused(
    command: Callable[..., Said], runs: Runs, few_folder: Path
) -> None:
    ended = command("predict", runs.srm.path, few_folder, "--filter", "lancos")
    assert ended.code == 2
    assert "did you mean lanczos" in ended.err


def test_table_lists_file_probability_and_label(
    command: Callable[..., Said],
    runs: Runs,
    photograph: Image.Image,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    photograph.save("photo[1].png")
    ended = command("predict", runs.srm.path, "photo[1].png")
    assert (ended.code, ended.err) == (0, "")
    (line,) = [line for line in ended.out.splitlines() if "photo[1].png" in line]
    assert "REAL" in line or "FAKE" in line
