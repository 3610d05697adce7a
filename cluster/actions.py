"""What a launcher does, as values: printed by `--dry-run`, or done.

Everything that `cluster` writes or runs is an action first: what is printed is what is done.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cifake.errors import InputError, Mistake
from cifake.files import write_aside

_EVERY = 1.0
"""Seconds between two tries of a command that is waited for."""

_AT_ONCE = 64
"""Lists of actions that are done at the same time."""

_TOLD_LINES = 5
"""Last lines of a failed command's output that are told."""


@dataclass(frozen=True, kw_only=True)
class WriteFile:
    """A file on this machine that appears whole or not at all, never one with a secret."""

    path: Path
    text: str
    executable: bool = False


@dataclass(frozen=True, kw_only=True)
class RemoveFile:
    """A file on this machine goes, if it is there."""

    path: Path


@dataclass(frozen=True, kw_only=True)
class RemoveFolder:
    """A folder on this machine goes with all that is in it, if it is there."""

    path: Path


@dataclass(frozen=True, kw_only=True)
class Command:
    """A program on this machine is run to its end."""

    what: str
    """It does, for people; begins a sentence: `start the head on node1`."""

    argv: tuple[str, ...]
    """Never with a secret in it: every user of the machine can read it."""

    stdin: Path | None = None
    """File that it reads; null for nothing."""

    undo: tuple[str, ...] | None = None
    """What takes back its effect when a later action fails; null where nothing does."""

    patience: float = 0.0
    """Seconds for which it is tried again while it fails; for waiting until something is there."""

    limit: float = 600.0
    """Seconds that one try may take."""

    may_fail: bool = False
    """Whether the rest goes on when it fails, which is told: for cleaning up what may be gone."""


@dataclass(frozen=True, kw_only=True)
class Together:
    """Several lists of actions at the same time, such as one a machine."""

    lists: tuple[tuple[Action, ...], ...]


Action = WriteFile | RemoveFile | RemoveFolder | Command | Together


def script(actions: Sequence[Action]) -> str:
    """The actions as a shell script, for `--dry-run`; what is done at once stands in a row."""
    return "\n".join(_lines(action) for action in actions)


def perform(actions: Sequence[Action], tell: Callable[[str], None], *, undo: bool = True) -> None:
    """Do all actions in order; where one fails, undo those before it and say what happened.

    Args:
        actions: what to do.
        tell: called with a line on what is done.
        undo: whether what failed is undone; not where its effect may have been there before.

    Raises:
        InputError: what failed, with the end of its output, and what could not be undone.
    """
    done: list[Command] = []
    try:
        _perform(actions, tell, done)
    except InputError as error:
        raise InputError([*error.mistakes, *(_undone(done) if undo else ())]) from None


def _undone(done: Sequence[Command]) -> Iterator[Mistake]:
    """Undo commands, the last first; those that could not be."""
    for command in reversed(done):
        if command.undo is not None:
            code, output = _run(command.undo, None, command.limit)
            if code != 0:
                problem = f"could not be undone, exit code {code}: {_told(output)}"
                yield Mistake(where=command.what, problem=problem)


def _perform(actions: Sequence[Action], tell: Callable[[str], None], done: list[Command]) -> None:
    for action in actions:
        match action:
            case WriteFile():
                write_aside(action.path, action.text.encode())
                if action.executable:
                    action.path.chmod(0o755)
            case RemoveFile():
                action.path.unlink(missing_ok=True)
            case RemoveFolder():
                shutil.rmtree(action.path, ignore_errors=not action.path.exists())
            case Command():
                tell(action.what)
                if action.undo is not None:
                    done.append(action)  # what fails half way may have begun
                _complete_or_tell(action, tell)
            case Together():
                _perform_together(action, tell, done)


def _perform_together(together: Together, tell: Callable[[str], None], done: list[Command]) -> None:
    """Each list to its end or its failure; all failures are told at once."""

    def attempt(actions: Sequence[Action]) -> InputError | None:
        try:
            _perform(actions, tell, done)
        except InputError as error:
            return error
        return None

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        errors = [error for error in pool.map(attempt, together.lists) if error is not None]
    if errors:
        raise InputError(mistake for error in errors for mistake in error.mistakes)


def _complete_or_tell(command: Command, tell: Callable[[str], None]) -> None:
    try:
        _complete(command)
    except InputError as error:
        if not command.may_fail:
            raise
        tell(f"{error}; passed over")


def _complete(command: Command) -> None:
    end = time.monotonic() + command.patience
    while True:
        code, output = _run(command.argv, command.stdin, command.limit)
        if code == 0:
            return
        if time.monotonic() >= end:
            problem = f"failed with exit code {code}: {_told(output)}"
            raise InputError([Mistake(where=command.what, problem=problem)])
        time.sleep(_EVERY)


def _told(output: str) -> str:
    """The end of what a command printed, in a line."""
    lines = [line.strip() for line in output.strip().splitlines() if line.strip()]
    return "; ".join(lines[-_TOLD_LINES:]) or "it said nothing"


def _run(argv: Sequence[str], stdin: Path | None, limit: float) -> tuple[int, str]:
    """Run a program; its exit code, 124 where it took too long, and what it printed."""
    with Path(os.devnull if stdin is None else stdin).open("rb") as read:
        try:
            result = subprocess.run(  # noqa: S603 - what a launcher says
                argv,
                stdin=read,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=limit,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            text = (error.output or b"").decode(errors="replace")
            return 124, f"{text}\nno answer within {limit:g} s"
        except OSError as error:
            return 127, f"{argv[0]}: {error.strerror}"
    return result.returncode, result.stdout.decode(errors="replace")


def _lines(action: Action) -> str:
    match action:
        case WriteFile():
            path = shlex.quote(str(action.path))
            mode = f"\nchmod 755 {path}" if action.executable else ""
            return f"cat > {path} <<'END'\n{action.text.rstrip()}\nEND{mode}"
        case RemoveFile():
            return f"rm -f {shlex.quote(str(action.path))}"
        case RemoveFolder():
            return f"rm -rf {shlex.quote(str(action.path))}"
        case Command():
            read = "" if action.stdin is None else f" < {shlex.quote(str(action.stdin))}"
            line = f"{shlex.join(action.argv)}{read}"
            if action.patience:
                line = f"until {line}; do sleep {_EVERY:g}; done  # {action.patience:g} s at most"
            elif action.may_fail:
                line = f"{line} || true"
            return f"# {action.what}\n{line}"
        case Together():
            return "\n".join(_lines(each) for actions in action.lists for each in actions)
