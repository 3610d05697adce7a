"""A cluster of machines that are reached by ssh: closed to others, and a sweep on it."""

from __future__ import annotations

import http.client
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pytest

from tests.cluster.lab import NODES, Lab, environment, wait_until
from tests.cluster.namespaces import PYTHON
from tests.cluster.one_machine import SWEEP, assert_same_tables, run_on_one_machine, write_spec

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]

WRONG = "0" * 64
REFUSED = (401, 403)
METHODS = (
    "NodeInfoGcsService/GetAllNodeInfo",
    "NodeManagerService/GetNodeStats",
    "ObjectManagerService/Pull",
    "ReporterService/GetTraceback",
    "CoreWorkerService/GetCoreWorkerStats",
)
"""One of each service of Ray's that listens."""


@pytest.fixture(scope="module")
def running(lab: Lab) -> Lab:
    """The laboratory, with its cluster started."""
    lab.up()
    return lab


def listening(lab: Lab, machine: str) -> list[tuple[str, int]]:
    """Addresses and ports on which a machine listens, that of ssh aside."""
    lines = lab.network.ssh(machine, "ss -tlnH").stdout.splitlines()
    found = [line.split()[3].rpartition(":") for line in lines]
    return [(address, int(port)) for address, _, port in found if port != "22"]


def ask_by_http(url: str, token: str | None) -> int | None:
    """The status of an answer; null where nothing there speaks HTTP."""
    request = urllib.request.Request(url)  # noqa: S310 - of our own network
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):
        return None


def ask_by_grpc(address: str, token: str | None) -> set[str]:
    """What a server says to a call of each service."""
    metadata = [] if token is None else [("authorization", f"Bearer {token}")]
    codes = set()
    with grpc.insecure_channel(address) as channel:
        for method in METHODS:
            try:
                channel.unary_unary(f"/ray.rpc.{method}")(b"", timeout=10, metadata=metadata)
                codes.add("OK")
            except grpc.RpcError as error:
                codes.add(error.code().name)
    return codes - {"UNIMPLEMENTED"}


@pytest.mark.parametrize("token", [None, WRONG], ids=["no token", "wrong token"])
@pytest.mark.parametrize("machine", ["n1", "n2"], ids=["head", "worker"])
def test_every_port_beyond_loopback_refuses(running: Lab, machine: str, token: str | None) -> None:
    asked = 0
    for address, port in listening(running, machine):
        if address.startswith("127."):
            continue
        where = f"{running.name(machine)}:{port}"
        status = ask_by_http(f"http://{where}/api/version", token)
        if status is None:
            assert ask_by_grpc(where, token) == {"UNAUTHENTICATED"}, where
        else:
            assert status in REFUSED, where
        asked += 1
    assert asked >= 5


def test_control_store_answers_who_has_the_token(running: Lab) -> None:
    assert "OK" in ask_by_grpc(f"{running.name('n1')}:6379", running.token.read_text())


@pytest.mark.parametrize("path", ["", "api/version", "api/jobs/", "nodes?view=summary"])
def test_dashboard_and_jobs_are_on_loopback_and_refuse(running: Lab, path: str) -> None:
    assert ("127.0.0.1", 8265) in listening(running, "n1")
    assert 8265 not in {port for at, port in listening(running, "n1") if at != "127.0.0.1"}
    ask = (
        "import sys, urllib.request, urllib.error\n"
        "for token in ('', *sys.stdin.read().split()):\n"
        f"    request = urllib.request.Request('http://127.0.0.1:8265/{path}')\n"
        "    if token: request.add_header('Authorization', 'Bearer ' + token)\n"
        "    try: print(urllib.request.urlopen(request).status)\n"
        "    except urllib.error.HTTPError as error: print(error.code)\n"
    )
    (running.network.folder / "ask.py").write_text(ask)
    command = f"(echo {WRONG}; cat {NODES}/lab/*/token) | {PYTHON} /mnt/shared/ask.py"
    none, wrong, right = running.network.ssh("n1", command).stdout.split()
    page_is_public = path == ""  # the page without data, which asks for the token itself
    assert page_is_public or int(none) in REFUSED
    assert page_is_public or int(wrong) in REFUSED
    assert int(right) == 200


def test_ray_has_no_port_for_its_client(running: Lab) -> None:
    assert 10001 not in {port for _, port in listening(running, "n1")}


@pytest.mark.parametrize("token", [None, WRONG], ids=["no token", "wrong token"])
def test_driver_is_refused(running: Lab, token: str | None, tmp_path: Path) -> None:
    variables = {"HOME": str(tmp_path)}  # no token of the user's is found
    if token is not None:
        variables |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    connect = f"import ray; ray.init({running.name('n1') + ':6379'!r}); print('let in')"
    result = subprocess.run(
        [sys.executable, "-c", connect],
        env=environment() | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert result.returncode != 0
    assert "let in" not in result.stdout
    assert re.search("auth", result.stderr, re.IGNORECASE)


def test_token_and_secrets_stand_in_their_files_alone(running: Lab) -> None:
    token = running.token.read_text()
    for machine in ("n1", "n2"):
        for text, files in ((token, {"token"}), (running.secret, {"secrets"})):
            # The text is read from standard input: in the command line it would find itself.
            find = 'read text; echo "$text" > /run/text; grep -rlF -f /run/text /tmp'
            found = running.network.ssh(machine, find, text=f"{text}\n").stdout.split()
            assert {Path(path).name for path in found} == files
            lines = running.network.ssh(machine, "cat /proc/*/cmdline").stdout
            assert "raylet" in lines
            assert text not in lines
    kept = [path for path in running.state.rglob("*") if path.is_file()]
    assert [path for path in kept if token in path.read_text()] == [running.token]
    assert [path for path in kept if running.secret in path.read_text()] == []


def test_every_process_of_a_node_carries_its_mark_by_which_it_is_ended(running: Lab) -> None:
    look = (
        "for p in $(pgrep -f ray); do test -r /proc/$p/environ && "
        "echo $(tr '\\0' '\\n' < /proc/$p/environ | grep -c ^CIFAKE_NODE=)"
        " $(tr '\\0' ' ' < /proc/$p/cmdline); done"
    )
    lines = running.network.ssh("n2", look).stdout.splitlines()
    # The shell that looks is none of them, nor is what ended meanwhile and has no command.
    found = [line for line in lines if "bash" not in line and len(line.split()) > 1]
    assert any("ray::" in line for line in found)
    assert [line for line in found if not line.startswith("1 ")] == []


def test_up_twice_is_harmless(running: Lab) -> None:
    before = running.network.ssh("n2", "pgrep -f raylet/raylet").stdout
    running.up()
    assert running.network.ssh("n2", "pgrep -f raylet/raylet").stdout == before


def test_sweep_ends_with_the_tables_of_one_machine_though_a_worker_dies_and_another_joins(
    running: Lab, tmp_path: Path
) -> None:
    spec, store = write_spec(tmp_path, epochs=20, seeds=6), running.url("joined")
    job = running.submit(spec, store)
    running.wait_for_epochs(store, 1)
    running.network.machines["n3"].die()
    running.network.add("n4")
    running.write_profile(["n1", "n2", "n4"])
    running.up()
    assert job.wait(600) == 0, running.log(store)
    assert f"{store}/sweeps/{SWEEP}/report.md" in running.log(store)
    assert "n4" in running.hosts(store)
    assert_same_tables(store, run_on_one_machine(spec))
    assert running.secret not in running.log(store)


def test_stopped_job_ends_in_order_within_ten_seconds_and_goes_on(
    running: Lab, tmp_path: Path
) -> None:
    spec, store = write_spec(tmp_path, epochs=200, seeds=2), running.url("stopped")
    job = running.submit(spec, store)
    running.wait_for_epochs(store, 4)
    stopped = running.run("stop", running.profile, running.job(store))
    assert stopped.stdout == f"{running.job(store)}: stopped\n", stopped.stderr
    assert job.wait(60) == 130
    assert "finished epochs are kept" in running.log(store)
    folder = f"{NODES}/lab/*/jobs/{running.job(store)}"
    times = running.network.ssh("n1", f"stat -c %.3Y {folder}/stopped {folder}/code").stdout
    asked, ended = map(float, times.split())
    assert ended - asked < 10
    again = running.run("stop", running.profile, running.job(store))
    assert again.returncode == 0
    assert running.run("logs", running.profile, running.job(store)).returncode == 130
    assert all(state.status != "failed" for state in running.states(store).values())


def test_nobody_who_looks_does_not_end_a_job(running: Lab, tmp_path: Path) -> None:
    spec, store = write_spec(tmp_path, epochs=2, seeds=1), running.url("unseen")
    job = running.submit(spec, store)
    wait_until(lambda: "job " in running.log(store), 120, "the job's name")
    job.kill()
    job.wait()
    logs = running.run("logs", running.profile, running.job(store))
    assert logs.returncode == 0, logs.stderr
    assert f"page: {store}/sweeps/{SWEEP}/report.html" in logs.stdout


def test_store_that_cannot_be_written_is_told_before_the_job_begins(
    running: Lab, tmp_path: Path
) -> None:
    spec = write_spec(tmp_path, epochs=2, seeds=1)
    result = running.run("submit", running.profile, spec, "--store", "/proc/store")
    assert result.returncode == 2
    assert "/proc/store" in result.stderr
    assert "cannot be written by the head" in result.stderr
    assert "Traceback" not in result.stderr


def test_unknown_job_is_told_with_those_that_there_are(running: Lab) -> None:
    for command in ("logs", "stop"):
        result = running.run(command, running.profile, "nothing")
        assert result.returncode == 2
        assert "no such job; jobs: disturbed-" in result.stderr


def test_down_removes_what_up_made_on_every_machine_and_nothing_else(running: Lab) -> None:
    others = {}
    for machine in ("n1", "n2", "n4"):
        start = "sleep 1000 > /dev/null 2>&1 & echo $!; touch /tmp/mine"
        others[machine] = running.network.ssh(machine, start).stdout.strip()
    down = running.run("down", running.profile)
    assert down.returncode == 0, down.stderr
    assert "all that `cluster up` made is removed" in down.stdout
    assert not running.state.exists()
    for machine, other in others.items():
        # Packs are the user's, as those of sweeps without a cluster are.
        assert set(running.network.ssh(machine, "ls /tmp").stdout.split()) <= {"mine", "cache"}
        left = running.network.ssh(machine, "ps -e -o pid= -o args=").stdout
        assert re.search(rf"^ *{other} sleep 1000$", left, re.MULTILINE)
        assert not re.search("ray|cluster", left.replace("sleep", "")), left
    again = running.run("down", running.profile)
    assert (again.returncode, again.stdout) == (0, "lab is down\n")
