"""Machines that are namespaces of this one: a network of their own, processes, temp folder, sshd.

Each has its own network, mount, uts and pid namespace, and is joined to a bridge. What it shares
with this machine is the programs, and one folder, `SHARED`, which is its only folder in common with
the others.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]

SHARED = Path("/mnt/shared")
"""Where a machine sees the folder that all share."""

PYTHON = f"{SHARED}/python"
"""An interpreter that has the project."""

_READY_WITHIN = 30.0

_LETTERS = itertools.cycle("abcdefghijklmnopqrstuvwxyz")
_MARK = re.compile(r"cf(\d+)[a-z]")
"""How the name of a network begins, and of all that is made for it: with who made it."""

_MACHINE = """
set -e
hostname {name}
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/code /mnt/venv /mnt/shared
mount --bind {root} /mnt/code
mount --bind {venv} /mnt/venv
mount --bind {shared} /mnt/shared
mount -t tmpfs tmpfs /tmp
chmod 1777 /tmp
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd
# Shells of all machines begin alike, and write nothing into a home folder that they share.
test ! -e ~/.bashrc || mount --bind /dev/null ~/.bashrc
exec {sshd} -D -e -f /mnt/shared/sshd/{name}.conf
"""

_SSHD = """
ListenAddress {address}:22
HostKey {shared}/sshd/host_key
AuthorizedKeysFile {shared}/sshd/key.pub
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PidFile none
MaxStartups 100
"""


def lacking() -> str | None:
    """What this machine lacks for it, null if nothing."""
    if os.geteuid() != 0:
        return "namespaces of the network need root"
    for program, package in (
        ("ip", "iproute2"),
        ("unshare", "util-linux"),
        ("ssh", "openssh-client"),
    ):
        if shutil.which(program) is None:
            return f"no {program}: apt-get install {package}"
    if _sshd() is None:
        return "no sshd: apt-get install openssh-server"
    probe = f"cfprobe{os.getpid()}"
    made = _try("ip", "link", "add", probe, "type", "bridge")
    if made.returncode != 0:
        return f"no bridge can be made: {made.stderr.strip()}"
    _run("ip", "link", "delete", probe)
    return None


@dataclass
class Machine:
    """One of them."""

    name: str
    address: str
    link: str
    """This machine's end of its cable."""

    process: subprocess.Popen[bytes] | None = None

    def cut(self) -> None:
        """Take its cable out."""
        _run("ip", "link", "set", self.link, "down")

    def mend(self) -> None:
        """Put it in again."""
        _run("ip", "link", "set", self.link, "up")

    def die(self) -> None:
        """Have everything on it end at once, as by a power cut."""
        if self.process is not None:
            # It takes the first process of the pid namespace with it, and that takes all others.
            self.process.kill()
            self.process.wait()
            self.process = None


@dataclass
class Network:
    """A bridge, and the machines on it.

    Args:
        folder: of this machine, for what they share; `SHARED` there.
    """

    folder: Path
    machines: dict[str, Machine] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.mark = f"cf{os.getpid()}{next(_LETTERS)}"
        self.subnet = _free_subnet()

    @property
    def address(self) -> str:
        """Of this machine on the bridge."""
        return f"{self.subnet}.1"

    @property
    def ssh_options(self) -> list[str]:
        """By which ssh trusts the machines, and they it."""
        known = self.folder / "sshd" / "known_hosts"
        return [f"UserKnownHostsFile={known}", "GlobalKnownHostsFile=/dev/null"]

    @property
    def identity(self) -> Path:
        """The key that they let in."""
        return self.folder / "sshd" / "key"

    def start(self) -> None:
        """Make the bridge and what all machines share."""
        _remove_abandoned()
        (self.folder / "sshd").mkdir(parents=True)
        for name in ("host_key", "key"):
            path = self.folder / "sshd" / name
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path))
        python = self.folder / "python"
        # Compiled files would be written into the checkout, by all machines at once.
        variables = "PYTHONPATH=/mnt/code PYTHONDONTWRITEBYTECODE=1"
        python.write_text(f'#!/bin/sh\n{variables} exec /mnt/venv/bin/python "$@"\n')
        python.chmod(0o755)
        _run("ip", "link", "add", self.mark, "type", "bridge")
        _run("ip", "address", "add", f"{self.address}/24", "dev", self.mark)
        _run("ip", "link", "set", self.mark, "up")

    def add(self, name: str) -> Machine:
        """Start a machine, or one that died again, and wait until ssh answers."""
        machine = self.machines.get(name) or self._connect(name)
        script = _MACHINE.format(
            name=name,
            root=shlex.quote(str(ROOT)),
            venv=shlex.quote(str(Path(sys.prefix).resolve())),
            shared=shlex.quote(str(self.folder)),
            sshd=_sshd(),
        )
        with (self.folder / "sshd" / f"{name}.log").open("ab") as log:
            machine.process = subprocess.Popen(
                [
                    *("ip", "netns", "exec", f"{self.mark}{name}"),
                    *("unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child"),
                    *("--mount-proc", "sh", "-c", script),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + _READY_WITHIN
        while (answer := self.ssh(name, "true")).returncode != 0:
            if machine.process.poll() is not None or time.monotonic() > end:
                log_text = (self.folder / "sshd" / f"{name}.log").read_text()
                raise RuntimeError(f"{name} does not start: {answer.stderr} {log_text}")
            time.sleep(0.1)
        return machine

    def _connect(self, name: str) -> Machine:
        """Lay a cable from the bridge to a new network namespace."""
        number = len(self.machines) + 2
        machine = Machine(name, f"{self.subnet}.{number}", f"{self.mark}v{number}")
        space = f"{self.mark}{name}"
        _run("ip", "netns", "add", space)
        self.machines[name] = machine
        _run(
            "ip",
            "link",
            "add",
            machine.link,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            space,
        )
        _run("ip", "link", "set", machine.link, "master", self.mark, "up")
        _run("ip", "-n", space, "address", "add", f"{machine.address}/24", "dev", "eth0")
        _run("ip", "-n", space, "link", "set", "eth0", "up")
        _run("ip", "-n", space, "link", "set", "lo", "up")
        config = _SSHD.format(address=machine.address, shared=SHARED)
        (self.folder / "sshd" / f"{name}.conf").write_text(config)
        key = (self.folder / "sshd" / "host_key.pub").read_text()
        with (self.folder / "sshd" / "known_hosts").open("a") as known:
            known.write(f"{machine.address} {key}")
        return machine

    def ssh(self, name: str, command: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run a shell command on a machine; it reads a text from standard input."""
        options = (word for option in self.ssh_options for word in ("-o", option))
        return subprocess.run(
            [
                *("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", *options),
                *("-i", str(self.identity), self.machines[name].address, command),
            ],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )

    def stop(self) -> None:
        """End all machines and remove what was made of the network."""
        for name, machine in self.machines.items():
            machine.die()
            _try("ip", "link", "delete", machine.link)
            _try("ip", "netns", "delete", f"{self.mark}{name}")
        _try("ip", "link", "delete", self.mark)


@contextlib.contextmanager
def network(folder: Path) -> Iterator[Network]:
    """A network for as long as the block lasts."""
    made = Network(folder)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def _remove_abandoned() -> None:
    """What a process made that was killed; its machines are gone, or end with their network."""
    for kind in ("netns", "link"):
        for line in _run("ip", "-o", kind, "show").stdout.splitlines():
            match = _MARK.search(line)
            if match is None or Path("/proc", match[1]).exists():
                continue
            name = re.split(r"[ :@]", line[match.start() :])[0]
            _try("ip", kind, "delete", name)


def _free_subnet() -> str:
    """The beginning of 254 addresses that nobody has here."""
    taken = _run("ip", "-4", "address", "show").stdout
    numbers = [n for n in range(64, 256) if f"10.213.{n}." not in taken]
    return f"10.213.{random.choice(numbers)}"  # noqa: S311 - not a secret


def _sshd() -> str | None:
    """sshd wants to be called by its whole path."""
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True)


def _try(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)
