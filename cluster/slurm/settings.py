"""What a profile of a Slurm cluster says."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from pydantic import Field, field_validator

from cluster.launcher import Profile

_SAID_BY = {
    "job-name": "the launcher",
    "chdir": "the launcher",
    "output": "the launcher",
    "error": "the launcher",
    "open-mode": "the launcher",
    "export": "environment",
    "requeue": "requeues",
    "no-requeue": "requeues",
    "no-kill": "the launcher",
    "signal": "notice",
    "nodes": "nodes",
    "ntasks": "nodes",
    "ntasks-per-node": "the launcher",
    "cpus-per-task": "cpus",
    "exclusive": "cpus",
    "gres": "gpus",
    "gpus": "gpus",
    "gpus-per-node": "gpus",
    "mem": "memory",
    "time": "time",
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "array": "extra_nodes",
    "dependency": "the launcher",
}
"""Options of sbatch that are said elsewhere, and by what."""

_SHORT = {
    "J": "job-name",
    "D": "chdir",
    "o": "output",
    "e": "error",
    "k": "no-kill",
    "N": "nodes",
    "n": "ntasks",
    "c": "cpus-per-task",
    "G": "gpus",
    "t": "time",
    "p": "partition",
    "A": "account",
    "q": "qos",
    "a": "array",
    "d": "dependency",
}

_TIME = re.compile(r"(\d+-)?\d+(:\d+){0,2}|unlimited|infinite", re.IGNORECASE)


class SlurmProfile(Profile):
    """What a profile of a Slurm cluster says."""

    nodes: int = Field(1, ge=1)
    """Nodes of the allocation, which start together; the first is the head, and works too."""

    extra_nodes: int = Field(0, ge=0)
    """Nodes that join one by one as Slurm has room for them, each a job of its own in an array, and
    leave one by one when they are preempted or their time is over."""

    cpus: int | None = Field(None, ge=1)
    """Cores of each node; null for whole nodes that no other job shares."""

    gpus: int = Field(0, ge=0)
    """GPUs of each node."""

    gpu_type: str | None = Field(None, pattern=r"^[\w.-]+$")
    """Kind of GPU, as the site names it; null for any."""

    memory: str | None = Field(None, pattern=r"^\d+[KMGT]?$")
    """Memory of each node, such as 16G; null for what the partition gives."""

    time: str | None = None
    """How long it may last, such as 08:00:00 or 2-00:00:00; null for the partition's default."""

    partition: str | None = Field(None, pattern=r"^[\w.,-]+$")
    """Partition; null for the default one."""

    account: str | None = Field(None, pattern=r"^[\w.-]+$")
    """Account that pays; null for the user's own."""

    qos: str | None = Field(None, pattern=r"^[\w.-]+$")
    """Quality of service; null for the default one."""

    options: tuple[str, ...] = ()
    """More options of sbatch, such as `--constraint=a100`, a line each."""

    setup: tuple[str, ...] = ()
    """Lines of shell that each node runs first, such as `module load cuda/12.4`."""

    python: str | None = None
    """Interpreter with the project, on every node; null for the path of the one that runs this."""

    folder: str | None = None
    """Folder that every node sees, for scripts, logs and the token; null: in the cache folder."""

    scratch: str = "/tmp"  # noqa: S108 - each node makes a folder there that its user alone may enter
    """Folder of each node's own, for Ray's sockets and logs; its path is short."""

    notice: int = Field(120, ge=10, le=65_535)
    """Seconds before the end of its time at which a sweep is stopped in order and queued again."""

    requeues: int = Field(50, ge=0)
    """How often a job queues itself again when its time is over; preemptions do not count."""

    @field_validator("time", mode="before")
    @classmethod
    def _check_time(cls, time: object) -> object:
        if time is not None and not (isinstance(time, str) and _TIME.fullmatch(time)):
            forms = "minutes, hours:minutes:seconds or days-hours:minutes:seconds"
            raise ValueError(f"must be {forms}, in quotes: YAML makes a number of 12:00:00")
        return time

    @field_validator("folder", "scratch", "python")
    @classmethod
    def _check_path(cls, path: str | None) -> str | None:
        if path is not None and (not PurePosixPath(path).is_absolute() or "\n" in path):
            raise ValueError("must be a whole path, from the root on")
        return path

    @field_validator("options")
    @classmethod
    def _check_options(cls, options: tuple[str, ...]) -> tuple[str, ...]:
        for option in options:
            found = re.fullmatch(r"(?:--([a-z-]+)|-([A-Za-z]))(?:[= ].*|)", option)
            if found is None:
                raise ValueError(f"{option!r} must be an option of sbatch, as in --constraint=a100")
            name = found[1] or _SHORT.get(found[2], "")
            if name in _SAID_BY:
                raise ValueError(f"{option!r} is said by {_SAID_BY[name]}")
        return options

    @field_validator("environment")
    @classmethod
    def _check_environment(cls, variables: dict[str, str]) -> dict[str, str]:
        for name in variables:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"{name!r} is no name of a variable")
        return variables

    @field_validator("setup")
    @classmethod
    def _check_setup(cls, lines: tuple[str, ...]) -> tuple[str, ...]:
        if any("\n" in line for line in lines):
            raise ValueError("must be a list of lines")
        return lines
