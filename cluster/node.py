"""What keeps a machine in its cluster: Ray's node is started again whenever it ends.

A partition that heals and a head that comes back end the nodes that lost each other; each is then
started anew, and joins. All that is known of the node is in a folder of the machine: `node.json`,
which says what it is, `token`, `secrets`, its log, and on the head the jobs.

    python -m cluster.node up|down|run|status FOLDER
    python -m cluster.node exec FOLDER ARGUMENTS…     # of this Python, as a driver of the cluster
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from cifake.config import Settings
from cifake.errors import refuse, run_command
from cifake.files import write_aside
from cluster import processes, ray_start
from cluster.secret_file import read_secrets

NODE, TOKEN, SECRETS = "node.json", "token", "secrets"
"""Files that are brought to a node's folder."""

_OWN_LOG, _LOG, _LOG_BEFORE = "log", "ray.log", "ray.log.1"
_FAILED = "failed.log"
"""The log of the last node that ended before it could be used."""

RUNNING = "running.json"
"""What was started last, as `_started_with` says it; there as long as it can be used."""

_START_SECONDS = 120.0
_STOP_SECONDS = 20.0
_KILL_SECONDS = 20.0
_POLL_SECONDS = 0.2
_PAUSE_SECONDS = 2.0
"""Between the end of a node and its next start."""

_TOLD_LINES = 15
_JOBS_VARIABLE = "CIFAKE_JOBS"


class Node(Settings):
    """A machine as a node of a cluster."""

    name: str
    """For people."""

    mark: str
    """What tells the processes of this node from all others of the machine."""

    head: bool
    """Whether it is the head."""

    address: str
    """Of the head's control store, HOST:PORT."""

    dashboard_port: int
    """Of the head's dashboard and jobs, on its loopback."""

    ip: str | None = None
    """Its own address; null for that from which it reaches the head."""

    cpus: int | None = None
    """Cores that it gives; null for all."""

    gpus: int | None = None
    """GPUs that it gives; null for all."""

    environment: dict[str, str] = {}
    """More of its environment."""

    code: str
    """What tells the code that it runs from any other: where that changes, it starts anew."""

    @property
    def temp(self) -> Path:
        """Ray's own folder, near the root: the path of a socket has 107 characters at most."""
        return Path(tempfile.gettempdir()) / f"cifake-{self.mark}"

    @property
    def port(self) -> int:
        """Of the head's control store."""
        return int(self.address.rpartition(":")[2])


def read_node(folder: Path) -> Node:
    """What a folder's node is.

    Raises:
        InputError: there is none.
    """
    path = folder / NODE
    if not path.is_file():
        refuse(path, "is not there: nothing was brought to this machine, or it was removed")
    return Node.model_validate_json(path.read_text())


def driver_environment(folder: Path, node: Node) -> dict[str, str]:
    """What a driver of the cluster has in its environment on the head, and every process of Ray."""
    secrets = folder / SECRETS
    return {
        **os.environ,
        **node.environment,
        **(read_secrets(secrets) if secrets.is_file() else {}),
        **ray_start.ENVIRONMENT,
        "RAY_AUTH_TOKEN_PATH": str(folder / TOKEN),
        "RAY_API_SERVER_ADDRESS": f"http://{ray_start.LOOPBACK}:{node.dashboard_port}",
        _JOBS_VARIABLE: str(folder / "jobs"),
        # What Ray leaves there when it is killed goes with the rest.
        "TMPDIR": str(node.temp / "tmp"),
    }


def start_command(node: Node) -> list[str]:
    """The command that is Ray's node until it ends."""
    options = (
        ray_start.head_options(node.port, node.dashboard_port)
        if node.head
        else ray_start.worker_options(node.address)
    )
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *options),
        # Machines are started by people, not by Ray's autoscaler.
        *(["--no-monitor"] if node.head else []),
        f"--node-ip-address={node.ip or _own_address(node)}",
        f"--node-name={node.name}",
        # Ray opens its folder to every user of the machine: one that is private is around it.
        f"--temp-dir={node.temp / 'r'}",
        *([] if node.cpus is None else [f"--num-cpus={node.cpus}"]),
        *([] if node.gpus is None else [f"--num-gpus={node.gpus}"]),
    ]


def run(folder: Path) -> None:
    """Keep the node in its cluster until a signal ends it."""
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    node = read_node(folder)
    os.environ.update(processes.marking(node.mark))
    while not ending.is_set():
        _live_once(folder, node, ending)
        (folder / RUNNING).unlink(missing_ok=True)
        processes.kill_marked(node.mark, _KILL_SECONDS)
        ending.wait(_PAUSE_SECONDS)


def _live_once(folder: Path, node: Node, ending: threading.Event) -> None:
    """Start Ray's node and wait until it ends or is to end."""
    log = folder / _LOG
    if log.exists():
        log.replace(folder / _LOG_BEFORE)
    environment, begun_with = driver_environment(folder, node), _started_with(folder, node)
    make_private(node.temp)
    (node.temp / "tmp").mkdir(exist_ok=True)
    with log.open("wb") as output:
        try:
            command = start_command(node)
        except OSError as error:
            (folder / _FAILED).write_text(f"{node.address}: {error}\n")
            return
        process = subprocess.Popen(  # noqa: S603 - our own command
            command,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
    (folder / _FAILED).unlink(missing_ok=True)
    usable, resuming = False, None
    while process.poll() is None and not ending.is_set():
        if not usable and _usable(node, log):
            usable = True
            write_aside(folder / RUNNING, begun_with)
            resuming = _resume_jobs(environment) if node.head else None
        if resuming is not None and resuming.poll() is not None:
            resuming = None
        time.sleep(_POLL_SECONDS)
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
    if not usable and not ending.is_set():
        shutil.copy(log, folder / _FAILED)


def _usable(node: Node, log: Path) -> bool:
    if "Ray runtime started" not in log.read_text(errors="replace"):
        return False
    return not node.head or _answers(f"http://{ray_start.LOOPBACK}:{node.dashboard_port}/api/jobs/")


def _answers(url: str) -> bool:
    """Whether a server answers, be it that it wants a token."""
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - on loopback
            return True
    except urllib.error.HTTPError as error:
        return error.code in (401, 403)
    except OSError:
        return False


def _resume_jobs(environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Jobs that a head had when it died are submitted again, while the node is watched."""
    return subprocess.Popen(
        [sys.executable, "-m", "cluster.head", "resume"], env=environment, stdin=subprocess.DEVNULL
    )


def up(folder: Path) -> None:
    """Start what keeps the node in its cluster, and wait until the node can be used.

    A node that runs as it is told to is left as it is.

    Raises:
        InputError: it did not start.
    """
    node = read_node(folder)
    if supervisor(node) is not None and (folder / RUNNING).is_file() and not _is(folder, node):
        _end(node)
    begun = None if supervisor(node) is not None else _begin(folder, node)

    def settled() -> bool:
        over = begun is not None and begun.poll() is not None
        return over or _is(folder, node) or (folder / _FAILED).is_file()

    _wait_until(settled, _START_SECONDS)
    if not _is(folder, node):
        if begun is not None:  # one that was there goes on trying
            _end(node)
        refuse(node.name, f"Ray did not start: {last_words(folder)}")
    _remove_other_environments(folder)


def _remove_other_environments(folder: Path) -> None:
    """Environments of other code, which a node that ran it may have needed until now."""
    for environment in folder.glob("env-*"):
        if environment.is_dir() and not environment.samefile(sys.prefix):
            shutil.rmtree(environment)


def _begin(folder: Path, node: Node) -> subprocess.Popen[bytes]:
    """Start what keeps the node in its cluster, in a session of its own."""
    processes.kill_marked(node.mark, _KILL_SECONDS)
    for name in (RUNNING, _FAILED, _LOG):
        (folder / name).unlink(missing_ok=True)
    with (folder / _OWN_LOG).open("wb") as output:
        return subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "cluster.node", "run", str(folder)],
            env=os.environ | processes.marking(node.mark),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def last_words(folder: Path) -> str:
    """The end of what the node said last, in a line."""
    for name in (_FAILED, _LOG, _OWN_LOG):
        path = folder / name
        lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
        if told := "; ".join(line.strip() for line in lines[-_TOLD_LINES:] if line.strip()):
            return told
    return "it said nothing"


def down(folder: Path) -> None:
    """End every process of the node and remove its folders; nothing where there is none.

    Raises:
        InputError: a process could not be ended.
    """
    if not (folder / NODE).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        return
    node = read_node(folder)
    _end(node)
    shutil.rmtree(node.temp, ignore_errors=True)
    shutil.rmtree(folder)


def supervisor(node: Node) -> int | None:
    """The process that keeps a node in its cluster, null if there is none."""
    wanted = ["-m", "cluster.node", "run"]
    for pid in processes.marked(node.mark):
        if processes.arguments(pid)[1:4] == wanted:
            return pid
    return None


def state(folder: Path) -> dict[str, bool]:
    """Whether the node is kept in its cluster, and whether it can be used now."""
    if not (folder / NODE).is_file():
        return {"kept": False, "usable": False}
    node = read_node(folder)
    kept = supervisor(node) is not None
    return {"kept": kept, "usable": kept and (folder / RUNNING).is_file()}


def _is(folder: Path, node: Node) -> bool:
    """Whether what can be used is the node as it is told to be."""
    running = folder / RUNNING
    return running.is_file() and running.read_bytes() == _started_with(folder, node)


def _started_with(folder: Path, node: Node) -> bytes:
    """All that shapes a node, of secrets no more than that they are the same."""
    token, secrets = folder / TOKEN, folder / SECRETS
    hidden = secrets.read_bytes() if secrets.is_file() else b""
    seal = hmac.new(token.read_bytes(), hidden, hashlib.sha256).hexdigest()
    return json.dumps({"node": node.model_dump(), "seal": seal}, indent=2).encode()


def _end(node: Node) -> None:
    pid = supervisor(node)
    if pid is not None:
        processes.tell(pid, signal.SIGTERM)
        processes.wait_until_gone(pid, _STOP_SECONDS + _KILL_SECONDS)
    left = processes.kill_marked(node.mark, _KILL_SECONDS)
    if left:
        refuse(node.name, f"{left} processes do not end; `grep -l {node.mark} /proc/*/environ`")


def _own_address(node: Node) -> str:
    """The address from which a machine reaches the head; the head's own where it is the head."""
    host = node.address.rpartition(":")[0]
    if node.head:
        own = socket.gethostbyname(host)
        if own.startswith("127.") and host != ray_start.LOOPBACK:
            problem = f"is {own} to itself, where no other machine reaches it; give its `address`"
            refuse(node.name, problem, field="address", value=host)
        return own
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, node.port))
        return str(probe.getsockname()[0])


def make_private(folder: Path) -> None:
    """A folder that this user alone may enter.

    Raises:
        InputError: it is somebody else's.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        refuse(folder, "belongs to another user; remove it")
    folder.chmod(0o700)


def _wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(_POLL_SECONDS)
    return False


def main() -> NoReturn:
    """Do what the command line says."""
    command, where, *arguments = sys.argv[1:]
    folder = Path(where).resolve()

    def act() -> None:
        match command:
            case "up":
                up(folder)
            case "down":
                down(folder)
            case "run":
                run(folder)
            case "status":
                print(json.dumps(state(folder)))
            case "exec":
                environment = driver_environment(folder, read_node(folder))
                os.execve(sys.executable, [sys.executable, *arguments], environment)  # noqa: S606
            case _:
                refuse("cluster.node", "up, down, run, status or exec", value=command)

    run_command(act, "cluster.node")


if __name__ == "__main__":
    main()
