"""Run a grid round after round until its ranking is resolved; see `sweeps.race`.

A round is a plain plan: the cells of every round before it, and new seeds of some configs. What has
been decided is decided again from the store each time, so that a kill changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console

from sweeps import resolution as records
from sweeps.outcome import write_cells
from sweeps.plan import Cell, finished
from sweeps.race import Race, make_race
from sweeps.resolution import Resolution, make_resolution
from sweeps.run_grid import run_cells
from sweeps.spec import Resolve
from sweeps.statistics.sequential import Look
from sweeps.store import Store
from sweeps.sweep import Sweep


@dataclass(frozen=True)
class Standing:
    """How far a race is by what the store has."""

    looks: list[Look]
    cells: list[Cell]
    """Of all rounds so far, the one that is not finished included."""

    ended: bool


def stand(sweep: Sweep, race: Race, store: Store) -> Iterator[Standing]:
    """The standing before the first look, and after each that the store has the scores for."""
    looks: list[Look] = []
    while True:
        standing = Standing(looks, race.cells(looks), race.has_ended(looks))
        yield standing
        run_ids = sorted({cell.run_id for cell in standing.cells})
        known = store.run_states(run_ids)
        if standing.ended or not finished(standing.cells, known, sweep.evaluations):
            return
        looks = race.look(looks, store.read_many(run_ids, "evaluations"))


def run_race(
    sweep: Sweep, resolve: Resolve, store: Store, console: Console, address: str | None
) -> tuple[list[Cell], list[str]]:
    """Train round after round until the ranking is resolved or the seeds are spent.

    Returns:
        The cells of all rounds, and what went wrong, a line for each trial that failed for good; a
        round that is not finished is the last.
    """
    told = _Told(sweep, make_race(sweep.spec, resolve, sweep.fingerprint), store, console)
    problems: list[str] = []
    if told.next_round(()) is not None:
        problems = run_cells(
            sweep, told.standing.cells, store, console, address, following=told.next_round
        )
    return told.standing.cells, problems


class _Told:
    """A race whose every look is printed and kept once.

    Args:
        sweep: whose race it is.
        race: its terms.
        store: that has its runs.
        console: to print to.
    """

    def __init__(self, sweep: Sweep, race: Race, store: Store, console: Console) -> None:
        self.sweep = sweep
        self.race = race
        self.store = store
        self.console = console
        self.before = records.read(store, sweep.spec.name)
        self.standing = Standing([], [], ended=False)

    def next_round(self, problems: Sequence[str]) -> list[Cell] | None:
        """The cells of the next round and all before; null where none is left, or one not finished.

        Args:
            problems: what went wrong in the last one.
        """
        asked = len(self.standing.cells)
        for standing in stand(self.sweep, self.race, self.store):
            if len(standing.looks) > len(self.standing.looks):
                records.print_look(self._record(standing), self.console)
            if len(standing.looks) >= len(self.standing.looks):
                self.standing = standing
        found = self._record(self.standing)
        records.write(self.store, self.sweep.spec.name, found)
        write_cells(self.sweep.spec, self.store, self.standing.cells)
        if problems or self.standing.ended or len(self.standing.cells) == asked:
            return None
        records.print_next(found, self.race, self.console)
        return self.standing.cells

    def _record(self, standing: Standing) -> Resolution:
        return make_resolution(self.race, standing.looks, self.before)


def current(sweep: Sweep, resolve: Resolve, store: Store) -> tuple[list[Cell], Resolution]:
    """The cells of all rounds so far, the next one included, and what is decided."""
    race = make_race(sweep.spec, resolve, sweep.fingerprint)
    *_, last = stand(sweep, race, store)
    return last.cells, make_resolution(race, last.looks, records.read(store, sweep.spec.name))
