"""Runs inside a job of Slurm, on its first node: the job's cluster, and its sweep if it has one.

    python -m cluster.slurm.allocation FOLDER --port=PORT --requeues=N --notice=SECONDS

Signals tell what is to come. SIGUSR1: the time is nearly over, be queued again. SIGUSR2: end in
order, for good. SIGTERM: Slurm ends the job, and decides itself whether it comes back.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from enum import Enum, auto
from pathlib import Path
from typing import NoReturn

from cifake.claims import DEAD_AFTER
from cifake.errors import run_command
from cifake.exits import INTERRUPTED, UNFINISHED
from cifake.files import write_aside
from cluster import job, node
from cluster.machine import ask
from cluster.slurm.folder import HEAD, Head, JobFolder, node_folder, node_name
from cluster.slurm.head import find_head

_REFUSED = 2
"""Exit code of a sweep that was not begun."""

_BY_ITSELF = (UNFINISHED, _REFUSED)
"""Exit codes after which the same once more would end as it did."""

_USABLE_SECONDS = 600.0
_ALL_SECONDS = 60.0
"""For the other nodes to start, once the head has."""

_STOP_SECONDS = 60.0
"""For a sweep that was interrupted to end, at most."""

_NODES_SECONDS = 45.0
_REQUEUED_SECONDS = 300.0
"""For Slurm to end a job that it has queued again."""

_AGAIN_SECONDS = 15.0
"""Between two tries of a sweep that another owner is thought to run."""

_DYING_SECONDS = 5.0

_POLL_SECONDS = 0.2


class Ending(Enum):
    """What becomes of the job."""

    AGAIN = auto()
    """It is queued again, and goes on from the store."""

    STOPPED = auto()
    """Its user wants no more of it."""

    KILLED = auto()
    """Slurm ends it."""


_SIGNALS = {
    signal.SIGUSR1: Ending.AGAIN,
    signal.SIGUSR2: Ending.STOPPED,
    signal.SIGTERM: Ending.KILLED,
}


class Orders:
    """What signals have said so far."""

    def __init__(self) -> None:
        self.given: Ending | None = None
        for number in _SIGNALS:
            signal.signal(number, self._hear)
        # Whoever starts in the background of a shell ignores it, and so would all that it starts.
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def _hear(self, number: int, frame: object) -> None:
        del frame
        heard = _SIGNALS[signal.Signals(number)]
        if self.given is not Ending.KILLED:
            self.given = heard


class Allocation:
    """The job: its cluster, and its sweep if it has one.

    Args:
        folder: of the job.
        head: this node.
        requeues: how often it may queue itself again.
        notice: seconds before the end of its time at which it hears of it.
        orders: what it is told meanwhile.
    """

    def __init__(
        self, folder: JobFolder, head: Head, orders: Orders, *, requeues: int, notice: float
    ) -> None:
        self.folder = folder
        self.head = head
        self.orders = orders
        self.requeues = requeues
        self.patience = min(_STOP_SECONDS, notice / 2)
        self.where = node_folder(head.job, HEAD)
        self.nodes = int(os.environ["SLURM_JOB_NUM_NODES"])
        self.begun = time.monotonic()

    def run(self) -> int:
        """All of it; the exit code of the job."""
        if self.folder.code.is_file():
            return int(self.folder.code.read_text())  # it ended just before Slurm began it anew
        self.folder.members.mkdir(exist_ok=True)
        for old in self._started_nodes():
            old.unlink()
        self.folder.write_head(self.head)
        self._call_extra_nodes()
        with self._nodes() as nodes:
            ending, code = self._use(nodes)
            if ending is Ending.AGAIN:
                ending, code = self._again()
        return self._end(ending, code)

    def _use(self, nodes: subprocess.Popen[bytes]) -> tuple[Ending, int]:
        """Run the sweep, or take others; what becomes of the job, and its exit code."""
        if not self._wait_until_usable(nodes):
            told = self.orders.given or (Ending.AGAIN if _was_told(nodes) else None)
            if told is None:
                _say(f"Ray did not start: {node.last_words(self.where)}")
            return told or Ending.STOPPED, UNFINISHED
        count = self._wait_for_all(nodes)
        self.folder.write_head(replace(self.head, usable=True))
        _say(f"{self.head.node} is the head of a cluster of {count}")
        if self.folder.submission.is_file():
            return self._sweep(nodes)
        self._wait(nodes)
        return self.orders.given or Ending.AGAIN, 0

    def _call_extra_nodes(self) -> None:
        """Release those that did not find the head when it was in the queue."""
        extra = self.folder.read_number(self.folder.extra_number)
        if extra is not None:
            _slurm("scontrol", "release", extra)

    @contextmanager
    def _nodes(self) -> Iterator[subprocess.Popen[bytes]]:
        """Every node of the job as one of the cluster, by a step of the job."""
        command = [
            *("srun", "--quiet", "--label"),
            f"--nodes={self.nodes}",
            "--ntasks-per-node=1",
            "--mem=0",
            "--cpu-bind=none",
            # A node that is lost takes no other with it.
            *("--no-kill", "--kill-on-bad-exit=0", "--wait=0"),
            f"--output={str(self.folder.nodes_log).replace('%', '%%')}",
            "--open-mode=append",
            *(sys.executable, "-m", "cluster.slurm.member", str(self.folder.path)),
        ]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - our own
        try:
            yield process
        finally:
            # Nodes that see no head leave in order; a signal would reach each process of theirs.
            self.folder.cluster.unlink(missing_ok=True)
            _wait_for(process, _NODES_SECONDS)
            _end_process(process, signal.SIGTERM, _NODES_SECONDS)

    def _wait_until_usable(self, nodes: subprocess.Popen[bytes]) -> bool:
        self._wait(nodes, _USABLE_SECONDS, until=lambda: self._head_started() is not None)
        return self.orders.given is None and self._head_started() is not None

    def _wait_for_all(self, nodes: subprocess.Popen[bytes]) -> int:
        """Wait for the job's other nodes, as a sweep is planned for what there is; their number."""
        self._wait(nodes, _ALL_SECONDS, until=lambda: len(self._started_nodes()) >= self.nodes)
        return len(self._started_nodes())

    def _started_nodes(self) -> list[Path]:
        return list(self.folder.members.glob(node_name(self.head.job, "*")))

    def _head_started(self) -> int | None:
        """When the head's Ray was found usable, another time after it came back; null while not."""
        try:
            return (self.where / node.RUNNING).stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def _wait(
        self,
        nodes: subprocess.Popen[bytes],
        seconds: float = float("inf"),
        until: Callable[[], bool] = lambda: False,
    ) -> None:
        """Until a signal, or until the nodes are gone: they are told of a preemption earlier.

        Args:
            nodes: the step that they are.
            seconds: at most.
            until: what ends it, too.
        """
        end = time.monotonic() + seconds
        while self.orders.given is None and nodes.poll() is None and time.monotonic() < end:
            if until():
                return
            time.sleep(_POLL_SECONDS)

    def _sweep(self, nodes: subprocess.Popen[bytes]) -> tuple[Ending, int]:
        """Run the sweep; what becomes of the job, and the sweep's exit code."""
        while True:
            started = self._head_started()
            code = self._run_sweep(nodes)
            early = code == _REFUSED and self._may_be_early()
            if code != 0:
                # It may have ended because Ray or the job ends, which is seen a little later.
                self._wait(nodes, _AGAIN_SECONDS if early else _DYING_SECONDS)
            if code == 0 or self.orders.given is not None or nodes.poll() is not None:
                return self._ending(code), code
            if self._head_started() == started and not early:
                return Ending.STOPPED if code in _BY_ITSELF else Ending.AGAIN, code
            if not self._wait_until_usable(nodes):
                return self._ending(code), code

    def _run_sweep(self, nodes: subprocess.Popen[bytes]) -> int:
        """Run the sweep until it ends, or is to end; its exit code."""
        driver = subprocess.Popen(  # noqa: S603 - our own command
            job.command(self.folder.path, self.head.address),
            env=node.driver_environment(self.where, node.read_node(self.where)),
            cwd=self.folder.path,
            stdin=subprocess.DEVNULL,
        )
        self._wait(nodes, until=lambda: driver.poll() is not None)
        return _end_process(driver, signal.SIGINT, self.patience)

    def _may_be_early(self) -> bool:
        """Whether a sweep may be refused only because its last driver is not taken for dead yet."""
        restarted = int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0
        return restarted and time.monotonic() - self.begun < 2 * DEAD_AFTER

    def _ending(self, code: int) -> Ending:
        """What becomes of the job when its sweep has ended, or the job ends it."""
        return Ending.STOPPED if code == 0 else self.orders.given or Ending.AGAIN

    def _again(self) -> tuple[Ending, int]:
        """Queue the job again, and wait until Slurm ends it here; its end, and its exit code."""
        done = int(self.folder.requeued.read_text()) if self.folder.requeued.is_file() else 0
        if done >= self.requeues:
            _say(f"{done} times queued again, and no more; the same command goes on from here")
            return Ending.STOPPED, UNFINISHED
        write_aside(self.folder.requeued, str(done + 1).encode())
        self.folder.cluster.unlink(missing_ok=True)
        _say(f"queued again, {done + 1} of at most {self.requeues} times")
        problem = _slurm("scontrol", "requeue", self.head.job)
        if problem:
            _say(f"cannot be queued again: {problem}")
            return Ending.STOPPED, UNFINISHED
        end = time.monotonic() + _REQUEUED_SECONDS
        while self.orders.given is not Ending.KILLED and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
        return Ending.KILLED, INTERRUPTED

    def _end(self, ending: Ending, code: int) -> int:
        """Keep how it ended; an allocation that Slurm ends may come back."""
        if ending is Ending.KILLED:
            return 128 + signal.SIGTERM
        extra = self.folder.read_number(self.folder.extra_number)
        if extra is not None:
            _slurm("scancel", extra)
        self.folder.forget_secrets()
        write_aside(self.folder.code, str(code).encode())
        return code


def _was_told(nodes: subprocess.Popen[bytes]) -> bool:
    """Whether a signal ended the nodes: they are told of a preemption before the job is."""
    return nodes.poll() == 0 or (nodes.returncode or 0) >= 128


def _slurm(*command: str) -> str:
    """Run a command of Slurm; what it complains of, nothing where it does not."""
    answer = ask(command)
    return "" if answer.code == 0 else answer.complaint


def _end_process(process: subprocess.Popen[bytes], number: signal.Signals, within: float) -> int:
    """End a process if it lives; its exit code, as a shell tells it."""
    if process.poll() is None:
        process.send_signal(number)
        _wait_for(process, within)
        if process.poll() is None:
            process.kill()
    code = process.wait()
    return code if code >= 0 else 128 - code


def _wait_for(process: subprocess.Popen[bytes], within: float) -> None:
    """Wait some seconds at most for a process to end."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(within)


def _say(text: str) -> None:
    print(f"job {os.environ['SLURM_JOB_ID']}: {text}", flush=True)


def main() -> NoReturn:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="cluster.slurm.allocation")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--requeues", type=int, required=True)
    parser.add_argument("--notice", type=float, required=True)
    given = parser.parse_args()

    orders, folder = Orders(), JobFolder(given.folder)

    def act() -> None:
        head = find_head(given.port, alone=not folder.extra_script.is_file())
        terms = {"requeues": given.requeues, "notice": given.notice}
        sys.exit(Allocation(folder, head, orders, **terms).run())

    run_command(act, "cluster")


if __name__ == "__main__":
    main()
