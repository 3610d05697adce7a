"""The scripts that Slurm is given, as text."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from cluster.slurm.folder import HEAD, JobFolder, node_name
from cluster.slurm.settings import SlurmProfile

_LATER = 75
"""Exit code of what may work later, by the convention of sysexits."""


def job_script(name: str, profile: SlurmProfile, folder: JobFolder) -> str:
    """The batch script of an allocation: its first node starts Ray on all of them.

    Args:
        name: of the job.
        profile: what the allocation is like.
        folder: of the job. If a sweep lies in it, the job is that sweep; else it takes submissions.
    """
    command = [
        *("-m", "cluster.slurm.allocation", str(folder.path)),
        f"--port={profile.port}",
        f"--requeues={profile.requeues}",
        f"--notice={profile.notice}",
    ]
    options = [
        f"--job-name={name}",
        f"--nodes={profile.nodes}",
        *_resources(profile),
        *_queue(profile),
        f"--output={_pattern(str(folder.log))}",
        "--open-mode=append",
        "--requeue",
        "--no-kill",
        f"--signal=B:USR1@{profile.notice}",
        f"--chdir={folder.path}",
        "--export=NONE",
    ]
    return _script(options, profile, [*_exports(profile), *profile.setup], command)


def extra_script(name: str, profile: SlurmProfile, folder: JobFolder) -> str:
    """The script of an array of nodes that join the cluster of a job, each when there is room.

    Args:
        name: of the job.
        profile: what each node is like.
        folder: of the job.
    """
    options = [
        f"--job-name={name}",
        f"--array=1-{profile.extra_nodes}",
        "--nodes=1",
        *_resources(profile),
        *_queue(profile),
        f"--output={_pattern(str(folder.path))}/extra-%a.log",
        "--open-mode=append",
        "--requeue",
        f"--signal=B:USR1@{profile.notice}",
        f"--chdir={folder.path}",
        "--export=NONE",
    ]
    command = ["-m", "cluster.slurm.member", str(folder.path), "--joins"]
    return _script(options, profile, [*_exports(profile), *profile.setup], command)


def on_head_script(profile: SlurmProfile) -> str:
    """What runs a command of the head's Python in a step of the job, as a driver of its cluster."""
    folder = f"{shlex.quote(profile.scratch)}/{node_name('$SLURM_JOB_ID', HEAD)}"
    lines = [
        "#!/bin/bash -l",
        *_exports(profile),
        *profile.setup,
        f'test -e {folder}/node.json || {{ echo "Ray is being started" >&2; exit {_LATER}; }}',
        f'exec {shlex.quote(python(profile))} -m cluster.node exec {folder} "$@"',
    ]
    return "\n".join(lines) + "\n"


def look_script(profile: SlurmProfile) -> str:
    """What has the nodes' Python run a program from standard input, prepared as on a node."""
    lines = [*_exports(profile), *profile.setup, f"exec {shlex.quote(python(profile))} -"]
    return "\n".join(lines) + "\n"


def python(profile: SlurmProfile) -> str:
    """The nodes' interpreter."""
    return profile.python or sys.executable


def _resources(profile: SlurmProfile) -> list[str]:
    kind = "gpu" if profile.gpu_type is None else f"gpu:{profile.gpu_type}"
    return [
        "--ntasks-per-node=1",
        "--exclusive" if profile.cpus is None else f"--cpus-per-task={profile.cpus}",
        *([f"--gres={kind}:{profile.gpus}"] if profile.gpus else []),
        *([] if profile.memory is None else [f"--mem={profile.memory}"]),
    ]


def _queue(profile: SlurmProfile) -> list[str]:
    said = {
        "time": profile.time,
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
    }
    return [f"--{name}={value}" for name, value in said.items() if value is not None]


def _exports(profile: SlurmProfile) -> list[str]:
    variables = {**profile.environment, "TMPDIR": profile.scratch}
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]


def _pattern(path: str) -> str:
    """A path in which Slurm replaces nothing."""
    return path.replace("%", "%%")


def _script(
    options: Sequence[str],
    profile: SlurmProfile,
    prepare: Sequence[str],
    command: Sequence[str],
) -> str:
    lines = [
        "#!/bin/bash -l",
        *(f"#SBATCH {_quoted(option)}" for option in options),
        *(f"#SBATCH {option}" for option in profile.options),
        "",
        "# Made by `cluster` of a profile; a change here is lost.",
        "umask 077",
        # The job has nothing of its submitter's environment, and its steps have all of the job's.
        "export SLURM_EXPORT_ENV=ALL",
        # A login shell's limit on open files is small, and Slurm hands it on.
        'ulimit -Sn "$(ulimit -Hn)"',
        *prepare,
        "trap '' USR1 USR2  # until they are listened for",
        f"exec {shlex.join([python(profile), *command])}",
    ]
    return "\n".join(lines) + "\n"


def _quoted(option: str) -> str:
    name, sign, value = option.partition("=")
    return f"{name}={shlex.quote(value)}" if sign else option
