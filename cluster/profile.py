"""Profiles: what a cluster is made of, one YAML file a target."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import yaml
from pydantic import ValidationError

from cifake.errors import InputError, Mistake, refuse, suggest
from cluster.launcher import Launcher, Profile


def shipped() -> dict[str, Path]:
    """The profiles that ship, by name."""
    folder = Path(str(resources.files("cluster.profiles")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_profile(name: str, launchers: Mapping[str, type[Launcher]]) -> tuple[str, Profile]:
    """Read a profile: the name of one that ships, or a path.

    Args:
        name: of the profile, or its file.
        launchers: all that there are, by the name that a profile gives.

    Returns:
        Its name, and what it says.

    Raises:
        InputError: no such profile, or every mistake in it.
    """
    profiles = shipped()
    path = profiles.get(name, Path(name))
    if not path.is_file():
        refuse("profile", f"no such profile or file; {suggest(name, profiles)}", value=name)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        refuse(path, f"is not readable YAML: {' '.join(str(error).split())}")
    if not isinstance(content, dict):
        refuse(path, "is no mapping of settings to values")
    launcher = str(content.get("launcher"))
    if launcher not in launchers:
        known = suggest(launcher, launchers)
        refuse(path, f"no such launcher; {known}", field="launcher", value=launcher)
    try:
        return path.stem, launchers[launcher].settings.model_validate(content, strict=False)
    except ValidationError as error:
        raise InputError(
            Mistake(
                where=str(path),
                field=".".join(str(part) for part in details["loc"]) or None,
                value=details["input"],
                problem=details["msg"],
            )
            for details in error.errors()
        ) from None
