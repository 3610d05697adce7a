"""What a search tried, best first: tables in, records out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cifake.tables import RunTable
from sweeps.aggregate import frame
from sweeps.objectives import Reached, fronts, means_by_epoch, values_by_epoch
from sweeps.spec import Search


@dataclass(frozen=True)
class Proposal:
    """One proposal at the last epoch at which all its seeds have a value."""

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


def proposals(
    search: Search, cells: pa.Table, tables: Mapping[RunTable, pa.Table]
) -> list[Proposal]:
    """Every proposal with a value: those of full length first, then the longest, each best first.

    Args:
        search: the specification's.
        cells: table `cells`; those of other stages are passed over.
        tables: `objectives.RUN_TABLES` of the runs.
    """
    asked = frame(cells).query("stage == 'search'")
    values = values_by_epoch(tables, search.metric)
    found = []
    for label, group in asked.groupby("label"):
        run_ids = sorted(set(group["run_id"]))
        own = values[values["run_id"].isin(run_ids)]
        whole = [
            reached
            for reached in means_by_epoch(own, run_ids, search.metric)
            if all(math.isfinite(score) for score in reached.scores.values())
            and reached.epoch <= group["epochs"].max()
        ]
        if whole:
            last = own[own["epoch"] == whole[-1].epoch]
            found.append(
                Proposal(
                    label=json.loads(str(label)),
                    reached=whole[-1],
                    stopped=whole[-1].epoch < group["epochs"].max(),
                    seeds=len(run_ids),
                    lows={metric: float(last[metric].min()) for metric in search.metric},
                    highs={metric: float(last[metric].max()) for metric in search.metric},
                )
            )
    return _ordered(search, found)


def best_labels(
    tried: Sequence[Proposal], scientific: Sequence[str], top: int
) -> list[Mapping[str, Any]]:
    """The labels of the best proposals of full length, so many for each study.

    Args:
        tried: best first.
        scientific: parameters whose combinations have a study each.
        top: how many of each.
    """
    taken: dict[str, int] = {}
    chosen = []
    for proposal in tried:
        study = json.dumps([proposal.label.get(path) for path in scientific])
        if not proposal.stopped and taken.get(study, 0) < top:
            taken[study] = taken.get(study, 0) + 1
            chosen.append(proposal.label)
    return chosen


def _ordered(search: Search, found: Sequence[Proposal]) -> list[Proposal]:
    whole = [proposal for proposal in found if not proposal.stopped]
    scores = [[each.reached.scores[metric] for metric in search.metric] for each in whole]
    ranks = fronts(
        np.asarray(scores, np.float64).reshape(len(whole), len(search.metric)), search.mode
    )
    ranked = [
        Proposal(**{**vars(proposal), "front": int(front)})
        for proposal, front in zip(whole, ranks, strict=True)
    ]
    sign = -1 if search.mode[0] == "max" else 1

    def by_first(proposal: Proposal) -> float:
        return sign * proposal.reached.scores[search.metric[0]]

    several = len(search.metric) > 1
    ranked.sort(key=lambda each: (each.front if several else 0, by_first(each)))
    stopped = [proposal for proposal in found if proposal.stopped]
    return [*ranked, *sorted(stopped, key=lambda each: (-each.reached.epoch, by_first(each)))]
