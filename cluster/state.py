"""What this machine knows of the clusters that it started: a folder each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cifake.data.locate import cache_folder
from cluster.actions import WriteFile
from cluster.launcher import Launcher, Profile

_PROFILE, _UP = "profile.json", "up"


def folder_of(name: str) -> Path:
    """The folder of a cluster, whether there is one or not."""
    return cache_folder().resolve() / "clusters" / name


def remember(profile: Profile, folder: Path) -> WriteFile:
    """What keeps a profile as it is now: `down` goes by it, however the file changes."""
    return WriteFile(path=folder / _PROFILE, text=profile.model_dump_json(indent=2))


def came_up(folder: Path) -> WriteFile:
    """What notes that `up` succeeded."""
    return WriteFile(path=folder / _UP, text="")


def has_come_up(folder: Path) -> bool:
    """Whether `up` ever succeeded, and `down` has not been since."""
    return (folder / _UP).is_file()


def remembered(folder: Path, launchers: Mapping[str, type[Launcher]]) -> Profile | None:
    """The profile as it was at `up`; null where there was none, or `down` has been since."""
    path = folder / _PROFILE
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8")
    launcher = launchers[Profile.model_validate_json(text, extra="ignore").launcher]
    return launcher.settings.model_validate_json(text)
