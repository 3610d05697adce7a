"""How a search's proposals are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from sweeps.proposals import Proposal, by_study
from sweeps.report.headline import MOST_PARAMETERS, cell_text
from sweeps.spec import Search
from sweeps.words import counted

_SHOWN = 10
"""Proposals of a study that are printed."""

_LINES = 5
"""The same where each of their parameters is a line."""


@dataclass(frozen=True)
class Study:
    """What was tried with one combination of scientific values."""

    name: str
    """Those values; empty where there is one study."""

    tried: list[Proposal]
    """Best first."""


def studies(tried: Sequence[Proposal], held: Sequence[str]) -> list[Study]:
    """Proposals by study, the study with the best proposal first.

    Args:
        tried: best first.
        held: parameters of which each combination of values has a study.
    """
    found = by_study(tried, held).values()
    return [Study(study_name(own[0].label, held) if len(found) > 1 else "", own) for own in found]


def study_name(label: Mapping[str, Any], held: Sequence[str]) -> str:
    """The scientific values of a study."""
    return " · ".join(cell_text(label[name]) for name in held if label.get(name) is not None)


def proposal_table(search: Search, tried: list[Proposal]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table of proposals, as text; no parameter that has no value in it."""
    names = _parameters(tried)
    header, outcomes = outcome_table(search, tried)
    rows = [
        [*(cell_text(proposal.label.get(name)) for name in names), *outcome]
        for proposal, outcome in zip(tried, outcomes, strict=True)
    ]
    return [*names, *header], rows


def outcome_table(search: Search, tried: list[Proposal]) -> tuple[list[str], list[list[str]]]:
    """The part of it that says what proposals are worth."""
    several = len(search.metric) > 1
    header = ["epochs"]
    for metric in search.read:
        header += [metric, "over seeds"]
    header += ["seeds", *(["front"] if several else [])]
    rows = []
    for proposal in tried:
        stopped = " (stopped)" if proposal.stopped else " (short)" if proposal.short else ""
        row = [f"{proposal.reached.epoch}{stopped}"]
        for metric in search.read:
            low, high = proposal.lows[metric], proposal.highs[metric]
            row += [_figure(proposal.reached.scores[metric]), f"{_figure(low)} – {_figure(high)}"]
        row.append(str(proposal.seeds))
        if several:
            row.append("" if proposal.stopped else str(proposal.front + 1))
        rows.append(row)
    return header, rows


def _parameters(tried: Sequence[Proposal]) -> list[str]:
    return list(
        dict.fromkeys(
            name for each in tried for name, value in each.label.items() if value is not None
        )
    )


def best_sentence(search: Search, tried: list[Proposal], held: Sequence[str] = ()) -> str:
    """The best proposal and what it is worth, and the best of every other study.

    Args:
        search: the specification's.
        tried: best first.
        held: as `studies` takes them.
    """
    if not tried:
        return "No proposal has a value yet."
    _, *others = studies(tried, held)
    warning = "The best of many is the best by luck in part, and it was chosen on validation; " + (
        "the test split was looked at by what is confirmed alone."
        if search.confirm
        else "the test split was not looked at."
    )
    if tried[0].short:
        return _best(search, tried)
    return " ".join([_best(search, tried), *(_of_study(search, each) for each in others), warning])


def _best(search: Search, tried: list[Proposal]) -> str:
    best = tried[0]
    worth, epochs = _worth(search, best), counted(best.reached.epoch, "epoch")
    of = f"of {len(tried)} proposals after {epochs}"
    if search.reach is not None:
        goal = f"{search.reach.metric} of {search.reach.value:g}"
        if best.short:
            return f"No proposal of {len(tried)} reached a {goal}; nearest: {worth}."
        there = sum(proposal.counts for proposal in tried)
        return (
            f"{there} of {len(tried)} proposals reached a {goal}. Soonest after {epochs}: {worth}."
        )
    if len(search.metric) == 1:
        return f"Best {of}: {worth}."
    first = sum(proposal.front == 0 and not proposal.stopped for proposal in tried)
    return (
        f"On the front {of}: {first}, which no other proposal equals in all of "
        f"{', '.join(search.metric)} and beats in one. Best by the first: {worth}."
    )


def _of_study(search: Search, study: Study) -> str:
    """The best of one study among several."""
    best = study.tried[0]
    what = "nearest, but short of it" if best.short else "soonest" if search.reach else "best"
    epochs = counted(best.reached.epoch, "epoch")
    return f"Of {study.name}, {what} after {epochs}: {_worth(search, best)}."


def _worth(search: Search, proposal: Proposal) -> str:
    """Scores of a proposal, and its values."""
    values = ", ".join(f"{k} = {cell_text(v)}" for k, v in proposal.label.items() if v is not None)
    scores = " and ".join(
        f"{metric} {_figure(proposal.reached.scores[metric])}" for metric in search.read
    )
    return f"{scores} with {values}"


def print_proposals(
    search: Search, tried: list[Proposal], held: Sequence[str], console: Console
) -> None:
    """Print the best proposals of each study, a parameter a line where they are many.

    Args:
        search: the specification's.
        tried: best first.
        held: as `studies` takes them.
        console: to print to.
    """
    console.print(best_sentence(search, tried, held), highlight=False, markup=False)
    for study in studies(tried, held):
        console.print(_printed(search, study))


def _printed(search: Search, study: Study) -> Table:
    """The best of a study."""
    by_line = len(_parameters(study.tried)) > MOST_PARAMETERS
    header, rows = proposal_table(search, study.tried[: _LINES if by_line else _SHOWN])
    short = [name if name in search.read else name.rpartition(".")[2] for name in header]
    title = f"the best {len(rows)}" + (f" of {study.name}" if study.name else "")
    heads = ["", *map(str, range(1, len(rows) + 1))] if by_line else short
    lines = zip(short, *rows, strict=True) if by_line else rows
    table = Table(*heads, title=title, title_justify="left")
    for line in lines:
        table.add_row(*line)
    return table


def _figure(value: float) -> str:
    """Four decimals of a score, four digits of a cost."""
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.0f}"
