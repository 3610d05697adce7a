"""One evaluation of one run as rows of the metric tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cifake import tables
from cifake.data.pack import Pack

if TYPE_CHECKING:
    from torch import nn

    from cifake.evaluation import FromValidation

GROUPS = ("content_class", "coarse_class", "generator")
"""What images are grouped by, as `images` and `classes` name it."""


class NotFiniteError(ArithmeticError):
    """A network gave probabilities that are no numbers; no score of them means anything."""


@dataclass(frozen=True)
class Images:
    """One split of one data set, ready to be evaluated."""

    dataset: str
    split: str
    pack: Pack
    rows: npt.NDArray[np.int64]

    @property
    def labels(self) -> npt.NDArray[np.int8]:
        """Shape (n,), 0 FAKE, 1 REAL."""
        return self.pack.labels[self.rows]

    def probabilities(self, model: nn.Module) -> npt.NDArray[np.float32]:
        """Probabilities of REAL, shape (n,), float32.

        Raises:
            NotFiniteError: some are NaN.
        """
        from cifake.evaluation import predict

        found = predict(model, self.pack.pixels, self.rows)
        lost = len(found) - int(np.count_nonzero(np.isfinite(found)))
        if lost:
            where = f"{lost:,} of {len(found):,} images of {self.dataset} {self.split}"
            raise NotFiniteError(f"probability became nan on {where}")
        return found


def evaluation_tables(
    run_id: str,
    epoch: int,
    images: Images,
    probabilities: npt.NDArray[np.float32],
    chosen: FromValidation,
    *,
    keep_predictions: bool,
) -> dict[tables.RunTable, pa.Table]:
    """Rows of `evaluations`, `thresholds`, `classes`, and `predictions` where they are kept."""
    from cifake import evaluation

    labels = images.labels
    keys = {"run_id": run_id, "epoch": epoch, "dataset": images.dataset, "split": images.split}
    duplicates = images.pack.duplicates(images.rows)
    row = evaluation.evaluation(probabilities, labels, duplicates, chosen)
    at = evaluation.counts(probabilities, labels, np.asarray(tables.THRESHOLDS))
    scores = evaluation.threshold_scores(at)
    curve = {name: pa.array(values, pa.float64()) for name, values in scores.items()}
    classes = [
        {**keys, "kind": kind, **group}
        for kind in GROUPS
        for group in evaluation.class_scores(
            probabilities, labels, images.pack.words(kind, images.rows)
        )
    ]
    made: dict[tables.RunTable, pa.Table] = {
        "evaluations": tables.TABLES["evaluations"].from_rows([keys | row]),
        "thresholds": tables.TABLES["thresholds"].from_columns(
            {**keys, "threshold": np.asarray(tables.THRESHOLDS), **at._asdict(), **curve}
        ),
        "classes": tables.TABLES["classes"].from_rows(classes),
    }
    if keep_predictions:
        made["predictions"] = tables.TABLES["predictions"].from_columns(
            {**keys, "image_id": images.rows, "probability": probabilities}
        )
    return made
