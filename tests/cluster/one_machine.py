"""The sweep that the tests of clusters run, and what one machine alone makes of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.cluster.lab import environment
from tests.rows import store_rows, sweep_rows

SWEEP = "disturbed"

_SPEC = """
name: {name}
data: {{train: demo, validation: 100, evaluate: [demo]}}
scientific: {{attention: [none, srm], placement: [after_pool1], epochs: [1, {epochs}]}}
nuisance: {{seed: {seeds}}}
resources: {{cpus: 1, width: 1}}
"""
"""Each run is a stack of its own: the bits of equal stacks are equal, wherever they are trained."""


def write_spec(folder: Path, *, epochs: int, seeds: int) -> Path:
    """Write the specification of two configs; the time that it takes goes with its length."""
    path = folder / "spec.yaml"
    path.write_text(_SPEC.format(name=SWEEP, epochs=epochs, seeds=seeds))
    return path


def run_on_one_machine(spec: Path) -> str:
    """Run a sweep without a cluster; its store."""
    store = spec.parent / "one-machine"
    result = subprocess.run(
        [sys.executable, "-m", "sweeps", "run", str(spec), "--store", str(store)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return str(store)


def assert_same_tables(store: str, expected: str) -> None:
    """Check that two stores hold the same rows of the sweep, times and places aside."""
    assert store_rows(store) == store_rows(expected)
    assert sweep_rows(store, SWEEP) == sweep_rows(expected, SWEEP)
