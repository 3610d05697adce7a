"""The scores of configs to their ranking, and how stable it is: tables out."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from cifake import tables
from cifake.tables import higher_is_better, score_unit
from sweeps.comparisons import Place, Scores
from sweeps.statistics import cd_groups, rank_stability, seeds_needed_each

_SEED = 20_260_103

_PLACES = 400_000
"""Places that resampled rankings have in all: with thousands of configs they are fewer."""

_Compared = Mapping[tuple[str, str], Mapping[str, Any]]
"""Rows of `comparisons` of one place, by the labels of both, in either order."""


def ranking(sweep: str, found: Sequence[Scores], compared: pa.Table) -> pa.Table:
    """Rank configs on each metric, data set and split at each length.

    Args:
        sweep: name of the sweep.
        found: as `comparisons.scores` gives them.
        compared: table `comparisons` of the same.

    Returns:
        Table `ranking`; a config without a value has a row without a rank.
    """
    by_place = _by_place(compared)
    rows = [row for each in found for row in _rows(sweep, each, by_place.get(each.place, {}))]
    return tables.TABLES["ranking"].from_rows(rows)


def _by_place(compared: pa.Table) -> Mapping[Place, _Compared]:
    names = ["stage", "epochs", "dataset", "split", "metric"]
    found: dict[Place, dict[tuple[str, str], Mapping[str, Any]]] = defaultdict(dict)
    wanted = ["label_a", "label_b", "significant", "seeds_needed"]
    for row in compared.select([*names, *wanted]).to_pylist():
        place = Place(**{name: row[name] for name in names})
        found[place][row["label_a"], row["label_b"]] = row
        found[place][row["label_b"], row["label_a"]] = row
    return found


def _rows(sweep: str, scores: Scores, compared: _Compared) -> Iterator[dict[str, Any]]:
    higher = higher_is_better(scores.place.metric)
    configs = len(scores.labels)
    stability = rank_stability(
        scores.values,
        np.random.default_rng(_SEED),
        higher_is_better=higher,
        resamples=min(9_999, max(999, _PLACES // configs)),
    )
    places = {label: place for place, label in enumerate(scores.labels)}
    apart = np.zeros((configs, configs), np.bool_)
    for (a, b), pair in compared.items():
        apart[places[a], places[b]] = bool(pair["significant"])
    groups: list[str | None] = [None] * configs
    if len(compared) == configs * (configs - 1):  # each pair in either order
        groups = [*cd_groups(apart, np.nan_to_num(stability.rank, nan=np.inf))]
    best = scores.best
    ahead = np.full(scores.values.shape, np.nan)
    if best is not None:
        # What the comparisons have looked at is not looked for again.
        new = [(scores.labels[best], label) not in compared for label in scores.labels]
        ahead[new] = scores.values[best] - scores.values[new]
    needed_each = seeds_needed_each(ahead)
    for row, label in enumerate(scores.labels):
        ranked = stability.n[row] > 0
        behind = None
        if best is not None and ranked:
            behind = abs(float(scores.means[best] - scores.means[row]))
        needed = None
        if best is not None and row != best:
            known = compared.get((scores.labels[best], label))
            needed = needed_each[row] if known is None else known["seeds_needed"]
        yield {
            "sweep": sweep,
            **scores.place.columns,
            "label": label,
            "unit": score_unit(scores.place.metric),
            "n": int(stability.n[row]),
            "mean": _known(scores.means[row]),
            "rank": _known(stability.rank[row]),
            "rank_low": _known(stability.rank_low[row]),
            "rank_high": _known(stability.rank_high[row]),
            "p_best": _known(stability.p_best[row]),
            "group": groups[row] if ranked else None,
            "behind": behind,
            "seeds_needed": needed,
            "tau": stability.tau,
            "tau_low": stability.tau_low,
            "tau_high": stability.tau_high,
        }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
