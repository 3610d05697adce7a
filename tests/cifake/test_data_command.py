"""`cifake data`: what a user sees of the data sets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cifake.data.catalogue import DATASETS


def data(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cifake", "data", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_every_data_set_is_listed_with_its_licence() -> None:
    listed = data("list").stdout
    assert all(name in listed for name in DATASETS)
    assert "Bird & Lotfi" in listed


def test_demo_is_described_as_published() -> None:
    facts = json.loads(data("info", "demo", "--json").stdout)
    assert facts["published"]
    assert facts["images"] == 5000
    assert {row["images"] for row in facts["splits"]} == {2000, 500}
    assert "as published" in data("info", "demo").stdout


def test_pack_says_where_it_is() -> None:
    folder = Path(data("pack", "demo").stdout.strip())
    assert {path.name for path in folder.iterdir()} == {
        "pixels.npy",
        "images.parquet",
        "unreadable.parquet",
        "pack.json",
    }


def test_part_of_a_set_is_not_the_published_one(cifake_folder: Path) -> None:
    facts = json.loads(data("info", "cifake", str(cifake_folder), "--json").stdout)
    assert not facts["published"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("info", "cifak"), "did you mean cifake"),
        (("info", "cifake", "/nowhere"), "no such file or folder"),
        (("pack", "demo", "/"), "leave the path out"),
        (("pack", "cifake"), "CIFAKE_DATA"),
    ],
)
def test_bad_input_is_refused_with_what_is_right(arguments: tuple[str, ...], said: str) -> None:
    result = data(*arguments)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


@pytest.fixture
def odd_folder(cifake_folder: Path, tmp_path: Path) -> Path:
    """A folder set of a few images, and a dozen files that are none."""
    source = tmp_path / "set"
    for label in ("real", "fake"):
        folder = source / "test" / label
        folder.mkdir(parents=True)
        for file in sorted((cifake_folder / "train" / label.upper()).iterdir())[:5]:
            (folder / file.name).write_bytes(file.read_bytes())
    for number in range(12):
        (source / "test" / "fake" / f"broken{number:02}.png").write_bytes(b"nothing")
    return source


def test_unreadable_files_are_counted_and_the_first_ten_named(odd_folder: Path) -> None:
    facts = json.loads(data("info", "folders/odd", str(odd_folder), "--json").stdout)
    assert facts["images"] == 10
    assert facts["published"] is None
    assert facts["unreadable"]["files"] == 12
    assert facts["unreadable"]["splits"] == [{"split": "test", "label": "FAKE", "files": 12}]
    names = [row["file"] for row in facts["unreadable"]["first"]]
    assert names == [f"test/fake/broken{number:02}.png" for number in range(10)]
    shown = data("info", "folders/odd", str(odd_folder)).stdout
    assert all(f"{name}: cannot be read" in shown for name in names)
    assert "nobody published" in shown
    assert " 12 " in shown


def test_variant_is_packed_and_described_under_its_one_name() -> None:
    folder = data("pack", "demo@blur=1.50,greyscale").stdout.strip()
    facts = json.loads(data("info", "demo@blur=1.5,greyscale", "--json").stdout)
    assert facts["dataset"] == "demo@blur=1.5,greyscale"
    assert facts["pack"] == folder
    assert facts["published"] is None
    assert facts["unreadable"] == {"files": 0, "splits": [], "first": []}


def test_steps_of_variants_are_listed() -> None:
    listed = data("list").stdout
    for form in ("jpeg=Q", "blur=SIGMA", "resize=SIDE", "noise=SIGMA", "greyscale", "filter=NAME"):
        assert form in listed
    assert "NAME@STEP" in listed
    assert "lanczos" in listed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("pack", "demo@jpeg=0"), "1 to 100"),
        (("pack", "demo@filter=box"), "for folder sets"),
        (("info", "demo@blr=1"), "did you mean blur"),
        (("pack", "folders/UP", "/"), "lower-case letters"),
        (("pack", "demo@blur=1", "/"), "leave the path out"),
        (("pack", "folders/kaggle"), "--data folders/kaggle=PATH"),
    ],
)
def test_bad_name_is_refused_with_what_is_right(arguments: tuple[str, ...], said: str) -> None:
    result = data(*arguments)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
