"""Cells and their evaluations to comparisons of configs, paired by seed: tables in, tables out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from cifake import tables
from cifake.tables import higher_is_better, score_unit
from sweeps.aggregate import frame, label_order
from sweeps.families import ALPHA, Family, family
from sweeps.spec import Compare
from sweeps.statistics import holm, paired_each, seeds_needed_each
from sweeps.words import after

STAGES = ("grid", "confirm")
"""Stages whose configs are compared: what a search tried chose what came next."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Place:
    """One metric of one data set and split at one length."""

    stage: str
    epochs: int | None
    """Null: each config at its longest, where those differ."""

    dataset: str
    split: str
    metric: str

    @property
    def columns(self) -> dict[str, Any]:
        """The columns of `comparisons` and `ranking` that tell it."""
        at = "longest" if self.epochs is None else str(self.epochs)
        return {**vars(self), "compared_at": at}

    def __str__(self) -> str:
        return f"{self.metric} on {self.dataset} {self.split} {after(self.epochs)}"


@dataclass(frozen=True)
class Scores:
    """The values of every config at one place, side by side."""

    place: Place
    labels: Sequence[str]
    """Scientific parameters of each config, as JSON."""

    lengths: Sequence[int]
    """Epochs of each config."""

    values: Floats
    """Shape (configs, seeds): means over nuisance values, since the runs of one seed are no
    independent ones; NaN where one of them has no value."""

    asked: npt.NDArray[np.bool_]
    """Same shape: which of them the sweep asks for."""

    runs: npt.NDArray[np.object_]
    """Shape (configs, seeds, nuisance values): the runs; null where none is asked for."""

    @cached_property
    def means(self) -> Floats:
        """Shape (configs,); NaN without a value."""
        counts = np.count_nonzero(~np.isnan(self.values), axis=1)
        sums = np.nansum(np.sort(self.values, axis=1), axis=1)
        found = np.full(len(counts), np.nan)
        np.divide(sums, counts, out=found, where=counts > 0)
        return found

    @property
    def best(self) -> int | None:
        """Place of the config with the best mean; null where none has a value."""
        if np.isnan(self.means).all():
            return None
        ranked = self.means if higher_is_better(self.place.metric) else -self.means
        return int(np.nanargmax(ranked))


def scores(cells: pa.Table, evaluations: pa.Table, metrics: Sequence[str]) -> list[Scores]:
    """The values that a sweep's configs are compared by.

    Args:
        cells: table `cells`; stages of a search are passed over.
        evaluations: table `evaluations` of the runs; epochs that no cell asks for are ignored.
        metrics: columns of that table.

    Returns:
        One for each stage, length, data set, split and metric with a value, validation first; and
        where the configs' longest lengths differ, one more with each at its own.
    """
    asked = frame(cells)
    asked = asked[asked["stage"].isin(STAGES)]
    names = ["run_id", "epoch", "dataset", "split", *metrics]
    rows = frame(evaluations.select(names)).rename(columns={"epoch": "epochs"})
    found: list[Scores] = []
    for stage, staged in asked.groupby("stage", sort=True):
        for epochs, group in staged.groupby("epochs", sort=True):
            found += _of_cells(str(stage), int(str(epochs)), group, rows, metrics)
        ends = staged[staged["epochs"] == staged.groupby("label")["epochs"].transform("max")]
        if ends["epochs"].nunique() > 1:
            found += _of_cells(str(stage), None, ends, rows, metrics)
    return sorted(found, key=lambda each: each.place.split != "validation")


def _of_cells(
    stage: str,
    epochs: int | None,
    cells: pd.DataFrame,
    rows: pd.DataFrame,
    metrics: Sequence[str],
) -> Iterator[Scores]:
    labels = sorted(set(cells["label"]), key=lambda label: label_order(json.loads(label)))
    row = cells["label"].map({label: number for number, label in enumerate(labels)}).to_numpy()
    seed, seeds = pd.factorize(cells["seed"], sort=True)
    level, levels = pd.factorize(cells["nuisance"], sort=True)
    shape = (len(labels), len(seeds), len(levels))
    asked = np.zeros(shape, np.bool_)
    asked[row, seed, level] = True
    runs = np.full(shape, None, object)
    runs[row, seed, level] = cells["run_id"].to_numpy(object)
    lengths = np.zeros(len(labels), np.int64)
    lengths[row] = cells["epochs"]
    # Two cells can share a run: configs that mean the same are one run under two labels.
    joined = cells[["run_id", "epochs"]].assign(row=row, seed=seed, level=level)
    rows = rows[rows["epochs"].isin(cells["epochs"].unique())]
    joined = joined.merge(rows, on=["run_id", "epochs"])
    for (dataset, split), group in joined.groupby(["dataset", "split"], sort=True):
        for metric in metrics:
            each = np.full(shape, np.nan)
            each[group["row"], group["seed"], group["level"]] = group[metric].to_numpy(np.float64)
            if not np.isnan(each).all():
                place = Place(stage, epochs, str(dataset), str(split), metric)
                values = _over_nuisance(each, asked)
                of_seeds = np.any(asked, axis=2)
                yield Scores(place, labels, lengths.tolist(), values, of_seeds, runs)


def _over_nuisance(values: Floats, asked: npt.NDArray[np.bool_]) -> Floats:
    """The mean of what is asked for along the last axis; NaN where a part of it lacks."""
    count = np.count_nonzero(asked, axis=2)
    found = np.full(count.shape, np.nan)
    np.divide(np.where(asked, values, 0.0).sum(axis=2), count, out=found, where=count > 0)
    return found


Pairs = Sequence[tuple[int, int]]
"""Places of a and b among the configs."""

ImageTest = Callable[[Scores, Pairs], Mapping[tuple[int, int], Mapping[str, Any]]]
"""What predictions say of some pairs: columns of `comparisons` by pair; not of every pair."""


def comparisons(
    sweep: str, compare: Compare, found: Sequence[Scores], images: ImageTest | None = None
) -> pa.Table:
    """Compare configs on each metric, data set and split at each length.

    Args:
        sweep: name of the sweep.
        compare: what is compared with what.
        found: as `scores` gives them.
        images: compares predictions; by default nothing does.

    Returns:
        Table `comparisons`: every pair of a family, those without a common run with n = 0.
    """
    chosen = {_without_split(each): each.best for each in reversed(found) if _chooses(each)}
    rows: list[dict[str, Any]] = []
    for each in found:
        labels = [json.loads(label) for label in each.labels]
        best = chosen.get(_without_split(each))
        best = each.best if best is None else best
        rows += _rows(sweep, each, family(labels, compare, best or 0), images)
    return tables.TABLES["comparisons"].from_rows(rows)


def _chooses(scores: Scores) -> bool:
    return scores.place.split == "validation"


def _without_split(scores: Scores) -> tuple[str, int | None, str]:
    return scores.place.stage, scores.place.epochs, scores.place.metric


def _rows(
    sweep: str, scores: Scores, family: Family, images: ImageTest | None
) -> Iterator[dict[str, Any]]:
    if not family.pairs:
        return
    first, second = (list(places) for places in zip(*family.pairs, strict=True))
    found = paired_each(scores.values[first], scores.values[second])
    p = np.asarray([math.nan if each.p is None else each.p for each in found])
    # Pairs that are corrected for without being looked at count as ones that show nothing.
    unseen = np.ones(family.size - len(p))
    corrected = holm(np.concatenate([p, unseen]))[: len(p)]
    asked = np.count_nonzero(scores.asked[first] | scores.asked[second], axis=1)
    differences = scores.values[first] - scores.values[second]
    needed = seeds_needed_each(differences, alpha=ALPHA / family.size)
    by_image = {} if images is None else images(scores, family.pairs)
    for row, (pair, each) in enumerate(zip(family.pairs, found, strict=True)):
        yield {
            "sweep": sweep,
            **scores.place.columns,
            "label_a": scores.labels[pair[0]],
            "label_b": scores.labels[pair[1]],
            "unit": score_unit(scores.place.metric),
            "family": f"{scores.place}: {family.wording}",
            "comparisons": family.size,
            "n_missing": int(asked[row]) - each.n,
            "p_holm": None if each.p is None else float(corrected[row]),
            "significant": None if each.p is None else bool(corrected[row] < ALPHA),
            "seeds_needed": needed[row],
            **vars(each),
            **by_image.get(pair, {}),
        }
