"""What the charts of a search draw, each as one tidy frame; empty where there is no search."""

from __future__ import annotations

import json
import math
from typing import Any

import pandas as pd
import pyarrow.compute as pc

from sweeps.aggregate import frame
from sweeps.report.content import Content
from sweeps.report.headline import cell_text
from sweeps.report.tried import study_name
from sweeps.spec import Dimension, Search

MAX_PROPOSALS = 1000
"""Proposals in a history; of more, the last."""

MAX_THREADS = 300
"""Proposals in parallel coordinates; of more, the best."""

MAX_TERMS = 16
"""Parameters of which the importance is drawn."""

NOT_THERE = -0.12
"""Where a proposal lies on the axis of a parameter that it does not have."""

_HISTORY = ["study", "number", "metric", "value", "low", "high", "best", "epoch", "seeds"]


def history(content: Content) -> pd.DataFrame:
    """Every proposal in the order in which it was made, by its first metric.

    Returns:
        `study` (its scientific values; empty for one study), `number` (from 1 in each study),
        `metric`, `value` (mean over seeds), `low`, `high` (lowest and highest seed), `best` (so
        far, among the candidates for the best; NaN before the first), `epoch` (reached), `seeds`,
        `stopped` (early, or short of the score to be reached), `front` (0 is the best, for several
        metrics), `proposal` (its values as text).
    """
    search = _search(content)
    columns = [*_HISTORY, "stopped", "front", "proposal"]
    if search is None or not content.proposals:
        return pd.DataFrame(columns=columns)
    order = _order(content)
    first, better = search.objectives[0]
    rows = [
        {
            "study": study_name(proposal.label, content.results.held),
            "order": order.get(json.dumps(dict(proposal.label), sort_keys=True), len(order)),
            "metric": first,
            "value": proposal.reached.scores[first],
            "low": proposal.lows[first],
            "high": proposal.highs[first],
            "epoch": proposal.reached.epoch,
            "seeds": proposal.seeds,
            "stopped": not proposal.counts,
            "front": proposal.front,
            "proposal": ", ".join(
                f"{name} {cell_text(value)}"
                for name, value in proposal.label.items()
                if value is not None
            ),
        }
        for proposal in content.proposals
    ]
    found = pd.DataFrame(rows).sort_values(["study", "order"], kind="stable")
    by = found["study"]
    found["number"] = found.groupby(by).cumcount() + 1
    whole = found["value"].where(~found["stopped"])
    running = whole.groupby(by).cummax() if better == "max" else whole.groupby(by).cummin()
    found["best"] = running.groupby(by).ffill()
    return found.groupby("study").tail(MAX_PROPOSALS)[columns].reset_index(drop=True)


def importances(content: Content) -> pd.DataFrame:
    """How much of the spread of a search's metric each parameter makes, by study and method.

    Returns:
        `metric`, `term`, `share`, `n` (proposals), `method`, `at_border`, the largest share first.
    """
    rows = frame(content.effects.filter(pc.field("kind") == "importance"))
    rows = rows[rows["level"] == ""].dropna(subset=["share"])
    rows = rows.sort_values("share", ascending=False).groupby("metric").head(MAX_TERMS)
    return rows[["metric", "term", "share", "n", "method", "at_border"]].reset_index(drop=True)


def parallel(content: Content) -> pd.DataFrame:
    """Proposals across the axes of their parameters, the first metric on the last axis.

    Returns:
        `proposal` (place among the best, from 1), `axis` (parameter or metric), `order` of the
        axis, `position` on it from 0 to 1, or `NOT_THERE`, `value` as text, `score`, `stopped`.
    """
    search = _search(content)
    columns = ["proposal", "axis", "order", "position", "value", "score", "stopped"]
    if search is None or len(content.proposals) < 2:
        return pd.DataFrame(columns=columns)
    tried = content.proposals[:MAX_THREADS]
    first = search.metric[0]
    scores = [proposal.reached.scores[first] for proposal in tried]
    rows = []
    for place, (proposal, score) in enumerate(zip(tried, scores, strict=True), start=1):
        own = {"proposal": place, "score": score, "stopped": not proposal.counts}
        for axis, dimension in search.space.items():
            value = proposal.label.get(axis)
            position = NOT_THERE if value is None else _position(dimension, value)
            rows.append({**own, "axis": axis, "position": position, "value": cell_text(value)})
        position = _between(score, min(scores), max(scores))
        rows.append({**own, "axis": first, "position": position, "value": f"{score:.4g}"})
    found = pd.DataFrame(rows)
    order = {axis: number for number, axis in enumerate([*search.space, first])}
    return found.assign(order=found["axis"].map(order))[columns]


def parallel_ticks(content: Content) -> pd.DataFrame:
    """What stands beside the axes of parallel coordinates.

    Returns:
        `axis`, `order`, `position`, `text`: the ends of a range, or every choice.
    """
    drawn = parallel(content)
    search = _search(content)
    if search is None or drawn.empty:
        return pd.DataFrame(columns=["axis", "order", "position", "text"])
    rows = []
    for order, (axis, dimension) in enumerate(search.space.items()):
        for value in dimension.values:
            position = _position(dimension, value)
            rows.append(
                {"axis": axis, "order": order, "position": position, "text": cell_text(value)}
            )
    lowest, highest = drawn["score"].min(), drawn["score"].max()
    own = {"axis": search.metric[0], "order": len(search.space)}
    rows += [
        {**own, "position": _between(end, lowest, highest), "text": f"{end:.4g}"}
        for end in dict.fromkeys((lowest, highest))
    ]
    for name, group in drawn[drawn["position"] == NOT_THERE].groupby("axis"):
        place = group["order"].iloc[0]
        rows.append({"axis": name, "order": place, "position": NOT_THERE, "text": "–"})
    return pd.DataFrame(rows)


def _search(content: Content) -> Search | None:
    return None if content.spec is None else content.spec.search


def _order(content: Content) -> dict[str, int]:
    """Places of proposals: the cells of a search stand in the order in which they were made."""
    labels = content.cells.filter(pc.field("stage") == "search")["label"].to_pylist()
    return {label: place for place, label in enumerate(dict.fromkeys(labels))}


def _position(dimension: Dimension, value: Any) -> float:
    if dimension.choice is not None:
        place = next(n for n, each in enumerate(dimension.choice) if each == value)
        return 0.5 if len(dimension.choice) == 1 else place / (len(dimension.choice) - 1)
    low, high = dimension.values
    if dimension.log_uniform is not None:
        return _between(math.log(value), math.log(low), math.log(high))
    return _between(value, low, high)


def _between(value: float, low: float, high: float) -> float:
    return 0.5 if low == high else (value - low) / (high - low)
