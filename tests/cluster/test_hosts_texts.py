"""What `cluster` would write and run for machines reached by ssh."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster import bundle
from cluster.state import folder_of
from tests.cluster import golden
from tests.cluster.conftest import Command

PROFILE = """
launcher: hosts
description: two machines
hosts:
  - {host: node1, address: 10.0.0.1, cpus: 0}
  - {host: node2, user: alice, ssh_port: 2222, identity_file: /keys/lab, gpus: 2}
ssh_options: [ProxyJump=gateway]
store: s3://bucket/sweeps
secrets: /secrets/aws
environment: {AWS_REGION: eu-north-1}
pip: [--index-url=https://index.example]
"""


@pytest.fixture
def generated(cluster: Command, tmp_path: Path) -> Callable[..., str]:
    """What a command prints with `--dry-run`, without what is of this machine or of today."""
    path = tmp_path / "lab.yaml"
    path.write_text(PROFILE)

    def generate(command: str, *arguments: str) -> str:
        result = cluster(command, path, *arguments, "--dry-run")
        assert result.returncode == 0, result.stderr
        text = result.stdout.replace(str(folder_of("lab")), "STATE")
        text = text.replace(bundle.digest(), "DIGEST").replace(bundle.wheel_name(), "WHEEL")
        text = re.sub(r'"mark": "[0-9a-f]{10}"', '"mark": "MARK"', text)
        text = re.sub(r"\d{8}-\d{6}", "YYYYMMDD-HHMMSS", text)
        return re.sub(r"\S+/bin/python\S* -m (ray|cluster\.bundle)", r"PYTHON -m \1", text)

    return generate


@pytest.mark.parametrize("command", ["up", "down"])
def test_commands_are_those_that_were_accepted(generated: Callable[..., str], command: str) -> None:
    golden.check(f"hosts-{command}.sh", generated(command))


def test_submission_is_the_one_that_was_accepted(
    generated: Callable[..., str], tmp_path: Path
) -> None:
    spec = tmp_path / "short.yaml"
    spec.write_text("name: short\ndata: {train: demo}\nscientific: {epochs: [1]}\n")
    text = generated("submit", str(spec), "--set", "nuisance.seed=2", "--data", "/data/cifake")
    golden.check("hosts-submit.sh", text)


def test_what_is_printed_is_a_shell_script(generated: Callable[..., str]) -> None:
    checked = subprocess.run(
        ["sh", "-n"], input=generated("up"), capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_bundle_is_the_code_that_runs_here_and_its_bytes_are_the_same_each_time(
    tmp_path: Path,
) -> None:
    path = tmp_path / bundle.FILE
    path.write_bytes(bundle.archive())
    assert bundle.archive() == path.read_bytes()
    with tarfile.open(path) as archive:
        assert archive.getnames() == [bundle.wheel_name(), bundle.LOCK]
        archive.extractall(tmp_path, filter="data")
    root = Path(bundle.__file__).parents[1]
    with zipfile.ZipFile(tmp_path / bundle.wheel_name()) as wheel:
        for name in ("cluster/node.py", "cluster/profiles/hosts.yaml", "sweeps/studies/demo.yaml"):
            assert wheel.read(name) == (root / name).read_bytes()
    lock = (tmp_path / bundle.LOCK).read_text().splitlines()
    assert f"ray=={importlib.metadata.version('ray')}" in lock
    assert any(line.startswith("aiohttp==") for line in lock)  # of the extra, for jobs
    assert not any("+" in line for line in lock)
