"""From the name of a data set to its opened pack: where the source lies, and whether it is packed.

Packs are kept in `$CIFAKE_CACHE`, by default `~/.cache/cifake-sweeps`. A small file per source,
named by the source's path, size and time, remembers which pack it became, so that a source is
decoded once.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from cifake.data import demo
from cifake.data import pack as packs
from cifake.data.archives import walk
from cifake.data.catalogue import DATASETS
from cifake.data.decode import Advance, unwatched
from cifake.errors import refuse, suggest

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

    A bare path may also be a folder of data sets, as `$CIFAKE_DATA` may.

    Raises:
        InputError: an unknown name, a path that does not exist, or a set named twice.
    """
    sources: dict[str, Path] = {}
    for option in options:
        name, separator, text = option.partition("=")
        if not separator or name not in DATASETS:
            if separator and not Path(option).exists() and "/" not in name:
                refuse("--data", suggest(name, DATASETS), field=name)
            name, text = default, option
        path = Path(text).expanduser()
        if not path.exists():
            refuse("--data", "no such file or folder", value=text)
        found = _inside(path) if name == default and not separator else {}
        for key, value in (found or {name: path}).items():
            if key in sources:
                refuse("--data", f"{key} is given twice", value=text)
            sources[key] = value
    return sources


def find_source(name: str, sources: Mapping[str, Path]) -> Path | None:
    """The source of a data set: from the options, `$CIFAKE_DATA`, or downloads; null if embedded.

    Raises:
        InputError: an unknown data set, or one that is nowhere.
    """
    if name not in DATASETS:
        refuse("data", suggest(name, DATASETS), value=name)
    if DATASETS[name].embedded:
        return None
    if name in sources:
        return sources[name]
    for folder in (data_folder(), cache_folder() / "data"):
        if (found := _inside(folder)) and name in found:
            return found[name]
    expected = ", ".join(DATASETS[name].file_names)
    return refuse(
        f"data set {name}",
        f"where is it? get it with `cifake data fetch {name}`, give --data {name}=PATH, or set "
        f"{DATA_VARIABLE} to a folder that holds one of {expected}",
    )


def open_dataset(
    name: str,
    sources: Mapping[str, Path] | None = None,
    advance: Advance = unwatched,
    workers: int | None = None,
) -> packs.Pack:
    """Open the pack of a data set, packing its source first if that was never done.

    Raises:
        InputError: the source is nowhere, damaged, or holds unusable images.
    """
    source = find_source(name, sources or {})
    dataset = DATASETS[name]
    folder = cache_folder()
    known = _remembered(_memo(name, source), folder)
    if known is not None:
        return packs.open_pack(known)
    pack = packs.write_pack(
        folder / "packs",
        name,
        "embedded" if source is None else str(source),
        dataset.read(source or Path()),
        trains=dataset.trains,
        advance=advance,
        workers=workers,
    )
    remember(name, source, pack)
    return pack


def remember(name: str, source: Path | None, pack: packs.Pack) -> None:
    """Note which pack a source became, so that it is not decoded again."""
    _write_aside(_memo(name, source), json.dumps({"pack": pack.folder.name}))


def standing(name: str, folder: Path) -> Path | None:
    """What a folder holds of a data set under its usual names, null if nothing."""
    return _inside(folder).get(name)


def _memo(name: str, source: Path | None) -> Path:
    return cache_folder() / "sources" / f"{name}-{_source_key(source)}.json"


def _inside(folder: Path) -> dict[str, Path]:
    """The data sets that a folder holds under their usual names."""
    if not folder.is_dir():
        return {}
    return {
        name: folder / file_name
        for name, dataset in DATASETS.items()
        for file_name in reversed(dataset.file_names)
        if (folder / file_name).exists()
    }


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
    state.update(str(source).encode())
    for path in walk(source) if source.is_dir() else [source]:
        status = path.stat() if path.exists() else path.lstat()
        state.update(f"{path}|{status.st_size}|{status.st_mtime_ns}".encode())
    return state.hexdigest()[:16]


def _write_aside(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
    os.replace(file.name, path)
