"""A Ray cluster on this machine that outlives the command that started it.

It runs `ray start --block` in a session of its own, so that stopping it reaches its own processes
and no other cluster's. Its token lies in a file that only this user can read.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from cifake.data.locate import cache_folder
from cifake.errors import refuse
from cluster.profile import Profile

HOST = "127.0.0.1"
_STOP_AT_ONCE = {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
"""`down` is deliberate, and finished epochs are in the store: there is nothing to wait for."""

_START_SECONDS = 60.0
_STOP_SECONDS = 45.0
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Running:
    """A cluster that was started."""

    pid: int
    address: str
    token_file: str
    log: str

    @property
    def environment(self) -> dict[str, str]:
        """What a driver needs in its environment to be let in."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": self.token_file}


def start_command(profile: Profile) -> list[str]:
    """The command that starts the head."""
    cpus = [] if profile.cpus is None else [f"--num-cpus={profile.cpus}"]
    return [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--head",
        "--block",
        f"--node-ip-address={HOST}",
        f"--port={profile.port}",
        "--include-dashboard=false",
        "--disable-usage-stats",
        *cpus,
    ]


def find(name: str) -> Running | None:
    """The cluster of a profile, if it runs."""
    state = _folder(name) / "cluster.json"
    if not state.is_file():
        return None
    running = Running(**json.loads(state.read_text()))
    return running if _alive(running.pid) else None


def up(name: str, profile: Profile) -> Running:
    """Start a cluster; one that runs already is left as it is.

    Raises:
        InputError: the port is taken, or the cluster did not start.
    """
    known = find(name)
    if known is not None:
        return known
    if _listening(profile.port):
        refuse(
            f"profile {name}",
            "is in use by another program; choose another",
            field="port",
            value=profile.port,
        )
    folder = _folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    token = folder / "token"
    with os.fdopen(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    log = folder / "ray.log"
    running = Running(0, f"{HOST}:{profile.port}", str(token), str(log))
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            start_command(profile),
            env=os.environ | running.environment | _STOP_AT_ONCE,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    running = Running(process.pid, running.address, running.token_file, running.log)
    (folder / "cluster.json").write_text(json.dumps(asdict(running)))
    if not _wait_until(lambda: _started(log), _START_SECONDS, process):
        down(name)
        refuse(f"profile {name}", f"Ray did not start; see {log}")
    return running


def down(name: str) -> bool:
    """Stop a cluster and remove what `up` made.

    Returns:
        Whether there was one.
    """
    running = find(name)
    if running is not None:
        os.killpg(running.pid, signal.SIGTERM)
        if not _wait_until(lambda: not _alive(running.pid), _STOP_SECONDS):
            os.killpg(running.pid, signal.SIGKILL)
    for file in ("cluster.json", "token", "ray.log"):
        (_folder(name) / file).unlink(missing_ok=True)
    return running is not None


def _folder(name: str) -> Path:
    return cache_folder().resolve() / "clusters" / name


def _started(log: Path) -> bool:
    return "Ray runtime started" in log.read_text(errors="replace")


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _alive(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _wait_until(
    condition: Callable[[], bool], seconds: float, process: subprocess.Popen[bytes] | None = None
) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        if process is not None and process.poll() is not None:
            return bool(condition())
        time.sleep(_POLL_SECONDS)
    return False
