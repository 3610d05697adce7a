"""A sweep as a job of KubeRay: what its driver is in the pod, and how it is followed from outside.

python -m cluster.rayjob run FOLDER                    # in the head's pod, by KubeRay
python -m cluster.rayjob follow NAME -- KUBECTL…       # on the user's machine
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from cifake.errors import refuse, run_command
from cluster.job import command

_POLL_SECONDS = 2.0
_ENDED = {"Complete", "Failed"}
_CODE = re.compile(r"exit code (\d+)")


def run(folder: Path) -> NoReturn:
    """Become the sweep that lies in a folder, on the cluster that this pod is the head of."""
    # Ray's workers block it, and what they start inherits that.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    words = command(folder, os.environ["RAY_ADDRESS"])
    os.execv(words[0], words)  # noqa: S606 - our own command


def follow(name: str, kubectl: Sequence[str]) -> int:
    """Print what a job prints until it ends; its exit code.

    A job whose head was lost begins anew in another pod, and its log is followed there.

    Args:
        name: of the RayJob.
        kubectl: the program with its context and namespace.

    Raises:
        InputError: no such job, or it was removed meanwhile.
    """
    printed: dict[str, int] = {}
    told = None
    while True:
        status = _get(kubectl, "rayjob", name).get("status", {})
        state = status.get("jobDeploymentStatus") or "New"
        if state != told:
            print(f"{name}: {state}", file=sys.stderr, flush=True)
            told = state
        for pod in _submitters(kubectl, name):
            printed[pod] = printed.get(pod, 0) + _print_rest(kubectl, pod, printed.get(pod, 0))
        if state in _ENDED:
            return exit_code(status)
        time.sleep(_POLL_SECONDS)


def exit_code(status: Mapping[str, Any]) -> int:
    """The sweep's exit code, by what KubeRay says of a job that ended."""
    if status.get("jobStatus") == "SUCCEEDED":
        return 0
    found = _CODE.search(status.get("message") or "")
    return int(found[1]) if found else 1


def describe(status: Mapping[str, Any]) -> str:
    """A job's state in a word or two."""
    state = status.get("jobDeploymentStatus") or "New"
    if state not in _ENDED:
        return str(state).lower()
    return f"ended with exit code {exit_code(status)}"


def _submitters(kubectl: Sequence[str], name: str) -> list[str]:
    """Pods that show the job's log, the oldest first, once they have started."""
    pods = _get(kubectl, "pods", f"--selector=batch.kubernetes.io/job-name={name}")["items"]
    return [
        pod["metadata"]["name"]
        for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
        if pod["status"].get("phase") in ("Running", "Succeeded", "Failed")
    ]


def _print_rest(kubectl: Sequence[str], pod: str, offset: int) -> int:
    """Print a pod's log from a byte on until the pod or the connection ends; bytes printed."""
    seen = printed = 0
    with subprocess.Popen(  # noqa: S603 - kubectl
        [*kubectl, "logs", "--follow", pod],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        if process.stdout is None:
            return 0
        while chunk := process.stdout.read1(2**16):  # type: ignore[attr-defined]
            new = chunk[max(0, offset - seen) :]
            seen += len(chunk)
            printed += len(new)
            sys.stdout.buffer.write(new)
            sys.stdout.buffer.flush()
    return printed


def _get(kubectl: Sequence[str], *what: str) -> dict[str, Any]:
    result = subprocess.run(  # noqa: S603 - kubectl
        [*kubectl, "get", *what, "--output=json"], capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        refuse(what[-1], " ".join(result.stderr.split()))
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def main() -> NoReturn:
    """Do what the command line says."""
    what, which, *rest = sys.argv[1:]

    def act() -> None:
        if what == "run":
            run(Path(which))
        sys.exit(follow(which, rest[1:]))

    run_command(act, "cluster")


if __name__ == "__main__":
    main()
