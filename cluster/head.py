"""What is done on the head of a cluster: jobs, through Ray's Job API on its loopback.

    python -m cluster.head about | status | submit | resume
    python -m cluster.head follow JOB [OFFSET] | ended JOB | stop JOB

`submit` reads a `Submission` as JSON from standard input; all but `follow` print one JSON object.
A job has a folder, in `$CIFAKE_JOBS`: its specification, its log, and how it ended. They outlive
the head's Ray, whose own records end with it; `resume` submits again what a head that died left.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from cifake.data.locate import cache_folder
from cifake.errors import one_line, refuse, run_command
from cifake.files import write_aside
from cluster import bucket
from cluster.job import CODE, LOG, STOPPED, SUBMISSION, entrypoint
from cluster.launcher import Submission
from cluster.look import versions

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_TERMINAL = {"SUCCEEDED", "FAILED", "STOPPED"}
_POLL_SECONDS = 0.5
_ASK_EVERY = 2.0
"""Seconds between two questions to Ray on a job."""

_STOP_WITHIN = 45.0


def jobs_folder() -> Path:
    """Where jobs are kept on this machine."""
    return Path(os.environ.get("CIFAKE_JOBS") or cache_folder() / "jobs")


def submit(submission: Submission) -> dict[str, str]:
    """Keep a sweep and submit it to Ray.

    Raises:
        InputError: the store cannot be written, or a job of that name exists.
    """
    for field, name in (("job", submission.job), ("file", submission.file)):
        if not _NAME.fullmatch(name):
            refuse("submission", "may hold letters, digits, - _ and .", field=field, value=name)
    bucket.check(submission.store, "by the head")
    folder = jobs_folder() / submission.job
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        refuse("job", "exists already; `cluster logs` shows it", value=submission.job)
    (folder / submission.file).write_text(submission.spec, encoding="utf-8")
    (folder / SUBMISSION).write_text(json.dumps(asdict(submission)))
    try:
        _hand_over(folder)
    except (RuntimeError, ConnectionError) as error:
        shutil.rmtree(folder)
        refuse("Ray's jobs", f"did not take it: {one_line(error)}")
    return {"job": submission.job}


def _hand_over(folder: Path) -> None:
    attempt = len(list(folder.glob("submitted-*"))) + 1
    (folder / f"submitted-{attempt}").touch()
    # Ray refuses a name that it has known, and a head that is new may know it still.
    name = folder.name if attempt == 1 else f"{folder.name}-{attempt}"
    _client().submit_job(entrypoint=entrypoint(folder), submission_id=name)


def resume() -> dict[str, list[str]]:
    """Submit again every job that did not end; one that was stopped meanwhile ends as it is."""
    resumed = []
    for folder in sorted(jobs_folder().glob("*/")):
        if not (folder / SUBMISSION).is_file() or _ended(folder):
            continue
        if (folder / STOPPED).is_file():
            _end(folder, 128 + signal.SIGINT)
        else:
            with (folder / LOG).open("ab") as log:
                log.write(b"the head was started anew, and the sweep goes on from its store\n")
            _hand_over(folder)
            resumed.append(folder.name)
    return {"resumed": resumed}


def follow(job: str, offset: int) -> int:
    """Print a job's log from a byte on until the job ends; its exit code.

    Raises:
        InputError: no such job.
    """
    folder = _folder(job)
    out = sys.stdout.buffer
    asked = time.monotonic()
    with _opened(folder / LOG) as log:
        log.seek(offset)
        while folder.is_dir():
            over = _ended(folder)
            while chunk := log.read(2**16):
                out.write(chunk)
                out.flush()
            if over:
                return _code(folder)
            if time.monotonic() - asked > _ASK_EVERY:
                _settle(folder)
                asked = time.monotonic()
            time.sleep(_POLL_SECONDS)
    return refuse("job", "was removed with its cluster", value=job)


def ended(job: str) -> dict[str, int | None]:
    """A job's exit code, null while it runs, and how many bytes its log has.

    Raises:
        InputError: no such job.
    """
    folder = _folder(job)
    code = _code(folder) if _ended(folder) else None
    log = folder / LOG
    return {"code": code, "bytes": log.stat().st_size if log.is_file() else 0}


def _opened(path: Path) -> Any:
    path.touch()
    return path.open("rb")


def stop(job: str) -> dict[str, str]:
    """Have a job end in order, as by Ctrl-C, and wait until it has.

    Raises:
        InputError: no such job, or it does not end.
    """
    folder = _folder(job)
    if _ended(folder):
        return {"job": job, "state": _state(folder)}
    (folder / STOPPED).touch()
    client, name = _client(), _ray_name(folder)
    client.stop_job(name)
    end = time.monotonic() + _STOP_WITHIN
    while client.get_job_status(name) not in _TERMINAL:
        if time.monotonic() > end:
            refuse("job", f"did not end within {_STOP_WITHIN:g} s; try again", value=job)
        time.sleep(_POLL_SECONDS)
    _settle(folder)
    return {"job": job, "state": _state(folder)}


def status() -> dict[str, Any]:
    """Nodes that live, and all jobs with their states."""
    from ray.util.state import list_nodes

    nodes = [node for node in list_nodes(limit=10_000) if node.state == "ALIVE"]
    folders = sorted(jobs_folder().glob("*/"))
    return {
        "nodes": [
            {
                "name": node.node_name,
                "head": node.is_head_node,
                "cpus": node.resources_total.get("CPU", 0),
                "gpus": node.resources_total.get("GPU", 0),
            }
            for node in sorted(nodes, key=lambda node: (not node.is_head_node, node.node_name))
        ],
        "jobs": {folder.name: _state(folder) for folder in folders},
    }


def _folder(job: str) -> Path:
    folder = jobs_folder() / job
    if not (folder / SUBMISSION).is_file():
        known = ", ".join(sorted(path.name for path in jobs_folder().glob("*/"))) or "none"
        refuse("job", f"no such job; jobs: {known}", value=job)
    return folder


def _ended(folder: Path) -> bool:
    return (folder / CODE).is_file()


def _code(folder: Path) -> int:
    return int((folder / CODE).read_text())


def _state(folder: Path) -> str:
    stopped = (folder / STOPPED).is_file()
    if _ended(folder):
        return "stopped" if stopped else f"ended with exit code {_code(folder)}"
    return "stopping" if stopped else "running"


def _ray_name(folder: Path) -> str:
    attempts = len(list(folder.glob("submitted-*")))
    return folder.name if attempts == 1 else f"{folder.name}-{attempts}"


def _settle(folder: Path) -> None:
    """Give an end to a job that Ray could not even start, or killed."""
    try:
        info = _client().get_job_info(_ray_name(folder))
    except (RuntimeError, ConnectionError):
        return  # the head is being started anew
    if str(info.status) in _TERMINAL and not _ended(folder):
        time.sleep(_ASK_EVERY)  # it may be writing its end
        if not _ended(folder):
            with (folder / LOG).open("ab") as log:
                log.write(f"{info.message}\n".encode())
            _end(folder, 1)


def _end(folder: Path, code: int) -> None:
    write_aside(folder / CODE, str(code).encode())


def _client() -> Any:
    from ray.job_submission import JobSubmissionClient

    return JobSubmissionClient(os.environ.get("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:8265"))


def main() -> NoReturn:
    """Do what the command line says."""
    command, *arguments = sys.argv[1:]
    answers: dict[str, Callable[[], dict[str, Any]]] = {
        "about": lambda: dict(versions()),
        "submit": lambda: submit(Submission(**json.load(sys.stdin))),
        "ended": lambda: ended(arguments[0]),
        "stop": lambda: stop(arguments[0]),
        "status": status,
        "resume": resume,
    }

    def act() -> None:
        if command == "follow":
            sys.exit(follow(arguments[0], int(arguments[1]) if arguments[1:] else 0))
        if command not in answers:
            refuse("cluster.head", f"follow, {', '.join(answers)}", value=command)
        print(json.dumps(answers[command]()))

    run_command(act, "cluster")


if __name__ == "__main__":
    main()
