"""`sweeps run --address` on a cluster whose nodes share nothing but an object store."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cifake.places import open_place
from sweeps.packs import PACKS
from sweeps.store import Store
from tests.object_store import ObjectStore
from tests.sweeps.drivers import Driver, launch
from tests.sweeps.raylets import Raylet, Raylets, can_hide

pytestmark = pytest.mark.heavy

Command = Callable[..., subprocess.CompletedProcess[str]]
Rows = dict[str, list[dict[str, Any]]]
RunRows = Callable[[Path | str, str], Rows]

SWEEP = (
    "demo",
    *("--set", "epochs=[1,3]"),
    *("--set", "seed=2"),
    *("--set", "data.train_images=400"),
    *("--set", "data.validation=100"),
)
"""Three configs of two runs each."""


@dataclass
class Site:
    """A cluster of two nodes, and the machine of the driver, whose folders the other cannot see."""

    raylets: Raylets
    other: Raylet
    home: Path
    """Of the driver: its cache, its stores."""

    def environment(self, **changes: str) -> dict[str, str]:
        cache = str(self.home / "cache")
        return {**self.raylets.environment, "CIFAKE_CACHE": cache, "COLUMNS": "120", **changes}

    def run(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sweeps", "run", *arguments, "--address", self.raylets.address],
            cwd=self.home,
            env=self.environment(**changes),
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )


@pytest.fixture(scope="module")
def site(
    environment: dict[str, str],
    object_store: ObjectStore,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    if not can_hide():
        pytest.skip("nodes can be given file systems of their own by root alone")
    folder = tmp_path_factory.mktemp("site")
    home = folder / "home"
    home.mkdir()
    raylets = Raylets(folder, {**environment, **object_store.variables})
    raylets.start(cpus=1, CIFAKE_CACHE=str(home / "cache"))
    yield Site(raylets, raylets.start(cpus=1, hidden=[home]), home)
    raylets.stop()


@pytest.fixture(scope="module")
def reference(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the sweep on one machine."""
    store = tmp_path_factory.mktemp("reference") / "store"
    result = command("run", *SWEEP, "--store", store)
    assert result.returncode == 0, result.stdout + result.stderr
    return store


def with_stacks_of(reference: Path, store: str) -> str:
    """A store whose sweep makes the same stacks: equal bits need equal stacks."""
    stacks = Store(open_place(str(reference))).read_stacks("demo")
    Store.open(store, create=True).write_stacks("demo", stacks)
    return store


def assert_same_rows(store: str, reference: Path, run_rows: RunRows) -> None:
    run_ids = Store(open_place(str(reference))).run_ids()
    assert Store(open_place(store)).run_ids() == run_ids
    for run_id in run_ids:
        assert run_rows(store, run_id) == run_rows(reference, run_id)


def ended(result: subprocess.CompletedProcess[str], code: int = 0) -> str:
    assert result.returncode == code, result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    return result.stdout


def packs_of(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "packs").glob("*"))


def test_a_sweep_without_a_shared_file_system_has_the_rows_of_one_machine(
    site: Site, bucket: str, reference: Path, run_rows: RunRows
) -> None:
    text = ended(site.run(*SWEEP, "--store", with_stacks_of(reference, bucket)))
    assert "2 workers on 2 nodes, each with 1 core\n" in text
    assert_same_rows(bucket, reference, run_rows)
    (pack,) = packs_of(site.home / "cache")
    assert packs_of(site.other.cache) == [pack], "the other node has fetched it"
    store = Store(open_place(bucket))
    assert json.loads(store.sweep("demo").read(PACKS)) == {"demo": pack}
    assert store.root.at("packs").folders() == [pack]
    again = ended(site.run(*SWEEP, "--store", bucket))
    assert "0 epochs to train" in again


# What is refused before anything is trained


def test_a_folder_that_a_node_does_not_share_is_refused(site: Site) -> None:
    """Else the runs of that node would go into a store of its own, which nobody finds."""
    result = site.run(*SWEEP, "--store", "mine")
    ended(result, 2)
    assert f"({site.other.address}): store {site.home}/mine is not there" in result.stderr
    assert "(127.0.0.1)" not in result.stderr
    assert Store(open_place(str(site.home / "mine"))).run_ids() == []


def test_all_that_is_wrong_with_any_node_is_told_at_once(site: Site, tmp_path: Path) -> None:
    """Of two more nodes one has no right key and other code, and one has no code of ours at all."""
    root = Path(__file__).parents[2]
    for name in ("other", "none"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cifake").symlink_to(root / "cifake")
    (tmp_path / "none" / "sweeps").mkdir()
    (tmp_path / "none" / "sweeps" / "__init__.py").write_text("raise ImportError('not of ours')\n")
    subprocess.run(["cp", "-r", root / "sweeps", tmp_path / "other" / "sweeps"], check=True)
    (tmp_path / "other" / "sweeps" / "more.py").write_text("# more\n")
    wrong = {"AWS_SECRET_ACCESS_KEY": "wrong"}
    nodes = [
        site.raylets.start(cpus=1, PYTHONPATH=str(tmp_path / "other"), **wrong),
        site.raylets.start(cpus=1, PYTHONPATH=str(tmp_path / "none")),
    ]
    try:
        result = site.run(*SWEEP, "--store", "s3://bucket/refused")
    finally:
        for node in nodes:
            node.kill()
            site.raylets.nodes.remove(node)
    ended(result, 2)
    first, second = (node.address for node in nodes)
    assert f"({first}): has code " in result.stderr
    assert f"({first}): cannot reach the store s3://bucket/refused (access denied)" in result.stderr
    assert f"({second}): cannot run this project's code (" in result.stderr
    assert "not of ours" in result.stderr
    assert result.stderr.count("error:") == 3
    assert Store(open_place("s3://bucket/refused")).run_ids() == []
    while len(alive(site)) > 2:
        time.sleep(0.5)


def alive(site: Site) -> list[str]:
    script = (
        "import sys, ray\n"
        "ray.init(sys.argv[1], logging_level='ERROR')\n"
        "print(*[n['NodeManagerAddress'] for n in ray.nodes() if n['Alive']])\n"
    )
    asked = subprocess.run(
        [sys.executable, "-c", script, site.raylets.address],
        env=site.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return asked.stdout.split()


def test_a_wrong_token_is_refused(site: Site) -> None:
    result = site.run(*SWEEP, "--store", "s3://bucket/refused", RAY_AUTH_TOKEN="0" * 64)
    ended(result, 2)
    assert f"--address: '{site.raylets.address}': no cluster there lets" in result.stderr
    assert "RAY_AUTH_TOKEN_PATH" in result.stderr
    assert "0" * 64 not in result.stdout + result.stderr


@pytest.mark.parametrize("address", ["127.0.0.1:9", "nowhere.invalid:6379", "127.0.0.1:99999"])
def test_an_address_without_a_cluster_is_refused_at_once(site: Site, address: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "sweeps", "run", *SWEEP, "--address", address],
        cwd=site.home,
        env=site.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    ended(result, 2)
    assert f"--address: '{address}': cannot be reached (" in result.stderr


# What stacks get


def test_a_gpu_that_no_node_has_is_a_fallback_of_the_runs(site: Site, bucket: str) -> None:
    one = ("--set", "seed=1", "--set", "epochs=[1]", "--set", "attention=none")
    text = ended(site.run(*SWEEP, *one, "--set", "resources.gpus=0.25", "--store", bucket))
    why = "trained on the CPU: 0.25 GPU was asked for, and no node has one"
    assert f"2 workers on 2 nodes, each with 1 core; {why}\n" in text
    (state,) = Store(open_place(bucket)).run_states().values()
    assert state.row["fallbacks"] == [why]


AUTOSCALING = {
    "cluster_name": "test",
    "provider": {"type": "fake_multinode"},
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
        "gpu": {
            "resources": {"CPU": 1, "GPU": 1},
            "node_config": {},
            "min_workers": 0,
            "max_workers": 1,
        },
    },
    "max_workers": 1,
    "upscaling_speed": 1.0,
    "idle_timeout_minutes": 5,
    "auth": {},
    **{f"{kind}_commands": [] for kind in ("initialization", "setup", "head_setup")},
    **{f"{kind}_commands": [] for kind in ("worker_setup", "head_start_ray", "worker_start_ray")},
    "docker": {},
    "file_mounts": {},
    "cluster_synced_files": [],
    "file_mounts_sync_continuously": False,
    "rsync_exclude": [],
    "rsync_filter": [],
}
"""A cluster whose autoscaler would start a node with a GPU; the nodes are Ray's own fakes."""


def test_a_gpu_that_an_autoscaler_starts_is_waited_for(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(AUTOSCALING))
    raylets = Raylets(tmp_path, environment)
    scaled = {
        "RAY_enable_autoscaler_v2": "0",
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }
    one = (*SWEEP, "--set", "seed=1", "--set", "epochs=[1]", "--set", "attention=none")
    arguments = [*one, "--set", "resources.gpus=0.25", "--store", str(tmp_path / "store")]
    try:
        options = [f"--autoscaling-config={tmp_path / 'config.json'}"]
        raylets.start(cpus=1, options=options, **scaled)
        driver = launch(
            [*arguments, "--address", raylets.address], raylets.environment, tmp_path / "log"
        )
        until(driver, lambda: "stacks wait for a node" in (tmp_path / "log").read_text())
        raylets.start(cpus=1, gpus=1)
        code = driver.process.wait(timeout=200)
    finally:
        raylets.stop()
    text = (tmp_path / "log").read_text()
    assert code == 0, text
    assert "resources.gpus: 0.25: no node has so much for one stack; the most is 0" in text
    (state,) = Store(open_place(str(tmp_path / "store"))).run_states().values()
    assert state.row["fallbacks"] == [
        "trained on the CPU: 0.25 GPU was asked for, and torch found none"
    ]


def test_gpus_that_torch_does_not_find_are_left_alone(site: Site, bucket: str) -> None:
    """A node says to have two; what nobody asked for is no fallback."""
    node = site.raylets.start(cpus=1, gpus=2)
    one = ("--set", "seed=1", "--set", "epochs=[1]", "--set", "attention=none")
    try:
        text = ended(site.run(*SWEEP, *one, "--store", bucket))
    finally:
        node.kill()
        site.raylets.nodes.remove(node)
    assert "each with 1 core; the nodes' GPUs are not used: torch finds none there\n" in text
    (state,) = Store(open_place(bucket)).run_states().values()
    assert state.row["fallbacks"] == []


# Nodes that leave


@pytest.mark.parametrize("how", ["killed", pytest.param("drained", marks=pytest.mark.long)])
def test_a_node_that_leaves_while_it_trains_changes_no_row_and_costs_no_finished_epoch(
    site: Site, bucket: str, reference: Path, run_rows: RunRows, tmp_path: Path, how: str
) -> None:
    node = site.raylets.start(cpus=1, hidden=[site.home])
    arguments = [*SWEEP, "--store", with_stacks_of(reference, bucket)]
    driver = launch(
        [*arguments, "--address", site.raylets.address], site.environment(), tmp_path / "log"
    )
    try:
        store = Store(open_place(bucket))
        until(driver, lambda: any(s.epochs_done for s in store.run_states().values()))
        if how == "killed":
            node.kill()
        else:
            site.raylets.drain(node, seconds=600)
        code = driver.process.wait(timeout=400)
    finally:
        driver.end()
        node.kill()
        site.raylets.nodes.remove(node)
    text = (tmp_path / "log").read_text()
    assert code == 0, text
    assert "epochs 18/18" in text
    assert_same_rows(bucket, reference, run_rows)


def until(driver: Driver, condition: Callable[[], bool], within: float = 200) -> None:
    end = time.monotonic() + within
    while not condition():
        assert driver.process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)


# A search


@pytest.mark.long
def test_a_search_is_trained_by_all_nodes(site: Site, bucket: str, tmp_path: Path) -> None:
    spec = tmp_path / "little.yaml"
    spec.write_text(
        "name: little\n"
        "data: {train: demo, validation: 100, train_images: 400}\n"
        "fixed: {epochs: 2, batch_size: 32}\n"
        "nuisance: {seed: 2}\n"
        "search:\n"
        "  trials: 4\n"
        "  metric: validation.accuracy\n"
        "  space:\n"
        "    optimizer.lr: {log_uniform: [1e-4, 1e-1]}\n"
    )
    text = ended(site.run(str(spec), "--store", bucket))
    assert "2 workers on 2 nodes, each with 1 core" in text
    states = Store(open_place(bucket)).run_states().values()
    assert [state.status for state in states] == ["complete"] * 8
