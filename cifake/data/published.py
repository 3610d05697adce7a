"""Packs in a store, and how a machine without a pack gets it: whole, once, and checked.

    packs/<folder>/pixels.npy, …  as they lie in the pack's own folder
    packs/<folder>/pack.json      written last: without it nothing of the pack counts

What was fetched is judged by its content: every file has the digest that `pack.json` names, and
images and pixels give the fingerprint that the folder is named by.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cifake.claims import Owner, Process, claimed, is_claim
from cifake.data.decode import digests_of
from cifake.data.locate import cache_folder
from cifake.data.pack import (
    INFO,
    PIXELS,
    TABLE_FILES,
    Pack,
    digest,
    fingerprint_of,
    folder_name,
    open_pack,
)
from cifake.errors import InputError, refuse
from cifake.places import LocalPlace, Place

FOLDER = "packs"

_FILES = (PIXELS, *TABLE_FILES.values())
_TRIES = 3
"""How often a pack is fetched that arrives damaged or not at all."""

_BLOCK = 1024
_POLL = 0.5


def publish(pack: Pack, root: Place, owner: Owner) -> bool:
    """Put a pack into a store, unless it is there already, and say whether it was put.

    A local folder shares the blocks of the pack's files where the file system can do that.

    Args:
        pack: to be published.
        root: of the store.
        owner: who publishes; of several at the same time one does, and the others wait.

    Raises:
        InputError: the pack is damaged.
    """
    place = root.at(FOLDER).at(pack.folder.name)
    if INFO in place.files():
        return False
    problem = _problem(pack.folder, pack.folder.name)
    if problem is not None:
        refuse(pack.folder, f"is damaged ({problem}); delete it, and it is packed again")
    with claimed([place], owner, _wait):
        if INFO in place.files():
            return False
        for file in (*_FILES, INFO):
            place.send(file, pack.folder / file)
    return True


def open_near(folder: Path, root: Place) -> Pack:
    """Open a pack on any machine: its own copy, which it makes once if it has none.

    The copy comes from the folder that is named, where it can be read here, else from a store.
    Processes of a machine wait for the one that makes it, and map its pixels together.

    Args:
        folder: of the pack, where it was packed.
        root: of the store.

    Raises:
        InputError: it is in neither place, or arrives damaged each time.
    """
    own = cache_folder() / FOLDER / folder.name
    if not own.is_dir():
        with _alone(folder.name):
            if not own.is_dir():
                _fetch(own, [LocalPlace(folder), root.at(FOLDER).at(folder.name)])
    return open_pack(own)


def damage(place: Place) -> list[str]:
    """What is wrong with a pack of a store, file by file; nothing of one that is not whole yet."""
    try:
        held = json.loads(place.read(INFO))["files"].items()
    except FileNotFoundError:
        return []
    except (ValueError, LookupError, TypeError, AttributeError):
        return [f"{INFO} is damaged"]
    return [f"{file} {problem}" for file, kept in held if (problem := _differs(place, file, kept))]


def remove(place: Place) -> None:
    """Remove a pack from a store; its claim stays whoever's it is."""
    place.remove(INFO)
    for file in place.files():
        if not is_claim(file):
            place.remove(file)


def _fetch(own: Path, sources: list[Place]) -> None:
    """Copy a pack from the first of some places that has it whole.

    Raises:
        InputError: none has.
    """
    for left in own.parent.glob(f".fetching-{own.name}-*"):
        shutil.rmtree(left, ignore_errors=True)  # whoever began it was killed: it had the lock
    problems = []
    for source in sources:
        for _ in range(_TRIES):
            problem, again = _copied(source, own)
            if problem is None:
                return
            if not again:
                break
        problems.append(f"{source}: {problem}")
    refuse(
        f"pack {own.name}",
        f"cannot be had here ({'; '.join(problems)}); `sweeps run` with --address puts it into the "
        "store, where `sweeps verify --repair` removes a damaged one",
    )


def _copied(source: Place, own: Path) -> tuple[str | None, bool]:
    """Copy a pack aside and let it appear if it is sound.

    Returns:
        What went wrong, and whether it might not go wrong the next time.
    """
    aside = None
    try:
        if INFO not in source.files():
            return "is not there", False
        aside = Path(tempfile.mkdtemp(prefix=f".fetching-{own.name}-", dir=own.parent))
        for file in (*_FILES, INFO):
            source.fetch(file, aside / file)
        problem = _problem(aside, own.name)
        if problem is None:
            aside.rename(own)
    except OSError as error:
        return f"{error.filename}: {error.strerror}", True
    else:
        return problem, True
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def _problem(folder: Path, name: str) -> str | None:
    """Why a folder does not hold the pack that a name tells; null where it does."""
    try:
        pack = open_pack(folder)
    except InputError as error:
        return error.mistakes[0].problem.partition(";")[0]
    here = LocalPlace(folder)
    for file in _FILES:
        problem = _differs(here, file, pack.info.files.get(file, ""))
        if problem is not None:
            return f"{file} {problem}"
    starts = range(0, len(pack.pixels), _BLOCK)
    shown = (each for start in starts for each in digests_of(pack.pixels[start : start + _BLOCK]))
    found = fingerprint_of(pack.images, shown)
    if found != pack.info.fingerprint:
        return f"its content has the fingerprint {found}, not {pack.info.fingerprint}"
    asked = folder_name(pack.info, pack.unreadable_files)
    return None if asked == name else f"it is {asked}"


def _differs(place: Place, file: str, held: str) -> str | None:
    try:
        return None if digest(place.parts(file)) == held else "is damaged"
    except FileNotFoundError:
        return "is missing"


def _wait(process: Process) -> None:
    """Another publishes it; then it is there, or this process does it."""
    del process
    time.sleep(_POLL)


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """Keep other processes of this machine from fetching a pack for as long as the block lasts."""
    folder = cache_folder()
    lock = folder / "locks" / name
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        (folder / FOLDER).mkdir(exist_ok=True)
        file = lock.open("w")
    except OSError as error:
        refuse(folder, f"cannot be written ({error.strerror}); set CIFAKE_CACHE")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)  # unlocked by the system if this process is killed
        yield
