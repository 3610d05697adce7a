"""What the packed form saves: decoding files once on every core, then opening one mapped array.

python -m tests.benchmarks.packing WAY SOURCE FOLDER    a way in a process of its own
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.benchmarks.measure import Outcome, Timed, cpu_seconds, in_turns, speedup

_ROOT = Path(__file__).parents[2]
_LOADED_WITHIN = 0.3
_FASTER = 1.7


def packing(files: Path, repeats: int) -> Outcome:
    """Pack a folder of image files, and read it with one loop over Pillow.

    Args:
        files: folder in CIFAKE's layout.
        repeats: turns of both ways.
    """
    images = sum(len(path.read_bytes()) > 0 for path in _images(files))  # all files are cached now
    ours, theirs = in_turns(
        repeats, lambda: _apart("pack", files, images), lambda: _apart("loop", files, images)
    )
    cores = len(os.sched_getaffinity(0))
    name = f"pack JPEG files on {cores} cores, vs one loop over Pillow"
    return speedup(name, "images/s", ours, theirs, target=_FASTER)


def loading(pack: Path, repeats: int) -> Outcome:
    """Open a pack and gather the first batch, each time in a new process."""
    _apart("load", pack, 1)  # its files are cached now
    found = [_apart("load", pack, 1) for _ in range(repeats)]
    return Outcome(
        "load a packed data set until the first batch",
        "s",
        [each.wall for each in found],
        "value at most",
        _LOADED_WITHIN,
    )


def extracted(archive: Path, target: Path) -> Path:
    """Write the images of CIFAKE's archive below a folder, as `<split>/<label>/<file>`."""
    with tarfile.open(archive, "r|*") as content:
        for member in content:
            stream = content.extractfile(member)
            if stream is not None:
                path = target.joinpath(*member.name.split("/")[-3:])
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(stream.read())
    return target


def pack(files: Path, folder: Path) -> None:
    """Pack a folder as a user's first command does, into a cache of its own."""
    os.environ["CIFAKE_CACHE"] = str(folder)
    from cifake.data.locate import open_dataset

    open_dataset("cifake", {"cifake": files})


def loop(files: Path, folder: Path) -> None:
    """Read one file after another into an array and save it with its labels."""
    paths = _images(files)
    pixels = np.empty((len(paths), 32, 32, 3), np.uint8)
    for place, path in enumerate(paths):
        with Image.open(path) as image:
            pixels[place] = np.asarray(image.convert("RGB"))
    np.save(folder / "pixels.npy", pixels)
    np.save(folder / "labels.npy", np.asarray([path.parent.name == "REAL" for path in paths]))


def load(source: Path, folder: Path) -> None:
    """All that a trial needs of the data before its first step."""
    del folder
    from cifake.config import DataSettings
    from cifake.data.pack import open_pack
    from cifake.data.subsets import split_rows

    opened = open_pack(source)
    train = split_rows(opened, DataSettings(validation=len(opened.rows("train")) // 20)).train
    if np.take(opened.pixels, train[:32], axis=0).shape != (
        len(opened.labels[train[:32]]),
        32,
        32,
        3,
    ):
        raise ValueError(f"{source} gave no batch")


_WAYS: dict[str, Callable[[Path, Path], None]] = {"pack": pack, "loop": loop, "load": load}


def _images(files: Path) -> list[Path]:
    return sorted(files.glob("*/*/*.jpg"))


def _apart(way: str, source: Path, images: int) -> Timed:
    """Go one way in a new process.

    A process learns what its workers took when they end, and a pool of joblib's outlives its use:
    only when this one has ended is all of it known.
    """
    os.sync()  # what was written before is not to be flushed in the time of this way
    cpu = cpu_seconds()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.benchmarks.packing", way, str(source), folder]
        done = subprocess.run(command, cwd=_ROOT, check=True, capture_output=True, text=True)
    wall, imports = map(float, done.stdout.split())
    return Timed(images, wall, cpu_seconds() - cpu - imports)


def _main(way: str, source: str, folder: str) -> None:
    import cifake.config
    import cifake.data.locate
    import cifake.data.subsets  # noqa: F401

    imports, started = cpu_seconds(), time.perf_counter()
    _WAYS[way](Path(source), Path(folder))
    print(time.perf_counter() - started, imports)


if __name__ == "__main__":
    _main(*sys.argv[1:])
