"""`--set key=value`: changes to a specification before it is validated."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import yaml

from cifake.errors import refuse, suggest
from sweeps.spec import PARAMETERS, SEED, Shape
from sweeps.specfile import SpecFile, load_yaml

_SECTIONS = ("scientific", "nuisance", "fixed")


def apply(file: SpecFile, overrides: Sequence[str]) -> SpecFile:
    """The specification with every override applied, in order.

    A parameter named bare is changed where the file has it; one that the file lacks becomes fixed.

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
        section, path = _target(content, key)
        _assign(content, section, path, value)
    return replace(file, content=content)


def _target(content: Mapping[str, Any], key: str) -> tuple[list[str], str]:
    """The groups that hold a key, and the key inside them."""
    first, _, rest = key.partition(".")
    if key in PARAMETERS or key == SEED:
        for section in _SECTIONS:
            held = content.get(section) or {}
            if key in held or _holds(held, key.split(".")):
                return [section], key
        if first == "data":
            return [first], rest
        return (["nuisance"] if key == SEED else ["fixed"]), key
    if first in _SECTIONS and (rest in PARAMETERS or rest == SEED):
        return [first], rest
    if first in Shape.model_fields and first not in _SECTIONS:
        *groups, leaf = key.split(".")
        return groups, leaf
    hint = suggest(rest if first in _SECTIONS else key, [*PARAMETERS, SEED, *Shape.model_fields])
    refuse("--set", f"unknown key; {hint}", field=key)


def _assign(content: dict[str, Any], groups: list[str], key: str, value: Any) -> None:
    inner: Any = content
    for group in groups:
        if not isinstance(inner.get(group), dict):
            inner[group] = {}
        inner = inner[group]
    parts = key.split(".")
    if key not in inner and _holds(inner, parts):
        for group in parts[:-1]:
            inner = inner[group]
        inner[parts[-1]] = value
    else:
        inner[key] = value


def _holds(held: Any, parts: list[str]) -> bool:
    for part in parts:
        if not isinstance(held, Mapping) or part not in held:
            return False
        held = held[part]
    return True
