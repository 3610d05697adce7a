"""Optuna's dashboard on the studies of a sweep, for looking at them only."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend

from cifake.places import LocalPlace, Place
from sweeps.search.storage import JOURNAL, OBJECTS, ObjectJournal

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


class _ReadOnly(BaseJournalBackend):
    """A journal that is read as it grows, and to which nothing is added."""

    def __init__(self, journal: BaseJournalBackend) -> None:
        self.journal = journal

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """Entries from a number on."""
        return self.journal.read_logs(log_number_from)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Refuse: the study is its sweep's."""
        del logs
        raise PermissionError("the dashboard of a sweep is for looking at it only")


def is_installed() -> bool:
    """Whether optuna-dashboard is."""
    return importlib.util.find_spec("optuna_dashboard") is not None


def study_dashboard(sweep: Place) -> WSGIApplication:
    """The dashboard; it reads the journal as it grows, once it is asked for.

    Args:
        sweep: where its outputs are, and its journal once a study was begun.
    """

    @functools.cache
    def opened() -> WSGIApplication:
        from optuna_dashboard import wsgi

        journal = (
            JournalFileBackend(str(sweep.path / JOURNAL))
            if isinstance(sweep, LocalPlace)
            else ObjectJournal(str(sweep.at(OBJECTS)))
        )
        application: WSGIApplication = wsgi(JournalStorage(_ReadOnly(journal)))
        return application

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return opened()(environ, start_response)

    return answer
