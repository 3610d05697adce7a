"""One network on one split of one data set, as plain values: scores, groups, a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cifake import evaluation, tables
from cifake.evaluations import GROUPS, Images

Probabilities = npt.NDArray[np.float32]

_KEPT = (
    *("n", "threshold", "tp", "fp", "tn", "fn"),
    *tables.SCORES,
    *(name + tables.DEDUPLICATED for name in ("n", *tables.SCORES)),
)
"""Columns of the `evaluations` table that do not rest on other images."""


def assess(images: Images, probabilities: Probabilities, threshold: float) -> dict[str, Any]:
    """The columns of the `evaluations` table that say how good probabilities of shape (n,) are."""
    duplicates = images.pack.duplicates(images.rows)
    unchosen = evaluation.FromValidation()
    row = evaluation.evaluation(probabilities, images.labels, duplicates, unchosen, threshold)
    kept = {key: row[key] for key in _KEPT}
    known = {"dataset": images.dataset, "split": images.split, "n_unreadable": images.n_unreadable}
    return {**known, **kept}


def assess_groups(
    images: Images, probabilities: Probabilities, threshold: float
) -> list[dict[str, Any]]:
    """The columns of the `classes` table for every content class, coarse class and generator."""
    return [
        {"kind": kind, **group}
        for kind in GROUPS
        for group in evaluation.class_scores(
            probabilities, images.labels, images.pack.words(kind, images.rows), threshold
        )
    ]


def compare(
    images: Images, first: Probabilities, second: Probabilities, threshold: float
) -> dict[str, Any]:
    """How two networks differ image by image, as `evaluation.disagreements` counts it."""
    return evaluation.disagreements(first, second, images.labels, threshold)._asdict()


def predictions_table(parts: Sequence[tuple[Images, Probabilities]]) -> pa.Table:
    """The columns of the `predictions` table that need no run: one row an image."""
    columns = [c for c in tables.TABLES["predictions"].columns if c.name not in ("run_id", "epoch")]
    schema = pa.schema([pa.field(c.name, c.type, nullable=c.nullable) for c in columns])
    made = []
    for images, probabilities in parts:
        values = {
            "dataset": [images.dataset] * len(images.rows),
            "split": [images.split] * len(images.rows),
            "image_id": images.rows,
            "probability": probabilities,
        }
        arrays = [pa.array(values[field.name]).cast(field.type) for field in schema]
        made.append(pa.Table.from_arrays(arrays, schema=schema))
    return pa.concat_tables(made).unify_dictionaries()
