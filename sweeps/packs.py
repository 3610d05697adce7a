"""The packs of sweeps in their store, and which of them sweeps name."""

from __future__ import annotations

import json
from dataclasses import dataclass

from cifake.data.published import FOLDER, publish
from cifake.errors import refuse
from sweeps.store import Store
from sweeps.sweep import Sweep

PACKS = "packs.json"
"""File of a sweep that names the packs which it has in the store."""


@dataclass(frozen=True)
class Unnamed:
    """A pack in a store that no sweep names."""

    pack: str
    """Its folder."""

    size: int
    """Bytes."""


def publish_packs(sweep: Sweep, store: Store) -> None:
    """Put the packs of a sweep into its store, and note that it needs them there."""
    if store.owner is None:
        raise RuntimeError("a sweep must be claimed before its packs are published")
    # First: what no sweep names may be removed at any time.
    names = {name: pack.folder.name for name, pack in sweep.packs.items()}
    store.write_sweep(sweep.spec.name, PACKS, json.dumps(names, indent=1).encode())
    for pack in sweep.packs.values():
        publish(pack, store.root, store.owner)


def named_packs(store: Store) -> set[str]:
    """The packs that sweeps of a store name.

    Raises:
        InputError: the file of a sweep is damaged.
    """
    found: set[str] = set()
    for name in store.root.at("sweeps").folders():
        try:
            found |= set(json.loads(store.sweep(name).read(PACKS)).values())
        except FileNotFoundError:
            continue
        except (ValueError, AttributeError, TypeError):
            where = f"{store.sweep(name)}/{PACKS}"
            refuse(where, "is damaged; delete it: `sweeps run` with --address makes it anew")
    return found


def unnamed_packs(store: Store) -> list[Unnamed]:
    """The packs that no sweep names, those included of which a killed process left a beginning.

    Raises:
        InputError: it is not known what a sweep names.
    """
    packs = store.root.at(FOLDER)
    named = named_packs(store)
    return [
        Unnamed(name, sum(packs.at(name).sizes().values()))
        for name in packs.folders()
        if name not in named
    ]
