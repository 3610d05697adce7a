"""Runs on each node of a job: makes the node one of the job's Ray cluster until it is ended.

    python -m cluster.slurm.member FOLDER [--joins]

A node with `--joins` is a job of its own. It waits for the head, follows it to where it begins
anew, gives up its place while the head waits in the queue, and ends when the head's job is over.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

from cifake.errors import refuse, run_command
from cifake.files import write_aside
from cluster import node, processes
from cluster.node import NODE, SECRETS, TOKEN, Node
from cluster.slurm import queue
from cluster.slurm.folder import HEAD, JobFolder, node_folder

_POLL_SECONDS = 0.5
_LOOK_EVERY = 3.0
"""Seconds between two looks at where the head is: the folder may be on a network's file system."""

_HEAD_AWAY_SECONDS = 300.0
"""How long a node that joins waits for a head before it gives up its place until there is one."""

_QUEUED_SECONDS = 120.0
"""For Slurm to end a job that it has queued again."""

_SEEN_WITHIN = 60.0
"""Seconds until a file that another node wrote is seen over a network's file system."""


def make_node(folder: JobFolder, number: str) -> Node | None:
    """What this node is; null while there is no head.

    Args:
        folder: of the job.
        number: what tells it from the job's other nodes.
    """
    head = folder.read_head()
    if head is None:
        return None
    return Node(
        name=os.environ["SLURMD_NODENAME"],
        mark=f"{os.environ['SLURM_JOB_ID']}-{number}",
        head=number == HEAD,
        address=head.address,
        dashboard_port=head.dashboard_port,
        cpus=int(os.environ["SLURM_CPUS_ON_NODE"]),
        # None were given: Ray would take those that the machine has.
        gpus=int(os.environ.get("SLURM_GPUS_ON_NODE", "0")),
        # It lies where all nodes see it, and a job keeps to what it began with.
        code=f"job {head.job}",
    )


def prepare(made: Node, job: JobFolder, where: Path) -> None:
    """Write the folder of a node of this machine's own, for its user alone.

    Raises:
        InputError: the folder is another user's.
    """
    node.make_private(where)
    node.down(where)  # what a job that was killed here has left
    node.make_private(where)
    for source, name in ((job.token, TOKEN), (job.secrets, SECRETS)):
        if source.is_file():
            path = where / name
            path.touch(mode=0o600)
            path.write_bytes(source.read_bytes())
    jobs = where / "jobs"
    if made.head and not jobs.is_symlink():
        # They outlive the node: another may be the head when the job is queued again.
        job.jobs.mkdir(exist_ok=True)
        jobs.symlink_to(job.jobs)
    write_aside(where / NODE, made.model_dump_json(indent=2).encode())


class Member:
    """This node in the cluster of a job.

    Args:
        folder: of the job.
        number: what tells it from the job's other nodes.
    """

    def __init__(self, folder: JobFolder, number: str) -> None:
        self.folder = folder
        self.where = node_folder(os.environ["SLURM_JOB_ID"], number)
        self.number = number
        self.sign = folder.members / self.where.name
        self.told = False
        self.made: Node | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def follow(self) -> bool:
        """Be a node of the cluster as it is now; whether there is one."""
        made = make_node(self.folder, self.number)
        if made == self.made and self.process is not None and self.process.poll() is None:
            if not self.told and (self.where / node.RUNNING).is_file():
                self.sign.touch()
                self.told = True
            return True
        self.leave()
        if made is None:
            return False
        prepare(made, self.folder, self.where)
        self.process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "cluster.node", "run", str(self.where)],
            env=os.environ | processes.marking(made.mark),
            stdin=subprocess.DEVNULL,
        )
        self.made = made
        return True

    def leave(self) -> None:
        """End what runs of it here, and remove its files."""
        if self.process is None or self.made is None:
            return
        self.sign.unlink(missing_ok=True)
        self.told = False
        if not (self.where / node.RUNNING).is_file():
            # Its logs go with its folder.
            print(f"{self.made.name}: Ray did not start: {node.last_words(self.where)}", flush=True)
        self.process.terminate()
        self.process.wait()
        node.down(self.where)
        self.made = self.process = None


def run(folder: JobFolder, *, joins: bool) -> None:
    """Be a node until a signal ends it, or the head's job is over.

    Raises:
        InputError: the node does not see what it must.
    """
    ending, late = threading.Event(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    signal.signal(signal.SIGUSR1, lambda *_: [late.set(), ending.set()])  # type: ignore[func-returns-value]
    _require(folder)
    member = Member(folder, "joined" if joins else os.environ["SLURM_NODEID"])
    seen = time.monotonic()
    try:
        while not ending.wait(_LOOK_EVERY if member.made else _POLL_SECONDS):
            if member.follow():
                seen = time.monotonic()
            elif not joins or folder.code.is_file():
                return
            elif time.monotonic() - seen > _HEAD_AWAY_SECONDS:
                head = queue.state(folder.read_number())
                if head is None or head.is_over:
                    return
                _queue_again("requeuehold")
    finally:
        member.leave()
    if late.is_set():
        _queue_again("requeue")


def _require(folder: JobFolder) -> None:
    """Wait for what this node must see.

    Raises:
        InputError: it does not.
    """
    end = time.monotonic() + _SEEN_WITHIN
    while not folder.token.is_file():
        if time.monotonic() > end:
            name = os.environ["SLURMD_NODENAME"]
            refuse(name, "does not see it; give a `folder` that every node sees", value=folder.path)
        time.sleep(_POLL_SECONDS)


def _queue_again(command: str) -> None:
    """Have Slurm end this node's job and queue it again."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    job = os.environ["SLURM_JOB_ID"]
    subprocess.run(["scontrol", command, job], check=False)  # noqa: S603, S607 - Slurm's
    time.sleep(_QUEUED_SECONDS)


def main() -> NoReturn:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="cluster.slurm.member")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--joins", action="store_true")
    given = parser.parse_args()
    run_command(lambda: run(JobFolder(given.folder), joins=given.joins), "cluster.slurm.member")


if __name__ == "__main__":
    main()
