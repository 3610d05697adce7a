"""Downloading a data set, checked to be the published one before it gets its usual name."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console

from cifake.data import github, huggingface, kaggle, locate
from cifake.data import pack as packs
from cifake.data.catalogue import DATASETS, Dataset
from cifake.data.repack import repack
from cifake.data.repositories import REPOSITORIES, Repository
from cifake.data.watch import open_watched, packing_bar
from cifake.errors import InputError, refuse, suggest

_CLIENTS: dict[str, Callable[[Repository, Path, str | None, Console], Path]] = {
    "kaggle": kaggle.get,
    "github": github.get,
    "huggingface": huggingface.get,
}


def fetch(
    name: str,
    folder: Path,
    console: Console,
    *,
    source: str | None = None,
    mirror: str | None = None,
    dataset: Dataset | None = None,
) -> Path:
    """Download a data set into a folder under its usual name and return its path.

    A copy that is there and right is left as it is. What an interruption leaves lies in a hidden
    folder, from which the same call continues; a wrong download is removed.

    Args:
        name: the data set.
        folder: where data sets lie; made if missing.
        console: where progress and remarks go.
        source: a key of the set's `REPOSITORIES`; by default the first.
        mirror: address of a server in place of the source's own.
        dataset: what is expected; by default the catalogue's entry.

    Raises:
        InputError: an unknown set or source, a failed download, or other content than published.
    """
    repositories = _repositories(name)
    source = source or next(iter(repositories))
    if source not in repositories:
        refuse("--from", suggest(source, repositories), value=source)
    _check_mirror(mirror)
    dataset = dataset or DATASETS[name]
    try:
        with _alone(folder):
            standing = locate.standing(name, folder)
            if standing is not None:
                return _accept_standing(name, dataset, standing, console)
            return _fetch_new(
                name, dataset, folder, (source, repositories[source], mirror), console
            )
    except OSError as error:
        refuse(
            folder,
            f"cannot be written ({error.strerror or error}); free space or give another --to",
        )


def _repositories(name: str) -> Mapping[str, Repository]:
    if name not in DATASETS:
        refuse("data set", f"unknown; {suggest(name, DATASETS)}", value=name)
    if DATASETS[name].embedded:
        refuse("data set", "is made by this package; there is nothing to fetch", value=name)
    if name not in REPOSITORIES:
        refuse("data set", "no source is known; give --data its path", value=name)
    return REPOSITORIES[name]


def _check_mirror(mirror: str | None) -> None:
    try:
        address = urlsplit(mirror or "https://host")
        usable = address.scheme in ("https", "http") and address.hostname and address.port != 0
    except ValueError:
        usable = False
    if not usable:
        refuse("--mirror", "must be a server as https://HOST or http://HOST:PORT", value=mirror)


def _accept_standing(name: str, dataset: Dataset, standing: Path, console: Console) -> Path:
    pack = open_watched(name, {name: standing}, console)
    problem = _difference(dataset, pack)
    if problem:
        refuse(standing, f"is there, but {problem}; move it away or give another --to")
    _say(console, f"{standing} is there already")
    _explain_unnamed(dataset, pack, console)
    return standing


def _fetch_new(
    name: str,
    dataset: Dataset,
    folder: Path,
    origin: tuple[str, Repository, str | None],
    console: Console,
) -> Path:
    """Download beside the usual name, check, and rename."""
    source, repository, mirror = origin
    staging = folder / f".fetching-{name}-{source}"
    staging.mkdir(exist_ok=True)
    _say(console, f"fetching {name} from {source}, {repository.name}")
    try:
        found = _CLIENTS[source](repository, staging, mirror, console)
    finally:
        _remove_if_empty(staging)  # whole or cut files are what the next call continues from
    try:
        if repository.lands_as.endswith(".zip"):
            archive = staging / repository.lands_as
            repack(found, archive)
            found = archive
        target = folder / repository.lands_as
        pack = _checked(name, dataset, found, target, console)
        found.rename(target)
    except InputError:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    for left in folder.glob(f".fetching-{name}-*"):
        shutil.rmtree(left, ignore_errors=True)  # this one, and what other sources began
    locate.remember(name, target, pack)
    _explain_unnamed(dataset, pack, console)
    return target


def _checked(
    name: str, dataset: Dataset, found: Path, target: Path, console: Console
) -> packs.Pack:
    """Pack a download; what is not the published set leaves no pack either."""
    shelf = locate.cache_folder() / "packs"
    before = set(shelf.glob("*"))
    with packing_bar(name, console) as advance:
        pack = packs.write_pack(
            shelf, name, str(target), dataset.read(found), trains=dataset.trains, advance=advance
        )
    problem = _difference(dataset, pack)
    if problem:
        if pack.folder not in before:
            shutil.rmtree(pack.folder, ignore_errors=True)
        refuse(f"data set {name}", f"{problem}; nothing is kept, try another --from")
    return pack


def _difference(dataset: Dataset, pack: packs.Pack) -> str | None:
    """In which way a pack is not the published set, or null where it is."""
    if pack.info.fingerprint in (dataset.published, dataset.published_unnamed):
        return None
    return (
        f"its {pack.info.images:,} images are not the published set: "
        f"fingerprint {pack.info.fingerprint}, not {dataset.published}"
    )


def _explain_unnamed(dataset: Dataset, pack: packs.Pack, console: Console) -> None:
    if pack.info.fingerprint == dataset.published:
        return
    _say(
        console,
        "these are the published images, but without file names, and so without content classes: "
        "tables by class will be empty. For the classes, remove it and fetch it from another "
        "source",
    )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Make the folder and hold it: two downloads into one would mix."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        refuse(folder, "another fetch is running there; wait for it or give another --to")
    try:
        yield
    finally:
        os.close(handle)


def _remove_if_empty(staging: Path) -> None:
    if not any(file.is_file() and file.stat().st_size for file in staging.rglob("*")):
        shutil.rmtree(staging, ignore_errors=True)


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)
