"""A folder of TensorBoard's: one event file a run, which is a function of the run's tables.

Epochs are in order, so the file of a run that went on begins with what it was before: the rest is
appended, and a TensorBoard that is open shows it. Where the beginning differs, because a killed
process left half a record of other rows or old epochs were evaluated on another set, the file is
replaced.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from cifake.files import write_aside
from sweeps.loggers.histories import History
from sweeps.loggers.opening import LoggingError

_LOCK = ".cifake-sweeps.lock"


class TensorBoard:
    """Writes below a folder: `<sweep>/<run>/events.out.tfevents.<started>.cifake-sweeps`.

    Args:
        folder: what `tensorboard --logdir` is given.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def name(self) -> str:
        """With the folder."""
        return f"tensorboard={self.folder}"

    def log(self, sweep: str, runs: Sequence[History]) -> None:
        """Bring the files of some runs up to date.

        Raises:
            LoggingError: a file cannot be written.
        """
        try:
            for run in runs:
                folder = self.folder / sweep / run.name
                folder.mkdir(parents=True, exist_ok=True)
                with _alone(folder):
                    _bring_up(folder / f"events.out.tfevents.{_started(run)}", encode(run))
        except OSError as error:
            raise LoggingError(f"{error.filename}: {error.strerror}") from None


def _started(run: History) -> str:
    return f"{int(run.started_at):010}.cifake-sweeps"


def encode(run: History) -> bytes:
    """The event file of a run."""
    sink = io.BytesIO()
    writer = RecordWriter(sink)

    def add(event: Event) -> None:
        writer.write(event.SerializeToString(deterministic=True))

    add(Event(wall_time=run.started_at, file_version="brain.Event:2"))
    # Not as one: older readers know one kind of value an event.
    settings = hparams_pb(dict(sorted(run.settings.items())), run.run_id, run.started_at)
    add(Event(wall_time=run.started_at, summary=settings))
    for epoch in run.epochs:
        for name, value in epoch.scalars.items():
            scalar = Summary(value=[Summary.Value(tag=name, simple_value=value)])
            add(Event(wall_time=epoch.seconds, step=epoch.epoch, summary=scalar))
    return sink.getvalue()


def _bring_up(path: Path, content: bytes) -> None:
    """Let a file have a content, and keep what of it is there already."""
    there = path.read_bytes() if path.exists() else b""
    if there == content:
        return
    if there and content.startswith(there):
        with path.open("ab") as file:
            file.write(content[len(there) :])
    else:
        write_aside(path, content)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from a folder for as long as the block lasts."""
    handle = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
