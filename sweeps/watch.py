"""What to do when a cluster dies under those who wait for it: nothing would ever tell them."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

_EVERY = 2.0
"""Seconds between two looks."""

_PATIENCE = 20.0
"""Seconds that the block has to end by itself once it was interrupted."""


class LostClusterError(Exception):
    """The cluster that a block waited for is gone."""

    def __str__(self) -> str:
        return "Ray's node died; finished epochs are kept, and the same command goes on from there"


@contextlib.contextmanager
def watched(alive: Callable[[], bool]) -> Iterator[None]:
    """Watch a cluster for as long as the block lasts, and interrupt the block when it dies.

    A block that does not end then, because it waits inside a library, ends with its process.

    Args:
        alive: whether the cluster lives.

    Raises:
        LostClusterError: it does not.
    """
    ended, lost = threading.Event(), threading.Event()

    def watch() -> None:
        while not ended.wait(_EVERY):
            if not alive():
                lost.set()
                # To the thread itself: a call of the system that it waits in ends then.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                if not ended.wait(_PATIENCE):
                    print(LostClusterError(), file=sys.stderr, flush=True)
                    os._exit(1)
                return

    threading.Thread(target=watch, name="watch", daemon=True).start()
    try:
        yield
    except KeyboardInterrupt:
        if lost.is_set():
            raise LostClusterError from None
        raise
    finally:
        ended.set()
