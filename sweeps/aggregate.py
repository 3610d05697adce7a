"""Metric tables to summary tables: tables in, tables out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

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
from sweeps.statistics import INTERVAL, summarise

METRICS = (
    *SCORES,
    *(score + DEDUPLICATED for score in SCORES),
    *SCORES_AT_VALIDATION_THRESHOLD,
    "temperature",
    *SCORES_AT_TEMPERATURE,
)
"""Columns of `evaluations` that are summarised."""

GROUP = ["label", "epochs", "dataset", "split"]


def cells_table(cells: Sequence[Cell]) -> pa.Table:
    """The cells of a sweep as the table `cells`."""
    rows = [
        {
            "label": cell.variant.label_json,
            "nuisance": cell.variant.nuisance_json,
            "epochs": cell.variant.epochs,
            "seed": cell.seed,
            "config_id": cell.variant.config.config_id,
            "run_id": cell.run_id,
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
    by_label = asked.groupby(["label", "epochs"])
    sizes = by_label.size().to_dict()
    configs = by_label["config_id"].unique().to_dict()
    rows = []
    if joined.empty:
        return tables.TABLES["summary"].empty()
    # Runs that are missing altogether must not take their label with them.
    places = joined[["dataset", "split"]].drop_duplicates()
    every = asked[["label", "epochs"]].drop_duplicates().merge(places, how="cross")
    padded = joined.merge(every, how="outer", on=GROUP)
    for (label, epochs, dataset, split), group in padded.groupby(GROUP, sort=True):
        config_ids = configs[label, epochs]
        for metric in METRICS:
            found = summarise(group[metric].to_numpy(np.float64))
            rows.append(
                {
                    "sweep": sweep,
                    "label": label,
                    "config_id": config_ids[0] if len(config_ids) == 1 else None,
                    "epochs": epochs,
                    "dataset": dataset,
                    "split": split,
                    "metric": metric,
                    "unit": tables.score_unit(metric),
                    "n_missing": int(sizes[label, epochs]) - found.n,
                    "interval": INTERVAL,
                    **asdict(found),
                }
            )
    return tables.TABLES["summary"].from_rows(rows)


def frame(table: pa.Table) -> pd.DataFrame:
    """A table as a pandas frame with plain strings, so that merges compare values."""
    words = [field.name for field in table.schema if pa.types.is_dictionary(field.type)]
    schema = table.schema
    for name in words:
        schema = schema.set(schema.get_field_index(name), pa.field(name, pa.string()))
    result: pd.DataFrame = table.cast(schema).to_pandas()
    return result
