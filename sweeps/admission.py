"""What a machine must share with the driver before it may work for it.

The same store, proved by a file that the driver wrote there and keeps writing; the same code and
versions; a clock that agrees; and the packs, which it fetches if it has none.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cifake.claims import BEAT, DEAD_AFTER, Process
from cifake.config import TRAINER_VERSION
from cifake.data.published import open_near
from cifake.errors import InputError
from cifake.places import LocalPlace, Place, open_place
from cifake.store import open_root
from sweeps.code import code_digest
from sweeps.store import Store

_PACKAGES = ("cifake-sweeps", "ray", "torch", "numpy")
_PATIENCE = 10.0

_AHEAD = DEAD_AFTER / 2
"""Seconds by which a clock may be ahead of the driver's."""

_BEHIND = 5.0
"""Seconds by which it may be behind."""


@dataclass(frozen=True)
class Terms:
    """What is asked of a machine; plain values, so that it travels."""

    store: str
    owner: str
    """Token of the driver as an owner in the store."""

    facts: Mapping[str, str]
    """As `facts` gives them."""

    packs: tuple[str, ...]
    """Folder of each pack."""


def make_terms(store: Store, packs: Sequence[Path]) -> Terms:
    """What the driver that has claimed a sweep of a store asks of others."""
    if store.owner is None:
        raise RuntimeError("a sweep must be claimed before others are asked to work on it")
    folders = tuple(str(folder.resolve()) for folder in packs)
    return Terms(store.address, store.owner.token, facts(), folders)


def facts() -> dict[str, str]:
    """What must be the same everywhere, for its numbers to be the same or to work at all."""
    python = ".".join(platform.python_version_tuple()[:2])
    packages = {name: _version(name) for name in _PACKAGES}
    return {
        "Python": python,
        **packages,
        "trainer version": str(TRAINER_VERSION),
        "code": code_digest("*.py")[:12],
    }


def problems(terms: Terms) -> list[str]:
    """What keeps this machine from working for a driver, without a look at the packs."""
    here = facts()
    differing = [
        f"has {name} {here.get(name, 'of none')}, and the driver {value}"
        for name, value in terms.facts.items()
        if here.get(name) != value
    ]
    return [*differing, *_store_problems(terms)]


def ready(terms: Terms) -> list[str]:
    """What keeps this machine from working for a driver; the packs that it lacks are fetched."""
    found = problems(terms)
    return found or list(_pack_problems(terms))


def _store_problems(terms: Terms) -> Iterator[str]:
    place = open_place(terms.store, _PATIENCE)
    try:
        process = Process.of(place, terms.owner)
        if process is None:
            yield _not_the_drivers(place)
            return
        yield from _clock_problems(process)
        open_root(terms.store, create=True)  # makes sure that it can be written
    except InputError as error:
        yield f"store {error}"
    except OSError as error:
        yield f"cannot reach the store {terms.store} ({error.strerror or error})"


def _not_the_drivers(place: Place) -> str:
    if isinstance(place, LocalPlace):
        what = "is another folder than the driver's" if place.path.exists() else "is not there"
        return f"store {place} {what}; give --store a folder that all nodes share, or s3://…"
    return f"store {place} has no sign of the driver: it is another's"


def _clock_problems(process: Process) -> Iterator[str]:
    """Whether who waits for signs of life would be wrong about them."""
    ahead = time.time() - process.beat
    if ahead > _AHEAD + BEAT:
        yield f"has a clock about {ahead:.0f} s ahead of the driver's; set both by NTP"
    if ahead < -_BEHIND:
        yield f"has a clock {-ahead:.0f} s behind the driver's; set both by NTP"


def _pack_problems(terms: Terms) -> Iterator[str]:
    root = open_place(terms.store)
    for folder in terms.packs:
        try:
            open_near(Path(folder), root)
        except InputError as error:
            yield str(error)
        except OSError as error:
            yield f"{error.filename}: {error.strerror}"


def _version(package: str) -> str:
    """Without what says for which hardware it was built."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return "of none"
