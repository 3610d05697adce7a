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
