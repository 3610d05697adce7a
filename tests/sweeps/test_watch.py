"""Who waits for a cluster that died is told."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from sweeps import watch
from sweeps.watch import LostClusterError, watched


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_EVERY", 0.02)


def test_a_block_ends_soon_after_its_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_EVERY", 0.02)
    begun = time.monotonic()

    def wait() -> None:
        with watched(lambda: time.monotonic() < begun + 0.2):
            time.sleep(30)

    with pytest.raises(LostClusterError, match="the same command goes on"):
        wait()
    assert time.monotonic() - begun < 10


def test_a_block_whose_cluster_lives_ends_as_it_would() -> None:
    with watched(lambda: True):
        time.sleep(0.1)

    def interrupted() -> None:
        with watched(lambda: True):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    time.sleep(0.1)


def test_a_block_that_hears_nothing_ends_with_its_process() -> None:
    """As one does that waits inside a library and takes no interrupt."""
    script = """
import time
from sweeps import watch
watch._EVERY, watch._PATIENCE = 0.02, 0.2
with watch.watched(lambda: False):
    while True:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            pass
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("Ray's node died")
