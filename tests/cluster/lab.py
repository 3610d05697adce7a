"""A cluster of machines that are namespaces, with an object store that they reach, and its user."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cifake.places import open_place
from cifake.runs import RunState
from cluster.launchers import LAUNCHERS
from cluster.launchers.hosts import Hosts
from cluster.profile import read_profile
from cluster.state import folder_of
from cluster.token import token_path
from sweeps.store import Store
from tests.cluster.namespaces import PYTHON, Network
from tests.object_store import BUCKET, ObjectStore

NODES = "/tmp/nodes"  # noqa: S108 - each machine has a temp folder of its own
"""Folder of the nodes on every machine."""

CACHE = "/tmp/cache"  # noqa: S108 - likewise
"""Of packs, on every machine: nodes have nothing in common but the object store."""


@dataclass(frozen=True)
class Lab:
    """Machines, an object store, and the profile of a cluster."""

    network: Network
    objects: ObjectStore
    folder: Path
    """Of its user on this machine."""

    secret: str = field(default_factory=lambda: secrets.token_hex(16))
    """One that no log, no file but its own and no command line may hold."""

    @property
    def profile(self) -> Path:
        """The profile's file."""
        return self.folder / "lab.yaml"

    @property
    def state(self) -> Path:
        """What this machine knows of the cluster."""
        return folder_of("lab")

    @property
    def token(self) -> Path:
        """Of the cluster, on this machine."""
        return token_path(self.state)

    @property
    def launcher(self) -> Hosts:
        """What starts it."""
        name, profile = read_profile(str(self.profile), LAUNCHERS)
        return Hosts(name, profile, self.state)

    def name(self, machine: str) -> str:
        """What a machine is called in the profile."""
        return self.network.machines[machine].address

    def write_profile(self, machines: Sequence[str], **settings: Any) -> None:
        """Write a profile of some machines, the head first; each gives a core."""
        path = self.folder / "secrets"
        variables = {**self.objects.variables, "HIDDEN_FROM_ALL": self.secret}
        path.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
        content = {
            "launcher": "hosts",
            "description": "namespaces of this machine",
            "hosts": [{"host": self.name(machine), "cpus": 1} for machine in machines],
            "identity_file": str(self.network.identity),
            "ssh_options": self.network.ssh_options,
            "folder": NODES,
            "python": PYTHON,
            "secrets": str(path),
            "environment": {"OMP_NUM_THREADS": "1", "CIFAKE_CACHE": CACHE},
            **settings,
        }
        self.profile.write_text(yaml.safe_dump(content))

    def command(self, *arguments: object) -> list[str]:
        """`python -m cluster` with some arguments."""
        return [sys.executable, "-m", "cluster", *map(str, arguments)]

    def run(self, *arguments: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run it and wait for it."""
        return subprocess.run(
            self.command(*arguments),
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    def up(self) -> None:
        """Start the cluster, or what the profile names anew."""
        result = self.run("up", self.profile)
        assert result.returncode == 0, result.stderr

    def url(self, name: str) -> str:
        """A store of its own in the object store."""
        return f"s3://{BUCKET}/{name}"

    def submit(self, spec: Path, store: str) -> subprocess.Popen[str]:
        """Run a sweep in the background, with its output in `<store's name>.log`."""
        name = store.rpartition("/")[2]
        with (self.folder / f"{name}.log").open("w") as log:
            return subprocess.Popen(
                self.command("submit", self.profile, spec, "--store", store),
                env=environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def log(self, store: str) -> str:
        """What a sweep that was submitted has printed."""
        return (self.folder / f"{store.rpartition('/')[2]}.log").read_text()

    def job(self, store: str) -> str:
        """The name of the job that `submit` told."""
        return self.log(store).partition("job ")[2].partition(";")[0]

    def states(self, store: str) -> Mapping[str, RunState]:
        """The runs of a store so far."""
        return Store(open_place(store)).run_states()

    def hosts(self, store: str) -> set[str]:
        """Machines that trained the runs of a store."""
        opened = Store(open_place(store))
        return {str(head.row["host"]) for head in opened.heads(opened.run_ids()).values()}

    def wait_for_epochs(self, store: str, count: int, within: float = 240) -> None:
        """Until the runs of a store have so many epochs in all."""

        def reached() -> bool:
            return sum(state.epochs_done for state in self.states(store).values()) >= count

        wait_until(reached, within, f"{count} epochs in {store}")


def environment() -> dict[str, str]:
    """Of a user's commands."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return {**kept, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def wait_until(condition: Callable[[], bool], within: float, what: str) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: it does not come about.
    """
    end = time.monotonic() + within
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.5)
