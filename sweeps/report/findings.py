"""The answer to a sweep's question in two or three sentences, and which differences are marked.

Both are made from the tables alone, and are the same in every form of the report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cifake.tables import higher_is_better
from sweeps.families import ALPHA, EVERY_PAIR
from sweeps.foresight import fit_seeds
from sweeps.report.content import Results, foremost
from sweeps.report.ends import Ends
from sweeps.report.headline import attainable, config_names
from sweeps.report.tried import best_sentence
from sweeps.resolution import Resolution, race_leader, racing, verdict
from sweeps.statistics import seeds_to_reach
from sweeps.words import after, counted

BETTER, WORSE = "↑", "↓"
"""Marks of a config that differs significantly from what it is held against."""

_UNAWARE = "These p-values know nothing of the looks after which seeds were added."

_PLACE = ("stage", "epochs", "dataset", "split", "metric")
_Key = tuple[Any, ...]
_Row = Mapping[str, Any]


@dataclass(frozen=True)
class Marks:
    """Which scores differ significantly, and from what."""

    marks: Mapping[_Key, str] = field(default_factory=dict)
    """By stage, epochs, data set, split, metric and label; nothing where no mark is."""

    legend: str = ""
    """A sentence that says what the marks mean, or that there are none; empty where nothing was
    compared."""

    def of(self, row: _Row) -> str:
        """The mark of a row of `summary` or `ranking`, empty where it has none."""
        return self.marks.get((*(row[name] for name in _PLACE), row["label"]), "")


def answer(results: Results) -> str:
    """The question's answer in two or three sentences, as far as there is one."""
    ranked = _foremost(results)
    race = results.resolution if race_leader(results.resolution) is not None else None
    if race is not None:
        ranked = _as_raced(ranked, race)
    if not ranked:
        if results.search is not None:
            return best_sentence(results.search, list(results.proposals), results.held)
        return "No run has been evaluated yet."
    leader = ranked[0]
    place = {name: leader[name] for name in _PLACE}
    longest = results.ends
    names = {
        label: longest.name(name, leader["stage"], label, leader["epochs"])
        for label, name in config_names([row["label"] for row in ranked]).items()
    }
    compared = _rows(results.comparisons, place)
    lead = _lead(leader, compared, ranked)
    place["epochs"] = longest.of(leader["stage"], leader["label"], leader["epochs"])
    (summary,) = _rows(results.summary, {**place, "label": leader["label"]})
    first = _opening(leader, summary, names, _leads(ranked, race))
    if lead is None:
        others = len(ranked) - 1
        alone = "it is the only config of that length"
        why = "it has no run in common with another" if others else alone
        return f"{first}. Nothing is compared, since {why}."
    first += _over(lead, leader, names, tested=race is None)
    told = _verdict(lead, leader, compared) if race is None else f"{verdict(race)}."
    return " ".join([f"{first}. {told}", *_at_one_length(results, leader, lead)])


def marks(results: Results, splits: Sequence[str] | None = None) -> Marks:
    """Which scores differ significantly from the best or the baseline of the same column.

    Args:
        results: the numbers.
        splits: that are looked at; by default each is.
    """
    compared = results.comparisons
    if splits is not None:
        compared = compared.filter(pc.field("split").isin(pa.array(splits, pa.string())))
    found: dict[_Key, str] = {}
    families: dict[_Key, list[_Row]] = {}
    for row in compared.to_pylist():
        families.setdefault(tuple(row[name] for name in _PLACE), []).append(row)
    best, ahead = _best_labels(results.ranking), race_leader(results.resolution)
    longest = results.ends
    # What is told of a config among all at their longest stands in place of what its length tells.
    for place, rows in sorted(families.items(), key=lambda item: item[0][1] is None):
        at = _At(place, longest)
        if place[1] is None:
            for label in {row[side] for row in rows for side in ("label_a", "label_b")}:
                found.pop(at.key(label), None)
        for row in rows:
            for label, sign in _marked(row, ahead or best.get(place)):
                found[at.key(label)] = sign
    whole = "the best of its length"
    if any(place[1] is None for place in families):
        whole = "the best of its length, or of all where it is a config's longest,"
    legend = _legend(families, found, whole if ahead is None else "the leader")
    return Marks(found, f"{legend} {_UNAWARE}" if legend and results.resolution else legend)


@dataclass(frozen=True)
class _At:
    """A place of `comparisons`, and the rows of `summary` that it speaks of."""

    place: _Key
    longest: Ends

    def key(self, label: str) -> _Key:
        """The place of a config's row, with its label."""
        stage, epochs, *where = self.place
        return (stage, self.longest.of(stage, label, epochs), *where, label)


def _marked(row: _Row, best: str | None) -> Iterator[tuple[str, str]]:
    """The config that a significant comparison marks, if it is held against a reference in it."""
    if not row["significant"]:
        return
    a_is_better = (row["difference"] > 0) == higher_is_better(row["metric"])
    if not _is_every_pair(row) or row["label_b"] == best:
        yield row["label_a"], BETTER if a_is_better else WORSE
    elif row["label_a"] == best:
        yield row["label_b"], WORSE if a_is_better else BETTER


def _legend(families: Mapping[_Key, Sequence[_Row]], found: Mapping[_Key, str], best: str) -> str:
    rows = [rows[0] for rows in families.values()]
    if not rows:
        return ""
    wording = _wording(max(rows, key=lambda row: int(row["comparisons"])))
    sizes = {row["comparisons"] for row in rows}
    reference = best if all(map(_is_every_pair, rows)) else "its reference"
    test = f"p < {ALPHA}, sign-flip test paired by seed"
    if max(sizes) > 1:
        size = ("up to " if len(sizes) > 1 else "") + counted(max(sizes), "comparison")
        test += f", Holm's correction over {size}: {wording}"
    if not found:
        return f"No score differs significantly from {reference} ({test})."
    words = {BETTER: "better", WORSE: "worse"}
    shown = ", ".join(
        f"{sign} significantly {word}" for sign, word in words.items() if sign in found.values()
    )
    return f"{shown} than {reference} ({test})."


def _as_raced(ranked: Sequence[_Row], race: Resolution) -> list[_Row]:
    """A ranking that those left in a race head, their leader first: who fell out is not best."""
    left = racing(race)
    return sorted(ranked, key=lambda row: (row["label"] not in left, row["label"] != left[0]))


def _leads(ranked: Sequence[_Row], race: Resolution | None) -> str:
    """What is said of the first of a ranking."""
    if race is not None:
        return ", which leads on validation, has"
    return " is best with" if len(ranked) > 1 else " has"


def _opening(leader: _Row, summary: _Row, names: Mapping[str, str], leads: str) -> str:
    """How the first config does."""
    unit, split = leader["unit"], leader["split"]
    where = f"{leader['dataset']} {split}"
    if split != "test":
        where += ", as no test set was evaluated,"
    facts = [f"n = {leader['n']}"]
    if summary["low"] is not None:
        ends = attainable(summary["low"], summary["high"], unit)
        facts.insert(0, f"95 % interval {' to '.join(_number(end, unit) for end in ends)}")
    if leader["epochs"] is not None:
        where += f" {after(leader['epochs'])}"
    score = f"{leader['metric'].replace('_', ' ')} {_number(leader['mean'], unit)}{_unit(unit)}"
    name = names[leader["label"]]
    return f"On {where.removesuffix(',')}, {name}{leads} {score} ({', '.join(facts)})"


def _at_one_length(results: Results, leader: _Row, lead: _Lead) -> Iterator[str]:
    """How two configs of unequal length do after the longest that both have, if there is one."""
    if leader["epochs"] is not None:
        return
    place = {name: leader[name] for name in _PLACE if name != "epochs"}
    both = {leader["label"], lead.other}
    found = [
        row
        for row in _rows(results.comparisons, place)
        if row["epochs"] is not None and {row["label_a"], row["label_b"]} == both and row["n"]
    ]
    if found:
        row = max(found, key=lambda row: int(row["epochs"]))
        sign = 1 if row["label_a"] == leader["label"] else -1
        there = _Lead(row, lead.other, sign)
        told = _over(there, leader, {lead.other: "the other"}, tested=True).removeprefix(", ")
        yield f"{after(row['epochs']).capitalize()}, the longest that both have, it is {told}."


def _over(lead: _Lead, leader: _Row, names: Mapping[str, str], *, tested: bool) -> str:
    """By how much it is ahead, and how sure that is: with p where that may be said."""
    unit, row = leader["unit"], lead.row
    higher = higher_is_better(leader["metric"])
    sign = lead.sign if higher else -lead.sign
    ahead = sign * row["difference"]
    unit_words = " points" if unit == "share" else f" {unit}".rstrip()
    if ahead == 0:
        size = "level with"
    else:
        # Over the seeds that both have, it can be behind what it is ahead of in the mean.
        side = "above" if (ahead > 0) == higher else "below"
        size = f"{_number(abs(ahead), unit)}{unit_words} {side}"
    facts = []
    if row["low"] is not None:
        low, high = sorted((sign * row["low"], sign * row["high"]))
        facts.append(f"95 % interval {_number(low, unit)} to {_number(high, unit)}")
    if tested and row["p_holm"] is not None:
        kind = "corrected p" if row["comparisons"] > 1 else "p"
        facts.append(f"{kind} {_p(row['p_holm'])}")
    if row["n"] != leader["n"]:
        facts.append(f"n = {row['n']}")
    told = f" ({', '.join(facts)})" if facts else ""
    return f", {size} {names[lead.other]}{told}"


def _verdict(lead: _Lead, leader: _Row, compared: Sequence[_Row]) -> str:
    """Which differences are significant, and what it would take."""
    significant = [row for row in compared if row["significant"]]
    if not significant:
        which = "That difference is not" if len(compared) == 1 else "No difference is"
        return f"{which} significant{_needed(lead.row)}."
    own = [row for row in compared if leader["label"] in (row["label_a"], row["label_b"])]
    ahead = sum(row["significant"] is True for row in own)
    if lead.row["significant"]:
        others = (
            "" if len(own) == 1 else f", and so is its lead over {_part(ahead - 1, len(own) - 1)}"
        )
        return f"That difference is significant{others if ahead > 1 else ''}."
    return (
        f"That difference is not significant{_needed(lead.row)}, while "
        f"{len(significant)} of the {counted(len(compared), 'comparison')} "
        f"{'is' if len(significant) == 1 else 'are'} significant."
    )


def _part(some: int, every: int) -> str:
    if some == every:
        return "the other" if every == 1 else f"all {every} others"
    return f"{some} of {every} others"


def _needed(row: _Row) -> str:
    """What it would take to resolve a difference."""
    if row["smallest_p"] is None:
        return ""
    size = row["comparisons"]
    reached = min(1.0, row["smallest_p"] * size)
    seeds, takes = row["seeds_needed"], ""
    if reached >= ALPHA:
        least = seeds_to_reach(ALPHA, size)
        over = f" over {counted(size, 'comparison')}" if size > 1 else ""
        takes = (
            f", nor could one be: with {counted(row['n'], 'seed')} p {_p(reached)} is the least"
            f"{over}, and {_at_least(row['n'], least)} are needed"
        )
        seeds = None if seeds is None or seeds <= least else seeds
    if seeds is not None:
        takes += f"; to resolve that lead takes about {seeds:,} seeds"
    return takes


def _at_least(seeds: int, least: int) -> str:
    return f"{least} or more" if least > seeds else fit_seeds(seeds, least)


@dataclass(frozen=True)
class _Lead:
    """What the best config is held against first."""

    row: _Row
    """Of `comparisons`."""

    other: str
    sign: int
    """−1 where the best is b."""


def _lead(leader: _Row, compared: Sequence[_Row], ranked: Sequence[_Row]) -> _Lead | None:
    """The comparison of the best with the next best that it is compared with."""
    places = {row["label"]: place for place, row in enumerate(ranked)}
    leads = [
        _Lead(row, row["label_b"], 1)
        if row["label_a"] == leader["label"]
        else _Lead(row, row["label_a"], -1)
        for row in compared
        if leader["label"] in (row["label_a"], row["label_b"]) and row["n"]
    ]
    return min(leads, key=lambda lead: places.get(lead.other, len(places)), default=None)


def _foremost(results: Results) -> list[_Row]:
    """The ranking that answers, best first."""
    rows = [row for row in results.ranking.to_pylist() if row["rank"] is not None]
    return sorted(foremost(rows, results), key=lambda row: (row["rank"], row["label"]))


def _best_labels(ranking: pa.Table) -> Mapping[_Key, str]:
    """The best config of each place."""
    found: dict[_Key, tuple[float, str]] = {}
    for row in ranking.to_pylist():
        place = tuple(row[name] for name in _PLACE)
        if row["rank"] is not None and row["rank"] < found.get(place, (float("inf"), ""))[0]:
            found[place] = (row["rank"], row["label"])
    return {place: label for place, (_, label) in found.items()}


def _rows(table: pa.Table, where: Mapping[str, Any]) -> list[_Row]:
    chosen = table
    for name, value in where.items():
        same = pc.field(name).is_null() if value is None else pc.field(name) == value
        chosen = chosen.filter(same)
    return list(chosen.to_pylist())


def _is_every_pair(row: _Row) -> bool:
    return _wording(row).startswith(EVERY_PAIR)


def _wording(row: _Row) -> str:
    return str(row["family"].partition(": ")[2])


def _number(value: float, unit: str) -> str:
    """A score or a difference: shares in percent."""
    text = f"{100 * value:.2f}" if unit == "share" else f"{value:.4f}"
    return text.replace("-", "−") if float(text) else text.removeprefix("-")


def _unit(unit: str) -> str:
    """The unit of a score behind its number."""
    return " %" if unit == "share" else f" {unit}".rstrip()


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"
