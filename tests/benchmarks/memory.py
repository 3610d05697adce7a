"""Resident memory of trials that run side by side on one node."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cifake.data.pack import Pack
from tests.benchmarks.measure import Outcome

_EACH = 250
_MB = 1e6
_BARE = "import sys, torch; print('ready', flush=True); sys.stdin.read()"
_EVERY = 0.2
_SAMPLES = 40


def memory(pack: Pack, source: Path, trials: int = 4, train_images: int = 20_000) -> Outcome:
    """What trials of a real sweep hold over bare interpreters with torch, pixels counted once.

    Args:
        pack: the packed training data.
        source: what it was packed from.
        trials: that run at the same time, each with a stack of five seeds.
        train_images: of each.
    """
    bare = sum(bare_interpreters(trials))
    held = max(map(sum, _samples(pack, source, trials, train_images)))
    return Outcome(
        f"memory of {trials} trials over {trials} bare interpreters with torch",
        "MB",
        [(held - bare) / _MB],
        "value at most",
        (pack.pixels.nbytes / _MB) + trials * _EACH,
    )


def bare_interpreters(count: int) -> list[int]:
    """Bytes held by interpreters that imported torch and wait, all at the same time."""
    waiting = [
        subprocess.Popen(
            [sys.executable, "-c", _BARE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(count)
    ]
    try:
        for process in waiting:
            if process.stdout is None or process.stdout.readline() != "ready\n":
                raise RuntimeError("an interpreter did not import torch")
        return [held_by(process.pid) for process in waiting]
    finally:
        for process in waiting:
            process.communicate()


def held_by(process: int) -> int:
    """Resident bytes of a process, a page that several share divided among them.

    So the sum over processes that share pixels and libraries has these once.
    """
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {process} holds nothing")


def mapping(file: str, below: int) -> list[int]:
    """Descendants of a process that have a file in their memory."""
    return [process for process in _descendants(below) if file in _read(process, "maps")]


def _samples(pack: Pack, source: Path, trials: int, train_images: int) -> Iterator[list[int]]:
    """What the trials hold at moments when all of them train and have evaluated an epoch."""
    file = str(pack.folder.resolve() / "pixels.npy")
    with (
        tempfile.TemporaryDirectory() as folder,
        _sweep(Path(folder), pack, source, trials, train_images) as sweep,
    ):
        taken = 0
        while sweep.poll() is None and taken < _SAMPLES:
            time.sleep(_EVERY)
            running = mapping(file, sweep.pid)
            if len(running) == trials and _evaluated(Path(folder)):
                try:
                    yield [held_by(process) for process in running]
                except (FileNotFoundError, ProcessLookupError):
                    continue  # one of them has ended
                taken += 1
        if not taken:
            raise RuntimeError(f"{trials} trials never ran at the same time:\n{_log(folder)}")


@contextmanager
def _sweep(
    folder: Path, pack: Pack, source: Path, trials: int, train_images: int
) -> Iterator[subprocess.Popen[bytes]]:
    """A sweep whose trials all run at once; it is interrupted when enough has been seen."""
    spec = {
        "name": "memory",
        "question": "How much memory do trials take?",
        "data": {"train": pack.info.dataset, "validation": 500, "train_images": train_images},
        "scientific": {"epochs": [50], "optimizer.lr": [1e-3 / 2**n for n in range(trials)]},
        "nuisance": {"seed": 5},
        "resources": {"cpus": (os.cpu_count() or 1) / trials},
    }
    path = folder / "memory.yaml"
    path.write_text(json.dumps(spec))
    options = ["--store", str(folder / "store"), "--data", f"{pack.info.dataset}={source}"]
    command = [sys.executable, "-m", "sweeps", "run", str(path), *options]
    with (folder / "log").open("wb") as log:
        sweep = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield sweep
    finally:
        if sweep.poll() is None:
            sweep.send_signal(signal.SIGINT)
        sweep.wait(60)


def _evaluated(folder: Path) -> bool:
    """Whether every run that was begun has an epoch behind it."""
    begun = sum(1 for _ in folder.glob("store/runs/*/run.json"))
    return 0 < begun == sum(1 for _ in folder.glob("store/runs/*/epochs.parquet"))


def _log(folder: str) -> str:
    return (Path(folder) / "log").read_text()


def _descendants(process: int) -> list[int]:
    found, parents = [], {process}
    children = _children()
    while parents:
        parents = {child for parent in parents for child in children.get(parent, ())}
        found += sorted(parents)
    return found


def _children() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _read(int(entry.name), "stat")):
            # The name of the program, in parentheses, may hold anything.
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    return children


def _read(process: int, file: str) -> str:
    """A file of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{process}/{file}").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
