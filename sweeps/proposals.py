"""What a search tried, best first: tables in, records out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from cifake.tables import RunTable
from sweeps.aggregate import frame
from sweeps.objectives import Reached, fronts, means_by_epoch, values_by_epoch
from sweeps.spec import Search


@dataclass(frozen=True)
class Proposal:
    """One proposal at the last epoch at which all its seeds have a value.

    Of a search for the least time to a score, at the first epoch at which it is reached.
    """

    label: Mapping[str, Any]
    reached: Reached
    stopped: bool
    """Whether it ended before the length asked for."""

    seeds: int
    lows: Mapping[str, float]
    """Lowest seed, by metric."""

    highs: Mapping[str, float]
    front: int = 0
    """With several metrics, the front that it is on among those of full length; 0 is the best."""

    short: bool = False
    """Whether the score that was to be reached is not."""

    @property
    def counts(self) -> bool:
        """Whether it is a candidate for the best."""
        return not self.stopped and not self.short


def proposals(
    search: Search, cells: pa.Table, tables: Mapping[RunTable, pa.Table]
) -> list[Proposal]:
    """Every proposal with a value, best first: those of full length, then the longest.

    In a search for the least time to a score, those that reached it, then those that came nearest.

    Args:
        search: the specification's.
        cells: table `cells`; those of other stages are passed over.
        tables: `objectives.RUN_TABLES` of the runs.
    """
    asked = frame(cells).query("stage == 'search'")
    values = values_by_epoch(tables, search.read)
    found = []
    for label, group in asked.groupby("label"):
        run_ids = sorted(set(group["run_id"]))
        own = values[values["run_id"].isin(run_ids)]
        whole = [
            reached
            for reached in means_by_epoch(own, run_ids, search.read)
            if all(math.isfinite(score) for score in reached.scores.values())
            and reached.epoch <= group["epochs"].max()
        ]
        if whole:
            there = next(filter(partial(_is_there, search), whole), None)
            reached = there or whole[-1]
            last = own[own["epoch"] == reached.epoch]
            found.append(
                Proposal(
                    label=json.loads(str(label)),
                    reached=reached,
                    stopped=there is None and reached.epoch < group["epochs"].max(),
                    seeds=len(run_ids),
                    lows={metric: float(last[metric].min()) for metric in search.read},
                    highs={metric: float(last[metric].max()) for metric in search.read},
                    short=search.reach is not None and there is None,
                )
            )
    return _ordered(search, found)


def _is_there(search: Search, reached: Reached) -> bool:
    reach = search.reach
    return reach is not None and reach.short(reached.scores[reach.metric]) <= 0


def by_study(tried: Sequence[Proposal], held: Sequence[str]) -> dict[str, list[Proposal]]:
    """The proposals of each study, by its scientific values as JSON.

    Args:
        tried: best first; so are those of each study, and the studies by their best.
        held: parameters of which each combination of values has a study.
    """
    found: dict[str, list[Proposal]] = {}
    for proposal in tried:
        values = {path: proposal.label[path] for path in held if path in proposal.label}
        found.setdefault(json.dumps(values, sort_keys=True), []).append(proposal)
    return found


def best(tried: Sequence[Proposal], held: Sequence[str], top: int) -> list[Proposal]:
    """The best proposals, so many for each study; `tried` and `held` as `by_study` takes them."""
    studies = by_study([proposal for proposal in tried if proposal.counts], held)
    return [proposal for own in studies.values() for proposal in own[:top]]


def _ordered(search: Search, found: Sequence[Proposal]) -> list[Proposal]:
    whole = [proposal for proposal in found if proposal.counts]
    scores = [[each.reached.scores[metric] for metric in search.metric] for each in whole]
    ranks = fronts(
        np.asarray(scores, np.float64).reshape(len(whole), len(search.metric)), search.mode
    )
    ranked = [
        Proposal(**{**vars(proposal), "front": int(front)})
        for proposal, front in zip(whole, ranks, strict=True)
    ]

    def loss(proposal: Proposal, metric: str, mode: str) -> float:
        return (-1 if mode == "max" else 1) * proposal.reached.scores[metric]

    several = len(search.metric) > 1
    ranked.sort(key=lambda each: (each.front if several else 0, loss(each, *search.objectives[0])))
    rest = [proposal for proposal in found if not proposal.counts]
    by_length = search.reach is None

    def place(proposal: Proposal) -> tuple[bool, int, float]:
        epochs = -proposal.reached.epoch if by_length else 0
        return proposal.stopped, epochs, loss(proposal, *search.watched)

    return [*ranked, *sorted(rest, key=place)]
