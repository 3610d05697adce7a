"""Which runs of a store a plan passes over although they have the settings of those it makes anew.

A run belongs to the images it was trained on and to the trainer's version. Where a folder of images
or the release has changed, the same specification asks for other runs, and its reader is told.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

from cifake.config import IDENTITY_EXCLUDES, TRAINER_VERSION, Config, leaves
from cifake.runs import RunState

_FINGERPRINT = "data.fingerprint"
_NAME = "data.train"

_ALIKE = [
    path
    for path, _ in leaves(Config)
    if path == _NAME or path not in {*IDENTITY_EXCLUDES, _FINGERPRINT}
]
"""Settings that a run passed over has in common with a new one, the name of its data among them."""


def notes(new: Iterable[tuple[Config, int]], known: Iterable[RunState]) -> Iterator[str]:
    """A note for each kind of data and trainer that runs passed over have.

    Args:
        new: configs and seeds of the runs to be trained from nothing.
        known: what the store has.
    """
    seeds: dict[Config, set[int]] = defaultdict(set)
    for config, seed in new:
        seeds[config].add(seed)
    wanted = {_settings(flat): (flat, seeds[c]) for c, flat in ((c, c.flat()) for c in seeds)}
    found: Counter[tuple[str, str, int]] = Counter()
    for state in known if wanted else ():
        flat, alike = wanted.get(_settings(state.row), ({}, ()))
        if state.seed in alike and state.epochs_done:
            made = (str(state.row[_FINGERPRINT]), int(state.row["trainer_version"]))
            now = str(flat[_FINGERPRINT])
            if made != (now, TRAINER_VERSION):
                found[now, *made] += 1
    for (now, fingerprint, version), count in sorted(found.items()):
        differences = []
        if fingerprint != now:
            differences.append(f"on other data (fingerprint {fingerprint[:8]}, now {now[:8]})")
        if version != TRAINER_VERSION:
            differences.append(f"by trainer version {version}, now {TRAINER_VERSION}")
        yield (
            f"{'1 run' if count == 1 else f'{count} runs'} of the store with the settings of new "
            f"ones {'was' if count == 1 else 'were'} trained {' and '.join(differences)}: not used"
        )


def _settings(row: Mapping[str, object]) -> tuple[object, ...]:
    return tuple(row[path] for path in _ALIKE)
