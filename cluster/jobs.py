"""Sweeps on a cluster, as its user sees them: submitted, followed and stopped through its head."""

from __future__ import annotations

import datetime
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cifake.errors import InputError, Mistake, refuse
from cluster import look
from cluster.actions import Action, Command
from cluster.launcher import BatchLauncher, Launcher, Submission
from cluster.machine import ask
from sweeps import specfile
from sweeps.sweep import read_spec

_RUN = ("-m", "cluster.head")
_ANSWER_WITHIN = 120.0
_AGAIN_AFTER = 5.0
"""Seconds after which a head that was lost is tried again."""


def make_submission(
    spec: str, store: str | None, options: Sequence[str], settings: Sequence[str]
) -> Submission:
    """Validate a specification and make a job of it.

    Args:
        spec: a file, or a study that ships.
        store: where its runs are to live.
        options: of `sweeps run`, others than these.
        settings: overrides, KEY=VALUE.

    Raises:
        InputError: every mistake of the specification, or a store that no head could use.
    """
    parsed = read_spec(spec, settings, until_resolved="--until-resolved" in options)
    if store is None:
        refuse("--store", "where do runs live? Give it, or `store` in the profile")
    if "://" not in store and not Path(store).is_absolute():
        problem = "is relative; give a whole path that every node sees, or an object store's URL"
        refuse("--store", problem, value=store)
    path = specfile.find(spec)
    now = datetime.datetime.now(datetime.UTC)
    return Submission(
        job=f"{parsed.name.replace('_', '-')}-{now:%Y%m%d-%H%M%S}",
        file=path.name if path.suffix in (".yaml", ".yml") else f"{path.name}.yaml",
        spec=path.read_text(encoding="utf-8"),
        store=store,
        arguments=(
            *("--store", store),
            *options,
            *(word for setting in settings for word in ("--set", setting)),
        ),
    )


def submit_actions(launcher: Launcher, submission: Submission) -> list[Action]:
    """What `submit` does, for `--dry-run`."""
    text = json.dumps(asdict(submission), ensure_ascii=False)
    argv = ("sh", "-c", 'printf %s "$1" | { shift; "$@"; }', "sh", text)
    command = (*argv, *launcher.on_head([*_RUN, "submit"]))
    return [Command(what="hand the sweep to the head", argv=command)]


def submit(launcher: Launcher, submission: Submission) -> None:
    """Hand a job to the head.

    Raises:
        InputError: versions differ, the store cannot be written, or Ray does not take it.
    """
    check_versions(launcher)
    _answer(launcher, "submit", text=json.dumps(asdict(submission)))


def check_versions(launcher: Launcher) -> None:
    """Make sure that the head runs what this machine does.

    Raises:
        InputError: all that differs.
    """
    there, here = _answer(launcher, "about"), look.versions()
    mistakes = [
        Mistake(
            where="the head",
            problem=f"{what} is {there.get(what)} there and {version} here; make them the same",
        )
        for what, version in here.items()
        if there.get(what) != version
    ]
    if mistakes:
        raise InputError(mistakes)


def follow(launcher: Launcher, job: str, tell: Callable[[str], None]) -> int:
    """Print a job's log until it ends, whatever becomes of the connection; its exit code.

    Args:
        launcher: of its cluster.
        job: its name.
        tell: called with a line where the head is lost or found again.

    Raises:
        InputError: no such job.
        KeyboardInterrupt: by Ctrl-C; the job goes on.
    """
    offset, lost = 0, False
    while True:
        offset += _stream(launcher.on_head([*_RUN, "follow", job, str(offset)]))
        # What ended may be the connection: the head says whether the job has.
        try:
            ended = _ask(launcher, "ended", job)
        except ConnectionError as error:
            if not lost:
                tell(f"the head does not answer ({error}); the job goes on there, trying again …")
            lost = True
            time.sleep(_AGAIN_AFTER)
            continue
        lost = False
        if ended["code"] is not None and ended["bytes"] <= offset:
            return int(ended["code"])


def follow_batch(launcher: BatchLauncher, job: str) -> int:
    """The same of a job that is a cluster of its own."""
    with subprocess.Popen(  # noqa: S603 - what a launcher says
        launcher.follow(job), stdin=subprocess.DEVNULL
    ) as process:
        return process.wait()


def _stream(command: Sequence[str]) -> int:
    """Print what a program prints, and say how many bytes that was."""
    count = 0
    with subprocess.Popen(  # noqa: S603 - what a launcher says
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        if process.stdout is None:
            return 0
        while chunk := process.stdout.read1(2**16):  # type: ignore[attr-defined]
            count += len(chunk)
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
    return count


def stop(launcher: Launcher, job: str) -> str:
    """End a job in order, and say what became of it.

    Raises:
        InputError: no such job, or it does not end.
    """
    return str(_answer(launcher, "stop", job)["state"])


def status(launcher: Launcher) -> dict[str, Any]:
    """The nodes of a cluster and its jobs.

    Raises:
        InputError: the head does not answer.
    """
    return _answer(launcher, "status")


def _answer(launcher: Launcher, command: str, *arguments: str, text: str = "") -> dict[str, Any]:
    """The same for whoever does not wait for a head that is away.

    Raises:
        InputError: what it refuses, or that it does not answer.
    """
    try:
        return _ask(launcher, command, *arguments, text=text)
    except ConnectionError as error:
        refuse("the head", f"does not answer: {error}")


def _ask(launcher: Launcher, command: str, *arguments: str, text: str = "") -> dict[str, Any]:
    """What `cluster.head` answers.

    Raises:
        InputError: what it refuses.
        ConnectionError: it does not answer.
    """
    answer = ask(launcher.on_head([*_RUN, command, *arguments]), text=text, within=_ANSWER_WITHIN)
    if answer.code == 2:
        raise InputError(_mistakes(answer.errors))
    if answer.code != 0:
        raise ConnectionError(answer.complaint)
    found: dict[str, Any] = json.loads(answer.output.splitlines()[-1])
    return found


def _mistakes(errors: str) -> list[Mistake]:
    # What reaches the head may complain of its exit code, too.
    lines = re.findall(r"^(?:cluster[\w.]*:| +) error: (.*)", errors, re.MULTILINE)
    return [Mistake(where="the head", problem=line) for line in lines or [errors.strip()]]
