"""What a search optimises, read from the metric tables: tables in, tables out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from cifake.tables import RunTable
from sweeps.aggregate import frame

RUN_TABLES: tuple[RunTable, ...] = ("evaluations", "epochs", "runs")
"""Tables of runs that it is read from."""


@dataclass(frozen=True)
class Reached:
    """How far the runs of one proposal are."""

    epoch: int
    scores: Mapping[str, float]
    """Mean over seeds, by metric; NaN where a seed has none."""

    stds: Mapping[str, float]
    """Sample standard deviation over seeds, by metric; NaN where it is undefined."""


def values_by_epoch(
    tables: Mapping[RunTable, pa.Table], metrics: Sequence[str], *, dataset: str | None = None
) -> pd.DataFrame:
    """Every metric of every run after every epoch.

    Args:
        tables: `RUN_TABLES` of some runs.
        metrics: `validation.<score>`, `train_seconds` or `parameters`.
        dataset: whose validation split is looked at; by default that of any.

    Returns:
        A row for each run and epoch: `run_id`, `epoch`, and a float64 column for each metric, NaN
        where it is undefined or was not evaluated.
    """
    epochs = frame(tables["epochs"])[["run_id", "epoch", "seconds"]].sort_values(
        ["run_id", "epoch"]
    )
    epochs["train_seconds"] = epochs.groupby("run_id")["seconds"].cumsum()
    validation = frame(tables["evaluations"]).query("split == 'validation'")
    if dataset is not None:
        validation = validation[validation["dataset"] == dataset]
    parameters = frame(tables["runs"])[["run_id", "parameters"]]
    scores = [metric.partition(".")[2] for metric in metrics if "." in metric]
    whole = (
        epochs[["run_id", "epoch", "train_seconds"]]
        .merge(validation[["run_id", "epoch", *scores]], on=["run_id", "epoch"], how="left")
        .merge(parameters, on="run_id", how="left")
        .rename(columns={score: f"validation.{score}" for score in scores})
    )
    return whole[["run_id", "epoch", *metrics]].astype(dict.fromkeys(metrics, np.float64))


def means_by_epoch(
    values: pd.DataFrame, run_ids: Sequence[str], metrics: Sequence[str]
) -> Iterator[Reached]:
    """What some runs have together reached, epoch by epoch.

    Args:
        values: as `values_by_epoch` gives them.
        run_ids: the runs, one for each seed.
        metrics: columns of `values`.
    """
    own = values[values["run_id"].isin(run_ids)]
    for epoch, group in own.groupby("epoch", sort=True):
        whole = group.set_index("run_id").reindex(list(run_ids))
        yield Reached(
            epoch=int(str(epoch)),
            scores={metric: float(whole[metric].mean(skipna=False)) for metric in metrics},
            stds={metric: float(whole[metric].std(skipna=False)) for metric in metrics},
        )


def fronts(values: npt.NDArray[np.float64], modes: Sequence[str]) -> npt.NDArray[np.int64]:
    """The front that each point lies on: 0 where no other is better in one way and as good in all.

    Points of front 1 are on front 0 once those are taken away, and so on (Deb et al. 2002, NSGA-II,
    section III.A).

    Args:
        values: float64, (points, metrics).
        modes: `max` or `min`, for each metric.

    Returns:
        int64, (points,).
    """
    signs = np.asarray([1.0 if mode == "min" else -1.0 for mode in modes])
    dominates = np.ones((len(values), len(values)), np.bool_)
    differs = np.zeros_like(dominates)
    for loss in (values * signs).T:
        dominates &= loss[:, None] <= loss[None]
        differs |= loss[:, None] < loss[None]
    dominates &= differs
    found = np.full(len(values), -1, np.int64)
    front = 0
    while (left := found < 0).any():
        free = left & ~dominates[left].any(axis=0)
        found[free] = front
        front += 1
    return found
