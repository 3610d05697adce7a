"""Clusters of machines that are there: a node is put on each, and kept there by `cluster.node`."""

from __future__ import annotations

import hashlib
import json
import shlex
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from cifake.errors import Mistake, refuse
from cluster import look
from cluster.actions import Action, Command, Together, WriteFile
from cluster.launcher import Profile
from cluster.machine import UNREACHABLE, Answer, Machine
from cluster.node import NODE, SECRETS, TOKEN, Node
from cluster.secret_file import secret_problems
from cluster.token import make_token, token_path

_OWN_ABOVE = 2
"""Folders above a node's that `up` makes too, and that go when they are empty."""

_AT_ONCE = 64
"""Machines that are asked at the same time."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A machine and what it gives as a node; the first of a cluster is its head."""

    machine: Machine
    address: str | None = None
    """Of the machine for the others; null for that from which it reaches the head."""

    cpus: int | None = None
    gpus: int | None = None
    prepare: tuple[Action, ...] = ()
    """What brings an interpreter with the project there; nothing where there is one."""

    code: str
    """What tells the code that it runs from any other."""

    interpreter: str | None = None
    """The one to look at beforehand; null for the machine's."""


def mark_of(folder: Path, machine: str) -> str:
    """What tells the processes of a machine's node from all others there."""
    text = f"{socket.gethostname()}:{folder}:{machine}"
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def start(members: Sequence[Member], profile: Profile, folder: Path) -> list[Action]:
    """What starts a node on every machine, the head first, or leaves one that runs.

    Args:
        members: the machines, the head first.
        profile: of the cluster.
        folder: of the cluster, on this machine.
    """
    head, workers = members[0], members[1:]
    return [
        *make_token(folder),
        *(
            WriteFile(path=_file(member, folder), text=_node(member, head, profile, folder))
            for member in members
        ),
        Together(lists=tuple((*_bring(m, profile, folder),) for m in members)),
        _up(head, "head"),
        *([Together(lists=tuple((_up(m, "worker"),) for m in workers))] if workers else []),
    ]


def end(members: Sequence[Member], *, may_fail: bool = False) -> list[Action]:
    """What ends the node of every machine and removes its folder.

    Args:
        members: the machines.
        may_fail: whether one that cannot be reached is passed over.
    """
    downs = [replace(_down(member.machine), may_fail=may_fail) for member in members]
    return [Together(lists=tuple((down,) for down in downs))]


def _file(member: Member, folder: Path) -> Path:
    return folder / f"{member.machine.name}.json"


def _node(member: Member, head: Member, profile: Profile, folder: Path) -> str:
    node = Node(
        name=member.machine.name,
        mark=mark_of(folder, member.machine.name),
        head=member is head,
        address=f"{head.address}:{profile.port}",
        dashboard_port=profile.dashboard_port,
        ip=None if member is head else member.address,
        cpus=member.cpus,
        gpus=member.gpus,
        environment=profile.environment,
        code=member.code,
    )
    return node.model_dump_json(indent=2)


def _bring(member: Member, profile: Profile, folder: Path) -> list[Action]:
    machine = member.machine
    secrets = None if profile.secrets is None else Path(profile.secrets).expanduser()
    return [
        machine.bring(token_path(folder), TOKEN),
        *([] if secrets is None else [machine.bring(secrets, SECRETS)]),
        machine.bring(_file(member, folder), NODE),
        *member.prepare,
    ]


def _up(member: Member, role: str) -> Action:
    return member.machine.action(f"start the {role}", member.machine.node("up"))


def _down(machine: Machine) -> Command:
    folder = shlex.quote(machine.folder)
    above = shlex.join(str(path) for path in list(Path(machine.folder).parents)[:_OWN_ABOVE])
    end = f"if test -e {folder}/{NODE}; then ({machine.node('down')}); fi && rm -rf {folder}"
    end = f"{end} && (rmdir {above} 2> /dev/null || true)"
    return machine.action("end the node and remove its folder", end)


def problems(members: Sequence[Member], profile: Profile) -> list[Mistake]:
    """Machines that cannot be reached, ports in use, versions that differ, unreadable secrets."""
    found = secret_problems(profile.secrets)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for each in pool.map(lambda m: _machine_problems(m, members[0], profile), members):
            found += each
    return found


def _machine_problems(member: Member, head: Member, profile: Profile) -> list[Mistake]:
    machine = member.machine
    ports = [profile.port, profile.dashboard_port] if member is head else []
    interpreter = member.interpreter or machine.python
    script = shlex.join([interpreter, "-", *map(str, ports)])
    answer = machine.ask(script, text=Path(look.__file__).read_text(encoding="utf-8"))
    if answer.code != 0:
        return [Mistake(where=machine.name, problem=_not_asked(answer, interpreter))]
    found = json.loads(answer.output)
    brings = member.interpreter is not None
    mistakes = version_problems(machine.name, found, brings=brings)
    if found["ports_in_use"] and not state(machine)["kept"]:
        fields = {profile.port: "port", profile.dashboard_port: "dashboard_port"}
        mistakes += [
            Mistake(
                where=machine.name,
                field=fields[port],
                value=port,
                problem="is in use by another program; choose another",
            )
            for port in found["ports_in_use"]
        ]
    return mistakes


def _not_asked(answer: Answer, interpreter: str) -> str:
    if answer.code == UNREACHABLE:
        return f"cannot be reached: {answer.complaint}"
    return f"{interpreter} does not run there: {answer.complaint}"


def version_problems(name: str, found: Mapping[str, object], *, brings: bool) -> list[Mistake]:
    """What differs from this machine's.

    Args:
        name: of the machine.
        found: what `look` found there.
        brings: whether the project and its packages are yet to be brought there.
    """
    here = look.versions()
    if brings:
        python, wanted = (_minor(versions["python"]) for versions in (found, here))
        if python != wanted:
            problem = f"is Python {python}, and here it is {wanted}; name one of that version"
            return [Mistake(where=name, field="base_python", problem=problem)]
        if not found["makes_environments"]:
            problem = "lacks the module venv or ensurepip; on Debian: apt-get install python3-venv"
            return [Mistake(where=name, field="base_python", problem=problem)]
        return []
    mistakes = []
    for what, version in here.items():
        if found[what] != version:
            there = "is not installed" if found[what] is None else f"is {found[what]}"
            problem = f"{what} {there}, and here it is {version}; they must be the same"
            mistakes.append(Mistake(where=name, field="python", problem=problem))
    if not found["jobs"] and not mistakes:
        problem = "lacks what Ray's jobs need; pip install 'cifake-sweeps[cluster]'"
        mistakes.append(Mistake(where=name, field="python", problem=problem))
    return mistakes


def _minor(version: object) -> str:
    return ".".join(str(version).split(".")[:2])


def state(machine: Machine) -> dict[str, bool]:
    """Whether a machine's node is kept in its cluster, and whether it can be used now.

    Raises:
        InputError: the machine cannot be reached.
    """
    down = {"kept": False, "usable": False}
    script = f"test -e {shlex.quote(machine.folder)}/{NODE} || exit 3; {machine.node('status')}"
    answer = machine.ask(script)
    if answer.code == UNREACHABLE:
        refuse(machine.name, f"cannot be reached: {answer.complaint}")
    return json.loads(answer.output) if answer.code == 0 else down


def on_head(machine: Machine, command: Sequence[str]) -> list[str]:
    """The program and arguments that run a command of the head's Python as a driver would."""
    return list(machine.line(machine.node("exec", *command)))
