"""What is installed is what is here."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("cifake", "sweeps", "cluster")
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def files() -> list[Path]:
    found = (path for package in PACKAGES for path in (ROOT / package).rglob("*"))
    return [path for path in found if path.is_file() and path.suffix != ".pyc"]


def test_every_folder_with_code_is_found_as_a_package() -> None:
    assert SETUPTOOLS["packages"]["find"]["include"] == [f"{name}*" for name in PACKAGES]
    folders = {path.parent for path in files() if path.suffix == ".py"}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_files_that_are_no_code_are_installed_too() -> None:
    installed = {
        path
        for package, patterns in SETUPTOOLS["package-data"].items()
        for pattern in patterns
        for path in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    assert {path for path in files() if path.suffix != ".py"} == installed
