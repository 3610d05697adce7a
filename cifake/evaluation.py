"""From probabilities and labels to metrics. REAL is the positive class.

Arrays in, plain numbers out; a metric that is undefined is None.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import binomtest, rankdata
from torch import nn

from cifake.tables import DEDUPLICATED, SCORES, THRESHOLDS

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int8]
Scores = dict[str, float | None]

DEFAULT_THRESHOLD = 0.5
CALIBRATION_BINS = 15
_BATCH = 500


class Counts(NamedTuple):
    """Confusion counts at one or several thresholds; int64, each of the thresholds' shape."""

    tp: npt.NDArray[np.int64]
    fp: npt.NDArray[np.int64]
    tn: npt.NDArray[np.int64]
    fn: npt.NDArray[np.int64]


class Disagreements(NamedTuple):
    """Where two classifiers of the same images are right (McNemar 1947)."""

    both_right: int
    only_first: int
    """Images that the first classifies as their label says, and the second does not."""

    only_second: int
    both_wrong: int
    p: float
    """Exact two-sided p of equal error rates; 1 where the two are right on the same images."""


def predict(
    model: nn.Module, pixels: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Probabilities of REAL, shape (m,), float32, of some rows of (n, 32, 32, 3) uint8 pixels."""
    was_training = model.training
    model.eval()
    # Trees have buffers alone.
    device = next(itertools.chain(model.parameters(), model.buffers())).device
    out = np.empty(len(rows), np.float32)
    with torch.inference_mode():
        for start in range(0, len(rows), _BATCH):
            batch = torch.from_numpy(np.take(pixels, rows[start : start + _BATCH], axis=0))
            out[start : start + _BATCH] = (
                torch.sigmoid(model(batch.to(device)).float()).cpu().numpy()
            )
    model.train(was_training)
    return out


def counts(probabilities: npt.NDArray[np.floating], labels: Labels, thresholds: Floats) -> Counts:
    """Confusion counts where REAL is called at a probability of at least the threshold."""
    real = np.sort(probabilities[labels == 1].astype(np.float64))
    fake = np.sort(probabilities[labels == 0].astype(np.float64))
    fn = np.searchsorted(real, thresholds, side="left").astype(np.int64)
    tn = np.searchsorted(fake, thresholds, side="left").astype(np.int64)
    return Counts(len(real) - fn, len(fake) - tn, tn, fn)


def threshold_scores(at: Counts) -> dict[str, list[float | None]]:
    """Accuracy, precision, recall and F1 at each threshold.

    Precision is None where nothing is called REAL, and everywhere where one class is missing.
    """
    both = bool((at.tp + at.fn).max() and (at.tn + at.fp).max())
    precision = _divide(at.tp, (at.tp + at.fp) * both)
    recall = _divide(at.tp, at.tp + at.fn)
    f1 = [
        None if p is None or r is None else (2 * p * r / (p + r) if p + r else 0.0)
        for p, r in zip(precision, recall, strict=True)
    ]
    accuracy = _divide(at.tp + at.tn, at.tp + at.fp + at.tn + at.fn)
    return {"accuracy": accuracy, "precision": precision, "recall": recall, "f1": f1}


def scores(
    probabilities: npt.NDArray[np.floating], labels: Labels, threshold: float = DEFAULT_THRESHOLD
) -> Scores:
    """Every score of the `evaluations` table.

    Args:
        probabilities: shape (n,), of REAL.
        labels: shape (n,), 0 FAKE, 1 REAL.
        threshold: REAL is called at this probability or above.
    """
    if not len(labels):
        return dict.fromkeys(SCORES)
    p = probabilities.astype(np.float64)
    at = counts(probabilities, labels, np.asarray([threshold]))
    hard = {name: values[0] for name, values in threshold_scores(at).items()}
    real, fake = int(at.tp[0] + at.fn[0]), int(at.tn[0] + at.fp[0])
    both = real > 0 and fake > 0
    balanced = (int(at.tp[0]) / real + int(at.tn[0]) / fake) / 2 if both else None
    return {
        "loss": _log_loss(p, labels),
        "accuracy": hard["accuracy"],
        "balanced_accuracy": balanced,
        "precision": hard["precision"],
        "recall": hard["recall"],
        "f1": hard["f1"],
        "auroc": _auroc(p, labels) if both else None,
        "average_precision": _average_precision(p, labels) if both else None,
        "brier": float(np.mean((p - labels) ** 2)),
        "ece": _ece(p, labels),
    }


def evaluation(
    probabilities: npt.NDArray[np.floating],
    labels: Labels,
    duplicates: npt.NDArray[np.bool_],
    validation_threshold: float | None,
    threshold: float = DEFAULT_THRESHOLD,
) -> dict[str, float | int | None]:
    """A row of the `evaluations` table, its keys left out."""
    unique = ~duplicates
    at = counts(probabilities, labels, np.asarray([threshold]))
    deduplicated = scores(probabilities[unique], labels[unique], threshold)
    tuned = None
    if validation_threshold is not None and len(labels):
        chosen = counts(probabilities, labels, np.asarray([validation_threshold]))
        tuned = threshold_scores(chosen)["accuracy"][0]
    return {
        "n": len(labels),
        "threshold": threshold,
        **{name: int(value[0]) for name, value in at._asdict().items()},
        **scores(probabilities, labels, threshold),
        "n" + DEDUPLICATED: int(unique.sum()),
        **{name + DEDUPLICATED: value for name, value in deduplicated.items()},
        "validation_threshold": validation_threshold,
        "accuracy_at_validation_threshold": tuned,
    }


def best_threshold(probabilities: npt.NDArray[np.floating], labels: Labels) -> float | None:
    """The threshold of the `thresholds` table with the best accuracy; of equals the middle one."""
    if not len(labels):
        return None
    at = counts(probabilities, labels, np.asarray(THRESHOLDS))
    right = at.tp + at.tn
    best = np.flatnonzero(right == right.max())
    return THRESHOLDS[int(best[len(best) // 2])]


def class_scores(
    probabilities: npt.NDArray[np.floating],
    labels: Labels,
    names: Sequence[str | None],
    threshold: float = DEFAULT_THRESHOLD,
) -> list[dict[str, str | int | float | None]]:
    """Recall and accuracy of each named group, in the order of the names."""
    right = _right(probabilities, labels, threshold)
    grouped = np.asarray([name or "" for name in names])
    rows: list[dict[str, str | int | float | None]] = []
    for name in sorted(set(grouped.tolist()) - {""}):
        inside = grouped == name
        real, fake = inside & (labels == 1), inside & (labels == 0)
        rows.append(
            {
                "name": name,
                "n": int(inside.sum()),
                "recall_real": float(right[real].mean()) if real.any() else None,
                "recall_fake": float(right[fake].mean()) if fake.any() else None,
                "accuracy": float(right[inside].mean()),
            }
        )
    return rows


def disagreements(
    first: npt.NDArray[np.floating],
    second: npt.NDArray[np.floating],
    labels: Labels,
    threshold: float = DEFAULT_THRESHOLD,
) -> Disagreements:
    """Compare two classifiers image by image.

    Args:
        first: shape (n,), probabilities of REAL of one classifier.
        second: shape (n,), of the other, for the same images.
        labels: shape (n,), 0 FAKE, 1 REAL.
        threshold: REAL is called at this probability or above.
    """
    a, b = _right(first, labels, threshold), _right(second, labels, threshold)
    one, other = int((a & ~b).sum()), int((~a & b).sum())
    p = float(binomtest(one, one + other).pvalue) if one + other else 1.0
    return Disagreements(int((a & b).sum()), one, other, int((~a & ~b).sum()), p)


def _right(
    probabilities: npt.NDArray[np.floating], labels: Labels, threshold: float
) -> npt.NDArray[np.bool_]:
    """Whether each image is classified as its label says."""
    return np.asarray((probabilities.astype(np.float64) >= threshold) == (labels == 1), np.bool_)


def _divide(
    numerator: npt.NDArray[np.int64], denominator: npt.NDArray[np.int64]
) -> list[float | None]:
    return [
        n / d if d else None for n, d in zip(numerator.tolist(), denominator.tolist(), strict=True)
    ]


def _log_loss(p: Floats, labels: Labels) -> float:
    tiny = float(np.finfo(np.float32).eps)
    clipped = np.clip(np.where(labels == 1, p, 1 - p), tiny, 1 - tiny)
    return float(-np.log(clipped).mean())


def _auroc(p: Floats, labels: Labels) -> float:
    """Mann and Whitney's statistic; ties count half."""
    real = labels == 1
    n_real, n_fake = int(real.sum()), int((~real).sum())
    ranks = float(rankdata(p)[real].sum())
    return (ranks - n_real * (n_real + 1) / 2) / (n_real * n_fake)


def _average_precision(p: Floats, labels: Labels) -> float:
    """Sum of precision times the step in recall, over the distinct probabilities."""
    order = np.argsort(-p, kind="stable")
    ranked = labels[order] == 1
    last_of_ties = np.append(np.flatnonzero(np.diff(p[order])), len(p) - 1)
    hits = np.cumsum(ranked)[last_of_ties]
    precision = hits / (last_of_ties + 1)
    steps = np.diff(hits, prepend=0) / hits[-1]
    return float((precision * steps).sum())


def _ece(p: Floats, labels: Labels) -> float:
    """Guo et al. 2017, equation 3, with the confidence of the class that is called."""
    called = p >= DEFAULT_THRESHOLD
    confidence = np.where(called, p, 1 - p)
    right = called == (labels == 1)
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(p))
