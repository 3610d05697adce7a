"""A cluster of machines that are reached by ssh."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

from pydantic import Field, field_validator

from cifake.config import Settings
from cifake.errors import Mistake
from cluster import bundle, look, state
from cluster.actions import Action, Command
from cluster.launcher import Profile
from cluster.launchers import machines
from cluster.machine import Machine
from cluster.ray_start import LOOPBACK
from cluster.token import token_path

_NAME = r"[A-Za-z0-9_][A-Za-z0-9._:-]*"
"""Of hosts and users: nothing that ssh could take for an option."""

SSH = (
    *("ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"),
    *("-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3"),
)
"""It asks nobody for a password, and notices that a machine is gone. A connection is not kept for
the next command: after a partition all that came later would hang with it."""


class Host(Settings):
    """A machine."""

    host: str = Field(pattern=f"^{_NAME}$")
    """Its name for ssh: an address, or what the configuration of ssh calls it."""

    address: str | None = Field(None, pattern=f"^{_NAME}$")
    """Its name or address for the other machines. By default the head is called as ssh calls it,
    and workers by the address from which they reach it."""

    user: str | None = Field(None, pattern=f"^{_NAME}$")
    """Who logs in; null for the profile's."""

    ssh_port: int | None = Field(None, ge=1, le=65535)
    """Of its ssh; null for the profile's."""

    identity_file: str | None = None
    """Private key to log in with; null for the profile's."""

    cpus: int | None = Field(None, ge=0)
    """Cores to give; null for all, 0 for a head that trains nothing."""

    gpus: int | None = Field(None, ge=0)
    """GPUs to give; null for all."""


class HostsProfile(Profile):
    """What a profile of machines says."""

    hosts: tuple[Host, ...] = Field(min_length=1)
    """The machines, the head first; one with nothing to say but its name is that name."""

    user: str | None = Field(None, pattern=f"^{_NAME}$")
    """Who logs in; null leaves it to the configuration of ssh, as the next two."""

    ssh_port: int | None = Field(None, ge=1, le=65535)
    """Of ssh."""

    identity_file: str | None = None
    """Private key to log in with, on this machine."""

    ssh_options: tuple[str, ...] = ()
    """More of ssh's `-o`, such as ProxyJump=gateway."""

    folder: str = ".cache/cifake-sweeps/nodes"
    """On every machine, for what belongs to the cluster; from the home folder, if not from /."""

    python: str | None = None
    """An interpreter that has the project on every machine. Null: it is brought along with its
    packages in the versions that are here, and installed in an environment of its own."""

    base_python: str = "python3"
    """What that environment is made with, of the same version as here."""

    pip: tuple[str, ...] = ()
    """Arguments of `pip install` there, such as --index-url=…."""

    @field_validator("hosts", mode="before")
    @classmethod
    def _name_alone(cls, hosts: Any) -> Any:
        if not isinstance(hosts, list | tuple):
            return hosts
        return tuple({"host": host} if isinstance(host, str) else host for host in hosts)

    @field_validator("hosts")
    @classmethod
    def _check_once(cls, hosts: tuple[Host, ...]) -> tuple[Host, ...]:
        counts = Counter((host.host, host.ssh_port) for host in hosts)
        twice = sorted({host for (host, _), count in counts.items() if count > 1})
        if twice:
            raise ValueError(f"names {', '.join(twice)} twice; remove one")
        return hosts


class Hosts:
    """Machines reached by ssh as a cluster.

    Args:
        name: of the cluster.
        profile: what it is made of.
        folder: on this machine, where what is known of it is kept.
    """

    settings: ClassVar[type[Profile]] = HostsProfile

    def __init__(self, name: str, profile: Profile, folder: Path) -> None:
        self.name = name
        self.profile = cast("HostsProfile", profile)
        self.folder = folder
        names = Counter(host.host for host in self.profile.hosts)
        self.members = [
            self._member(
                host, host.host if names[host.host] == 1 else f"{host.host}-{host.ssh_port}"
            )
            for host in self.profile.hosts
        ]

    def _member(self, host: Host, name: str) -> machines.Member:
        profile = self.profile
        name = name.replace(":", "-")
        folder = f"{profile.folder}/{self.name}/{name}"
        brings = profile.python is None
        code = bundle.digest() if brings else look.versions()["code"] or ""
        python = profile.python or f"env-{code}/bin/python"
        machine = Machine(name=name, folder=folder, python=python, ssh=self._ssh(host))
        return machines.Member(
            machine=machine,
            code=code,
            address=host.address or (host.host if host is profile.hosts[0] else None),
            cpus=host.cpus,
            gpus=host.gpus,
            prepare=tuple(self._install(machine)) if brings else (),
            interpreter=profile.base_python if brings else None,
        )

    def _ssh(self, host: Host) -> tuple[str, ...]:
        profile = self.profile
        port, user = host.ssh_port or profile.ssh_port, host.user or profile.user
        identity = host.identity_file or profile.identity_file
        return (
            *SSH,
            *(word for option in profile.ssh_options for word in ("-o", option)),
            *(() if port is None else ("-p", str(port))),
            *(() if user is None else ("-l", user)),
            *(() if identity is None else ("-i", str(Path(identity).expanduser()))),
            host.host,
        )

    def _install(self, machine: Machine) -> list[Action]:
        """What brings the project and its packages; a machine that has them installs nothing."""
        environment = machine.python.partition("/")[0]
        install = [
            *(machine.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *self.profile.pip,
            *("-c", bundle.LOCK, f"./{bundle.wheel_name()}[{bundle.EXTRA}]"),
        ]
        steps = [
            shlex.join([self.profile.base_python, "-m", "venv", "--clear", environment]),
            shlex.join(install),
            f"touch {environment}/ready",
        ]
        unless = f"tar -xf {bundle.FILE} && (test -e {environment}/ready || "
        return [
            machine.bring(self._bundle, bundle.FILE),
            machine.action(
                "install the project, unless it is there,",
                machine.inside(f"{unless}({' && '.join(steps)}))"),
                limit=3600.0,
            ),
        ]

    @property
    def _bundle(self) -> Path:
        return self.folder / bundle.FILE

    def problems(self) -> list[Mistake]:
        """Machines that cannot be reached, ports in use, versions that differ, another head."""
        found = machines.problems(self.members, self.profile)
        before = self._before()
        if before is not None and before.members[0].machine != self.members[0].machine:
            was = before.members[0].machine.name
            problem = f"{was} has been the head since `cluster up`; `cluster down` first"
            found.append(Mistake(where=self.name, field="hosts", problem=problem))
        return found

    def up(self) -> list[Action]:
        """What makes every machine a node, and ends those that the profile names no more."""
        before = self._before()
        kept = {member.machine.folder for member in self.members}
        gone = [m for m in before.members if m.machine.folder not in kept] if before else []
        make = Command(
            what="make a wheel of the project, and list its packages",
            argv=(sys.executable, "-m", "cluster.bundle", str(self._bundle)),
        )
        return [
            # One that was taken out may be so because it is dead.
            *(machines.end(gone, may_fail=True) if gone else []),
            *([make] if self.profile.python is None else []),
            *machines.start(self.members, self.profile, self.folder),
        ]

    def _before(self) -> Hosts | None:
        """The cluster as it was at the last `up`."""
        profile = state.remembered(self.folder, {"hosts": Hosts})
        return None if profile is None else Hosts(self.name, profile, self.folder)

    def down(self) -> list[Action]:
        """What ends every node and removes its folder."""
        return machines.end(self.members)

    def is_up(self) -> bool:
        """Whether the head runs, or is about to."""
        return machines.state(self.members[0].machine)["kept"]

    def on_head(self, command: Sequence[str]) -> list[str]:
        """A command of the head's Python, as a driver of the cluster, by ssh."""
        return machines.on_head(self.members[0].machine, command)

    def reach(self) -> Mapping[str, str]:
        """How the dashboard is seen from here."""
        port = self.profile.dashboard_port
        ssh, host = self.members[0].machine.ssh[:-1], self.members[0].machine.ssh[-1]
        tunnel = [*ssh, "-N", "-L", f"{port}:{LOOPBACK}:{port}", host]
        return {
            "dashboard": f"http://{LOOPBACK}:{port} while this runs: {shlex.join(tunnel)}",
            "token of the dashboard": f"cat {shlex.quote(str(token_path(self.folder)))}",
        }
