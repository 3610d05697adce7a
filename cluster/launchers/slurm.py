"""Clusters inside Slurm's allocations, by the commands of a login node."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar

from cifake.data.locate import cache_folder
from cifake.errors import Mistake, refuse
from cluster.actions import Action, Command, RemoveFile, RemoveFolder, WriteFile
from cluster.launcher import Profile, Submission
from cluster.slurm import checks, queue, script
from cluster.slurm.folder import JobFolder
from cluster.slurm.settings import SlurmProfile
from cluster.token import make_token

_FOREVER = 20 * 24 * 3600.0
"""Seconds that a job may wait for its nodes."""


class Slurm:
    """An allocation whose nodes are a cluster, or one for each sweep.

    Args:
        name: of the cluster.
        profile: what it is made of.
        folder: where what is known of it is kept; its jobs have folders that all nodes see.
    """

    settings: ClassVar[type[Profile]] = SlurmProfile

    def __init__(self, name: str, profile: Profile, folder: Path) -> None:
        del folder
        self.name = name
        self.profile = SlurmProfile.model_validate(profile.model_dump())
        shared = self.profile.folder or cache_folder().resolve() / "slurm"
        self.root = Path(shared) / name
        self.cluster = JobFolder(self.root / "cluster")

    def problems(self) -> list[Mistake]:
        """What Slurm, the partition or the file systems would refuse later."""
        return checks.problems(self.profile, self.root)

    def up(self) -> list[Action]:
        """What hands an allocation over and waits until its cluster can be used."""
        wait = _attend("wait until Slurm has started the cluster", "usable", self.cluster)
        if not self.is_up():
            return [*self._hand_over(self.cluster, f"cluster-{self.name}"), wait]
        head = self.cluster.read_head()
        return [] if head is not None and head.usable else [wait]

    def down(self) -> list[Action]:
        """What ends the allocation in order and removes its folder."""
        end = _attend("end the allocation in order", "end", self.cluster)
        known = self.cluster.path.is_dir()
        return [end, RemoveFolder(path=self.cluster.path)] if known else []

    def is_up(self) -> bool:
        """Whether there is an allocation, or one is waited for."""
        state = queue.state(self.cluster.read_number())
        return state is not None and not state.is_over

    def on_head(self, command: Sequence[str]) -> list[str]:
        """A step of the allocation, on its first node, beside what runs there."""
        number = self.cluster.read_number()
        if number is None or not self.is_up():
            refuse(self.name, f"is down; start it with `cluster up {self.name}`")
        step = ["--overlap", f"--jobid={number}", "--nodes=1", "--ntasks=1", "--relative=0"]
        quiet = ["--quiet", "--mem=0", "--export=NONE"]
        return ["srun", *step, *quiet, str(self.cluster.on_head), *command]

    def reach(self) -> Mapping[str, str]:
        """How the dashboard is seen from elsewhere, through this login node."""
        head = self.cluster.read_head()
        if head is None:
            return {}
        ports = f"{self.profile.dashboard_port}:127.0.0.1:{head.dashboard_port}"
        return {
            "dashboard": f"ssh -J {socket.gethostname()} -L {ports} {head.node}, "
            f"then http://127.0.0.1:{self.profile.dashboard_port}",
            "token of the dashboard": f"cat {self.cluster.token}",
        }

    def submit(self, submission: Submission) -> list[Action]:
        """What hands over a job that is a cluster and its sweep."""
        folder = self._job(submission.job)
        return [
            WriteFile(path=folder.path / submission.file, text=submission.spec),
            WriteFile(path=folder.submission, text=json.dumps(asdict(submission), indent=2)),
            *self._hand_over(folder, submission.job),
        ]

    def follow(self, job: str) -> list[str]:
        """What prints a job's log until it is over."""
        return list(_attend("follow", "follow", self._job(job)).argv)

    def stop(self, job: str) -> list[Action]:
        """What ends a job's sweep in order, and with it the job."""
        return [_attend(f"end {job} in order", "end", self._job(job))]

    def jobs(self) -> Mapping[str, str]:
        """The states of the jobs that are sweeps."""
        paths = sorted((self.root / "jobs").glob("*/"))
        folders = {path.name: JobFolder(path) for path in paths}
        numbers = {name: folder.read_number() for name, folder in folders.items()}
        asked = [
            number
            for name, number in numbers.items()
            if number is not None and not folders[name].code.is_file()
        ]
        states = queue.states(asked)
        return {
            name: _state_text(folder, states.get(numbers[name] or ""))
            for name, folder in folders.items()
        }

    def _job(self, job: str) -> JobFolder:
        return JobFolder(self.root / "jobs" / job)

    def _hand_over(self, folder: JobFolder, name: str) -> list[Action]:
        profile = self.profile
        stale = (folder.number, folder.extra_number, folder.code, folder.stopped, folder.requeued)
        return [
            *(RemoveFile(path=path) for path in stale),
            *make_token(folder.path),
            *self._bring_secrets(folder),
            WriteFile(path=folder.on_head, text=script.on_head_script(profile), executable=True),
            WriteFile(path=folder.script, text=script.job_script(name, profile, folder)),
            _sbatch("hand the job to Slurm", folder.script, folder.number),
            *(self._hand_over_extra(folder, name) if profile.extra_nodes else []),
        ]

    def _hand_over_extra(self, folder: JobFolder, name: str) -> list[Action]:
        text = script.extra_script(f"{name}-extra", self.profile, folder)
        return [
            WriteFile(path=folder.extra_script, text=text),
            _sbatch(
                "hand the nodes that join to Slurm",
                folder.extra_script,
                folder.extra_number,
                after=folder.number,
            ),
        ]

    def _bring_secrets(self, folder: JobFolder) -> list[Action]:
        if self.profile.secrets is None:
            return []
        path = str(Path(self.profile.secrets).expanduser())
        what = "bring the secrets to the job's folder, for this user alone"
        return [Command(what=what, argv=("install", "-m", "600", path, str(folder.secrets)))]


def _sbatch(what: str, text: Path, number: Path, *, after: Path | None = None) -> Command:
    """What hands a script to Slurm and keeps the job's number.

    Args:
        what: it does, for people.
        text: the script.
        number: file that the number is written to.
        after: file with the number of a job that must have begun before.
    """
    begun = "" if after is None else ' --dependency="after:$(cut -d";" -f1 "$3")"'
    return Command(
        what=what,
        argv=(
            *("sh", "-c", f'sbatch --parsable{begun} "$1" > "$2.new" && mv "$2.new" "$2"', "sh"),
            *(str(path) for path in (text, number, after) if path is not None),
        ),
        undo=("sh", "-c", 'scancel "$(cut -d";" -f1 "$1")" && rm -f "$1"', "sh", str(number)),
    )


def _attend(what: str, until: str, folder: JobFolder) -> Command:
    argv = (sys.executable, "-m", "cluster.slurm.attend", until, str(folder.path))
    return Command(what=what, argv=argv, limit=_FOREVER)


def _state_text(folder: JobFolder, state: queue.State | None) -> str:
    stopped = folder.stopped.is_file()
    if folder.code.is_file():
        return "stopped" if stopped else f"ended with exit code {folder.code.read_text()}"
    if folder.read_number() is None:
        return "was not handed over"
    if state is None or state.is_over:
        return "stopped" if stopped else str(state or "is over, and Slurm has forgotten how")
    return "stopping" if stopped else str(state)
