"""A cluster of this machine alone, on loopback, that outlives the command that started it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, cast

from pydantic import Field

from cifake.errors import Mistake
from cluster import look
from cluster.actions import Action
from cluster.launcher import Profile
from cluster.launchers import machines
from cluster.machine import Machine
from cluster.ray_start import LOOPBACK
from cluster.token import token_path


class LocalProfile(Profile):
    """What a profile of this machine says."""

    cpus: int | None = Field(None, ge=1)
    """Cores to give; null for all."""

    gpus: int | None = Field(None, ge=0)
    """GPUs to give; null for all."""


class Local:
    """This machine as a cluster.

    Args:
        name: of the cluster.
        profile: what it is made of.
        folder: where what is known of it is kept.
    """

    settings: ClassVar[type[Profile]] = LocalProfile

    def __init__(self, name: str, profile: Profile, folder: Path) -> None:
        del name
        self.profile = cast("LocalProfile", profile)
        self.folder = folder
        self.member = machines.Member(
            machine=Machine(name="localhost", folder=str(folder / "node"), python=sys.executable),
            address=LOOPBACK,
            code=look.versions()["code"] or "",
            cpus=self.profile.cpus,
            gpus=self.profile.gpus,
        )

    def problems(self) -> list[Mistake]:
        """Ports in use, and a Ray without jobs."""
        return machines.problems([self.member], self.profile)

    def up(self) -> list[Action]:
        """What starts it, or leaves it as it is."""
        return machines.start([self.member], self.profile, self.folder)

    def down(self) -> list[Action]:
        """What ends it and removes its folder."""
        return machines.end([self.member])

    def is_up(self) -> bool:
        """Whether it runs, or is about to."""
        return machines.state(self.member.machine)["kept"]

    def on_head(self, command: Sequence[str]) -> list[str]:
        """A command of this Python, as a driver of the cluster."""
        return machines.on_head(self.member.machine, command)

    def reach(self) -> Mapping[str, str]:
        """How a sweep that is run here uses it, and where its dashboard is."""
        token = shlex.quote(str(token_path(self.folder)))
        address = f"{LOOPBACK}:{self.profile.port}"
        variables = f"RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={token}"
        return {
            "sweeps": f"{variables} sweeps run SPEC --address {address}",
            "dashboard": f"http://{LOOPBACK}:{self.profile.dashboard_port}",
            "token of the dashboard": f"cat {token}",
        }
