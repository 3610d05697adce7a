"""What to do when those who wait for a cluster are told to stop, or when it dies under them.

A library that they wait inside may hear of neither: calls of Ray's C++ core go on for a minute
after its cluster is gone, and no signal ends them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Self

from rich.console import Console

from cifake.exits import INTERRUPTED, STOPPED, UNFINISHED

_EVERY = 2.0
"""Seconds between two looks."""

_PATIENCE = 8.0
"""Seconds that a block has to end by itself once it was interrupted."""

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


class LostClusterError(Exception):
    """The cluster that a block waited for is gone."""

    def __str__(self) -> str:
        return "Ray's node died; finished epochs are kept, and the same command goes on from there"


class Watch:
    """A block of the main thread, which ends soon after it is interrupted.

    One that goes on nevertheless, because it waits inside a library, ends with its process.
    """

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._lost = threading.Event()

    def __enter__(self) -> Self:
        reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        # The signal itself writes there, whatever the main thread does.
        self._before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        threading.Thread(target=self._hear, args=(reader,), name="interrupts", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        signal.set_wakeup_fd(self._before)
        os.close(self._writer)

    def _hear(self, reader: int) -> None:
        with os.fdopen(reader, "rb", buffering=0) as signals:
            while number := signals.read(1):
                if number[0] in _INTERRUPTS and not self._ended.wait(_PATIENCE):
                    lost = self._lost.is_set()
                    console = Console()
                    console.show_cursor()  # a live view, which never ends now, has hidden it
                    text = str(LostClusterError()) if lost else STOPPED
                    console.print(text, highlight=False, soft_wrap=True)
                    os._exit(UNFINISHED if lost else INTERRUPTED)

    @contextlib.contextmanager
    def cluster(self, alive: Callable[[], bool]) -> Iterator[None]:
        """Interrupt the block when a cluster dies for as long as this part of it lasts.

        Args:
            alive: whether the cluster lives.

        Raises:
            LostClusterError: it does not.
        """
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(_EVERY):
                if not alive():
                    self._lost.set()
                    # To the thread itself: a call of the system that it waits in ends then.
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                    return

        threading.Thread(target=look, name="watch", daemon=True).start()
        try:
            yield
        except KeyboardInterrupt:
            if self._lost.is_set():
                raise LostClusterError from None
            raise
        finally:
            ended.set()
