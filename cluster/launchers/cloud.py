"""Clusters in AWS and Google's cloud, by Ray's own cluster launcher."""

from __future__ import annotations

import ipaddress
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, cast

from cifake.errors import Mistake, refuse
from cluster import aws, bucket, bundle, gcp, ray_launcher
from cluster.actions import Action, Command, WriteFile
from cluster.launcher import Profile
from cluster.launchers.hosts import SSH
from cluster.names import dns_name
from cluster.node import NODE
from cluster.ray_launcher import (
    GROUP,
    KEY,
    PUBLIC_KEY,
    AwsProfile,
    CloudProfile,
    Config,
    GcpProfile,
)
from cluster.secret_file import secret_problems
from cluster.token import make_token, token_path

_CONFIG, _TEMPLATE, _LOG = "cluster.yaml", "cluster.yaml.in", "up.log"
_LONGEST_NAME = 40
"""Of a cluster; of its machines' names it is a part."""

_PROGRAMS = ("ssh", "ssh-keygen", "rsync")
_ASK_SECONDS = 120.0
_UP_SECONDS = 3600.0
_DOWN_SECONDS = 1800.0

_KNOWN = ("-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=accept-new")
"""A machine that was just made is believed to be itself at first sight, and held to it then."""


def _logged(argv: Sequence[str], log: Path) -> tuple[str, ...]:
    """A command whose output is kept in a file, which is named where it fails."""
    path = shlex.quote(str(log))
    said = f'{{ tail -n 3 {path}; echo "all that it said is in {log}"; exit 1; }}'
    return ("sh", "-c", f'"$@" > {path} 2>&1 || {said}', "sh", *argv)


class Cloud:
    """What is the same in every cloud.

    Args:
        name: of its profile.
        profile: what it is made of.
        folder: on this machine, where what is known of it is kept.
    """

    settings: ClassVar[type[Profile]]

    def __init__(self, name: str, profile: Profile, folder: Path) -> None:
        self.name = dns_name(f"cifake-{name}", _LONGEST_NAME)
        self.profile = cast("CloudProfile", profile)
        self.folder = folder

    def problems(self) -> list[Mistake]:
        """Programs, packages, credentials, machines that there are not, secrets, the store."""
        found = [
            Mistake(where=program, problem="is not installed; its package is needed here")
            for program in _PROGRAMS
            if shutil.which(program) is None
        ]
        found += secret_problems(self.profile.secrets)
        asked = self._cloud_problems()
        if not found and not asked:
            asked = bucket.problems(self.profile)
        return [*found, *asked]

    def up(self) -> list[Action]:
        """What makes the head and what it needs; workers come when there is work."""
        config = ray_launcher.text_of(self._config())
        key = shlex.quote(str(self.folder / KEY))
        make_key = f'test -f {key} || ssh-keygen -q -t ed25519 -N "" -C cifake -f {key}'
        return [
            *make_token(self.folder),
            Command(what="make the cluster's key", argv=("sh", "-c", make_key)),
            Command(
                what="pack the project",
                argv=(sys.executable, "-m", "cluster.bundle", str(self.folder / bundle.FILE)),
            ),
            WriteFile(path=self.folder / NODE, text=ray_launcher.node_text(self.profile)),
            WriteFile(path=self.folder / _TEMPLATE, text=config),
            Command(
                what="prepare what Ray's launcher is told",
                argv=ray_launcher.filled(
                    self.folder / _TEMPLATE, self.folder / _CONFIG, self._values()
                ),
                undo=self._undo_values(),
                limit=_DOWN_SECONDS,
            ),
            Command(
                what="make the head, which takes some minutes",
                argv=_logged(self._ray("up", "--yes", "--no-config-cache"), self.folder / _LOG),
                undo=self._ray("down", "--yes"),
                limit=_UP_SECONDS,
            ),
        ]

    def down(self) -> list[Action]:
        """What removes every machine, and what was made for them."""
        there = shlex.quote(str(self.folder / _CONFIG))
        ray = shlex.join(self._ray("down", "--yes"))
        return [
            Command(
                what="remove the machines",
                argv=("sh", "-c", f"test ! -e {there} || {ray}"),
                limit=_DOWN_SECONDS,
            ),
        ]

    def is_up(self) -> bool:
        """Whether there is a head."""
        return self._head is not None

    def on_head(self, command: Sequence[str]) -> list[str]:
        """A command of the head's Python, by ssh with the cluster's key."""
        if self._head is None:
            refuse(self.name, "is down; `cluster up` makes it")
        return [*self._ssh(), self._head, ray_launcher.inside(self.profile, *command)]

    def reach(self) -> Mapping[str, str]:
        """A port of this machine that leads to the head's dashboard, and its token."""
        port = self.profile.dashboard_port
        tunnel = [*self._ssh(), "-N", "-L", f"{port}:127.0.0.1:{port}", self._head or "HEAD"]
        return {
            f"dashboard, at http://127.0.0.1:{port}": shlex.join(tunnel),
            "token of the dashboard": f"cat {shlex.quote(str(token_path(self.folder)))}",
        }

    def _config(self) -> Config:
        raise NotImplementedError

    def _cloud_problems(self) -> list[Mistake]:
        raise NotImplementedError

    def _values(self) -> dict[str, tuple[str, ...]]:
        """Programs that print what is only known once it has been made."""
        return {PUBLIC_KEY: ("cat", str(self.folder / f"{KEY}.pub"))}

    def _undo_values(self) -> tuple[str, ...] | None:
        return None

    def _ray(self, command: str, *options: str) -> tuple[str, ...]:
        program = (sys.executable, "-m", "ray.scripts.scripts", command)
        version = ("env", "RAY_UP_enable_autoscaler_v2=0")
        return (*version, *program, *options, str(self.folder / _CONFIG))

    def _ssh(self) -> list[str]:
        known = f"UserKnownHostsFile={self.folder / 'known_hosts'}"
        who = ("-i", str(self.folder / KEY), "-l", self.profile.user)
        return [*SSH, *_KNOWN, "-o", known, *who]

    @cached_property
    def _head(self) -> str | None:
        """The head's address, null where there is none.

        Raises:
            InputError: the cloud does not say.
        """
        if not (self.folder / _CONFIG).is_file():
            return None
        result = subprocess.run(  # noqa: S603 - our own command
            self._ray("get-head-ip"),
            capture_output=True,
            text=True,
            timeout=_ASK_SECONDS,
            check=False,
            env={**os.environ, "RAY_LOG_TO_STDERR": "1"},
        )
        lines = result.stdout.split()
        if result.returncode == 0 and lines:
            return str(ipaddress.ip_address(lines[-1]))
        if "not found" in result.stderr:
            return None
        said = result.stderr.strip().splitlines() or ["no answer"]
        return refuse(self.name, f"whether it is up cannot be told: {said[-1]}")


class Aws(Cloud):
    """A cluster in AWS."""

    settings: ClassVar[type[Profile]] = AwsProfile

    @property
    def _profile(self) -> AwsProfile:
        return cast("AwsProfile", self.profile)

    def down(self) -> list[Action]:
        """What removes every machine, and the group of ports that they were behind."""
        remove = Command(
            what="remove the security group",
            argv=aws.remove_group_command(self.name, self._profile),
            limit=_DOWN_SECONDS,
        )
        return [*super().down(), remove]

    def _config(self) -> Config:
        token = token_path(self.folder)
        return ray_launcher.aws(self.name, self._profile, self.folder, token)

    def _cloud_problems(self) -> list[Mistake]:
        return aws.problems(self._profile)

    def _values(self) -> dict[str, tuple[str, ...]]:
        return {**super()._values(), GROUP: aws.make_group_command(self.name, self._profile)}

    def _undo_values(self) -> tuple[str, ...] | None:
        return aws.remove_group_command(self.name, self._profile)


class Gcp(Cloud):
    """A cluster in Google's cloud."""

    settings: ClassVar[type[Profile]] = GcpProfile

    @property
    def _profile(self) -> GcpProfile:
        return cast("GcpProfile", self.profile)

    def _config(self) -> Config:
        token = token_path(self.folder)
        return ray_launcher.gcp(self.name, self._profile, self.folder, token)

    def _cloud_problems(self) -> list[Mistake]:
        return gcp.problems(self._profile)
