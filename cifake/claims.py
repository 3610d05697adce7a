"""Who trains a run now, so that nobody else does at the same time.

A process that trains is an owner: it has a file of its own in the store, `owners/<token>.json`,
which it writes anew every few seconds. A run that it trains has a claim, `claim-000001.json`, with
the owner's token. Whoever finds the claim of an owner that lives no more claims the next number; of
several the store lets one through, and an owner that was given up for dead sees the higher number
before it writes again. The file of an owner that was killed stays until somebody forgets it.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from cifake.places import Place

BEAT = 15.0
"""Seconds between two signs of life."""

DEAD_AFTER = 60.0
"""Seconds without a sign of life after which an owner on another machine is taken for dead."""

FORGOTTEN_AFTER = 3600.0
"""Seconds of silence after which the file of such an owner is removed.

Longer than `DEAD_AFTER`: one that was only slow writes its file anew, but must not lose its claims
for that its file was removed between two signs of life.
"""

OWNERS = "owners"

_CLAIM = re.compile(r"claim-(\d{6})\.json")


class LostError(RuntimeError):
    """A claim is another's by now: what it guards must not be written."""


@dataclass(frozen=True)
class Process:
    """An owner, as others see it."""

    machine: str
    """Host and what tells its boots and containers apart."""

    pid: int
    started: float
    """When the process began, in ticks since the boot: numbers are used again. 0 if nobody says."""

    what: str
    """What it does, for people."""

    since: str
    """When it became an owner, UTC."""

    beat: float
    """Its last sign of life, seconds since 1970."""

    def __str__(self) -> str:
        host = self.machine.partition("|")[0]
        return f"`{self.what}`, process {self.pid} on {host}, since {self.since} UTC"

    @classmethod
    def of(cls, root: Place, token: str) -> Process | None:
        """The owner of a token, as its file in a store says; null if it has none, or a damaged one.

        Raises:
            OSError: the store cannot be read.
        """
        return _process(root.at(OWNERS), token)

    def lives(self, silence: float = DEAD_AFTER) -> bool:
        """Whether it lives still. On its own machine it is asked, elsewhere its file says.

        Args:
            silence: seconds without a sign of life that tell death from afar.
        """
        if self.started and self.machine == _machine():
            return _started(self.pid) == self.started
        return time.time() - self.beat < silence


class Owner:
    """This process as an owner, for as long as the block lasts.

    Args:
        root: of the store.
        what: it does, for people.
    """

    def __init__(self, root: Place, what: str) -> None:
        self.place = root.at(OWNERS)
        self.token = secrets.token_hex(8)
        self.what = what
        self.since = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M}"
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._beat, name="owner", daemon=True)

    def __enter__(self) -> Self:
        self._write()
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.ended.set()
        with contextlib.suppress(OSError):  # it is dead to others soon in any case
            self.place.remove(f"{self.token}.json")

    def _beat(self) -> None:
        while not self.ended.wait(BEAT):
            with contextlib.suppress(OSError):  # the next beat may get through
                self._write()

    def _write(self) -> None:
        pid = os.getpid()
        process = Process(_machine(), pid, _started(pid), self.what, self.since, time.time())
        self.place.write(f"{self.token}.json", json.dumps(asdict(process)).encode())


@dataclass(frozen=True)
class Claim:
    """What is claimed, and under which number."""

    folder: Place
    number: int
    token: str
    """Of the owner: when all have released it numbers begin again."""

    def check(self) -> None:
        """Make sure that it stands.

        Raises:
            LostError: another has claimed it since.
        """
        if _numbers(self.folder)[-1:] != [self.number] or not self._is_mine():
            raise LostError(f"{self.folder} was claimed by another process; this one gives it up")

    def release(self) -> None:
        """Let others claim it."""
        if self._is_mine():
            self.folder.remove(_file(self.number))

    def _is_mine(self) -> bool:
        return _token(self.folder, self.number) == self.token


def claim(folder: Place, owner: Owner) -> Claim | Process:
    """Claim a folder of a run or a sweep for an owner, or say who has it."""
    while True:
        numbers = _numbers(folder)
        last = numbers[-1] if numbers else 0
        if last:
            process = _living(folder, last, owner.place)
            if process is not None:
                return process
        if folder.create(_file(last + 1), json.dumps({"owner": owner.token}).encode()):
            for number in numbers:
                folder.remove(_file(number))
            return Claim(folder, last + 1, owner.token)


def holder_of(folder: Place, root: Place) -> Process | None:
    """Who has claimed a folder of a run or a sweep of a store, if it lives."""
    numbers = _numbers(folder)
    return _living(folder, numbers[-1], root.at(OWNERS)) if numbers else None


def is_claim(name: str) -> bool:
    """Whether a file of that name is a claim."""
    return _CLAIM.fullmatch(name) is not None


@contextlib.contextmanager
def claimed(
    folders: Iterable[Place], owner: Owner, busy: Callable[[Process], None]
) -> Iterator[list[Claim]]:
    """Claim folders for as long as the block lasts.

    Args:
        folders: in an order that is the same for all: who waits for one then never has another that
            somebody else waits for in turn.
        owner: who claims them.
        busy: called with who has a folder; when it returns, the folder is tried again.
    """
    with contextlib.ExitStack() as stack:
        claims = []
        for folder in folders:
            while isinstance(found := claim(folder, owner), Process):
                busy(found)
            stack.callback(found.release)
            claims.append(found)
        yield claims


def forget_dead(root: Place) -> int:
    """Remove the files of owners that live no more, and say how many; what they claimed is free.

    A file that says nothing of its owner stays, since another release may have written it.

    Args:
        root: of the store.
    """
    owners = root.at(OWNERS)
    dead = [
        name
        for name in owners.files()
        if (process := _process(owners, name.removesuffix(".json"))) is not None
        and not process.lives(FORGOTTEN_AFTER)
    ]
    for name in dead:
        owners.remove(name)
    return len(dead)


def _living(folder: Place, number: int, owners: Place) -> Process | None:
    process = _process(owners, _token(folder, number))
    return process if process is not None and process.lives() else None


def _token(folder: Place, number: int) -> str:
    try:
        return str(json.loads(folder.read(_file(number)))["owner"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return ""  # released by now, or damaged: nobody's


def _process(owners: Place, token: str) -> Process | None:
    try:
        return Process(**json.loads(owners.read(f"{token}.json")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _numbers(folder: Place) -> list[int]:
    found = (_CLAIM.fullmatch(name) for name in folder.files())
    return sorted(int(match[1]) for match in found if match)


def _file(number: int) -> str:
    return f"claim-{number:06}.json"


def _machine() -> str:
    """A process number means a process only within one boot and one container."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return "|".join(parts)


def _started(pid: int) -> float:
    """When a process began, in ticks since the boot; 0 if it does not live or nobody says."""
    try:
        content = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    name_ends = content.rindex(")")  # a name may hold spaces and parentheses
    state, *fields = content[name_ends + 2 :].split()
    return 0.0 if state in "ZX" else float(fields[18])
