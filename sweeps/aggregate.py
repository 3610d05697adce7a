"""Metric tables to summary tables: tables in, tables out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from cifake import tables
from cifake.tables import (
    DEDUPLICATED,
    SCORES,
    SCORES_AT_TEMPERATURE,
    SCORES_AT_VALIDATION_THRESHOLD,
)
from sweeps.plan import Cell
from sweeps.statistics import INTERVAL, summarise_each

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
    joined = asked.merge(
        frame(evaluations), left_on=["run_id", "epochs"], right_on=["run_id", "epoch"]
    )
    by_config = asked.groupby(CONFIG)
    sizes = by_config.size().to_dict()
    config_ids = by_config["config_id"].unique().to_dict()
    roles = by_config["role"].unique().to_dict()
    rows = []
    if joined.empty:
        return tables.TABLES["summary"].empty()
    # Runs that are missing altogether must not take their config with them.
    places = joined[["stage", "dataset", "split"]].drop_duplicates()
    every = asked[CONFIG].drop_duplicates().merge(places, on="stage")
    by = [*CONFIG, "dataset", "split"]
    padded = joined.merge(every, how="outer", on=by)
    for key, group in padded.groupby(by, sort=True):
        config, where = key[: len(CONFIG)], dict(zip(by, key, strict=True))
        # A column of a frame at a time would take longer than what is done with it.
        columns = group[list(METRICS)].to_numpy(np.float64).T
        for metric, found in zip(METRICS, summarise_each(columns), strict=True):
            rows.append(
                {
                    "sweep": sweep,
                    **where,
                    "config_id": _only(config_ids[config]),
                    "role": _only(roles[config]),
                    "metric": metric,
                    "unit": tables.score_unit(metric),
                    "n_missing": int(sizes[config]) - found.n,
                    "interval": INTERVAL,
                    **vars(found),
                }
            )
    return tables.TABLES["summary"].from_rows(rows)


def _only(values: Sequence[str]) -> str | None:
    """The value, where there is one."""
    return values[0] if len(values) == 1 else None


def frame(table: pa.Table) -> pd.DataFrame:
    """A table as a pandas frame with plain strings, so that merges compare values."""
    words = [field.name for field in table.schema if pa.types.is_dictionary(field.type)]
    schema = table.schema
    for name in words:
        schema = schema.set(schema.get_field_index(name), pa.field(name, pa.string()))
    result: pd.DataFrame = table.cast(schema).to_pandas()
    return result
