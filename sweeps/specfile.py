"""A specification's YAML as written: where each field stands, and which studies ship."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from cifake.errors import Mistake, refuse, suggest
from cifake.safe_yaml import Loader, load_yaml

MAX_FIELDS = 100_000
"""No specification has as many; aliases of aliases can make billions of a short text."""


@dataclass(frozen=True)
class SpecFile:
    """A specification as written."""

    name: str
    """The file, for messages."""

    content: Any
    """What the YAML says."""

    lines: Mapping[str, int]
    """Line of each field, by dotted path."""

    def mistake(self, field: str, problem: str, value: object | None) -> Mistake:
        """Something wrong with a field, with the line of it or of what should hold it."""
        known = field
        while known and known not in self.lines:
            known = re.sub(r"(\[\d+\]|.[^.\[\]]*)\Z", "", known, flags=re.DOTALL)
        line = self.lines.get(known)
        where = self.name if line is None else f"{self.name}:{line}"
        return Mistake(where=where, field=field, value=value, problem=problem)


def shipped() -> dict[str, Path]:
    """The studies that ship, by name."""
    folder = Path(str(resources.files("sweeps.studies")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find(spec: str) -> Path:
    """The file of a specification: a path, or the name of a shipped study.

    Raises:
        InputError: neither.
    """
    path = Path(spec)
    if os.path.isfile(path):  # noqa: PTH113 - pathlib's raises where a name is too long
        return path
    studies = shipped()
    if spec in studies:
        return studies[spec]
    return refuse(spec, f"no such file, and no study of that name; {suggest(spec, studies)}")


def read(path: Path) -> SpecFile:
    """Read a specification.

    Raises:
        InputError: not YAML, not a mapping, or a key given twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=Loader)
        lines: dict[str, int] = {}
        if root is not None:
            _collect_lines(root, "", lines, str(path))
        content = load_yaml(text)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        refuse(path, f"is not readable YAML: {' '.join(str(error).split())}")
    except RecursionError:
        refuse(path, "is not readable YAML: it is nested too deeply, or holds itself")
    if not isinstance(content, dict):
        refuse(path, "must be a mapping with at least name and epochs", value=content)
    return SpecFile(str(path), content, lines)


def _collect_lines(node: yaml.Node, path: str, lines: dict[str, int], name: str) -> None:
    if len(lines) > MAX_FIELDS:
        refuse(name, f"holds more than {MAX_FIELDS:,} values")
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                refuse(f"{name}:{line}", "a key must be a word")
            here = f"{path}.{key.value}" if path else str(key.value)
            if key.value in seen:
                refuse(f"{name}:{line}", "is given twice; keep one of the two", field=here)
            seen.add(key.value)
            lines[here] = line
            _collect_lines(value, here, lines, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            here = f"{path}[{index}]"
            lines[here] = value.start_mark.line + 1
            _collect_lines(value, here, lines, name)
