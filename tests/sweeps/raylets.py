"""A Ray cluster of several nodes on this machine, each with an address and a cache of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.ports import free_port

_READY_WITHIN = 120.0
_STORE_BYTES = 80 * 2**20


@dataclass
class Raylet:
    """A node, with all of its processes in one session."""

    process: subprocess.Popen[bytes]
    address: str
    cache: Path

    def pids(self, pattern: str) -> list[int]:
        """Its processes whose command line holds something."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and os.getsid(int(entry.name)) == self.process.pid:
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if pattern in line:
                        found.append(int(entry.name))
            except OSError:
                continue
        return found

    def kill(self) -> None:
        """End all of its processes as a power cut does."""
        for pid in self.pids(""):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()


class Raylets:
    """Nodes that come and go; the first is the head, where drivers run.

    Args:
        folder: for caches and logs.
        environment: of the nodes' processes.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        # A socket's path has at most 107 characters.
        self.scratch = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        self.port = free_port()
        self.environment = {
            **environment,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_raylet_start_wait_time_s": f"{_READY_WITHIN:.0f}",
            # The dead are missed after three seconds in place of fifteen.
            "RAY_health_check_period_ms": "600",
        }
        self.nodes: list[Raylet] = []

    @property
    def address(self) -> str:
        """What drivers connect to."""
        return f"127.0.0.1:{self.port}"

    def start(
        self,
        *,
        cpus: float = 1,
        gpus: float = 0,
        hidden: Sequence[Path] = (),
        options: Sequence[str] = (),
        **variables: str,
    ) -> Raylet:
        """Start a node and wait until it has joined.

        Args:
            cpus: cores that it offers.
            gpus: GPUs that it says to have.
            hidden: folders of which it sees nothing, as if it had a file system of its own; needs
                root.
            options: more of `ray start`.
            variables: of the environment of its processes.
        """
        number = len(self.nodes) + 1
        where = f"127.0.0.{number}"
        cache = self.folder / f"cache-{number}"
        joining = (
            [f"--address={self.address}"]
            if self.nodes
            else ["--head", f"--port={self.port}", "--include-dashboard=false"]
        )
        log = self.folder / f"node-{number}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *(_hiding(hidden) if hidden else ()),
                    *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block"),
                    f"--node-ip-address={where}",
                    f"--num-cpus={cpus:g}",
                    f"--num-gpus={gpus:g}",
                    f"--object-store-memory={_STORE_BYTES}",
                    "--disable-usage-stats",
                    *joining,
                    *options,
                    *([] if self.nodes else [f"--temp-dir={self.scratch}"]),
                ],
                env={**self.environment, "CIFAKE_CACHE": str(cache), **variables},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        node = Raylet(process, where, cache)
        self.nodes.append(node)
        end = time.monotonic() + _READY_WITHIN
        while "Ray runtime started" not in log.read_text(errors="replace"):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"no Ray node: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
        return node

    def drain(self, node: Raylet, seconds: int) -> None:
        """Tell the cluster that a node will be taken away, as a spot notice does."""
        script = (
            "import sys, ray\n"
            "ray.init(sys.argv[1], logging_level='ERROR')\n"
            "ids = {node['NodeManagerAddress']: node['NodeID'] for node in ray.nodes()}\n"
            "print(ids[sys.argv[2]])\n"
        )
        asked = subprocess.run(
            [sys.executable, "-c", script, self.address, node.address],
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        subprocess.run(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "drain-node"),
                f"--address={self.address}",
                f"--node-id={asked.stdout.split()[-1]}",
                "--reason=DRAIN_NODE_REASON_PREEMPTION",
                "--reason-message=a test",
                f"--deadline-remaining-seconds={seconds}",
            ],
            env=self.environment,
            capture_output=True,
            check=True,
        )

    def stop(self) -> None:
        """End every node."""
        for node in reversed(self.nodes):
            node.kill()
        shutil.rmtree(self.scratch, ignore_errors=True)


def can_hide() -> bool:
    """Whether nodes can be given a view of their own of the file system."""
    tried = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        check=False,
        capture_output=True,
    )
    return tried.returncode == 0


def _hiding(folders: Sequence[Path]) -> list[str]:
    """What begins a command that is to see nothing of some folders."""
    mounts = " && ".join(f"mount -t tmpfs tmpfs '{folder}'" for folder in folders)
    return ["unshare", "--mount", "sh", "-c", f'{mounts} && exec "$@"', "sh"]
