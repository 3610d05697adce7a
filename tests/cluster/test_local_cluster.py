"""A Ray cluster on this machine: started, found again, used with its token, stopped."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cifake.errors import InputError
from cluster import processes
from cluster.launchers import LAUNCHERS
from cluster.launchers.local import Local
from cluster.launchers.machines import mark_of, state
from cluster.profile import read_profile, shipped
from cluster.state import folder_of
from cluster.token import token_path
from tests.ports import free_ports

pytestmark = pytest.mark.heavy

Command = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Cluster:
    """A profile's file, and what is known of its cluster."""

    profile: Path
    port: int

    @property
    def name(self) -> str:
        return self.profile.stem

    @property
    def folder(self) -> Path:
        return folder_of(self.name)

    @property
    def token(self) -> Path:
        return token_path(self.folder)

    @property
    def launcher(self) -> Local:
        return Local(self.name, read_profile(str(self.profile), LAUNCHERS)[1], self.folder)

    @property
    def mark(self) -> str:
        return mark_of(self.folder, "localhost")

    @property
    def temp(self) -> Path:
        """Ray's own folder."""
        return Path(tempfile.gettempdir(), f"cifake-{self.mark}")

    @property
    def processes(self) -> list[int]:
        """All of its node."""
        return processes.marked(self.mark)


@pytest.fixture(scope="module")
def make_profile(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Cluster]:
    """Write a profile of a cluster with one core, on ports of its own."""

    def make(name: str, port: int | None = None) -> Cluster:
        free, dashboard = free_ports(2)
        path = tmp_path_factory.mktemp("profiles") / f"{name}.yaml"
        path.write_text(
            f"launcher: local\ndescription: a test's\nport: {port or free}\n"
            f"dashboard_port: {dashboard}\ncpus: 1\nstore: {path.parent / 'store'}\n"
        )
        return Cluster(path, port or free)

    return make


@pytest.fixture(scope="module")
def running(make_profile: Callable[..., Cluster], cluster: Command) -> Iterator[Cluster]:
    made = make_profile("running")
    started = cluster("up", made.profile)
    try:
        assert started.returncode == 0, started.stderr
        yield made
    finally:
        cluster("down", made.profile)


CONNECT = "import ray; ray.init({address!r}); print(int(ray.cluster_resources()['CPU']))"


def connect(port: int, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return subprocess.run(
        [sys.executable, "-c", CONNECT.format(address=f"127.0.0.1:{port}")],
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


def test_driver_with_the_token_is_let_in(running: Cluster) -> None:
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(running.token)}
    result = connect(running.port, environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[-1] == "1"


def test_driver_with_a_wrong_token_is_refused(running: Cluster, tmp_path: Path) -> None:
    wrong = tmp_path / "token"
    wrong.write_text("0" * 64)
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(wrong)}
    result = connect(running.port, environment)
    assert result.returncode != 0
    assert "InvalidAuthToken" in result.stderr


def test_token_is_readable_by_its_owner_only(running: Cluster) -> None:
    for path in (running.token, running.folder / "node" / "token"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert len(path.read_text()) >= 32


def test_token_stands_nowhere_else_and_in_no_command_line(running: Cluster) -> None:
    token = running.token.read_bytes()
    holders = {
        path.name
        for folder in (running.folder, running.temp)
        for path in folder.rglob("*")
        if path.is_file() and token in path.read_bytes()
    }
    assert holders == {"auth_token", "token"}
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in running.processes]
    assert len(lines) > 3
    assert not any(token in line for line in lines)


def test_up_twice_is_harmless(running: Cluster, cluster: Command) -> None:
    before = running.processes
    again = cluster("up", running.profile)
    assert again.returncode == 0, again.stderr
    assert set(before) <= set(running.processes)


def test_status_tells_nodes_and_how_to_reach_them(running: Cluster, cluster: Command) -> None:
    result = cluster("status", running.profile)
    assert result.returncode == 0, result.stderr
    assert "head localhost: 1 cores, 0 GPUs" in result.stdout
    assert f"--address 127.0.0.1:{running.port}" in result.stdout


def test_port_in_use_is_refused_before_anything_is_started(
    make_profile: Callable[..., Cluster], cluster: Command
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        made = make_profile("taken", taken.getsockname()[1])
        result = cluster("up", made.profile)
    assert result.returncode == 2
    assert "in use by another program" in result.stderr
    assert "Traceback" not in result.stderr
    assert not made.folder.exists()
    assert not made.processes


def test_down_stops_the_processes_and_removes_what_up_made(
    make_profile: Callable[..., Cluster], cluster: Command
) -> None:
    made = make_profile("short")
    started = cluster("up", made.profile)
    assert started.returncode == 0, started.stderr
    assert made.processes
    stopped = cluster("down", made.profile)
    assert stopped.returncode == 0, stopped.stderr
    assert not made.processes
    assert not made.folder.exists()
    assert not made.temp.exists()
    again = cluster("down", made.profile)
    assert again.returncode == 0
    assert again.stdout == "short is down\n"


def test_node_that_dies_is_started_again(running: Cluster) -> None:
    [old] = [pid for pid in running.processes if is_control_store(pid)]
    os.kill(old, signal.SIGKILL)
    end = time.monotonic() + 120
    while time.monotonic() < end:
        found = [pid for pid in running.processes if is_control_store(pid)]
        if found and old not in found and state(running.launcher.member.machine)["usable"]:
            break
        time.sleep(0.5)
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(running.token)}
    assert connect(running.port, environment).returncode == 0


def is_control_store(pid: int) -> bool:
    return processes.arguments(pid)[0].endswith("gcs_server")


def test_shipped_profiles_are_valid_and_listed(cluster: Command) -> None:
    listed = cluster("list")
    assert listed.returncode == 0
    for name in shipped():
        assert name in listed.stdout
        read_profile(name, LAUNCHERS)


def test_dry_run_prints_the_commands_and_does_nothing(
    make_profile: Callable[..., Cluster], cluster: Command
) -> None:
    made = make_profile("dry")
    result = cluster("up", made.profile, "--dry-run")
    assert result.returncode == 0, result.stderr
    assert "-m cluster.node up" in result.stdout
    assert "get-auth-token --generate" in result.stdout
    assert not made.folder.exists()
    assert cluster("status", made.profile).returncode == 1


def test_unknown_profile_names_the_nearest(cluster: Command) -> None:
    result = cluster("up", "locl")
    assert result.returncode == 2
    assert "did you mean local?" in result.stderr
    assert "Traceback" not in result.stderr


def test_every_mistake_of_a_profile_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("launcher: local\nport: 80\nspeed: 3\n")
    with pytest.raises(InputError) as caught:
        read_profile(str(path), LAUNCHERS)
    fields = {mistake.field for mistake in caught.value.mistakes}
    assert fields == {"port", "speed", "description"}


def test_unknown_launcher_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("launcher: lokal\n")
    with pytest.raises(InputError, match="did you mean local"):
        read_profile(str(path), LAUNCHERS)
