"""`--set key=value`: changes to a specification before it is validated."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import yaml

from cifake.errors import refuse, suggest
from cifake.parameters import PARAMETERS
from cifake.safe_yaml import load_yaml
from sweeps.spec import SEED, Shape
from sweeps.specfile import SpecFile

_SECTIONS = ("scientific", "nuisance", "fixed")


def apply(file: SpecFile, overrides: Sequence[str]) -> SpecFile:
    """The specification with every override applied, in order.

    A parameter named bare is changed where the file has it, in every grid that does; one that the
    file lacks becomes fixed.

    Raises:
        InputError: an override without `=`, of an unknown key, or with an unreadable value.
    """
    content = copy.deepcopy(file.content)
    for override in overrides:
        key, separator, text = override.partition("=")
        key = key.strip()
        if not separator or not key:
            refuse("--set", "must be key=value, as in --set epochs=2", value=override)
        try:
            value = load_yaml(text)
        except yaml.YAMLError:
            refuse("--set", "must be YAML, as in [1, 2] or 0.01", field=key, value=text)
        for part, path in _places(content, key):
            _assign(part, path, value)
    return replace(file, content=content)


def _places(content: dict[str, Any], key: str) -> list[tuple[dict[str, Any], str]]:
    """What a key stands for: parts of the file, and the dotted path in each."""
    first, _, rest = key.partition(".")
    if key in PARAMETERS or key == SEED:
        for section in _SECTIONS:
            if found := [each for each in _grids(content.get(section)) if _holds(each, key)]:
                return [(each, key) for each in found]
        if first == "data":
            return [(content, key)]
        return [(content, f"nuisance.{key}" if key == SEED else f"fixed.{key}")]
    if first in _SECTIONS and (rest in PARAMETERS or rest == SEED):
        return [(each, rest) for each in _grids(content.get(first))] or [(content, key)]
    if first in Shape.model_fields and first not in _SECTIONS:
        return [(content, key)]
    hint = suggest(rest if first in _SECTIONS else key, [*PARAMETERS, SEED, *Shape.model_fields])
    return refuse("--set", f"unknown key; {hint}", field=key)


def _grids(section: Any) -> list[dict[str, Any]]:
    """The mappings of a section, which may be a list of them."""
    parts = section if isinstance(section, list) else [section]
    return [part for part in parts if isinstance(part, dict)]


def _assign(content: dict[str, Any], path: str, value: Any) -> None:
    """Set a value, following keys that hold dots themselves and making what is missing."""
    inner: Any = content
    step, rest = _step(inner, path)
    while rest:
        if not isinstance(inner.get(step), dict):
            inner[step] = {}
        inner = inner[step]
        step, rest = _step(inner, rest)
    inner[step] = value


def _step(held: Mapping[str, Any], path: str) -> tuple[str, str]:
    """Split a path into the next key and the rest; a key may itself hold dots."""
    parts = path.split(".")
    prefixes = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    known = [p for p in prefixes if p in held] or [p for p in prefixes[:-1] if p in PARAMETERS]
    step = known[0] if known else parts[0]
    return step, path[len(step) + 1 :]


def _holds(held: Mapping[str, Any], path: str) -> bool:
    step, rest = _step(held, path)
    inner = held.get(step)
    return step in held and (not rest or (isinstance(inner, Mapping) and _holds(inner, rest)))
