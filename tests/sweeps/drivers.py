"""A sweep in the background, and every process that belongs to it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster import processes


@dataclass
class Driver:
    """A sweep that runs in the background, in a process group of its own."""

    process: subprocess.Popen[str]
    mark: str

    def relatives(self) -> list[int]:
        """Every process that the sweep started and that still lives."""
        return processes.marked(self.mark)

    def gone(self, within: float) -> bool:
        """Whether nothing of the sweep is left soon."""
        deadline = time.monotonic() + within
        while self.relatives() and time.monotonic() < deadline:
            time.sleep(0.1)
        return not self.relatives()

    def end(self) -> None:
        """Kill whatever is left of it."""
        for pid in self.relatives():
            processes.tell(pid, signal.SIGKILL)
        self.process.wait()


def launch(arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Driver:
    """Start `sweeps run` and come back at once.

    Args:
        arguments: of the command.
        environment: of the process.
        log: file that its output is added to.
    """
    return start([sys.executable, "-m", "sweeps", "run", *arguments], environment, log)


def start(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Driver:
    """Start a command that starts others, in the folder of its log, and come back at once.

    Args:
        command: program and arguments.
        environment: of the process.
        log: file that its output is added to.
    """
    value = uuid.uuid4().hex
    with log.open("a") as output:
        process = subprocess.Popen(
            command,
            cwd=log.parent,
            env={**environment, **processes.marking(value)},
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    return Driver(process, value)


def command_line(pid: int) -> str:
    """How a process calls itself; empty if it lives no more."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
