"""Sweeps on a real Slurm: jobs of their own and allocations, and all that befalls them there."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from cifake.places import open_place
from cluster.slurm import queue
from sweeps.store import Store
from tests import rows
from tests.cluster.slurm_machine import NODES, SlurmMachine, lacking, slurm_machine

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).parents[2]
SWEEP = {
    "name": "befallen",
    "question": "Does it end as if nothing had happened?",
    "data": {"train": "demo", "validation": 100, "train_images": 400},
    "scientific": {"optimizer.lr": [0.01, 0.02], "epochs": [20]},
    "nuisance": {"seed": 2},
    "fixed": {"batch_size": 8},
    "resources": {"cpus": 1, "width": 2},
}
EPOCHS = 2 * 2 * 20

SECRET = "8f1c-said-to-a-door"  # noqa: S105 - opens nothing

WITHIN = 500.0
"""Seconds for a sweep to end, on a machine that does other things too."""

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmMachine]:
    """Slurm, found by the environment of all that the tests start."""
    why = lacking()
    if why is not None:
        pytest.skip(why)
    with slurm_machine() as machine, pytest.MonkeyPatch.context() as patch:
        for name, value in machine.environment.items():
            patch.setenv(name, value)
        yield machine


@dataclass(frozen=True)
class Site:
    """A profile of a cluster on that Slurm, a sweep, and where all of it goes."""

    slurm: SlurmMachine
    folder: Path

    @property
    def profile(self) -> Path:
        return self.folder / "site.yaml"

    @property
    def sweep(self) -> Path:
        return self.folder / "befallen.yaml"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def shared(self) -> Path:
        """Where scripts, logs and tokens are."""
        return self.folder / "shared" / "site"

    def write(self, **settings: object) -> None:
        """The profile, with some settings of its own."""
        variables = {
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "CIFAKE_CACHE": os.environ["CIFAKE_CACHE"],
            "COLUMNS": "200",
        }
        content = {
            "launcher": "slurm",
            "description": "a test's",
            "nodes": 2,
            "cpus": 1,
            "memory": "1500M",
            "time": "30",
            "environment": variables,
            "folder": str(self.folder / "shared"),
            "store": str(self.store),
            **settings,
        }
        self.profile.write_text(yaml.safe_dump(content))

    def lengthen(self, epochs: int) -> None:
        """The sweep, with longer runs."""
        scientific = {"optimizer.lr": [0.01, 0.02], "epochs": [epochs]}
        self.sweep.write_text(yaml.safe_dump({**SWEEP, "scientific": scientific}))

    def epochs(self) -> int:
        """Epochs that the store has."""
        if not (self.store / "runs").is_dir():
            return 0
        states = Store(open_place(str(self.store))).run_states().values()
        return sum(state.epochs_done for state in states)

    def job(self) -> str:
        """The name of the only job that is a sweep."""
        [folder] = (self.shared / "jobs").iterdir()
        return folder.name

    def number(self, job: Path) -> str:
        """A job's number."""
        return (job / "number").read_text().strip()

    def leave_nothing(self) -> bool:
        """Whether no node has anything of this site's jobs."""
        numbers = [path.read_text().strip() for path in self.shared.rglob("number")]
        return not [
            path
            for number in numbers
            for pattern in (f"cifake-slurm-{number}-*", f"cifake-{number}-*")
            for path in Path("/tmp").glob(pattern)  # noqa: S108 - as on a node
        ]


@pytest.fixture
def site(slurm: SlurmMachine, tmp_path: Path) -> Iterator[Site]:
    """A site with its usual profile; whatever it has in the queue afterwards is ended."""
    made = Site(slurm, tmp_path)
    made.write()
    made.sweep.write_text(yaml.safe_dump(SWEEP))
    yield made
    for path in [*made.shared.rglob("number"), *made.shared.rglob("extra-number")]:
        slurm.run("scancel", path.read_text().strip())


@dataclass
class Submitted:
    """A `cluster submit` that runs."""

    process: subprocess.Popen[str]
    log: Path

    def wait(self, within: float) -> int:
        """Its exit code."""
        return self.process.wait(within)

    @property
    def output(self) -> str:
        """What it has printed."""
        return self.log.read_text()

    def told(self) -> str:
        """The same, for a failure."""
        return self.output


@pytest.fixture
def submit(site: Site) -> Iterator[Callable[[], Submitted]]:
    """Start `cluster submit`, and come back at once."""
    started: list[Submitted] = []

    def start() -> Submitted:
        log = site.folder / f"submit-{len(started)}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "cluster", "submit", str(site.profile), str(site.sweep)],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
            )
        started.append(Submitted(process, log))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()


def wait_until(condition: Callable[[], object], within: float, told: Callable[[], str]) -> None:
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, told()
        time.sleep(0.2)


def wait_for_epochs(site: Site, submitted: Submitted, count: int, within: float = 400) -> None:
    """Until the store has some epochs; the sweep must not be over then."""
    wait_until(lambda: site.epochs() >= count, within, lambda: submitted.output)
    assert site.epochs() < EPOCHS, "it ended too soon to be disturbed"


def preempt(slurm: SlurmMachine) -> None:
    """Have a job of more urgency take all nodes for a moment."""
    wanted = ["-p", "high", f"-N{NODES}", "--exclusive", "-o", "/dev/null", "--wrap", "true"]
    slurm.run("sbatch", "--wait", *wanted)


def assert_undisturbed(site: Site) -> None:
    """Compare runs and final tables with those of the same sweep, run on this machine alone."""
    other = site.folder / "undisturbed"
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    result = subprocess.run(
        [sys.executable, "-m", "sweeps", "run", str(site.sweep), "--store", str(other)],
        env={**kept, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=WITHIN,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert rows.store_rows(site.store) == rows.store_rows(other)
    name = str(SWEEP["name"])
    assert rows.sweep_rows(site.store, name) == rows.sweep_rows(other, name)


@pytest.mark.timeout(1200)
def test_preempted_sweep_comes_back_and_ends_with_the_rows_of_one_that_was_not(
    site: Site,
    submit: Callable[[], Submitted],
) -> None:
    submitted = submit()
    wait_for_epochs(site, submitted, 4)
    preempt(site.slurm)
    assert submitted.wait(WITHIN) == 0, submitted.output
    assert submitted.output.count("is the head of a cluster of 2") == 2, submitted.output
    assert "2 to continue" in submitted.output or "4 to continue" in submitted.output
    assert_undisturbed(site)
    job = site.shared / "jobs" / site.job()
    assert not (job / "home").exists(), "the token goes with the job"
    assert "report: " in submitted.output


def test_what_slurm_would_refuse_is_told_before_anything_is_handed_over(
    site: Site, cluster: Command
) -> None:
    site.write(partition="lwo", python=str(site.folder / "python"))
    unknown = cluster("submit", site.profile, site.sweep)
    assert unknown.returncode == 2
    assert "no such partition; did you mean low?" in unknown.stderr
    assert f"{site.folder / 'python'}: python: does not run" in unknown.stderr
    site.write(partition="short", nodes=4, time="5")
    beyond = cluster("up", site.profile)
    assert beyond.returncode == 2
    assert "'5': is beyond the partition's limit; at most 00:01:00" in beyond.stderr
    assert "4: is more than the partition gives; at most 3" in beyond.stderr
    site.write(cpus=64)
    large = cluster("up", site.profile)
    assert large.returncode == 2
    assert "Slurm refuses the job" in large.stderr
    assert "Traceback" not in unknown.stderr + beyond.stderr + large.stderr
    assert not site.shared.exists()
    assert site.slurm.run("squeue", "--noheader") == ""


def test_without_slurm_the_missing_programs_are_named(
    site: Site, cluster: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    result = cluster("up", site.profile)
    assert result.returncode == 2
    assert "sbatch, squeue, scancel, scontrol, srun: not found" in result.stderr


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_sweep_that_is_longer_than_its_time_is_stopped_in_order_and_goes_on(
    site: Site, submit: Callable[[], Submitted]
) -> None:
    site.write(notice=60)
    site.lengthen(600)
    submitted = submit()
    wait_until(lambda: site.epochs() >= 4, WITHIN, submitted.told)
    job = site.number(site.shared / "jobs" / site.job())
    site.slurm.run("scontrol", "update", f"jobid={job}", f"timelimit={minutes_for(site, job)}")
    wait_until(lambda: "queued again" in submitted.output, 240, submitted.told)
    site.slurm.run("scontrol", "update", f"jobid={job}", "timelimit=30")
    assert submitted.wait(2 * WITHIN) == 0, submitted.output
    assert submitted.output.count("stopped; finished epochs are kept") == 1
    assert submitted.output.count("queued again, 1 of at most 50 times") == 1
    assert submitted.output.count("is the head of") == 2
    assert_undisturbed(site)


def minutes_for(site: Site, job: str) -> int:
    """A limit for a job that runs which leaves it little more than its notice."""
    elapsed = queue.seconds(site.slurm.run("squeue", "--noheader", f"--jobs={job}", "-o", "%M"))
    return int(elapsed + 100) // 60 + 1


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_job_that_may_not_queue_itself_again_says_how_to_go_on(
    site: Site, submit: Callable[[], Submitted]
) -> None:
    site.write(time="3", notice=60, requeues=0)
    site.lengthen(2000)
    submitted = submit()
    assert submitted.wait(WITHIN) == 1, submitted.output
    assert "0 times queued again, and no more" in submitted.output
    assert site.epochs() > 0
    assert site.leave_nothing()


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_allocation_takes_sweeps_which_outlive_its_preemption(
    site: Site,
    submit: Callable[[], Submitted],
    cluster: Command,
) -> None:
    (site.folder / "secrets").write_text(f"OPEN_SESAME='{SECRET}'\n")
    site.write(gpus=1, secrets=str(site.folder / "secrets"))
    up = cluster("up", site.profile)
    assert up.returncode == 0, up.stderr
    again = cluster("up", site.profile)
    assert again.returncode == 0, again.stderr
    assert "hand the job" not in again.stderr
    status = cluster("status", site.profile)
    assert "head node1: 1 cores, 1 GPUs" in status.stdout
    assert "worker node2: 1 cores, 1 GPUs" in status.stdout
    assert_secrets_are_nowhere_else(site)
    submitted = submit()
    wait_for_epochs(site, submitted, 4)
    preempt(site.slurm)
    assert submitted.wait(WITHIN) == 0, submitted.output
    assert "the head was started anew" in submitted.output
    assert_undisturbed(site)
    down = cluster("down", site.profile)
    assert down.returncode == 0, down.stderr
    assert site.leave_nothing()
    assert not (site.shared / "cluster").exists()
    assert cluster("down", site.profile).stdout == "site is down\n"
    assert cluster("status", site.profile).returncode == 1


def assert_secrets_are_nowhere_else(site: Site) -> None:
    """The token in files of its owner's alone; what is in the environment by wish, there too."""
    job = site.shared / "cluster"
    token = (job / "home" / ".ray" / "auth_token").read_bytes()
    number = site.number(job)
    nodes = [
        path
        for pattern in (f"cifake-slurm-{number}-*", f"cifake-{number}-*")
        for path in Path("/tmp").glob(pattern)  # noqa: S108 - as on a node
    ]
    assert len(nodes) == 4
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o700 for path in nodes)
    files = [path for root in (job, *nodes) for path in root.rglob("*") if path.is_file()]
    holders = [path for path in files if token in content(path) or SECRET.encode() in content(path)]
    assert {path.name for path in holders} == {"auth_token", "token", "secrets"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in holders)
    told = site.slurm.run("scontrol", "show", "job", number)
    assert number in told
    assert token.decode() not in told
    assert SECRET not in told
    processes = list(Path("/proc").glob("[0-9]*"))
    lines = [content(process / "cmdline") for process in processes]
    assert not [line for line in lines if token in line or SECRET.encode() in line]
    environments = [content(process / "environ") for process in processes]
    assert not [each for each in environments if token in each]
    assert [each for each in environments if f"OPEN_SESAME={SECRET}\0".encode() in each]


def content(path: Path) -> bytes:
    """Of a file that may be gone meanwhile."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_stopped_sweep_ends_in_order_and_the_same_command_goes_on(
    site: Site, submit: Callable[[], Submitted], cluster: Command
) -> None:
    first = submit()
    wait_for_epochs(site, first, 4)
    stopped = cluster("stop", site.profile, site.job())
    assert stopped.returncode == 0, stopped.stderr
    assert first.wait(60) == 130, first.output
    assert "stopped; finished epochs are kept" in first.output
    assert f"job {site.job()}: stopped" in cluster("status", site.profile).stdout
    assert cluster("stop", site.profile, site.job()).returncode == 0
    assert site.leave_nothing()
    before = site.epochs()
    second = submit()
    assert second.wait(WITHIN) == 0, second.output
    assert f"{EPOCHS - before} epochs to train" in second.output


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_cancelled_job_is_told_and_loses_no_finished_epoch(
    site: Site, submit: Callable[[], Submitted]
) -> None:
    first = submit()
    wait_for_epochs(site, first, 4)
    site.slurm.run("scancel", site.number(site.shared / "jobs" / site.job()))
    assert first.wait(90) == 1, first.output
    assert "is over, and its sweep is not done" in first.output
    before = site.epochs()
    second = submit()
    assert second.wait(WITHIN) == 0, second.output
    assert f"{EPOCHS - before} epochs to train" in second.output


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_sweep_goes_on_with_the_nodes_that_are_left(
    site: Site, submit: Callable[[], Submitted]
) -> None:
    submitted = submit()
    wait_for_epochs(site, submitted, 4)
    site.slurm.lose("node2")
    try:
        assert submitted.wait(WITHIN) == 0, submitted.output
    finally:
        site.slurm.run("scancel", site.number(site.shared / "jobs" / site.job()))
        site.slurm.restore("node2")
    assert submitted.output.count("is the head of") == 1
    assert_undisturbed(site)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_sweep_is_stopped_in_order_where_a_partition_gives_grace_to_what_is_preempted(
    site: Site, submit: Callable[[], Submitted]
) -> None:
    site.write(partition="gentle")
    submitted = submit()
    wait_for_epochs(site, submitted, 4)
    preempt(site.slurm)
    assert submitted.wait(WITHIN) == 0, submitted.output
    assert "stopped; finished epochs are kept" in submitted.output
    assert "queued again, 1 of at most 50 times" in submitted.output
    assert_undisturbed(site)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_nodes_join_and_are_lost_one_by_one(
    site: Site,
    submit: Callable[[], Submitted],
) -> None:
    site.write(nodes=1, extra_nodes=2)
    site.lengthen(200)  # nodes that joined train on until the driver has ended
    submitted = submit()
    wait_for_epochs(site, submitted, 1)
    job = site.shared / "jobs" / site.job()
    wait_until(lambda: len(list((job / "members").iterdir())) == 3, 120, submitted.told)
    site.slurm.run("scontrol", "requeue", site.number(job))
    wait_until(lambda: submitted.output.count("is the head of") == 2, WITHIN, submitted.told)
    wait_until(lambda: len(list((job / "members").iterdir())) == 3, 120, submitted.told)
    array = (job / "extra-number").read_text().strip()
    site.slurm.run("scancel", f"{array}_1")
    assert submitted.wait(WITHIN) == 0, submitted.output
    assert_undisturbed(site)
    wait_until(site.leave_nothing, 60, submitted.told)
    wait_until(lambda: site.slurm.run("squeue", "--noheader") == "", 60, submitted.told)
