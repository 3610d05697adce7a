"""Measure, print a table, and add the rows to `results/benchmarks`.

python -m tests.benchmarks                          everything but whole sweeps
python -m tests.benchmarks training --device cuda   on a GPU
python -m tests.benchmarks sweeps                   whole sweeps: four hours
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import torch

from cifake.data.locate import open_dataset
from cifake.data.pack import Pack
from cifake.errors import InputError
from tests.benchmarks import (
    against_ray,
    aggregating,
    asking,
    evaluating,
    kills,
    listing,
    memory,
    merging,
    orchestration,
    packing,
    rows,
    scheduling,
    slots,
    traffic,
    training,
)
from tests.benchmarks.measure import Outcome

ROOT = Path(__file__).parents[2]
ARCHIVE = "cifake.tar.xz"
_BATCH_SIZES = (32, 18)
_GPU_SEEDS = (5, 20)


@dataclass(frozen=True)
class Setting:
    """What every benchmark is given."""

    archive: Path
    pack: Pack
    device: str
    repeats: int
    scratch: Path

    def files(self) -> Path:
        """All images as files, extracted once."""
        folder = self.scratch / "cifake"
        return folder if folder.is_dir() else packing.extracted(self.archive, folder)


def main() -> int:
    """Measure what was asked for.

    Returns:
        1 if a target was missed.
    """
    asked = _arguments()
    found: list[Outcome] = []
    added: list[pa.Table] = []
    try:
        for outcomes in _measured(asked):
            # At once: what was measured for long is kept if the next benchmark fails.
            added.append(rows.append(asked.out, outcomes))
            found += outcomes
    except InputError as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return 2
    print(rows.markdown(pa.concat_tables(added).unify_dictionaries()))
    print(f"added {len(found)} rows to {asked.out / 'benchmarks.parquet'}")
    return 1 if any(outcome.met is False for outcome in found) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join(NAMES)}; sweeps is {', '.join(SWEEPS)}",
    )
    parser.add_argument("--data", type=Path, default=_default_data(), help=f"folder of {ARCHIVE}")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="for training")
    parser.add_argument("--repeats", type=int, default=7, help="turns; slow ones take fewer")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "benchmarks")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(NAMES):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    if not (asked.data / ARCHIVE).is_file():
        parser.error(f"{asked.data} holds no {ARCHIVE}; give --data, or set CIFAKE_DATA")
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU")
    return asked


def _default_data() -> Path:
    return Path(os.environ.get("CIFAKE_DATA") or ROOT / ".." / "shared" / "data").resolve()


def _measured(asked: argparse.Namespace) -> Iterator[list[Outcome]]:
    """What each benchmark that was asked for found."""
    archive = asked.data / ARCHIVE
    pack = open_dataset("cifake", {"cifake": archive})
    with tempfile.TemporaryDirectory() as scratch:
        setting = Setting(archive, pack, asked.device, asked.repeats, Path(scratch))
        for name in asked.names or BENCHMARKS:
            for each in SWEEPS if name == "sweeps" else [name]:
                print(f"measuring {each} …", file=sys.stderr, flush=True)
                yield list({**BENCHMARKS, **SWEEPS}[each](setting))


def _training(setting: Setting) -> Iterable[Outcome]:
    files = setting.files() / "train"
    with one_core():
        for seeds in (5,) if setting.device == "cpu" else _GPU_SEEDS:
            size = training.Size(seeds=seeds, repeats=setting.repeats)
            for batch_size in _BATCH_SIZES:
                yield from training.training(setting.pack, files, batch_size, size, setting.device)


def _evaluation(setting: Setting) -> Iterable[Outcome]:
    with one_core():
        yield evaluating.evaluation(setting.pack, seeds=5, epochs=3)


def _loading(setting: Setting) -> Iterable[Outcome]:
    yield packing.loading(setting.pack.folder, setting.repeats)


def _packing(setting: Setting) -> Iterable[Outcome]:
    yield packing.packing(setting.files(), min(3, setting.repeats))


def _listing(setting: Setting) -> Iterable[Outcome]:
    yield listing.listing(setting.scratch / "store", 10_000, setting.repeats)


def _merging(setting: Setting) -> Iterable[Outcome]:
    yield merging.merging(setting.scratch / "merging", 2_000, setting.repeats)


def _asking(setting: Setting) -> Iterable[Outcome]:
    yield asking.asking(setting.scratch / "asked", 1_000, min(3, setting.repeats))


def _aggregating(setting: Setting) -> Iterable[Outcome]:
    repeats = min(3, setting.repeats)
    yield from aggregating.aggregating(setting.scratch / "aggregated", 10_000, 30, repeats)


def _scheduling(setting: Setting) -> Iterable[Outcome]:
    yield from scheduling.scheduling(1_000, 10_000, min(3, setting.repeats))


def _slots(setting: Setting) -> Iterable[Outcome]:
    yield from slots.slots((1, 4, 16, 64), 4, 10.0, min(3, setting.repeats))


def _traffic(setting: Setting) -> Iterable[Outcome]:
    yield from traffic.traffic(setting.archive, setting.scratch / "traffic")


def _memory(setting: Setting) -> Iterable[Outcome]:
    yield memory.memory(setting.pack, setting.archive)


def _against(setting: Setting, rival: against_ray.Rival, turns: int) -> Iterable[Outcome]:
    repeats = min(turns, setting.repeats)
    with tempfile.TemporaryDirectory(dir=setting.scratch) as folder:
        scratch = Path(folder) / "sweeps"
        yield from against_ray.against(rival, setting.files(), scratch, repeats=repeats)


def _orchestration(setting: Setting) -> Iterable[Outcome]:
    repeats = min(2, setting.repeats)
    folder = setting.scratch / "orchestration"
    yield orchestration.orchestration(setting.archive, folder, repeats=repeats)


def _kills(setting: Setting) -> Iterable[Outcome]:
    yield kills.kill(setting.archive, setting.scratch / "kills", repeats=min(3, setting.repeats))


BENCHMARKS: dict[str, Callable[[Setting], Iterable[Outcome]]] = {
    "training": _training,
    "evaluation": _evaluation,
    "loading": _loading,
    "packing": _packing,
    "memory": _memory,
    "listing": _listing,
    "merging": _merging,
    "asking": _asking,
    "aggregating": _aggregating,
    "scheduling": _scheduling,
    "slots": _slots,
    "traffic": _traffic,
}

SWEEPS: dict[str, Callable[[Setting], Iterable[Outcome]]] = {
    "sweep-tutorial": partial(_against, rival=against_ray.TUTORIAL, turns=1),
    "sweep-letter": partial(_against, rival=against_ray.TO_THE_LETTER, turns=1),
    "sweep-best": partial(_against, rival=against_ray.BEST, turns=3),
    "sweep-orchestration": _orchestration,
    "sweep-kills": _kills,
}
"""Of whole sweeps, which take long: each is measured only where it is named, or `sweeps`."""

NAMES = (*BENCHMARKS, "sweeps", *SWEEPS)


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process to one core and one thread, as a trial is."""
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {max(cores)})
    torch.set_num_threads(1)
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)


if __name__ == "__main__":
    sys.exit(main())
