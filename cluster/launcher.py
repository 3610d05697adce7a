"""What every launcher offers: the commands of `cluster` know nothing else of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from pydantic import Field

from cifake.config import Settings
from cifake.errors import Mistake
from cluster.actions import Action


class Profile(Settings):
    """What every profile says, whatever starts its cluster."""

    launcher: str
    """What starts it."""

    description: str
    """One sentence for `cluster list`."""

    store: str | None = None
    """Where sweeps keep their runs: an object store, or a folder that every node sees. Null asks
    for `--store` when a sweep is submitted."""

    data: tuple[str, ...] = ()
    """Where data sets lie on the head, as for `sweeps run --data`."""

    port: int = Field(6379, ge=1024, le=65535)
    """Of the head's control store, which nodes connect to."""

    dashboard_port: int = Field(8265, ge=1024, le=65535)
    """Of the head's dashboard and jobs, on its loopback alone."""

    environment: dict[str, str] = Field(default_factory=dict)
    """Of every node, such as `AWS_REGION` or `CIFAKE_CACHE`; never with a secret in it."""

    secrets: str | None = None
    """A file on this machine of lines KEY=VALUE for every node's environment, such as the keys of
    an object store. It is carried by file or secret, and shown nowhere."""


@dataclass(frozen=True)
class Submission:
    """A sweep on its way to a cluster."""

    job: str
    """Name of the job: letters, digits and dashes."""

    file: str
    """Name of the specification's file."""

    spec: str
    """Its text."""

    store: str
    """Where its runs live; among the arguments too."""

    arguments: tuple[str, ...]
    """Of `sweeps run` after the specification, without `--address`."""


class Launcher(Protocol):
    """A kind of cluster, made of a profile.

    Args:
        name: of the cluster.
        profile: what it is made of.
        folder: on this machine, where what is known of it is kept.
    """

    settings: ClassVar[type[Profile]]
    """What its profiles say."""

    def __init__(self, name: str, profile: Profile, folder: Path) -> None: ...

    def problems(self) -> list[Mistake]:
        """What keeps `up` and `submit` from working: programs, credentials, hosts, ports, versions.

        Looked for before anything is started; all of them at once.
        """
        ...

    def up(self) -> list[Action]:
        """What starts it and waits until it can be used; nothing where it runs."""
        ...

    def down(self) -> list[Action]:
        """What stops it and removes all that `up` made, on every machine."""
        ...

    def is_up(self) -> bool:
        """Whether it runs, or is about to."""
        ...

    def on_head(self, command: Sequence[str]) -> list[str]:
        """The program and arguments, on this machine, that run a command of the head's Python.

        `command` is what follows the interpreter (`-m cluster.head …`). It has what Ray needs in
        its environment there. Standard input reaches it, standard output and its exit code come
        back.

        Raises:
            InputError: the cluster is down.
        """
        ...

    def reach(self) -> Mapping[str, str]:
        """Commands by which a user reaches what the head has on loopback, by what it is for."""
        ...


@runtime_checkable
class BatchLauncher(Launcher, Protocol):
    """One that can also run a sweep as a job of its own, whose cluster begins and ends with it."""

    def submit(self, submission: Submission) -> list[Action]:
        """What hands the job over."""
        ...

    def follow(self, job: str) -> list[str]:
        """The program and arguments that print a job's output until it ends, with its exit code."""
        ...

    def stop(self, job: str) -> list[Action]:
        """What ends a job in order, so that the same sweep goes on from there."""
        ...

    def jobs(self) -> Mapping[str, str]:
        """The states of its jobs by name."""
        ...
