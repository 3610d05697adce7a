"""What predictions of the same images say of two configs: McNemar's test, and a total interval.

Where two runs differ, they differ on images, and so do two runs of one config: an interval over
seeds alone says nothing of other images. Predictions are large, so that few pairs are looked at:
accuracy on test at each config's longest length, and of those at most `MAX_PAIRS` with what is best
or the baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cifake.tables import RunTable
from sweeps.comparisons import ImageTest, Pairs, Place, Scores
from sweeps.families import ALPHA
from sweeps.statistics import mcnemar, two_level

MAX_PAIRS = 20
"""Comparisons of a data set for which predictions are read."""

_SEED = 20_260_102

_Bools = npt.NDArray[np.bool_]
_Read = Callable[[RunTable, Iterable[str]], pa.Table]


def image_test(
    found: Sequence[Scores], evaluations: pa.Table, labels: pa.Table, read: _Read
) -> ImageTest:
    """What compares predictions of the configs of a report.

    Args:
        found: everything that is compared.
        evaluations: table `evaluations` of the runs.
        labels: table `labels`; sets that it does not have are passed over, and so are runs whose
            predictions do not have as many right as `evaluations` says: another set's labels.
        read: reads the table `predictions` of some runs.
    """
    longest: dict[str, int | None] = {}
    for each in found:
        longest[each.place.stage] = _longer(each.place.epochs, longest.get(each.place.stage, 0))

    def test(scores: Scores, pairs: Pairs) -> Mapping[tuple[int, int], Mapping[str, Any]]:
        place = scores.place
        if (place.metric, place.split) != ("accuracy", "test"):
            return {}
        truth = _truth(labels, place)
        if place.epochs != longest[place.stage] or not len(truth):
            return {}
        chosen = _chosen(scores, pairs)
        right = _right(scores, {end for pair in chosen for end in pair}, evaluations, truth, read)
        return {(a, b): _compared(right[a], right[b]) for a, b in chosen}

    return test


def unlabelled(found: Sequence[Scores], labels: pa.Table) -> Iterator[str]:
    """A note on test sets whose images are not compared one by one, as their labels are not known.

    Args:
        found: everything that is compared.
        labels: table `labels`.
    """
    known = set(labels.filter(pc.field("split") == "test")["dataset"].unique().to_pylist())
    tested = {s.place.dataset for s in found if s.place.split == "test" and len(s.labels) > 1}
    lacking = sorted(tested - known)
    if lacking:
        yield (
            f"on {', '.join(lacking)} configs are not compared image by image, neither by "
            "McNemar's test nor in an interval for other images, since the store does not have the "
            "images' labels: `sweeps run` keeps them, `cifake train` does not"
        )


def _chosen(scores: Scores, pairs: Pairs) -> list[tuple[int, int]]:
    """The pairs with a reference, or else with the best, the nearest to it first."""
    references = {b for _, b in pairs}
    if references & {a for a, _ in pairs}:
        pairs = [pair for pair in pairs if scores.best in pair]
    best = scores.means[scores.best] if scores.best is not None else np.nan

    def distance(pair: tuple[int, int]) -> float:
        return float(np.nan_to_num(np.abs(scores.means[list(pair)] - best).sum(), nan=np.inf))

    return sorted(pairs, key=distance)[:MAX_PAIRS]


def _compared(a: Sequence[_Bools | None], b: Sequence[_Bools | None]) -> Mapping[str, Any]:
    """The columns of `comparisons` that images tell, from what the runs of each seed got right."""
    seeds = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    runs = max((min(len(x), len(y)) for x, y in seeds), default=0)
    seeds = [(x, y) for x, y in seeds if len(x) == len(y) == runs]
    if not seeds:
        return {}
    both = [pair for seed in seeds for pair in zip(*seed, strict=True)]
    different = sum(mcnemar(x, y).p < ALPHA for x, y in both)
    total = two_level(
        np.stack([x for x, _ in seeds]),
        np.stack([y for _, y in seeds]),
        np.random.default_rng(_SEED),
    )
    return {
        "mcnemar_runs": len(both),
        "mcnemar_different": different,
        "total_low": total.low,
        "total_high": total.high,
    }


def _longer(one: int | None, other: int | None) -> int | None:
    """Of two lengths that configs are compared at; null, the longest of each, is beyond all."""
    return None if one is None or other is None else max(one, other)


def _truth(labels: pa.Table, place: Place) -> npt.NDArray[np.int8]:
    """The label of each image by its number, −1 where none is known."""
    own = labels.filter((pc.field("dataset") == place.dataset) & (pc.field("split") == place.split))
    images = own["image_id"].to_numpy()
    truth = np.full(images.max(initial=-1) + 1, -1, np.int8)
    truth[images] = own["label"].to_numpy()
    return truth


def _right(
    scores: Scores,
    configs: Iterable[int],
    evaluations: pa.Table,
    truth: npt.NDArray[np.int8],
    read: _Read,
) -> Mapping[int, list[_Bools | None]]:
    """What the runs of each seed of some configs got right, shape (runs, images).

    Null where that is not known of one of them.
    """
    columns = ["run_id", "threshold", "tp", "tn"]
    found = {}
    for config in configs:
        here = _at(scores.place, scores.lengths[config])
        own = evaluations.filter(here).select(columns).to_pylist()
        told = {row["run_id"]: (row["threshold"], row["tp"] + row["tn"]) for row in own}
        # A config at a time: all at once would fill the memory.
        rows = read("predictions", sorted(told.keys() & {*scores.runs[config].flat}))
        rows = rows.filter(here)
        by_run: dict[str, _Bools] = {}
        for run in rows["run_id"].unique().to_pylist():
            threshold, expected = told[run]
            mine = rows.filter(pc.field("run_id") == run)
            right = _right_of(mine, truth, threshold)
            if right is not None and right.sum() == expected:
                by_run[run] = right
        found[config] = [_of_seed(by_run, runs) for runs in scores.runs[config]]
    return found


def _of_seed(right: Mapping[str, _Bools], runs: Iterable[str | None]) -> _Bools | None:
    asked = [run for run in runs if run is not None]
    known = [right[run] for run in asked if run in right]
    return np.stack(known) if known and len(known) == len(asked) else None


def _right_of(
    predictions: pa.Table, truth: npt.NDArray[np.int8], threshold: float
) -> _Bools | None:
    """Which images of a run are called as their label says, in the order of their numbers."""
    images = predictions["image_id"].to_numpy()
    if images.max(initial=-1) >= len(truth) or (truth[images] < 0).any():
        return None
    called = predictions["probability"].to_numpy() >= threshold
    order = np.argsort(images)
    return np.asarray((called == (truth[images] == 1))[order], np.bool_)


def _at(place: Place, epoch: int) -> pc.Expression:
    return (
        (pc.field("epoch") == epoch)
        & (pc.field("dataset") == place.dataset)
        & (pc.field("split") == place.split)
    )
