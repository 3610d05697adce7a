"""From the name of a data set to its opened pack: where the source lies, and whether it is packed.

Packs are kept in `$CIFAKE_CACHE`, by default `~/.cache/cifake-sweeps`. A small file per source,
named by the source's path, size and time, remembers which pack it became, so that a source is
decoded once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cifake.data import demo
from cifake.data import pack as packs
from cifake.data.archives import archive_stem, walk
from cifake.data.catalogue import DATASETS, dataset, look_up, parse
from cifake.data.decode import Advance, unwatched
from cifake.data.names import Name
from cifake.data.repositories import REPOSITORIES
from cifake.data.variants import derive
from cifake.errors import refuse
from cifake.files import write_aside

DATA_VARIABLE = "CIFAKE_DATA"
CACHE_VARIABLE = "CIFAKE_CACHE"


def cache_folder() -> Path:
    """The folder that holds packs."""
    if folder := os.environ.get(CACHE_VARIABLE):
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "cifake-sweeps"


def data_folder() -> Path:
    """The folder that downloads go to: `$CIFAKE_DATA`, else one below the cache folder."""
    if folder := os.environ.get(DATA_VARIABLE):
        return Path(folder).expanduser()
    return cache_folder() / "data"


def parse_sources(options: Sequence[str], default: str) -> dict[str, Path]:
    """Read `--data` options: `NAME=PATH`, or a bare path that holds the default set.

    A bare path may also be a folder of data sets, as `$CIFAKE_DATA` may. A variant is made from its
    set, so the default may be one, and the source of the set is what is given.

    Raises:
        InputError: an unknown name, a path that does not exist, or a set named twice.
    """
    usual = look_up("data", default).source
    sources: dict[str, Path] = {}
    for option in options:
        name, text = _named(option)
        path = Path(text).expanduser()
        if not path.exists():
            refuse("--data", "no such file or folder", value=text)
        found = _inside(path) if name is None else {}
        for key, value in (found or {name or usual: path}).items():
            if key in sources:
                refuse("--data", f"{key} is given twice", value=text)
            sources[key] = value
    return sources


def _named(option: str) -> tuple[str | None, str]:
    """An option as name and path; without a name where the whole of it is a path."""
    name, separator, text = option.partition("=")
    if not separator:
        return None, option
    family = name.partition("/")[0]
    is_path = Path(option).exists() or ("/" in name and family not in DATASETS)
    if is_path and name not in DATASETS:
        return None, option
    if "@" in name:
        source = name.partition("@")[0]
        problem = f"a variant is made from its set; give {source}=PATH"
        refuse("--data", problem, value=option)
    return look_up("--data", name).source, text


def find_source(name: str, sources: Mapping[str, Path]) -> Path | None:
    """The source of a data set: from the options, `$CIFAKE_DATA`, or downloads; null if embedded.

    Raises:
        InputError: an unknown data set, or one that is nowhere.
    """
    return _find(look_up("data", name), sources)


def _find(name: Name, sources: Mapping[str, Path]) -> Path | None:
    wanted = dataset(name)
    if wanted.embedded:
        return None
    if name.source in sources:
        return sources[name.source]
    for folder in (data_folder(), cache_folder() / "data"):
        for file_name in wanted.file_names:
            if (folder / file_name).exists():
                return folder / file_name
    expected = ", ".join(wanted.file_names)
    fetched = f"get it with `cifake data fetch {name.source}`, " * (name.source in REPOSITORIES)
    return refuse(
        f"data set {name}",
        f"where is it? {fetched}give --data {name.source}=PATH, or set {DATA_VARIABLE} to a folder "
        f"that holds one of {expected}",
    )


def open_dataset(
    name: str,
    sources: Mapping[str, Path] | None = None,
    advance: Advance = unwatched,
    workers: int | None = None,
) -> packs.Pack:
    """Open the pack of a data set, packing its source first if that was never done.

    A variant is made from the pack of its set, likewise once.

    Raises:
        InputError: an unknown name, or the source is nowhere, damaged, or holds unusable images.
    """
    wanted = look_up("data", name)
    pack = _open_set(wanted, sources or {}, advance, workers)
    return _open_variant(wanted, pack, advance, workers) if wanted.steps else pack


def _open_set(
    name: Name, sources: Mapping[str, Path], advance: Advance, workers: int | None
) -> packs.Pack:
    source = _find(name, sources)
    wanted = dataset(name)

    def write(folder: Path) -> packs.Pack:
        return packs.write_pack(
            folder,
            name.packed,
            "embedded" if source is None else str(source),
            wanted.read(source or Path()),
            trains=wanted.trains and not wanted.any_size,
            advance=advance,
            workers=workers,
            resample=name.resample if wanted.any_size else None,
        )

    return _once(_set_key(name.packed, source), write)


def _open_variant(
    name: Name, original: packs.Pack, advance: Advance, workers: int | None
) -> packs.Pack:
    key = hashlib.sha256(original.folder.name.encode()).hexdigest()[:16]
    return _once(
        f"{packs.file_stem(str(name))}-{key}",
        lambda folder: derive(folder, original, name, advance, workers),
    )


def _once(key: str, write: Callable[[Path], packs.Pack]) -> packs.Pack:
    """Open the pack that a key became before, else write it and remember."""
    folder = cache_folder()
    known = _remembered(_memo(key), folder)
    if known is not None:
        return packs.open_pack(known)
    pack = write(folder / "packs")
    _remember(key, pack)
    return pack


def remember(name: str, source: Path | None, pack: packs.Pack) -> None:
    """Note which pack a source became, so that it is not decoded again."""
    _remember(_set_key(name, source), pack)


def _remember(key: str, pack: packs.Pack) -> None:
    write_aside(_memo(key), json.dumps({"pack": pack.folder.name}).encode())


def standing(name: str, folder: Path) -> Path | None:
    """What a folder holds of a data set under its usual names, null if nothing."""
    return _inside(folder).get(name)


def _set_key(name: str, source: Path | None) -> str:
    return f"{packs.file_stem(name)}-{_source_key(source)}"


def _memo(key: str) -> Path:
    return cache_folder() / "sources" / f"{key}.json"


def _inside(folder: Path) -> dict[str, Path]:
    """The data sets that a folder holds under their usual names.

    Where it holds any, it is a shelf, and whatever else lies on it may be a folder set by its name.
    """
    if not folder.is_dir():
        return {}
    found = {
        name: folder / file_name
        for name, known in DATASETS.items()
        for file_name in reversed(known.file_names)
        if (folder / file_name).exists()
    }
    return found | _folder_sets(folder) if found else {}


def _folder_sets(shelf: Path) -> dict[str, Path]:
    taken = {file_name for known in DATASETS.values() for file_name in known.file_names}
    found: dict[str, Path] = {}
    for path in sorted(shelf.iterdir()):
        stem = path.name if path.is_dir() else archive_stem(path)
        if path.name in taken or stem is None or stem in DATASETS:
            continue
        try:
            name = parse(f"folders/{stem}")
        except ValueError:
            continue  # not a word that a name could hold
        if name.word == stem:
            found.setdefault(name.source, path)
    return found


def _remembered(memo: Path, folder: Path) -> Path | None:
    try:
        known = folder / "packs" / str(json.loads(memo.read_text())["pack"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # never written, or damaged: the source is packed again
    return known if known.is_dir() else None


def _source_key(source: Path | None) -> str:
    """A hash that changes whenever the files of a source do."""
    state = hashlib.sha256(f"{packs.FORMAT}".encode())
    if source is None:
        state.update(Path(demo.__file__).read_bytes())
        return state.hexdigest()[:16]
    source = source.resolve()
    state.update(os.fsencode(source))
    whole = os.fspath(source)
    below = (whole + os.sep + name for name in walk(source))
    for path in below if source.is_dir() else [whole]:
        try:
            status = os.stat(path)
        except OSError:
            status = os.lstat(path)  # a link to nowhere, which whoever reads it will name
        state.update(os.fsencode(path) + f"|{status.st_size}|{status.st_mtime_ns}".encode())
    return state.hexdigest()[:16]
