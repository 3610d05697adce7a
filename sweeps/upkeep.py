"""What a store needs now and then: every file checked, and what nobody asks for removed."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table

from cifake import tables
from cifake.archive import FOLDER, INDEX, Archive
from cifake.claims import Owner, Process, claim
from cifake.data import published
from cifake.errors import InputError, refuse
from cifake.places import Place
from cifake.record import Record
from cifake.runs import HEAD, ROW, DamagedError, RunFolder, config_of, state_of
from cifake.store import run_folder
from sweeps.packs import Unnamed
from sweeps.store import Store
from sweeps.words import counted, duration

LEFT = "is in use by another process now, and left as it is"


@dataclass(frozen=True)
class Damage:
    """What cannot be read of one run, sweep or pack, and what it costs to have it again."""

    where: str
    """The run, sweep or pack; `tables` for the index of merged tables."""

    problems: tuple[str, ...]
    """File and problem of each."""

    epochs: int = 0
    """Epochs to be trained again."""

    seconds: float = 0.0
    """Seconds that these took."""


@dataclass(frozen=True)
class Unasked:
    """A run that no sweep of the store asks for."""

    run_id: str
    model: str
    seed: int
    epochs_done: int
    size: int
    """Bytes."""


def verify(store: Store, *, repair: bool, advance: Callable[[str], None]) -> Iterator[Damage]:
    """Check every file of every run and of every pack, and every table of every sweep.

    Args:
        store: what is checked.
        repair: whether damaged runs are set back to where they can be read, so that the sweeps that
            ask for them train the rest again, and damaged tables of sweeps and packs are removed.
        advance: called with each run or pack before it is checked.
    """
    archive = Archive(store.root)  # a new one: what it finds sound is not looked at again
    yield from _verify_index(store, archive, repair=repair)
    for run_id in store.run_ids():
        advance(run_id)
        folder = run_folder(store.root, run_id, archive)
        found = _damage_of(folder)
        if found is None:
            continue
        if repair:
            with Owner(store.root, "sweeps verify --repair") as owner:
                mended = alone(folder.place, owner, partial(_mend, folder))
            found = found if mended else replace(found, problems=(*found.problems, LEFT))
        yield found
    sweeps = store.root.at("sweeps")
    for name in sweeps.folders():
        yield from _verify_sweep(name, sweeps.at(name), repair=repair)
    packs = store.root.at(published.FOLDER)
    for name in packs.folders():
        advance(name)
        yield from _verify_pack(store, packs.at(name), repair=repair)


def _verify_index(store: Store, archive: Archive, *, repair: bool) -> Iterator[Damage]:
    """Check the index of merged tables; where it is damaged, go by what the tables say."""
    try:
        archive.index()
    except InputError as error:
        problems: tuple[str, ...] = (f"{INDEX} {error.mistakes[0].problem}",)
        rebuilt = archive.rebuilt()
        archive.use(rebuilt)
        if repair:
            with Owner(store.root, "sweeps verify --repair") as owner:
                mended = alone(archive.place, owner, lambda: archive.write_index(rebuilt))
            problems = problems if mended else (*problems, LEFT)
        yield Damage(FOLDER, problems)


def _damage_of(folder: RunFolder) -> Damage | None:
    try:
        head = folder.head()
    except InputError as error:
        return Damage(folder.run_id, (f"{HEAD} {error.mistakes[0].problem}",), *_all_of(folder))
    found = list(folder.damage())
    if head is None or not found:
        return None
    row = head.row
    epochs = row["epochs_done"] - Record(folder, config_of(row), row["seed"]).epochs_done
    seconds = row["train_seconds"] / max(1, row["epochs_done"]) * epochs
    problems = tuple(f"{error.file} {error.problem}" for error in found)
    return Damage(folder.run_id, problems, epochs, seconds)


def _all_of(folder: RunFolder) -> tuple[int, float]:
    """Epochs of a run that its damaged head takes with it, and their seconds, as far as known."""
    try:
        (row,) = tables.decode("runs", folder.place.read(ROW)).to_pylist()
    except (FileNotFoundError, ValueError):
        return 0, 0.0
    return row["epochs_done"], row["train_seconds"] or 0.0


def _mend(folder: RunFolder) -> None:
    """Set a run back to where it can be read."""
    try:
        head = folder.head()
    except InputError:
        folder.place.remove(HEAD)
        return
    if head is None:
        return
    record = Record(folder, config_of(head.row), head.row["seed"])
    lost = [error.file for error in folder.damage() if _is_dispensable(error, head.row)]
    folder.forget(lost)
    if record.epochs_done < head.row["epochs_done"]:
        record.commit()
    else:
        folder.commit(head.row, {})


def alone(folder: Place, owner: Owner, change: Callable[[], None]) -> bool:
    """Change a folder unless another process has claimed it, and say whether it was changed."""
    found = claim(folder, owner)
    if isinstance(found, Process):
        return False
    try:
        change()
    finally:
        found.release()
    return True


def _is_dispensable(error: DamagedError, row: Mapping[str, Any]) -> bool:
    """Whether the run goes on without it, or the head says the same."""
    kind, epoch = state_of(error.file)
    return error.file == ROW or (kind == "weights" and epoch < row["epochs_done"])


def _verify_sweep(name: str, place: Place, *, repair: bool) -> Iterator[Damage]:
    problems = []
    for file in place.files():
        name_of, _, kind = file.rpartition(".")
        try:
            if kind == "json":
                _decode_json(place.read(file))
            elif kind == "parquet" and name_of in tables.TABLES:
                tables.decode(name_of, place.read(file))
        except ValueError as error:
            problems.append(f"{file} {error}")
            if repair:
                place.remove(file)
    if problems:
        yield Damage(f"sweep {name}", tuple(problems))


def _decode_json(content: bytes) -> None:
    try:
        json.loads(content)
    except ValueError as error:
        raise ValueError(f"is no JSON ({error})") from None


def _verify_pack(store: Store, place: Place, *, repair: bool) -> Iterator[Damage]:
    """Check a pack, which is only a copy: a removed one is put there again by who needs it."""
    problems = tuple(published.damage(place))
    if not problems:
        return
    if repair:
        with Owner(store.root, "sweeps verify --repair") as owner:
            mended = alone(place, owner, partial(published.remove, place))
        problems = problems if mended else (*problems, LEFT)
    yield Damage(f"pack {place.name}", problems)


def unasked(store: Store, older_than: datetime.timedelta) -> list[Unasked]:
    """The runs that no sweep asks for and that were last written some time ago.

    Raises:
        InputError: the cells of a sweep or the head of a run cannot be read: nothing is known then.
    """
    wanted: set[str] = set()
    named = set(store.sweeps())
    for name in store.root.at("sweeps").folders():
        cells = store.read_sweep(name, "cells")
        if cells is not None:
            wanted |= set(cells["run_id"].to_pylist())
        elif name in named:
            problem = "has no cells.parquet, so that nobody knows what it asks for"
            refuse(f"sweep {name}", f"{problem}; `sweeps run` it again, or remove its folder")
    before = datetime.datetime.now(datetime.UTC) - older_than
    return [
        Unasked(
            run_id=state.run_id,
            model=str(state.row["model"]),
            seed=state.seed,
            epochs_done=state.epochs_done,
            size=sum(store.run(state.run_id).place.sizes().values()),
        )
        for state in store.run_states(set(store.run_ids()) - wanted).values()
        if state.row["updated_at"] < before
    ]


def remove_packs(store: Store, packs: Sequence[Unnamed]) -> list[Unnamed]:
    """Remove packs, those aside that a process is just putting there, and say which."""
    with Owner(store.root, "sweeps gc --remove") as owner:
        places = [(pack, store.root.at(published.FOLDER).at(pack.pack)) for pack in packs]
        return [
            pack for pack, place in places if alone(place, owner, partial(published.remove, place))
        ]


def remove(store: Store, runs: Sequence[Unasked]) -> list[Unasked]:
    """Remove runs, those aside that a process trains now, and say which."""
    with Owner(store.root, "sweeps gc --remove") as owner:
        return [run for run in runs if _cleared(store.run(run.run_id), owner)]


def _cleared(folder: RunFolder, owner: Owner) -> bool:
    def clear() -> None:
        folder.place.remove(HEAD)  # first: without it nothing of the run counts
        folder.place.clear()

    return alone(folder.place, owner, clear)


def print_damage(found: Sequence[Damage], runs: int, console: Console, *, repaired: bool) -> None:
    """What is damaged, what it costs, and what to do."""
    for damage in found:
        text = damage.where
        if damage.epochs:
            text += f": {counted(damage.epochs, 'epoch')}, about {duration(damage.seconds)}"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
        for problem in damage.problems:
            console.print(f"  {problem}", highlight=False, markup=False, soft_wrap=True)
    text = f"{counted(runs, 'run')} checked: "
    if not found:
        console.print(f"{text}nothing is damaged", highlight=False)
        return
    lost = sum(damage.epochs for damage in found)
    seconds = sum(damage.seconds for damage in found)
    text += (
        f"{len(found)} damaged, {counted(lost, 'epoch')} to train again, about {duration(seconds)}"
    )
    then = "`sweeps run` trains them" if repaired else "`sweeps verify --repair` sets them back"
    console.print(f"{text}; {then}", highlight=False, soft_wrap=True)


def print_unnamed(found: Sequence[Unnamed], console: Console, *, removed: bool) -> None:
    """The packs that no sweep names, and what to do."""
    for pack in found:
        text = f"pack {pack.pack}, {pack.size / 1e6:,.1f} MB, which no sweep names"
        done = ": removed" if removed else "; `sweeps gc --remove` removes it"
        console.print(f"{text}{done}", highlight=False, soft_wrap=True)


def print_unasked(found: Sequence[Unasked], console: Console, *, removed: bool) -> None:
    """The runs that no sweep asks for, and what to do."""
    if not found:
        console.print("every run of the store is asked for by a sweep, or new")
        return
    table = Table("run", "model", "seed", "epochs", "MB")
    for run in found:
        size = f"{run.size / 1e6:,.1f}"
        table.add_row(run.run_id, run.model, str(run.seed), str(run.epochs_done), size)
    console.print(table)
    size = f"{counted(len(found), 'run')}, "
    size += f"{sum(run.size for run in found) / 1e6:,.1f} MB"
    done = "removed" if removed else "; `sweeps gc --remove` removes them"
    console.print(f"{size} {done}" if removed else f"{size}{done}", highlight=False)
