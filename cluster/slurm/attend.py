"""What the user's machine does with a job of Slurm after it was handed over.

    python -m cluster.slurm.attend usable|follow|end FOLDER

waits until the job's cluster can be used, prints what the job prints until it is over, or ends it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from cifake.errors import refuse, run_command
from cifake.exits import UNFINISHED
from cluster.slurm import queue
from cluster.slurm.folder import JobFolder

_POLL_SECONDS = 0.5
_ASK_EVERY = 10.0
"""Seconds between two questions to Slurm, whose controller all users share."""

_SEEN_WITHIN = 30.0
"""Seconds until this machine sees what a node wrote last, over a network's file system."""

_END_SECONDS = 150.0
"""For a job to end in order; its sweep and its nodes have less."""

_KILL_SECONDS = 120.0


def usable(folder: JobFolder) -> None:
    """Wait until a job's cluster can be used.

    Raises:
        InputError: the job ended instead.
    """
    number = folder.read_number()
    while (head := folder.read_head()) is None or not head.usable:
        found = queue.state(number)
        if found is None or found.is_over:
            refuse(f"job {number}", f"ended as {found or 'unknown'}; {folder.log} may say why")
        time.sleep(_POLL_SECONDS if found.name == "RUNNING" else _ASK_EVERY)


def follow(folder: JobFolder, write: Callable[[bytes], object]) -> int:
    """Print what a job prints until it is over; the exit code of its sweep.

    Args:
        folder: of the job.
        write: is given what it prints.
    """
    offset, asked = 0, time.monotonic()
    while True:
        over = folder.code.is_file()
        if not over and time.monotonic() - asked > _ASK_EVERY:
            over = _over(folder)
            asked = time.monotonic()
        offset += _copy(folder.log, offset, write)
        if over and folder.code.is_file():
            return int(folder.code.read_text())
        if over:
            folder.forget_secrets()
            write(f"job {folder.read_number()} is over, and its sweep is not done\n".encode())
            return UNFINISHED
        time.sleep(_POLL_SECONDS)


def _over(folder: JobFolder) -> bool:
    """Whether a job is over, and all that it wrote is seen here."""
    found = queue.state(folder.read_number())
    if found is not None and not found.is_over:
        return False
    _wait(folder.code.is_file, _SEEN_WITHIN)
    return True


def end(folder: JobFolder) -> None:
    """End a job: in order where it runs, and for good.

    Raises:
        InputError: Slurm does not answer, or does not end it.
    """
    number = folder.read_number()
    extra = folder.read_number(folder.extra_number)
    if number is None:
        return

    def over() -> bool:
        found = queue.state(number)
        return found is None or found.is_over

    if not over():
        folder.stopped.touch()
        # Sent to a job that does not run yet, it does nothing.
        _scancel("--batch", "--signal=USR2", number)
        found = queue.state(number)
        if found is not None and found.name != "PENDING":
            _wait(over, _END_SECONDS)
        _scancel(number)
    if extra is not None:
        _scancel(extra)
    if not _wait(over, _KILL_SECONDS):
        refuse(f"job {number}", f"does not end; `scontrol show job {number}`")
    folder.forget_secrets()


def _scancel(*arguments: str) -> None:
    """It complains of jobs that are over, which is no matter."""
    subprocess.run(["scancel", "--quiet", *arguments], check=False, stderr=subprocess.DEVNULL)  # noqa: S603, S607 - Slurm's


def _wait(condition: Callable[[], bool], within: float) -> bool:
    """Whether something becomes so within some seconds."""
    until = time.monotonic() + within
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _copy(path: Path, offset: int, write: Callable[[bytes], object]) -> int:
    """Print what a file has from a byte on; how much that was."""
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read()
    write(content)
    return len(content)


def main() -> NoReturn:
    """Do what the command line says."""
    command, where = sys.argv[1:]
    folder = JobFolder(Path(where))

    def write(content: bytes) -> None:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()

    def act() -> None:
        match command:
            case "usable":
                usable(folder)
            case "follow":
                sys.exit(follow(folder, write))
            case "end":
                end(folder)
            case _:
                refuse("cluster.slurm.attend", "usable, follow or end", value=command)

    run_command(act, "cluster")


if __name__ == "__main__":
    main()
