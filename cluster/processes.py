"""Processes that carry a mark in their environment, which all that they start inherit."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

MARK = "CIFAKE_NODE"
"""Variable of the environment that holds the mark."""

_POLL_SECONDS = 0.1

# Ray's processes rename themselves, and would write their name over the environment that
# others read; setproctitle, with which they do it, leaves it alone where this is set.
_KEEP_ENVIRONMENT = "SPT_NOENV"


def marking(mark: str) -> dict[str, str]:
    """Variables of the environment that mark a process and all that it starts, for good."""
    return {MARK: mark, _KEEP_ENVIRONMENT: "1"}


def marked(mark: str) -> list[int]:
    """Every process of this user with that mark that lives, this one aside."""
    sign = f"{MARK}={mark}".encode()
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            variables = Path(entry.path, "environ").read_bytes().split(b"\0")
            stat = Path(entry.path, "stat").read_text()
        except OSError:
            continue  # it ended meanwhile, or is another user's
        if sign in variables and ") Z " not in stat:
            found.append(int(entry.name))
    return found


def arguments(pid: int) -> list[str]:
    """The program and arguments of a process; none if it lives no more."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def kill_marked(mark: str, within: float) -> int:
    """Kill every process with that mark, and those that they start meanwhile.

    Args:
        mark: of the processes.
        within: seconds.

    Returns:
        How many live still.
    """
    end = time.monotonic() + within
    while (found := marked(mark)) and time.monotonic() < end:
        for pid in found:
            tell(pid, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)
    return len(marked(mark))


def tell(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def wait_until_gone(pid: int, within: float) -> bool:
    """Whether a process ends within so many seconds."""
    end = time.monotonic() + within
    while _lives(pid):
        if time.monotonic() > end:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _lives(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
