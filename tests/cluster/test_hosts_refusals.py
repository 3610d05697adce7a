"""Machines reached by ssh: what is wrong is said at once, before anything is started."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.lab import NODES, Lab
from tests.cluster.namespaces import PYTHON, SHARED

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(300)]


def refused(lab: Lab) -> str:
    """What `cluster up` says, which is to refuse and to start nothing."""
    result = lab.run("up", lab.profile)
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert not lab.state.exists()
    for name in lab.network.machines:
        assert lab.network.ssh(name, f"ls {NODES}").returncode != 0
    return result.stderr


@pytest.fixture
def profile(lab: Lab) -> Iterator[Lab]:
    """The laboratory, whose profile is set back afterwards."""
    before = lab.profile.read_text()
    yield lab
    lab.profile.write_text(before)


def test_machines_out_of_reach_are_all_named_in_the_words_of_ssh(profile: Lab) -> None:
    for name in ("n2", "n3"):
        profile.network.machines[name].cut()
    try:
        result = profile.run("up", profile.profile)
    finally:
        for name in ("n2", "n3"):
            profile.network.machines[name].mend()
    assert result.returncode == 2
    for name in ("n2", "n3"):
        assert f"{profile.name(name)}: cannot be reached: ssh: connect to host" in result.stderr
    assert not profile.state.exists()


def test_key_that_no_machine_knows_is_told(profile: Lab, tmp_path: Path) -> None:
    other = tmp_path / "key"
    profile.write_profile(
        ["n1"],
        identity_file=str(other),
        ssh_options=[*profile.network.ssh_options, "IdentitiesOnly=yes"],
    )
    assert "Permission denied (publickey)" in refused(profile)


def test_port_in_use_is_told(profile: Lab) -> None:
    listen = "import socket; s = socket.socket(); s.bind(('', 6379)); s.listen(); s.accept()"
    start = f'nohup {PYTHON} -c "{listen}" > /dev/null 2>&1 & echo $!; sleep 1'
    pid = profile.network.ssh("n1", start).stdout.strip()
    try:
        assert "port: 6379: is in use by another program" in refused(profile)
    finally:
        profile.network.ssh("n1", f"kill {pid}")


def test_interpreter_without_the_project_is_told(profile: Lab) -> None:
    base = Path(sys.base_prefix, "bin", "python3")
    profile.write_profile(["n1", "n2"], python=str(base))
    said = refused(profile)
    for name in ("n1", "n2"):
        assert f"{profile.name(name)}: python: ray is not installed, and here it is" in said


def test_interpreter_that_is_not_there_is_told(profile: Lab) -> None:
    profile.write_profile(["n1"], python="/nowhere/python")
    assert "/nowhere/python does not run there" in refused(profile)


def test_code_that_differs_is_told(profile: Lab) -> None:
    other = profile.network.folder / "other"
    script = (profile.network.folder / "python").read_text()
    other.write_text(script.replace("/mnt/code", "/mnt/shared/code"))
    other.chmod(0o755)
    for package in ("cifake", "sweeps"):
        folder = profile.network.folder / "code" / package
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
    profile.write_profile(["n1"], python=f"{SHARED}/other")
    assert "code is" in refused(profile)


def test_secrets_that_cannot_be_read_are_told_without_showing_them(profile: Lab) -> None:
    secrets = profile.folder / "broken"
    secrets.write_text("AWS_ACCESS_KEY_ID=abc\nswordfish\n")
    profile.write_profile(["n1"], secrets=str(secrets))
    said = refused(profile)
    assert f"{secrets}:2: is not KEY=VALUE" in said
    assert "swordfish" not in said


def test_host_named_like_an_option_is_refused(profile: Lab) -> None:
    content = profile.profile.read_text()
    profile.profile.write_text(content.replace(profile.name("n1"), "-oProxyCommand=touch"))
    assert "hosts.0.host" in refused(profile)
