"""What Slurm, a partition or the file systems would refuse after a job was handed over."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from cifake.errors import InputError, Mistake, suggest
from cluster import look
from cluster.launchers.machines import version_problems
from cluster.machine import ask
from cluster.secret_file import secret_problems
from cluster.slurm import queue, script
from cluster.slurm.folder import JobFolder
from cluster.slurm.settings import SlurmProfile
from cluster.slurm.shared import unshared

_OLDEST = (21, 8)
"""First version of Slurm in which a step can overlap all that others of its job have."""

_WITHIN = 120.0


def problems(profile: SlurmProfile, root: Path) -> list[Mistake]:
    """All of them.

    Args:
        profile: what the allocation is like.
        root: folder of its jobs, which every node must see.
    """
    missing = [name for name in queue.PROGRAMS if shutil.which(name) is None]
    if missing:
        names = ", ".join(missing)
        return [
            Mistake(
                where=names, problem="not found; run this on a login node, or load Slurm's module"
            )
        ]
    try:
        asked = [*_partition_problems(profile), *_folder_problems(profile, root)]
    except InputError as error:
        return list(error.mistakes)
    # Slurm's own answer would be the same once more.
    refused = [] if asked else _refused(profile, root)
    return [*asked, *refused, *secret_problems(profile.secrets), *_python_problems(profile)]


def _partition_problems(profile: SlurmProfile) -> list[Mistake]:
    if queue.version() < _OLDEST:
        found, needed = (f"{year}.{month:02}" for year, month in (queue.version(), _OLDEST))
        return [Mistake(where="sbatch", problem=f"Slurm {needed} or newer is needed", value=found)]
    known = queue.partitions()
    wanted = profile.partition.split(",") if profile.partition else []
    unknown = [
        Mistake(
            where="Slurm",
            field="partition",
            value=name,
            problem=f"no such partition; {suggest(name, known)}",
        )
        for name in wanted
        if name not in known
    ]
    chosen = {
        name: found
        for name, found in known.items()
        if (name in wanted if wanted else found.get("Default") == "YES")
    }
    return [*unknown, *(m for name in chosen for m in limits(profile, name, chosen[name]))]


def limits(profile: SlurmProfile, name: str, partition: Mapping[str, str]) -> list[Mistake]:
    """What a profile asks of a partition that it does not give.

    Args:
        profile: what is asked.
        name: of the partition.
        partition: what Slurm says of it.
    """
    where = f"partition {name}"
    found = []
    if partition.get("State", "UP") != "UP":
        problem = f"takes no jobs now (State={partition['State']})"
        found.append(Mistake(where=where, field="partition", problem=problem))
    most = queue.seconds(partition.get("MaxTime", "UNLIMITED"))
    usual = partition.get("DefaultTime", "NONE")
    given = profile.time or (partition.get("MaxTime", "UNLIMITED") if usual == "NONE" else usual)
    if queue.seconds(given) > most:
        problem = f"is beyond the partition's limit; at most {partition['MaxTime']}"
        found.append(Mistake(where=where, field="time", value=given, problem=problem))
    elif queue.seconds(given) <= profile.notice:
        problem = (
            f"leaves no time to train: the job has {given}, and is stopped so long before its end"
        )
        found.append(Mistake(where=where, field="notice", value=profile.notice, problem=problem))
    nodes = [partition.get("TotalNodes", ""), partition.get("MaxNodes", "")]
    few = min((int(count) for count in nodes if count.isdecimal()), default=profile.nodes)
    if profile.nodes > few:
        problem = f"is more than the partition gives; at most {few}"
        found.append(Mistake(where=where, field="nodes", value=profile.nodes, problem=problem))
    return found


def _folder_problems(profile: SlurmProfile, root: Path) -> list[Mistake]:
    hosts = queue.hosts()
    store = [] if profile.store is None or "://" in profile.store else [profile.store]
    found = []
    for field, place in [("folder", str(root)), *(("store", path) for path in store)]:
        why = unshared(Path(place), hosts)
        if why is not None:
            problem = f"{why}; name one that every node sees"
            problem += ", or an object store" if field == "store" else ""
            found.append(Mistake(where="profile", field=field, value=place, problem=problem))
    return found


def _refused(profile: SlurmProfile, root: Path) -> list[Mistake]:
    """What Slurm says of the job as it would be handed over."""
    text = script.job_script("check", profile, JobFolder(root / "cluster"))
    answer = ask(["sbatch", "--test-only", "--chdir=/"], text=text, within=_WITHIN)
    if answer.code == 0:
        return []
    return [Mistake(where="sbatch", problem=f"Slurm refuses the job: {answer.complaint}")]


def _python_problems(profile: SlurmProfile) -> list[Mistake]:
    """What differs between the nodes' Python, prepared as there, and the one that runs this."""
    preparation = script.look_script(profile)
    text = Path(look.__file__).read_text(encoding="utf-8")
    answer = ask(["bash", "-lc", preparation], text=text, within=_WITHIN)
    if answer.code != 0:
        problem = f"does not run with `setup` before it: {answer.complaint}"
        where = script.python(profile)
        return [Mistake(where=where, field="python", problem=problem)]
    found = json.loads(answer.output.splitlines()[-1])
    return version_problems(script.python(profile), found, brings=False)
