"""The page as it was made last, and a thread that makes it again when runs have changed."""

from __future__ import annotations

import datetime
import logging
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace

from cifake.errors import InputError, one_line

_logger = logging.getLogger(__name__)

_SHARE = 0.05
"""Of its time that the thread may spend looking, so that a large store is looked at rarely."""


@dataclass(frozen=True)
class Standing:
    """How far a sweep is."""

    stamp: Hashable
    """Another whenever its page would be."""

    cells: int
    cells_done: int
    by_status: Mapping[str, int]
    """Runs by status; those that never finished an epoch are waiting."""


@dataclass(frozen=True)
class Shown:
    """What whoever asks is shown."""

    version: int = 0
    """Raised with every page; 0 before there is one."""

    page: bytes = b""
    """HTML; nothing before there is a page."""

    made_at: datetime.datetime | None = None
    standing: Standing | None = None
    """Null until the store has something of the sweep."""

    making: bool = False
    """Whether a page is being made now."""

    problem: str = ""
    """Why there is no newer page, in one line; empty where there is none to tell."""


@dataclass
class LivePage:
    """A page that is made again in the background; asking for it never waits.

    Args:
        look: how far the sweep is; null where the store has nothing of it.
        make: makes the page.
        every: seconds between two looks at least.
        page: that was made before.
    """

    look: Callable[[], Standing | None]
    make: Callable[[], bytes]
    every: float = 2.0
    page: bytes = b""
    _shown: Shown = field(init=False)
    _ended: threading.Event = field(init=False, default_factory=threading.Event)
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._shown = Shown(version=int(bool(self.page)), page=self.page)
        self._thread = threading.Thread(target=self._watch, name="live page", daemon=True)

    @property
    def shown(self) -> Shown:
        """What there is now."""
        return self._shown

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self, patience: float) -> bool:
        """Look no more.

        Args:
            patience: seconds to wait for a page that is being made.

        Returns:
            Whether the thread has ended.
        """
        self._ended.set()
        self._thread.join(patience)
        return not self._thread.is_alive()

    def _watch(self) -> None:
        made_of: Hashable = None
        wait = 0.0
        while not self._ended.wait(wait):
            begun = time.monotonic()
            made_of = self._looked(made_of)
            wait = max(self.every, (time.monotonic() - begun) * (1 - _SHARE) / _SHARE)

    def _looked(self, made_of: Hashable) -> Hashable:
        """Look once, make the page if it would be another, and say what it is made of."""
        try:
            standing = self.look()
            self._shown = replace(self._shown, standing=standing, problem="")
            if standing is None or standing.stamp == made_of:
                return made_of
            self._shown = replace(self._shown, making=True)
            page = self.make()
            now = datetime.datetime.now(datetime.UTC)
            self._shown = replace(
                self._shown, version=self._shown.version + 1, page=page, made_at=now
            )
        except (InputError, OSError) as error:
            self._shown = replace(self._shown, problem=one_line(error))
            return made_of
        except Exception as error:
            # The last page must still be shown, and be known to be old.
            _logger.exception("the page could not be made")
            self._shown = replace(
                self._shown, problem=f"the page could not be made: {one_line(repr(error))}"
            )
            return made_of
        finally:
            self._shown = replace(self._shown, making=False)
        return standing.stamp
