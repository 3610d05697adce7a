"""Metric tables to summary tables: tables in, tables out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cifake import tables
from cifake.tables import (
    DEDUPLICATED,
    SCORES,
    SCORES_AT_TEMPERATURE,
    SCORES_AT_VALIDATION_THRESHOLD,
)
from sweeps.plan import Cell
from sweeps.statistics import INTERVAL, Summary, summarise_each

METRICS = (
    *SCORES,
    *(score + DEDUPLICATED for score in SCORES),
    *SCORES_AT_VALIDATION_THRESHOLD,
    "temperature",
    *SCORES_AT_TEMPERATURE,
)
"""Columns of `evaluations` that are summarised."""

CONFIG = ["stage", "label", "epochs"]
"""Columns of `cells` that tell what is summarised over runs."""

_PLACE = ("run_id", "epoch", "dataset", "split")
"""Columns that tell one evaluation from another."""


def cells_table(cells: Sequence[Cell]) -> pa.Table:
    """The cells of a sweep as the table `cells`."""
    lengths: dict[str, int] = {}
    for cell in cells:
        lengths[cell.run_id] = max(cell.variant.epochs, lengths.get(cell.run_id, 0))
    rows = [
        {
            "label": cell.variant.label_json,
            "nuisance": cell.variant.nuisance_json,
            "epochs": cell.variant.epochs,
            "seed": cell.seed,
            "config_id": cell.config_id,
            "run_id": cell.run_id,
            "stage": cell.stage,
            "role": "end" if cell.variant.epochs == lengths[cell.run_id] else "milestone",
        }
        for cell in cells
    ]
    return tables.TABLES["cells"].from_rows(rows)


def summary(sweep: str, cells: pa.Table, evaluations: pa.Table) -> pa.Table:
    """Summarise every metric of every cell over runs.

    Args:
        sweep: name of the sweep.
        cells: table `cells`.
        evaluations: table `evaluations` of the runs; epochs that no cell asks for are ignored.
    """
    asked = frame(cells)
    # Of thirty epochs that a run was evaluated at, few are asked for.
    wanted = pa.array(asked["epochs"].unique(), pa.int32())
    scored = evaluations.select([*_PLACE, *METRICS])
    scored = scored.filter(pc.is_in(scored["epoch"], value_set=wanted))
    joined = asked[[*CONFIG, "seed", "run_id"]].merge(
        frame(scored), left_on=["run_id", "epochs"], right_on=["run_id", "epoch"]
    )
    if joined.empty:
        return tables.TABLES["summary"].empty()
    joined = _over_nuisance(joined, asked)
    # Runs that are missing altogether must not take their config with them.
    places = joined[["stage", "dataset", "split"]].drop_duplicates()
    every = asked[CONFIG].drop_duplicates().merge(places, on="stage")
    by = [*CONFIG, "dataset", "split"]
    padded = joined.merge(every, how="outer", on=by)
    groups, summaries = _summarised(padded, by)
    configs = asked.groupby(CONFIG).agg(
        runs=("seed", "nunique"), config_id=("config_id", _only), role=("role", _only)
    )
    known = groups.join(configs, on=CONFIG).reset_index(drop=True)
    keys = known.loc[known.index.repeat(len(METRICS))]
    metrics = [*METRICS] * len(groups)
    units = {metric: tables.score_unit(metric) for metric in METRICS}
    return tables.TABLES["summary"].from_columns(
        {
            **{name: keys[name] for name in (*by, "config_id", "role")},
            "sweep": sweep,
            "metric": metrics,
            "unit": [units[metric] for metric in metrics],
            "n_missing": [of - s.n for of, s in zip(keys["runs"], summaries, strict=True)],
            "interval": INTERVAL,
            **{name: [getattr(s, name) for s in summaries] for name in _NUMBERS},
        }
    )


def _over_nuisance(scored: pd.DataFrame, asked: pd.DataFrame) -> pd.DataFrame:
    """Means over the nuisance values of each seed, whose runs are no independent ones.

    A seed has one where each of them has a value.
    """
    key = [*CONFIG, "seed"]
    if not asked.duplicated(key).any():
        return scored
    grouped = scored.groupby([*key, "dataset", "split"])[list(METRICS)]
    means, counts = grouped.mean(), grouped.count()
    wanted = asked.groupby(key).size().rename("wanted")
    whole = counts.join(wanted, on=key)["wanted"]
    return means.where(counts.eq(whole, axis=0)).reset_index()


_NUMBERS = tuple(field.name for field in fields(Summary))


def _summarised(rows: pd.DataFrame, by: list[str]) -> tuple[pd.DataFrame, list[Summary]]:
    """Every metric of each group of rows: the groups' keys in order, and a summary for each metric.

    Groups of one size are summarised at once, since a call costs more than the numbers of a group.
    """
    number = rows.groupby(by, sort=True).ngroup().to_numpy()
    order = np.argsort(number, kind="stable")
    sizes = np.bincount(number)
    starts = np.cumsum(sizes) - sizes
    values = rows[list(METRICS)].to_numpy(np.float64)
    found: list[list[Summary]] = [[]] * len(sizes)
    for size in np.unique(sizes):
        chosen = np.flatnonzero(sizes == size)
        places = order[starts[chosen, np.newaxis] + np.arange(size)]
        of_metrics = values[places].transpose(0, 2, 1).reshape(-1, size)
        summaries = summarise_each(of_metrics)
        for place, group in enumerate(chosen.tolist()):
            found[group] = summaries[place * len(METRICS) : (place + 1) * len(METRICS)]
    return rows.iloc[order[starts]][by], [summary for group in found for summary in group]


def _only(values: pd.Series[str]) -> str | None:
    """The value, where all are the same."""
    found = values.unique()
    return str(found[0]) if len(found) == 1 else None


def frame(table: pa.Table) -> pd.DataFrame:
    """A table as a pandas frame with plain strings, so that merges compare values."""
    words = [field.name for field in table.schema if pa.types.is_dictionary(field.type)]
    schema = table.schema
    for name in words:
        schema = schema.set(schema.get_field_index(name), pa.field(name, pa.string()))
    result: pd.DataFrame = table.cast(schema).to_pandas()
    return result


def label_order(label: Mapping[str, Any]) -> tuple[tuple[str, float, str], ...]:
    """What labels are sorted by: numbers in numerical order, words in alphabetical."""
    return tuple(
        (name, float(value), "") if isinstance(value, int | float) else (name, 0.0, str(value))
        for name, value in sorted(label.items())
    )
