"""Loggers by what the command line says: `NAME` or `NAME=WHERE`."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cifake.errors import InputError, Mistake, refuse, suggest
from cifake.places import LocalPlace, open_place

if TYPE_CHECKING:
    from sweeps.loggers.histories import History

OPTION = "--log"


class Logger(Protocol):
    """What runs are logged to."""

    @property
    def name(self) -> str:
        """As the command line has it."""

    def log(self, sweep: str, runs: Sequence[History]) -> None:
        """Let it have everything of some runs of a sweep; what it has already is left as it is.

        Raises:
            LoggingError: it could not.
        """


class LoggingError(Exception):
    """A logger could not do its work, in words that hold no secret."""


def open_loggers(asked: Sequence[str], root: str) -> list[Logger]:
    """Open every logger that is asked for.

    Args:
        asked: each `tensorboard`, `tensorboard=DIR`, `mlflow` or `mlflow=URI`.
        root: of the store whose runs are to be logged; nothing may be logged into it.

    Raises:
        InputError: every unknown name, missing package, and place that cannot be used.
    """
    opened: list[Logger] = []
    mistakes: list[Mistake] = []
    for text in dict.fromkeys(asked):
        name, separator, where = text.partition("=")
        try:
            if name not in _OPEN:
                refuse(OPTION, f"is no logger; {suggest(name, _OPEN)}", value=name)
            if separator and not where:
                refuse(OPTION, "says nothing after the =; leave it out, or say where", value=text)
            opened.append(_OPEN[name](where, root))
        except InputError as error:
            mistakes += error.mistakes
    if mistakes:
        raise InputError(mistakes)
    return opened


def check_installed(package: str, extra: str) -> None:
    """Make sure that a package is there.

    Raises:
        InputError: it is not; it says what to run.
    """
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        command = f"pip install 'cifake-sweeps[{extra}]'"
        refuse(f"{OPTION} {extra}", f"needs the package {package}, which is missing: {command}")


def _tensorboard(where: str, root: str) -> Logger:
    check_installed("tensorboard", "tensorboard")
    from sweeps.loggers.to_tensorboard import TensorBoard

    folder = Path(where or "tensorboard")
    place = open_place(root)
    if isinstance(place, LocalPlace) and folder.resolve().is_relative_to(place.path.resolve()):
        refuse(OPTION, "lies in the store, which is for runs alone", value=str(folder))
    if folder.exists() and not folder.is_dir():
        refuse(OPTION, "is a file; give a folder", value=str(folder))
    return TensorBoard(folder)


def _mlflow(where: str, root: str) -> Logger:
    del root
    check_installed("mlflow-skinny", "mlflow")
    from sweeps.loggers.to_mlflow import open_mlflow

    return open_mlflow(where)


_OPEN: dict[str, Callable[[str, str], Logger]] = {"tensorboard": _tensorboard, "mlflow": _mlflow}

NAMES = tuple(_OPEN)
