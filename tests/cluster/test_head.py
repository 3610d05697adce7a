"""What the head refuses before Ray hears of a sweep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.heavy


def submit(jobs: Path, variables: dict[str, str] | None = None, **changes: Any) -> str:
    """Hand a sweep to a head that has no Ray; what it says, which is to refuse."""
    submission = {
        "job": "sweep-1",
        "file": "spec.yaml",
        "spec": "name: sweep\n",
        "store": str(jobs.parent / "store"),
        "arguments": [],
        **changes,
    }
    result = subprocess.run(
        [sys.executable, "-m", "cluster.head", "submit"],
        env={
            **os.environ,
            "CIFAKE_JOBS": str(jobs),
            "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9",
            **(variables or {}),
        },
        input=json.dumps(submission),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert not list(jobs.glob("*"))
    return result.stderr


def test_bucket_without_permission_is_told(bucket: str, tmp_path: Path) -> None:
    said = submit(tmp_path / "jobs", {"AWS_SECRET_ACCESS_KEY": "wrong"}, store=bucket)
    assert f"{bucket}: store: cannot be written by the head: access denied" in said


@pytest.mark.parametrize("changes", [{"job": "../elsewhere"}, {"file": "a/b.yaml"}])
def test_names_that_lead_elsewhere_are_refused(changes: dict[str, str], tmp_path: Path) -> None:
    said = submit(tmp_path / "jobs", **changes)
    assert next(iter(changes.values())) in said


def test_head_without_ray_is_told_and_keeps_nothing(tmp_path: Path) -> None:
    assert "Ray's jobs: did not take it" in submit(tmp_path / "jobs")
    assert not list((tmp_path / "store").glob("*"))


def test_a_job_that_was_stopped_is_not_taken_up_by_the_next_head(tmp_path: Path) -> None:
    job = tmp_path / "jobs" / "sweep-1"
    job.mkdir(parents=True)
    (job / "job.json").write_text("{}")
    (job / "stopped").touch()
    variables = {"CIFAKE_JOBS": str(job.parent), "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9"}
    for command, answer in (
        (["resume"], {"resumed": []}),
        (["ended", "sweep-1"], {"code": 130, "bytes": 0}),
    ):
        result = subprocess.run(
            [sys.executable, "-m", "cluster.head", *command],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        assert json.loads(result.stdout) == answer
