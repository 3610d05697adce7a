"""What is said when the input is wrong: every mistake at once, each with what would be right."""

from __future__ import annotations

import atexit
import difflib
import gc
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NoReturn


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One thing wrong with the input."""

    where: str
    """The file, folder or option that holds it; with a line number where one is known."""

    problem: str
    """What is wrong and what would be right."""

    field: str | None = None
    """Dotted path of the field inside `where`."""

    value: object | None = None
    """The value found there; left out when the field is missing."""

    def __str__(self) -> str:
        found = None if self.value is None else _shorten(repr(self.value))
        return ": ".join(part for part in (self.where, self.field, found, self.problem) if part)


class InputError(Exception):
    """The input cannot be used. Commands print it without a traceback and exit with code 2."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))


def refuse(
    where: object, problem: str, *, field: str | None = None, value: object | None = None
) -> NoReturn:
    """Raise an `InputError` of a single mistake."""
    raise InputError([Mistake(where=str(where), problem=problem, field=field, value=value)])


def suggest(name: str, valid: Iterable[str]) -> str:
    """Say what is near to an unknown name, or list everything valid when nothing is near."""
    options = sorted(valid)
    near = difflib.get_close_matches(name, options, n=3, cutoff=0.6)
    if near:
        return "did you mean " + " or ".join(near) + "?"
    return "valid: " + ", ".join(options) if options else "none is valid here"


def one_line(error: object) -> str:
    """The message of another library's exception without its line breaks."""
    return " ".join(str(error).split())


def _shorten(text: str, limit: int = 120) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def run_command(command: Callable[[], None], name: str) -> NoReturn:
    """Run a command line program; what the user can mend becomes a message and exit code 2.

    That is an `InputError`, and a file or an object store that cannot be read or written.
    """
    # At its end Python would look for what it can free in all that was imported: half a second.
    atexit.register(gc.freeze)
    try:
        command()
    except InputError as error:
        lines = [str(mistake) for mistake in error.mistakes]
        print(f"{name}: error: {lines[0]}", file=sys.stderr)
        for line in lines[1:]:
            print(f"{' ' * len(name)}  error: {line}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.filename is None:
            raise
        text = f"{error.filename}: {error.strerror}; mend it, and the same command goes on"
        print(f"{name}: error: {text}", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)
