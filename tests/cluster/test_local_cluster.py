"""A Ray cluster on this machine: started, found again, used with its token, stopped."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cifake.errors import InputError
from cluster import local
from cluster.profile import Profile, read_profile


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[str, Profile, local.Running]]:
    profile = Profile(launcher="local", description="a test's", port=free_port(), cpus=1)
    started = local.up("test", profile)
    try:
        yield "test", profile, started
    finally:
        local.down("test")


def cluster(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cluster", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


CONNECT = "import ray; ray.init({address!r}); print(int(ray.cluster_resources()['CPU']))"


def connect(
    running: local.Running, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return subprocess.run(
        [sys.executable, "-c", CONNECT.format(address=running.address)],
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


def test_driver_with_the_token_is_let_in(running: tuple[str, Profile, local.Running]) -> None:
    result = connect(running[2], running[2].environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[-1] == "1"


def test_driver_with_a_wrong_token_is_refused(
    running: tuple[str, Profile, local.Running], tmp_path: Path
) -> None:
    wrong = tmp_path / "token"
    wrong.write_text("0" * 64)
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(wrong)}
    result = connect(running[2], environment)
    assert result.returncode != 0
    assert "InvalidAuthToken" in result.stderr


def test_token_is_readable_by_its_owner_only(running: tuple[str, Profile, local.Running]) -> None:
    assert stat.S_IMODE(Path(running[2].token_file).stat().st_mode) == 0o600


def test_up_twice_is_harmless(running: tuple[str, Profile, local.Running]) -> None:
    name, profile, first = running
    assert local.up(name, profile) == first


def test_port_in_use_is_refused_before_anything_is_started() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        profile = Profile(launcher="local", description="", port=taken.getsockname()[1])
        with pytest.raises(InputError, match="in use by another program"):
            local.up("taken", profile)
    assert local.find("taken") is None


def test_down_stops_the_processes_and_removes_the_token() -> None:
    profile = Profile(launcher="local", description="", port=free_port(), cpus=1)
    started = local.up("short", profile)
    assert local.down("short")
    assert not Path(started.token_file).exists()
    with pytest.raises(ProcessLookupError):
        os.killpg(started.pid, 0)
    assert not local.down("short")


def test_shipped_profiles_are_valid_and_listed() -> None:
    listed = cluster("list")
    assert listed.returncode == 0
    assert "local" in listed.stdout
    assert read_profile("local")[1].launcher == "local"


def test_dry_run_prints_the_command_and_starts_nothing() -> None:
    result = cluster("up", "local", "--dry-run")
    assert "--node-ip-address=127.0.0.1" in result.stdout
    assert cluster("status", "local").returncode == 1


def test_unknown_profile_names_the_nearest() -> None:
    result = cluster("up", "locl")
    assert result.returncode == 2
    assert "did you mean local?" in result.stderr
    assert "Traceback" not in result.stderr


def test_every_mistake_of_a_profile_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("launcher: ssh\nport: 80\nspeed: 3\n")
    with pytest.raises(InputError) as caught:
        read_profile(str(path))
    fields = {mistake.field for mistake in caught.value.mistakes}
    assert fields == {"launcher", "port", "speed", "description"}
