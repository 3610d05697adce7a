"""Profiles: what a cluster is made of, one YAML file a target."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError

from cifake.config import Settings
from cifake.errors import InputError, Mistake, refuse, suggest


class Profile(Settings):
    """A cluster on this machine."""

    launcher: Literal["local"]
    """What starts it."""

    description: str
    """One sentence for `cluster list`."""

    port: int = Field(6379, ge=1024, le=65535)
    """Port of the cluster's head."""

    cpus: int | None = Field(None, ge=1)
    """Cores that it offers; null offers all."""


def shipped() -> dict[str, Path]:
    """The profiles that ship, by name."""
    folder = Path(str(resources.files("cluster.profiles")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_profile(name: str) -> tuple[str, Profile]:
    """Read a profile: the name of one that ships, or a path.

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
        return path.stem, Profile.model_validate(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        refuse(path, f"is not readable YAML: {' '.join(str(error).split())}")
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
