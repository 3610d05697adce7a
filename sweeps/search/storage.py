"""Where studies are kept over restarts: Optuna's journal, as a file or as numbered objects."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend

from cifake.errors import refuse
from cifake.places import LocalPlace, Place, open_place

JOURNAL = "study.journal"
"""File of a sweep that keeps its studies."""

OBJECTS = "study"
"""Prefix of the journal's objects below a sweep of an object store."""

optuna.logging.set_verbosity(optuna.logging.ERROR)


class ObjectJournal(BaseJournalBackend):
    """Optuna's journal in an object store, where no file can be appended to.

    Entries that are written together are one object, `000000.json` and so on. Of several writers of
    one number the store lets one through; the others read what it wrote and take the next.
    """

    def __init__(self, url: str) -> None:
        self.place = open_place(url)
        self.entries: list[dict[str, Any]] = []
        self.objects = 0

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        """Entries from a number on."""
        with contextlib.suppress(FileNotFoundError):
            while True:
                self.entries += json.loads(self.place.read(self._next()))
                self.objects += 1
        return self.entries[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add entries."""
        content = json.dumps(logs).encode()
        self.read_logs(0)
        while not self.place.create(self._next(), content):
            self.read_logs(0)

    def __reduce__(self) -> tuple[type[ObjectJournal], tuple[str]]:
        """It travels as its address."""
        return ObjectJournal, (str(self.place),)

    def _next(self) -> str:
        return f"{self.objects:06}.json"


def open_storage(sweep: Place, *, alone: bool) -> JournalStorage:
    """The storage that keeps a sweep's studies over restarts.

    Args:
        sweep: where its outputs are.
        alone: whether nobody else writes it, so that an entry that was cut off may be dropped.

    Raises:
        InputError: the journal is damaged.
    """
    if isinstance(sweep, LocalPlace):
        sweep.path.mkdir(parents=True, exist_ok=True)
        where = str(sweep.path / JOURNAL)
    else:
        where = str(sweep.at(OBJECTS))
    try:
        if not isinstance(sweep, LocalPlace):
            return JournalStorage(ObjectJournal(where))
        _check_end(Path(where), mend=alone)
        # Entries that cannot be read show at once: the storage replays them all.
        return JournalStorage(JournalFileBackend(where))
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        problem = f"is no journal of Optuna's, or damaged ({error})"
        refuse(where, f"{problem}; delete it: runs of the store are told to the new study")


def has_storage(sweep: Place) -> bool:
    """Whether a study of the sweep was ever begun."""
    return JOURNAL in sweep.files() or OBJECTS in sweep.folders()


def _check_end(journal: Path, *, mend: bool) -> None:
    """Look at the last entry; one that a kill or a full disk cut off may be dropped.

    Else the next one would be written behind it, and neither could be read.

    Raises:
        ValueError: the last entry is whole and cannot be read, which Optuna would pass over.
    """
    if not journal.exists():
        return
    content = journal.read_bytes()
    if mend and not content.endswith(b"\n"):
        os.truncate(journal, content.rfind(b"\n") + 1)
    *_, last, _ = [b"{}", *content.split(b"\n")]
    json.loads(last)
