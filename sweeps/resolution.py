"""What `--until-resolved` has decided so far, kept beside the sweep, and how it is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table

from cifake.errors import refuse
from sweeps.race import Race
from sweeps.report.headline import config_names
from sweeps.statistics.sequential import NAME, Look, seeds_wanted
from sweeps.store import Store

FILE = "resolution.json"
"""File of a sweep with every look at its ranking; each command makes it again from the runs."""


VALID = (
    "That holds however often was looked. p-values, marks and 95 % intervals are as if the numbers "
    "of seeds had been fixed beforehand: where all configs are tied, a corrected p is below 0.05 "
    "in some 6 % of such sweeps on test, and in 7 to 10 % on validation."
)
"""What may be said after repeated looks, and what only nearly; the numbers are simulated."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What was declared before the first look."""

    metric: str
    dataset: str
    """Whose validation split decides."""

    configs: tuple[str, ...]
    """Labels, as JSON; rows of the looks."""

    looks: tuple[int, ...]
    """Seeds of every config of the race, at each look."""

    alpha: float
    """Largest probability of a false winner, and of a false equivalence."""

    delta: float | None
    rule: str = NAME


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """How far a ranking is resolved."""

    terms: Terms
    seeds: tuple[int, ...]
    """How many each config is given until the next look, or was given until it left."""

    looks: tuple[Look, ...]
    changed: tuple[str, ...] = ()
    """Terms that were changed after they had been looked at under: the error is that of each."""

    @property
    def has_ended(self) -> bool:
        """Whether no seed is added any more."""
        last = self.looks[-1] if self.looks else None
        return last is not None and (bool(last.verdict) or last.seeds == self.terms.looks[-1])

    @property
    def state(self) -> str:
        """In a word or two: open, a verdict, or that the seeds are spent."""
        if not self.has_ended:
            return "open"
        return self.looks[-1].verdict or "seeds spent"


_RESOLUTION = TypeAdapter(Resolution)


def make_resolution(race: Race, looks: Sequence[Look], before: Resolution | None) -> Resolution:
    """The record of a race.

    Args:
        race: its terms.
        looks: those so far.
        before: the record that the store has.
    """
    terms = Terms(
        metric=race.metric,
        dataset=race.spec.data.train,
        configs=tuple(race.labels),
        looks=race.rule.looks,
        alpha=race.rule.alpha,
        delta=race.rule.delta,
    )
    changed: tuple[str, ...] = ()
    if before is not None:
        changed = before.changed
        if before.looks and before.terms != terms:
            changed += (_difference(before, terms),)
    wanted = seeds_wanted(looks, race.rule)
    return Resolution(terms=terms, seeds=tuple(wanted), looks=tuple(looks), changed=changed)


def read(store: Store, sweep: str) -> Resolution | None:
    """The record of a sweep; null where seeds were never added so.

    Raises:
        InputError: the file is damaged.
    """
    try:
        return _RESOLUTION.validate_json(store.sweep(sweep).read(FILE))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        where = f"{store.sweep(sweep)}/{FILE}"
        refuse(where, f"{error.errors()[0]['msg']}; delete it: it is made again from the runs")


def write(store: Store, sweep: str, resolution: Resolution) -> None:
    """Keep a record."""
    store.write_sweep(sweep, FILE, _RESOLUTION.dump_json(resolution, indent=1))


def forget(store: Store, sweep: str) -> None:
    """A sweep that is run as a plain grid has no added seeds, and so no record of why."""
    store.sweep(sweep).remove(FILE)


def as_dict(resolution: Resolution) -> dict[str, Any]:
    """The record for `--json`, with its state in words."""
    found: dict[str, Any] = _RESOLUTION.dump_python(resolution, mode="json")
    return {"state": resolution.state, **found}


def sentences(resolution: Resolution) -> list[str]:
    """What a reader must know: how seeds were added, what it came to, and what holds of it."""
    terms = resolution.terms
    opening = (
        f"Seeds were added where the ranking was undecided, by {terms.metric} on validation "
        f"({terms.rule}; a false winner in {100 * terms.alpha:g} % of sweeps at most). So configs "
        "may have unequal numbers of seeds, and are compared on the seeds that both have."
    )
    names = _names(terms)
    return [opening, f"{verdict(resolution)}. {VALID}", *_warnings(resolution, names)]


def verdict(resolution: Resolution) -> str:
    """What the looks came to, as a sentence without its stop."""
    return (
        f"By {resolution.terms.metric} on validation, with every look allowed for, the ranking is "
        f"{_verdict_sentence(resolution, _names(resolution.terms))}"
    )


def print_look(resolution: Resolution, console: Console) -> None:
    """What the last look decided, and what it comes to if that was the end."""
    names = _names(resolution.terms)
    console.print(_look_sentence(resolution.looks[-1], names), highlight=False)
    if resolution.has_ended:
        console.print(_verdict_sentence(resolution, names), highlight=False)
        for warning in _warnings(resolution, names):
            console.print(f"note: {warning}", highlight=False)


def print_next(resolution: Resolution, race: Race, console: Console) -> None:
    """Which configs get which seeds next, and how many are out."""
    names = _names(resolution.terms)
    number, looks = len(resolution.looks), resolution.terms.looks
    first = looks[number - 1] if number else 0
    racing = _racing(resolution)
    added = race.seeds[first : looks[number]]
    which = "every config" if len(racing) == len(names) else ", ".join(names[i] for i in racing)
    console.print(
        f"round {number + 1} of at most {len(looks)}: seeds {_range(added)} of {which}",
        highlight=False,
    )


def print_resolution(resolution: Resolution, console: Console) -> None:
    """The state of each config as a table, and the verdict."""
    terms = resolution.terms
    names = _names(terms)
    table = Table(title=f"ranking by {terms.metric} on validation", title_justify="left")
    table.add_column("config", no_wrap=True)
    table.add_column("seeds", justify="right")
    table.add_column("state")
    for row, state in enumerate(states(resolution)):
        table.add_row(names[row], str(resolution.seeds[row]), state)
    console.print(table)
    for look in resolution.looks:
        console.print(_look_sentence(look, names), highlight=False)
    console.print(_verdict_sentence(resolution, names), highlight=False)
    for warning in _warnings(resolution, names):
        console.print(f"note: {warning}", highlight=False)


def states(resolution: Resolution) -> Iterator[str]:
    """In a few words, for each config: why it gets more seeds, or why it does not."""
    names = _names(resolution.terms)
    for row in range(len(names)):
        yield _state(resolution, row, names)


def _state(resolution: Resolution, row: int, names: Sequence[str]) -> str:
    for look in resolution.looks:
        rival = look.beaten_by[row]
        if rival is not None:
            rest = "" if rival == look.leader else f"worse than {names[rival]}, "
            return f"out at {look.seeds} seeds: {rest}{_gap(look, row, names)}"
        if look.without_values[row]:
            return f"out at {look.seeds} seeds: no scores to compare"
    if not resolution.looks:
        return "not looked at yet"
    last = resolution.looks[-1]
    if last.verdict == "equivalent":
        return "tied; leads" if last.leader == row else f"tied; {_gap(last, row, names)}"
    if last.leader == row:
        return "best" if last.verdict == "winner" else "leads"
    return f"undecided; {_gap(last, row, names)}"


def _gap(look: Look, row: int, names: Sequence[str]) -> str:
    behind, low, high = look.behind[row], look.low[row], look.high[row]
    if behind is None or look.leader is None:
        return "no pair of scores"
    interval = "" if low is None or high is None else f" ({low:.4f} … {high:.4f})"
    return f"behind {names[look.leader]} by {behind:.4f}{interval}, n = {look.pairs[row]}"


def _look_sentence(look: Look, names: Sequence[str]) -> str:
    out = [row for row, rival in enumerate(look.beaten_by) if rival is not None]
    without = [row for row, missing in enumerate(look.without_values) if missing]
    left = sum(look.racing)
    parts = [f"{left} of {len(names)} undecided" if left > 1 else f"{left or 'none'} left"]
    if look.leader is not None:
        parts.append(f"{names[look.leader]} leads")
    if out:
        parts.append(f"out: {', '.join(names[row] for row in out)}")
    if without:
        parts.append(f"without scores: {', '.join(names[row] for row in without)}")
    return f"at {look.seeds} seeds: {'; '.join(parts)}"


def _verdict_sentence(resolution: Resolution, names: Sequence[str]) -> str:
    terms = resolution.terms
    left = [names[row] for row in _racing(resolution)]
    if not resolution.has_ended:
        return f"not resolved yet between {', '.join(left)}"
    last = resolution.looks[-1]
    if last.verdict == "winner":
        return f"resolved: {left[0]} is best of {len(names)} at {last.seeds} seeds"
    if last.verdict == "equivalent":
        return (
            f"resolved as a tie: {', '.join(left)} differ by less than {terms.delta:g}, at "
            f"{last.seeds} seeds"
        )
    if last.verdict == "no rival":
        return "not resolved: there are no scores to compare with"
    advice = "" if terms.delta is not None else "; resolve.delta would let a tie be one"
    return f"not resolved between {', '.join(left)} with the {last.seeds} seeds allowed{advice}"


def _warnings(resolution: Resolution, names: Sequence[str]) -> list[str]:
    notes = list(resolution.changed)
    missing = {
        row for look in resolution.looks for row, gone in enumerate(look.without_values) if gone
    }
    if missing:
        listed = ", ".join(names[row] for row in sorted(missing))
        notes.append(f"of {listed} too few runs have a score: nothing is said of them")
    if resolution.looks:
        last = resolution.looks[-1]
        fewer = [
            f"{pairs} of {names[row]}"
            for row, pairs in enumerate(last.pairs)
            if pairs is not None and last.racing[row] and pairs < last.seeds
        ]
        if fewer:
            notes.append(f"of {last.seeds} seeds some have no score; pairs: {', '.join(fewer)}")
    return notes


def _difference(before: Resolution, terms: Terms) -> str:
    """That the terms were changed, which of them, and what it means."""
    old, new = vars(before.terms), vars(terms)
    parts = [
        f"{name} from {_shown(old[name])} to {_shown(new[name])}"
        for name in old
        if old[name] != new[name]
    ]
    looks = len(before.looks)
    return (
        f"after {looks} look{'s' * (looks > 1)} the terms were changed ({'; '.join(parts)}): the "
        "error stated is that of each set of terms alone"
    )


def _shown(value: object) -> str:
    if isinstance(value, tuple) and value and isinstance(value[0], str):
        return f"{len(value)} configs"
    return str(list(value)) if isinstance(value, tuple) else str(value)


def race_leader(resolution: Resolution | None) -> str | None:
    """Label of the config that leads; null before the first look, and where nothing is known."""
    if resolution is None or not resolution.looks or resolution.looks[-1].leader is None:
        return None
    return resolution.terms.configs[resolution.looks[-1].leader]


def racing(resolution: Resolution) -> list[str]:
    """Labels of the configs that are in the race still, the leader first."""
    ahead = race_leader(resolution)
    labels = [resolution.terms.configs[row] for row in _racing(resolution)]
    return sorted(labels, key=lambda label: label != ahead)


def _racing(resolution: Resolution) -> list[int]:
    if not resolution.looks:
        return list(range(len(resolution.terms.configs)))
    return [row for row, stays in enumerate(resolution.looks[-1].racing) if stays]


def _names(terms: Terms) -> list[str]:
    """The configs in the words that tell them apart."""
    names = config_names(terms.configs)
    return [names[label] for label in terms.configs]


def _range(seeds: Sequence[int]) -> str:
    return str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]}–{seeds[-1]}"
