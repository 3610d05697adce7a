"""How a search's proposals are told."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from sweeps.proposals import Proposal
from sweeps.report.headline import cell_text
from sweeps.spec import Search
from sweeps.words import counted

_SHOWN = 10


def proposal_table(search: Search, tried: list[Proposal]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of proposals, as text."""
    names = list(dict.fromkeys(name for proposal in tried for name in proposal.label))
    several = len(search.metric) > 1
    header = [*names, "epochs"]
    for metric in search.read:
        header += [metric, "over seeds"]
    header += ["seeds", *(["front"] if several else [])]
    rows = []
    for proposal in tried:
        stopped = " (stopped)" if proposal.stopped else " (short)" if proposal.short else ""
        row = [cell_text(proposal.label.get(name)) for name in names]
        row.append(f"{proposal.reached.epoch}{stopped}")
        for metric in search.read:
            low, high = proposal.lows[metric], proposal.highs[metric]
            row += [_figure(proposal.reached.scores[metric]), f"{_figure(low)} – {_figure(high)}"]
        row.append(str(proposal.seeds))
        if several:
            row.append("" if proposal.stopped else str(proposal.front + 1))
        rows.append(row)
    return header, rows


def best_sentence(search: Search, tried: list[Proposal]) -> str:
    """The best proposal and what it is worth, in two or three sentences."""
    if not tried:
        return "No proposal has a value yet."
    best = tried[0]
    warning = "The best of many is the best by luck in part, and it was chosen on validation; " + (
        "the test split was looked at by what is confirmed alone."
        if search.confirm
        else "the test split was not looked at."
    )
    values = ", ".join(f"{k} = {cell_text(v)}" for k, v in best.label.items() if v is not None)
    scores = " and ".join(
        f"{metric} {_figure(best.reached.scores[metric])}" for metric in search.read
    )
    of = f"of {len(tried)} proposals after {counted(best.reached.epoch, 'epoch')}"
    if search.reach is not None:
        goal = f"{search.reach.metric} of {search.reach.value:g}"
        if best.short:
            return f"No proposal of {len(tried)} reached a {goal}; nearest: {scores} with {values}."
        there = sum(proposal.counts for proposal in tried)
        return (
            f"{there} of {len(tried)} proposals reached a {goal}. Soonest after "
            f"{counted(best.reached.epoch, 'epoch')}: {scores} with {values}. {warning}"
        )
    if len(search.metric) == 1:
        return f"Best {of}: {scores} with {values}. {warning}"
    first = sum(proposal.front == 0 and not proposal.stopped for proposal in tried)
    return (
        f"On the front {of}: {first}, which no other proposal equals in all of "
        f"{', '.join(search.metric)} and beats in one. Best by the first: {scores} with {values}. "
        f"{warning}"
    )


def print_proposals(search: Search, tried: list[Proposal], console: Console) -> None:
    """Print the best proposals as a table, a parameter a line where they are many."""
    console.print(best_sentence(search, tried), highlight=False)
    header, rows = proposal_table(search, tried[:_SHOWN])
    table = Table(title=f"the best {len(rows)}", title_justify="left")
    for name in header:
        table.add_column(name if name in search.read else name.rpartition(".")[2])
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _figure(value: float) -> str:
    """Four decimals of a score, four digits of a cost."""
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.0f}"
