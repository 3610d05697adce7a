"""What Slurm says of its jobs, partitions and nodes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cifake.errors import refuse
from cluster.machine import ask

PROGRAMS = ("sbatch", "squeue", "scancel", "scontrol", "srun")
"""What the commands of `cluster` need of Slurm."""

_OVER = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}
"""States out of which a job does not come back."""

_WITHIN = 60.0
_NO_LIMIT = {"UNLIMITED", "INFINITE"}


@dataclass(frozen=True)
class State:
    """How a job is."""

    name: str
    """As Slurm calls it: PENDING, RUNNING, …"""

    reason: str
    """Why it waits."""

    start: str
    """When it began or is expected to."""

    @property
    def is_over(self) -> bool:
        """Whether it does not come back."""
        return self.name in _OVER

    def __str__(self) -> str:
        if self.name != "PENDING":
            return self.name.lower()
        expected = "" if self.start in ("N/A", "") else f", expected to start at {self.start}"
        return f"pending ({self.reason}{expected})"


def states(numbers: Sequence[str]) -> dict[str, State]:
    """The states of jobs by number; one that Slurm knows no more is left out.

    The queue forgets a job minutes after its end; where there is accounting, that is asked then.

    Raises:
        InputError: Slurm does not answer.
    """
    if not numbers:
        return {}
    fields = "--format=%A|%T|%r|%S"
    command = ["squeue", "--noheader", "--states=all", fields, f"--jobs={','.join(numbers)}"]
    answer = ask(command, within=_WITHIN)
    if answer.code != 0 and "Invalid job id" not in answer.errors:
        refuse("squeue", answer.complaint)
    found = {}
    for line in answer.output.splitlines():
        number, name, reason, start = line.split("|", 3)
        found[number] = State(name, reason, start)
    return {**_accounted([number for number in numbers if number not in found]), **found}


def _accounted(numbers: Sequence[str]) -> dict[str, State]:
    """What accounting says; nothing where there is none."""
    if not numbers:
        return {}
    fields = "--format=JobIDRaw,State,Start"
    chosen = f"--jobs={','.join(numbers)}"
    command = ["sacct", "--noheader", "--parsable2", "--allocations", fields, chosen]
    answer = ask(command, within=_WITHIN)
    if answer.code != 0:
        return {}
    rows = (line.split("|") for line in answer.output.splitlines())
    # It may say who cancelled a job, too.
    return {number: State(name.partition(" ")[0], "None", start) for number, name, start in rows}


def state(number: str | None) -> State | None:
    """The state of a job; null if Slurm knows it no more, or there is none."""
    return None if number is None else states([number]).get(number)


def partitions() -> dict[str, Mapping[str, str]]:
    """What Slurm says of each partition, by its name.

    Raises:
        InputError: Slurm does not answer.
    """
    return {found["PartitionName"]: found for found in _shown("partition")}


def hosts() -> set[str]:
    """The names that the machines of all nodes have for themselves.

    Raises:
        InputError: Slurm does not answer.
    """
    return {found.get("NodeHostName", found["NodeName"]) for found in _shown("node")}


def node_address(name: str) -> str:
    """The address by which Slurm reaches a node: a number or a name.

    Raises:
        InputError: Slurm does not answer, or has no such node.
    """
    return _shown("node", name)[0]["NodeAddr"]


def controller_address() -> str:
    """The address of Slurm's controller, which every node reaches: a number or a name.

    Raises:
        InputError: Slurm does not answer, or does not say.
    """
    text = _said(["scontrol", "show", "config"])
    found = re.search(
        r"^SlurmctldHost(?:\[0\])?\s*=\s*([^\s(]+)(?:\(([^)]+)\))?", text, re.MULTILINE
    )
    if found is None:
        refuse("scontrol show config", "names no SlurmctldHost")
    return found[2] or found[1]


def node_names(nodes: str) -> list[str]:
    """The names of nodes that Slurm has written short, as in node[1-3].

    Raises:
        InputError: Slurm does not answer.
    """
    return _said(["scontrol", "show", "hostnames", nodes]).split()


def version() -> tuple[int, int]:
    """Slurm's version, such as 22.5 for 22.05.

    Raises:
        InputError: its commands do not run.
    """
    text = _said(["sbatch", "--version"])
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def seconds(time: str) -> float:
    """A span of time as Slurm writes it, in seconds; infinite where there is no limit.

    Args:
        time: minutes, minutes:seconds, hours:minutes:seconds, or days-hours[:minutes[:seconds]].
    """
    if time.upper() in _NO_LIMIT:
        return float("inf")
    days, dash, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minutes, more = [*parts, 0, 0][:3]
    elif len(parts) == 3:
        hours, minutes, more = parts
    else:
        hours, (minutes, more) = 0, [*parts, 0][:2]
    return float(((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + more)


def _shown(what: str, *which: str) -> list[dict[str, str]]:
    lines = _said(["scontrol", "--oneliner", "show", what, *which]).splitlines()
    return [
        dict(word.split("=", 1) for word in line.split() if "=" in word)
        for line in lines
        if line.strip()
    ]


def _said(command: Sequence[str]) -> str:
    answer = ask(command, within=_WITHIN)
    if answer.code != 0:
        refuse(command[0], answer.complaint)
    return answer.output
