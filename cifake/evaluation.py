"""From probabilities and labels to metrics. REAL is the positive class, unless a name says FAKE.

Arrays in, plain numbers out; a metric that is undefined is None.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import brentq
from scipy.special import expit, logit
from torch import nn

from cifake.arithmetic import exact
from cifake.tables import (
    DEDUPLICATED,
    SCORES,
    SCORES_AT_TEMPERATURE,
    SCORES_AT_VALIDATION_THRESHOLD,
    THRESHOLDS,
)

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int8]
Scores = dict[str, float | None]

DEFAULT_THRESHOLD = 0.5
CALIBRATION_BINS = 15
TEMPERATURES = (0.01, 100.0)
"""Where a temperature is looked for; validation that is separated perfectly has the lower end."""

_FALSE_POSITIVES = 20
"""One in so many of FAKE may be called REAL for `tpr_at_5_fpr`."""

_TINY = float(np.finfo(np.float32).eps)
"""How near to 0 and 1 a probability may come before a logarithm is taken."""

_BATCH = 500


class Counts(NamedTuple):
    """Confusion counts at one or several thresholds; int64, each of the thresholds' shape."""

    tp: npt.NDArray[np.int64]
    fp: npt.NDArray[np.int64]
    tn: npt.NDArray[np.int64]
    fn: npt.NDArray[np.int64]


@dataclass(frozen=True)
class FromValidation:
    """What the validation images of an epoch chose, to be applied to every other split."""

    threshold: float | None = None
    """Threshold with the best accuracy; null without validation."""

    temperature: float | None = None
    """Temperature with the least loss; null without validation, or where it changes no loss."""


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
    with torch.inference_mode(), exact():
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
    both = bool(0 < np.count_nonzero(labels) < len(labels))
    found = {
        **_called(at),
        "loss": _log_loss(p, labels),
        "auroc": _auroc(p, labels) if both else None,
        "average_precision": _average_precision(p, labels) if both else None,
        "tpr_at_5_fpr": _tpr_at_5_fpr(p, labels) if both else None,
        "brier": _brier(p, labels),
        "ece": _ece(p, labels),
    }
    return {name: found[name] for name in SCORES}


def evaluation(
    probabilities: npt.NDArray[np.floating],
    labels: Labels,
    duplicates: npt.NDArray[np.bool_],
    chosen: FromValidation,
    threshold: float = DEFAULT_THRESHOLD,
) -> dict[str, float | int | None]:
    """A row of the `evaluations` table, its keys left out.

    Args:
        probabilities: shape (n,), of REAL.
        labels: shape (n,), 0 FAKE, 1 REAL.
        duplicates: shape (n,), whether the deduplicated scores leave the image out.
        chosen: threshold and temperature, neither of them from these images unless they are
            validation.
        threshold: of the scores that `chosen` does not bear on.
    """
    unique = ~duplicates
    at = counts(probabilities, labels, np.asarray([threshold]))
    deduplicated = scores(probabilities[unique], labels[unique], threshold)
    return {
        "n": len(labels),
        "threshold": threshold,
        **{name: int(value[0]) for name, value in at._asdict().items()},
        **scores(probabilities, labels, threshold),
        "n" + DEDUPLICATED: int(unique.sum()),
        **{name + DEDUPLICATED: value for name, value in deduplicated.items()},
        "validation_threshold": chosen.threshold,
        **_scores_at_threshold(probabilities, labels, chosen.threshold),
        "temperature": chosen.temperature,
        **_scores_at_temperature(probabilities, labels, chosen.temperature),
    }


def from_validation(probabilities: npt.NDArray[np.floating], labels: Labels) -> FromValidation:
    """What the validation images of an epoch choose.

    Args:
        probabilities: shape (n,), of REAL.
        labels: shape (n,), 0 FAKE, 1 REAL.
    """
    return FromValidation(
        best_threshold(probabilities, labels), best_temperature(probabilities, labels)
    )


def best_threshold(probabilities: npt.NDArray[np.floating], labels: Labels) -> float | None:
    """The threshold of the `thresholds` table with the best accuracy; of equals the middle one."""
    if not len(labels):
        return None
    at = counts(probabilities, labels, np.asarray(THRESHOLDS))
    right = at.tp + at.tn
    best = np.flatnonzero(right == right.max())
    return THRESHOLDS[int(best[len(best) // 2])]


def best_temperature(probabilities: npt.NDArray[np.floating], labels: Labels) -> float | None:
    """The temperature in 0.01…100 with the least loss (Guo et al. 2017, section 4.2).

    The loss is convex in the inverse of the temperature, so a root of its slope is its minimum. It
    is null without images, and where all probabilities are 0.5, which no temperature changes.

    Args:
        probabilities: shape (n,), of REAL, on validation; clipped as for the loss.
        labels: shape (n,), 0 FAKE, 1 REAL.
    """
    logits = _logits(probabilities)
    if not logits.any():
        return None
    real = labels == 1

    def slope(inverse: float) -> float:
        return float(np.dot(expit(inverse * logits) - real, logits))

    coldest, warmest = TEMPERATURES
    if slope(1 / coldest) <= 0:
        return coldest
    if slope(1 / warmest) >= 0:
        return warmest
    return 1 / float(brentq(slope, 1 / warmest, 1 / coldest, xtol=1e-10, rtol=1e-10))


def at_temperature(probabilities: npt.NDArray[np.floating], temperature: float) -> Floats:
    """Probabilities of REAL, shape (n,), after their logits are divided by a temperature."""
    return np.asarray(expit(_logits(probabilities) / temperature), np.float64)


def disagreements(
    first: npt.NDArray[np.floating],
    second: npt.NDArray[np.floating],
    labels: Labels,
    threshold: float = DEFAULT_THRESHOLD,
) -> Disagreements:
    """How two classifiers did on the same images, with McNemar's exact test.

    Args:
        first: shape (n,), probabilities of REAL of the one classifier.
        second: shape (n,), those of the other.
        labels: shape (n,), 0 FAKE, 1 REAL.
        threshold: REAL is called at this probability or above.

    Raises:
        ValueError: the arrays differ in length.
    """
    if not len(first) == len(second) == len(labels):
        sizes = f"{len(first)}, {len(second)} and {len(labels)}"
        raise ValueError(f"two predictions of the same images are needed, not of {sizes}")
    from scipy.stats import binomtest  # tens of MB that no trial needs

    a, b = _right(first, labels, threshold), _right(second, labels, threshold)
    one, other = int((a & ~b).sum()), int((~a & b).sum())
    p = float(binomtest(one, one + other).pvalue) if one + other else 1.0
    return Disagreements(int((a & b).sum()), one, other, int((~a & ~b).sum()), p)


def class_scores(
    probabilities: npt.NDArray[np.floating],
    labels: Labels,
    names: Sequence[str | None],
    threshold: float = DEFAULT_THRESHOLD,
) -> list[dict[str, str | int | float | None]]:
    """Recall and accuracy of each named group, in the order of the names."""
    kept = sorted({name for name in names if name})
    places = {name: place for place, name in enumerate(kept)}
    # Images of no group are counted behind the last and left there.
    group = np.asarray([places.get(name or "", len(kept)) for name in names], np.int64)
    right = _right(probabilities, labels, threshold)

    def count(chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        return np.bincount(group[chosen], minlength=len(kept) + 1)[: len(kept)]

    real, fake = count(labels == 1), count(labels == 0)
    columns = {
        "name": kept,
        "n": (real + fake).tolist(),
        "recall_real": _divide(count(right & (labels == 1)), real),
        "recall_fake": _divide(count(right & (labels == 0)), fake),
        "accuracy": _divide(count(right), real + fake),
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


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


def _called(at: Counts) -> Scores:
    """The scores of one threshold, REAL positive and then FAKE positive."""
    real = {name: values[0] for name, values in threshold_scores(at).items()}
    as_fake = Counts(tp=at.tn, fp=at.fn, tn=at.tp, fn=at.fp)
    fake = {name: values[0] for name, values in threshold_scores(as_fake).items()}
    recalls = (real["recall"], fake["recall"])
    balanced = None if None in recalls else sum(r or 0.0 for r in recalls) / 2
    return {
        **real,
        "balanced_accuracy": balanced,
        **{name + "_fake": fake[name] for name in ("precision", "recall", "f1")},
    }


def _scores_at_threshold(
    probabilities: npt.NDArray[np.floating], labels: Labels, threshold: float | None
) -> Scores:
    if threshold is None or not len(labels):
        return dict.fromkeys(SCORES_AT_VALIDATION_THRESHOLD)
    called = _called(counts(probabilities, labels, np.asarray([threshold])))
    suffix = "_at_validation_threshold"
    return {name: called[name.removesuffix(suffix)] for name in SCORES_AT_VALIDATION_THRESHOLD}


def _scores_at_temperature(
    probabilities: npt.NDArray[np.floating], labels: Labels, temperature: float | None
) -> Scores:
    if temperature is None or not len(labels):
        return dict.fromkeys(SCORES_AT_TEMPERATURE)
    p = at_temperature(probabilities, temperature)
    values = (_log_loss(p, labels), _brier(p, labels), _ece(p, labels))
    return dict(zip(SCORES_AT_TEMPERATURE, values, strict=True))


def _logits(probabilities: npt.NDArray[np.floating]) -> Floats:
    p = np.clip(probabilities.astype(np.float64), _TINY, 1 - _TINY)
    return np.asarray(logit(p), np.float64)


def _log_loss(p: Floats, labels: Labels) -> float:
    clipped = np.clip(np.where(labels == 1, p, 1 - p), _TINY, 1 - _TINY)
    return float(-np.log(clipped).mean())


def _brier(p: Floats, labels: Labels) -> float:
    return float(np.mean((p - labels) ** 2))


def _tpr_at_5_fpr(p: Floats, labels: Labels) -> float:
    """Recall at the lowest threshold above all but a twentieth of FAKE, ties on its far side."""
    real, fake = p[labels == 1], p[labels == 0]
    # The largest probability of FAKE that may not be called REAL any more.
    place = len(fake) - 1 - len(fake) // _FALSE_POSITIVES
    highest = np.partition(fake, place)[place]
    return float(np.mean(real > highest))


def _auroc(p: Floats, labels: Labels) -> float:
    """Mann and Whitney's statistic; ties count half."""
    real, fake = p[labels == 1], np.sort(p[labels == 0])
    below, up_to = (np.searchsorted(fake, real, side=side) for side in ("left", "right"))
    return float((below + up_to).sum()) / (2 * len(real) * len(fake))


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
