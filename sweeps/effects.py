"""What the parameters of a grid, or of a search, make of scores: tables in, tables out."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from cifake import tables
from cifake.parameters import EPOCHS
from sweeps.aggregate import frame
from sweeps.proposals import Proposal, by_study
from sweeps.report.headline import meaningful
from sweeps.spec import Dimension, Search, Spec
from sweeps.statistics import Level, Term, decompose

BORDER = 0.05
"""Share of a range of numbers, at each of its ends, that counts as its border."""

_FEWEST_CHOICES = 3
"""Numbers to choose from below which each of them is at the border, which says nothing."""

_BY_SEED = "type II, seeds as blocks; sign flips of whole seeds"
_OF_SEEDS = "mean over seeds, Student's t"
_PLAIN = "type II, seeds as blocks"
_CONFOUNDED = "cannot be told from other parameters of this grid"


def effects(sweep: str, cells: pa.Table, evaluations: pa.Table, metrics: Sequence[str]) -> pa.Table:
    """Main effects, interactions and shares of variance of a grid's parameters, length among them.

    Of a parameter of numbers it is told whether the config with the best mean has the least or the
    greatest of them, as it is for a longest length that is still the best.

    Cells of other stages than `grid` are passed over: what a search tried is no design. Runs are
    blocked by seed and nuisance values, which are what runs of two configs are paired by.

    Args:
        sweep: name of the sweep.
        cells: table `cells`.
        evaluations: table `evaluations` of the runs; epochs that no cell asks for are ignored.
        metrics: scores of that table.

    Returns:
        Table `effects`, for every data set and split that was evaluated.
    """
    joined = (
        frame(cells)
        .query("stage == 'grid'")
        .merge(frame(evaluations), left_on=["run_id", "epochs"], right_on=["run_id", "epoch"])
    )
    rows: list[dict[str, Any]] = []
    for (dataset, split), group in joined.groupby(["dataset", "split"], sort=True):
        for metric in metrics:
            where = {"sweep": sweep, "stage": "grid", "dataset": dataset, "split": split}
            where |= {"metric": metric, "unit": tables.score_unit(metric)}
            rows += [{**where, **row} for row in _of_metric(group, metric)]
    return tables.TABLES["effects"].from_rows(rows)


def importances(spec: Spec, tried: Sequence[Proposal]) -> pa.Table:
    """How much each dimension of a search's space matters, and whether its best is at the border.

    Each study, which is that of one combination of scientific values, is looked at by itself. Of
    proposals that were stopped early nothing is used: their scores are of another length. With a
    scheduler the rest are the better ones, so that what it stopped at once counts for too little.

    Args:
        spec: the specification; one without a search has no importances.
        tried: as `proposals.proposals` gives them.

    Returns:
        Table `effects`, of the kind `importance`: a row for each study, metric and dimension, the
        study's scientific values as its level.
    """
    rows: list[dict[str, Any]] = []
    if spec.search is not None:
        # A study has its rows even where none of its proposals reached their end.
        for level, every in sorted(by_study(tried, spec.held).items()):
            own = [proposal for proposal in every if proposal.counts]
            for metric, mode in spec.search.objectives:
                where = {
                    "sweep": spec.name,
                    "stage": "search",
                    "level": level if spec.held else "",
                }
                where |= _place(spec, metric)
                rows += [{**where, **row} for row in _of_study(spec.search, own, metric, mode)]
    return tables.TABLES["effects"].from_rows(rows)


# A grid.


def _of_metric(group: pd.DataFrame, metric: str) -> Iterator[dict[str, Any]]:
    """The rows of one metric on one data set and split."""
    grid = group.pivot(index=["label", "epochs"], columns=["nuisance", "seed"], values=metric)
    values = grid.to_numpy(np.float64, na_value=np.nan)
    index, columns = grid.index.to_frame(), grid.columns.to_frame()
    labels = [
        _label(label, epochs)
        for label, epochs in zip(index["label"].tolist(), index["epochs"].tolist(), strict=True)
    ]
    blocks = ["seed", *_varied(columns["nuisance"].tolist())]
    best = _best(labels, values, higher=tables.higher_is_better(metric))
    for term in decompose(labels, values, columns["seed"].tolist()):
        names = term.parameters or (blocks if term.kind == "seed" else ("residual",))
        alone = term.parameters[0] if term.kind == "main" else None
        border = None if alone is None else _on_grid(alone, labels, best)
        yield from _rows(term, " × ".join(names), border=border)


def _label(label: str, epochs: int) -> dict[str, Any]:
    """The parameters of a cell, those without meaning null."""
    return meaningful({**json.loads(label), EPOCHS: epochs})


def _varied(nuisance: Sequence[str]) -> list[str]:
    """The nuisance parameters of which there are several values."""
    found: dict[str, set[str]] = {}
    for each in nuisance:
        for name, value in json.loads(each).items():
            found.setdefault(name, set()).add(json.dumps(value))
    return [name for name, values in found.items() if len(values) > 1]


def _best(
    labels: Sequence[dict[str, Any]], values: np.ndarray[Any, np.dtype[np.float64]], *, higher: bool
) -> dict[str, Any]:
    """The parameters of the cell with the best mean over the runs that it has; of none, empty."""
    there = ~np.isnan(values)
    if not there.any():
        return {}
    counts = there.sum(axis=1)
    means = np.where(there, values, 0).sum(axis=1) / np.maximum(counts, 1)
    scores = np.where(counts > 0, means if higher else -means, -np.inf)
    return labels[int(scores.argmax())]


def _on_grid(
    name: str, labels: Sequence[Mapping[str, Any]], best: Mapping[str, Any]
) -> bool | None:
    """Whether the best cell has the least or the greatest value of a parameter."""
    tried = [label[name] for label in labels if label.get(name) is not None]
    value = best.get(name)
    return None if value is None else at_border(Dimension(choice=tried), value)


def _rows(term: Term, name: str, *, border: bool | None) -> Iterator[dict[str, Any]]:
    method = (_BY_SEED if term.p is not None else _PLAIN) if term.df else _CONFOUNDED
    shared = {"kind": term.kind, "term": name}
    yield {
        **shared,
        "level": "",
        "n": term.n,
        "df": term.df,
        "sum_of_squares": term.sum_of_squares,
        "share": term.share,
        "p": term.p,
        "method": method,
        "at_border": border,
    }
    for level in term.levels:
        yield {**shared, **_level_row(level)}


def _level_row(level: Level) -> dict[str, Any]:
    return {
        "level": json.dumps(level.values, sort_keys=True),
        "n": level.n,
        "effect": level.effect,
        "low": level.low,
        "high": level.high,
        "method": _OF_SEEDS,
    }


# A search.


def _place(spec: Spec, metric: str) -> dict[str, str]:
    """Where a metric of a search was taken, as columns."""
    split, _, score = metric.rpartition(".")
    if split:
        unit = tables.score_unit(score)
        return {"dataset": spec.data.train, "split": split, "metric": score, "unit": unit}
    unit = "s" if metric.endswith("seconds") else ""
    return {"dataset": spec.data.train, "split": "train", "metric": metric, "unit": unit}


def _of_study(
    search: Search, own: Sequence[Proposal], metric: str, mode: str
) -> Iterator[dict[str, Any]]:
    """The rows of one metric of one study."""
    from sweeps.search.importance import METHOD, best_of
    from sweeps.search.importance import importances as shares_of

    points = [
        (_point(search, each.label), each.reached.scores[metric])
        for each in own
        if math.isfinite(each.reached.scores[metric])
    ]
    found = shares_of(search, points, "maximize" if mode == "max" else "minimize")
    best = max(points, key=lambda p: p[1] if mode == "max" else -p[1], default=({}, 0.0))[0]
    for path, dimension in search.space.items():
        of = None if found is None else found.get(path)
        yield {
            "kind": "importance",
            "term": path,
            "n": sum(path in point for point, _ in points),
            "share": None if of is None else of.share,
            "p": None if of is None else of.p,
            "method": f"too few trials or ties: {len(points)}"
            if found is None
            else f"{METHOD}, the best {best_of(len(points))} of {len(points)}; shuffled scores",
            "at_border": at_border(dimension, best[path]) if path in best else None,
        }


def _point(search: Search, label: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a label that are of the space.

    A dimension that had no meaning, and so another value than any that was drawn, is not there.
    """
    return {
        path: label[path]
        for path, dimension in search.space.items()
        if path in label and dimension.holds(label[path])
    }


def at_border(dimension: Dimension, value: Any) -> bool | None:
    """Whether a value lies where a better one may be beyond the space.

    Of a range of numbers the border is the outer 5 % at either end, on the scale it is drawn on; in
    such a range one of ten drawn at random lies there. Of choices it is the least and the greatest
    of three numbers or more. Null where there is no order, or nothing between the ends.

    Args:
        dimension: of the space.
        value: that was drawn from it.
    """
    if dimension.choice is not None:
        numbers = [v for v in dimension.choice if _is_number(v)]
        if len(numbers) < len(dimension.choice) or len(set(numbers)) < _FEWEST_CHOICES:
            return None
        return bool(value in (min(numbers), max(numbers)))
    low, high = (float(end) for end in dimension.values)
    at = float(value)
    if dimension.log_uniform is not None:
        low, high, at = math.log(low), math.log(high), math.log(at)
    elif dimension.int_uniform is not None and high - low + 1 < _FEWEST_CHOICES:
        return None
    place = (at - low) / (high - low)
    return not BORDER < place < 1 - BORDER


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
