"""Profiles of Slurm clusters: what they may say, what is made of them, and what sites refuse."""

from __future__ import annotations

import dataclasses
import socket
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from cluster.actions import script as as_script
from cluster.launcher import Submission
from cluster.launchers.slurm import Slurm
from cluster.slurm import queue, script
from cluster.slurm.checks import limits
from cluster.slurm.folder import JobFolder
from cluster.slurm.head import free_ports
from cluster.slurm.settings import SlurmProfile
from cluster.slurm.shared import Mount, mount_of, unshared
from tests.cluster import golden


def profile(**settings: object) -> SlurmProfile:
    given = {"launcher": "slurm", "description": "a test's", "python": "/opt/python", **settings}
    return SlurmProfile.model_validate(given, strict=False)


FOLDER = JobFolder(Path("/shared/mine/jobs/demo"))

EVERYTHING = profile(
    nodes=4,
    extra_nodes=16,
    cpus=8,
    gpus=2,
    gpu_type="a100",
    memory="64G",
    time="1-12:00:00",
    partition="gpu",
    account="lab",
    qos="long",
    options=["--constraint=ib", "--mail-type=END"],
    setup=["module load cuda/12.4", 'source "$HOME/venv/bin/activate"'],
    environment={"AWS_REGION": "eu-central-1", "NOTE": "it's here"},
    scratch="/local/scratch",
    notice=300,
    requeues=7,
    port=7000,
    secrets="/home/me/keys",
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("slurm-job.sbatch", script.job_script("demo", EVERYTHING, FOLDER)),
        ("slurm-extra.sbatch", script.extra_script("demo-extra", EVERYTHING, FOLDER)),
        ("slurm-on-head.sh", script.on_head_script(EVERYTHING)),
        ("slurm-whole-nodes.sbatch", script.job_script("demo", profile(), FOLDER)),
    ],
)
def test_scripts_are_what_was_accepted(name: str, text: str) -> None:
    golden.check(name, text)


SUBMISSION = Submission(
    job="placements-20261126-120000",
    file="placements.yaml",
    spec="name: placements\nepochs: [1]\n",
    store="s3://bucket/runs",
    arguments=("--store", "s3://bucket/runs"),
)


def test_what_is_done_is_what_was_accepted() -> None:
    slurm = Slurm("mine", EVERYTHING.model_copy(update={"folder": "/shared"}), Path("/state"))
    for name, actions in (("up", slurm.up()), ("submit", slurm.submit(SUBMISSION))):
        text = as_script(actions).replace(sys.executable, "python")
        golden.check(f"slurm-{name}.sh", f"{text}\n")
    assert slurm.down() == []


def test_paths_reach_slurm_as_they_are() -> None:
    text = script.job_script("demo", profile(), JobFolder(Path("/a b/50%")))
    assert "#SBATCH --output='/a b/50%%/log'" in text
    assert "cluster.slurm.allocation '/a b/50%' --port" in text


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"time": 43200}, "in quotes"),
        ({"time": "soon"}, "days-hours:minutes:seconds"),
        ({"memory": "lots"}, "should match pattern"),
        ({"folder": "jobs"}, "must be a whole path"),
        ({"options": ["--nodes=3"]}, "is said by nodes"),
        ({"options": ["-p gpu"]}, "is said by partition"),
        ({"options": ["--signal=TERM@9"]}, "is said by notice"),
        ({"options": ["constraint=a100"]}, "must be an option of sbatch"),
        ({"options": ["--comment=a\nrm -rf ~"]}, "must be an option of sbatch"),
        ({"setup": ["one\ntwo"]}, "must be a list of lines"),
        ({"environment": {"A B": "c"}}, "is no name of a variable"),
    ],
)
def test_what_slurm_or_a_shell_would_misread_is_refused(
    settings: dict[str, object], problem: str
) -> None:
    with pytest.raises(ValidationError, match=problem):
        profile(**settings)


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("10", 600),
        ("10:30", 630),
        ("01:00:00", 3600),
        ("2-0", 172_800),
        ("1-12:30", 131_400),
        ("1-00:00:01", 86_401),
        ("UNLIMITED", float("inf")),
    ],
)
def test_spans_of_time_are_read_as_slurm_reads_them(time: str, seconds: float) -> None:
    assert queue.seconds(time) == seconds


PARTITION = {
    "PartitionName": "gpu",
    "State": "UP",
    "MaxTime": "1-00:00:00",
    "DefaultTime": "NONE",
    "TotalNodes": "8",
    "MaxNodes": "4",
}


@pytest.mark.parametrize(
    ("settings", "partition", "fields"),
    [
        ({"time": "1-00:00:00", "nodes": 4}, {}, []),
        ({"time": "1-00:00:01", "nodes": 5}, {}, ["time", "nodes"]),
        ({"time": "2"}, {}, ["notice"]),
        ({}, {"DefaultTime": "1:00"}, ["notice"]),
        ({}, {"MaxTime": "UNLIMITED", "MaxNodes": "UNLIMITED"}, []),
        ({"nodes": 9}, {"MaxNodes": "UNLIMITED"}, ["nodes"]),
        ({}, {"State": "DRAIN"}, ["partition"]),
    ],
)
def test_what_a_partition_does_not_give_is_told(
    settings: dict[str, object], partition: dict[str, str], fields: list[str]
) -> None:
    found = limits(profile(**settings), "gpu", {**PARTITION, **partition})
    assert [mistake.field for mistake in found] == fields


MOUNTS = r"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:20 / /dev/shm rw shared:2 - tmpfs tmpfs rw
24 22 0:30 / /home rw shared:3 - nfs4 server:/home rw
25 22 0:31 / /tmp/on\040net rw shared:4 - lustre server:/net rw
"""


@pytest.mark.parametrize(
    ("path", "mount"),
    [
        ("/var/data", Mount(Path("/"), "ext4")),
        ("/dev/shm/store", Mount(Path("/dev/shm"), "tmpfs")),  # noqa: S108 - nothing is written
        ("/home/me/store", Mount(Path("/home"), "nfs4")),
        ("/homes", Mount(Path("/"), "ext4")),
        ("/tmp/on net/store", Mount(Path("/tmp/on net"), "lustre")),  # noqa: S108 - likewise
    ],
)
def test_the_file_system_of_a_path_is_the_nearest_above(path: str, mount: Mount) -> None:
    assert mount_of(Path(path), MOUNTS) == mount


def test_a_folder_of_temporary_files_is_taken_for_unshared_unless_there_is_one_machine() -> None:
    path = Path("/tmp/store")  # noqa: S108 - nothing is written there
    assert unshared(path, {"node1", "node2"}) is not None
    assert unshared(path, {socket.gethostname()}) is None


def test_ports_of_a_head_are_not_those_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        port = taken.getsockname()[1]
        found = free_ports(port, 2)
    assert len(set(found)) == 2
    assert port not in found


def test_states_say_why_a_job_waits() -> None:
    waiting = queue.State("PENDING", "Resources", "2026-11-26T12:00:00")
    assert str(waiting) == "pending (Resources, expected to start at 2026-11-26T12:00:00)"
    assert str(dataclasses.replace(waiting, start="N/A")) == "pending (Resources)"
    assert not waiting.is_over
    assert queue.State("TIMEOUT", "None", "").is_over
