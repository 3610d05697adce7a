"""MLflow: an experiment for each sweep, and in it one run for each of the sweep's runs.

A run is found again by its tag `cifake.run_id`. Scalars that it has are not logged again, so that
who was killed half way ends with each of them once.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit

from cifake.errors import one_line, refuse
from sweeps.loggers.histories import History
from sweeps.loggers.opening import OPTION, LoggingError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

T = TypeVar("T")

RUN_ID = "cifake.run_id"
LOGGED = "cifake.logged"
"""Tag of a run: how far everything of it is logged."""

_METRICS, _PARAMS = 1000, 100
"""What one request may hold."""

_PAGE = 1000
_LONGEST = 200
"""Characters of a problem."""

_UNNAMED = re.compile(r"[^\w./ -]")
_LETS_IN = re.compile(r"^([A-Za-z0-9+.\-]+://)[^/]*@")
_STATUS = {"complete": "FINISHED", "pruned": "KILLED", "diverged": "FAILED", "failed": "FAILED"}
_QUIET = {
    # Nobody is told that this machine uses MLflow.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # A server that is away must not keep a finished sweep waiting for many minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


def open_mlflow(uri: str) -> MLflow:
    """A client of a tracking store.

    Args:
        uri: of it; empty for what `MLFLOW_TRACKING_URI` says, else MLflow's default.

    Raises:
        InputError: MLflow cannot use it.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import mlflow

    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    known = uri or mlflow.get_tracking_uri()
    try:
        return MLflow(mlflow.MlflowClient(known), known)
    except _errors() as error:
        refuse(OPTION, _told(error, known), value=f"mlflow={bare(known)}")


class MLflow:
    """Logs to a tracking store.

    Args:
        client: of it.
        uri: where it is.
    """

    def __init__(self, client: MlflowClient, uri: str) -> None:
        self.client = client
        self.uri = uri

    @property
    def name(self) -> str:
        """With the address, without what lets in."""
        return f"mlflow={bare(self.uri)}"

    def log(self, sweep: str, runs: Sequence[History]) -> None:
        """Bring some runs up to date.

        Raises:
            LoggingError: the tracking store could not be read or written.
        """
        try:
            experiment = self._experiment(sweep)
            known = self._known(experiment)
            for run in runs:
                self._bring_up(experiment, known.get(run.run_id), run)
        except _errors() as error:
            raise LoggingError(_told(error, self.uri)) from None

    def _experiment(self, sweep: str) -> str:
        found = self.client.get_experiment_by_name(sweep)
        return str(found.experiment_id if found else self.client.create_experiment(sweep))

    def _known(self, experiment: str) -> dict[str, Run]:
        """The runs that are there, by our identity; of two the one that was made first."""
        found: dict[str, Run] = {}
        token = None
        while True:
            page = self.client.search_runs(
                [experiment], max_results=_PAGE, page_token=token, order_by=["start_time DESC"]
            )
            found |= {run.data.tags[RUN_ID]: run for run in page if RUN_ID in run.data.tags}
            token = page.token
            if not token:
                return found

    def _bring_up(self, experiment: str, known: Run | None, run: History) -> None:
        from mlflow.entities import Param, RunTag

        logged = f"{run.status} {run.updated_at:.6f}"
        if known is not None and known.data.tags.get(LOGGED) == logged:
            return
        if known is None:
            tags = {RUN_ID: run.run_id, **{f"cifake.{k}": v for k, v in run.facts.items() if v}}
            started = int(1000 * run.started_at)
            known = self.client.create_run(experiment, started, tags, run.name)
        own = known.info.run_id
        missing = [
            Param(_named(name), str(value))
            for name, value in run.settings.items()
            if _named(name) not in known.data.params
        ]
        for params in _batches(missing, _PARAMS):
            self.client.log_batch(own, params=params)
        for metrics in _batches(self._missing(known, run), _METRICS):
            self.client.log_batch(own, metrics=metrics)
        status = _STATUS.get(run.status, "RUNNING")
        if status == "RUNNING":
            self.client.update_run(own, status=status)
        else:
            self.client.set_terminated(own, status, int(1000 * run.updated_at))
        # Last: until then a run is compared scalar by scalar.
        self.client.log_batch(own, tags=[RunTag(LOGGED, logged)])

    def _missing(self, known: Run, run: History) -> Iterator[Metric]:
        """The scalars that a run lacks."""
        from mlflow.entities import Metric

        there = {
            (name, each.step)
            for name in known.data.metrics
            for each in self.client.get_metric_history(known.info.run_id, name)
        }
        for epoch in run.epochs:
            for scalar, value in epoch.scalars.items():
                name = _named(scalar)
                if (name, epoch.epoch) not in there:
                    yield Metric(name, value, int(1000 * epoch.seconds), epoch.epoch)


def _errors() -> tuple[type[Exception], ...]:
    """What MLflow and the drivers below it raise."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, OSError


def _named(name: str) -> str:
    """As MLflow allows names."""
    return _UNNAMED.sub("_", name)


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def bare(uri: str) -> str:
    """An address without user, password and parameters."""
    return _LETS_IN.sub(r"\1", uri).partition("?")[0]


def _told(error: Exception, uri: str) -> str:
    """What went wrong, in a line without what lets in."""
    text = one_line(error).replace(uri, bare(uri))
    parts = urlsplit(uri)
    password = parts.password or ""
    for secret in (parts.netloc.rpartition("@")[0], password, unquote(password), parts.query):
        if secret:
            text = text.replace(secret, "…")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
