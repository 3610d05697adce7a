"""Every metric is what scikit-learn, pandas or a few plain lines make of the same numbers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from math import log

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from cifake import tables
from cifake.evaluation import (
    best_threshold,
    class_scores,
    counts,
    evaluation,
    scores,
    threshold_scores,
)
from cifake.tables import SCORES, THRESHOLDS

Arrays = tuple[npt.NDArray[np.float32], npt.NDArray[np.int8]]

_probability = st.one_of(
    st.floats(0, 1, width=32),
    st.sampled_from([0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0]),  # ties and thresholds
)


def _arrays(pairs: list[tuple[float, int]]) -> Arrays:
    probabilities, labels = zip(*pairs, strict=True) if pairs else ((), ())
    return np.asarray(probabilities, np.float32), np.asarray(labels, np.int8)


sets = st.lists(st.tuples(_probability, st.integers(0, 1)), min_size=1, max_size=80).map(_arrays)
two_class_sets = sets.filter(lambda arrays: 0 < arrays[1].sum() < len(arrays[1]))

REFERENCES: dict[str, Callable[..., float]] = {
    "accuracy": lambda y, p: sk.accuracy_score(y, p >= 0.5),
    "balanced_accuracy": lambda y, p: sk.balanced_accuracy_score(y, p >= 0.5),
    "recall": lambda y, p: sk.recall_score(y, p >= 0.5),
    "auroc": sk.roc_auc_score,
    "average_precision": sk.average_precision_score,
    "brier": sk.brier_score_loss,
    "loss": lambda y, p: sk.log_loss(y, _clipped(p), labels=[0, 1]),
}
"""Scores that are defined on every set of two classes."""


def _clipped(p: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    tiny = 2.0**-23
    return np.clip(p.astype(np.float64), tiny, 1 - tiny)


@settings(deadline=None)
@given(two_class_sets)
@pytest.mark.parametrize("name", REFERENCES)
def test_score_is_scikit_learns(name: str, arrays: Arrays) -> None:
    p, y = arrays
    expected = REFERENCES[name](y, p.astype(np.float64))
    assert scores(p, y)[name] == pytest.approx(expected, rel=1e-9, abs=1e-12)


@settings(deadline=None)
@given(two_class_sets)
@pytest.mark.parametrize("threshold", [0.5, 0.25, 0.99])
def test_precision_and_f1_are_scikit_learns_and_null_where_nothing_is_called_real(
    threshold: float, arrays: Arrays
) -> None:
    p, y = arrays
    called = p.astype(np.float64) >= threshold
    found = scores(p, y, threshold)
    if not called.any():
        assert found["precision"] is None
        assert found["f1"] is None
        return
    assert found["precision"] == pytest.approx(sk.precision_score(y, called))
    assert found["f1"] == pytest.approx(sk.f1_score(y, called))
    assert found["recall"] == pytest.approx(sk.recall_score(y, called))
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(y, called))


@settings(deadline=None, max_examples=50)
@given(two_class_sets, st.integers(0, 2**32 - 1))
def test_order_of_images_is_irrelevant(arrays: Arrays, seed: int) -> None:
    p, y = arrays
    order = np.random.default_rng(seed).permutation(len(p))
    found, again = scores(p, y), scores(p[order], y[order])
    assert again == {
        name: None if value is None else pytest.approx(value, rel=1e-9, abs=1e-12)
        for name, value in found.items()
    }


@settings(deadline=None, max_examples=50)
@given(two_class_sets)
def test_ranking_metrics_depend_on_ranks_alone(arrays: Arrays) -> None:
    p, y = arrays
    ranks = np.unique(p, return_inverse=True)[1] / 1000
    for name in ("auroc", "average_precision"):
        assert scores(ranks, y)[name] == pytest.approx(scores(p, y)[name], rel=1e-12)


@settings(deadline=None)
@given(sets)
def test_scores_lie_in_their_range(arrays: Arrays) -> None:
    found = scores(*arrays)
    assert tuple(found) == SCORES
    for name, value in found.items():
        if value is not None:
            assert 0 <= value <= (16 if name == "loss" else 1)


def test_perfect_and_inverted_predictions() -> None:
    y = np.asarray([0, 0, 1, 1], np.int8)
    best = scores(y.astype(np.float32), y)
    worst = scores(1 - y.astype(np.float32), y)
    assert [best[name] for name in ("accuracy", "f1", "auroc", "average_precision")] == [1] * 4
    assert [worst[name] for name in ("accuracy", "f1", "auroc", "brier")] == [0, 0, 0, 1]
    assert best["brier"] == best["ece"] == 0
    assert worst["ece"] == 1


def test_certain_mistake_has_a_finite_loss() -> None:
    found = scores(np.asarray([1.0], np.float32), np.asarray([0], np.int8))["loss"]
    assert found == pytest.approx(23 * log(2))


def test_all_equal_probabilities_are_chance() -> None:
    y = np.asarray([0, 1, 1, 0, 1], np.int8)
    found = scores(np.full(5, 0.5, np.float32), y)
    assert found["auroc"] == 0.5
    assert found["average_precision"] == pytest.approx(0.6)
    assert found["loss"] == pytest.approx(log(2))


# Nulls


@pytest.mark.parametrize("label", [0, 1])
@settings(deadline=None, max_examples=30)
@given(st.lists(_probability, min_size=1, max_size=30))
def test_one_class_has_nulls_where_two_are_needed(label: int, values: list[float]) -> None:
    p = np.asarray(values, np.float32)
    y = np.full(len(p), label, np.int8)
    found = scores(p, y)
    undefined = {"balanced_accuracy", "precision", "f1", "auroc", "average_precision"}
    if label == 0:
        undefined.add("recall")
    assert {name for name, value in found.items() if value is None} == undefined
    called = p.astype(np.float64) >= 0.5
    assert found["accuracy"] == pytest.approx((called == label).mean())
    if label == 1:
        assert found["recall"] == found["accuracy"]


def test_no_image_has_nulls_alone() -> None:
    empty = np.empty(0, np.float32), np.empty(0, np.int8)
    assert scores(*empty) == dict.fromkeys(SCORES)
    assert best_threshold(*empty) is None
    row = evaluation(*empty, np.empty(0, np.bool_), 0.5)
    assert row["n"] == row["tp"] == row["fp"] == row["tn"] == row["fn"] == 0
    assert row["accuracy"] is None
    assert row["accuracy_at_validation_threshold"] is None


def test_no_warning_is_given_for_undefined_scores() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for label in (0, 1):
            for p in (0.1, 0.9):
                scores(np.asarray([p], np.float32), np.asarray([label], np.int8))


# Thresholds


@settings(deadline=None, max_examples=50)
@given(sets)
def test_threshold_curve_is_that_of_a_plain_loop(arrays: Arrays) -> None:
    p, y = arrays
    at = counts(p, y, np.asarray(THRESHOLDS))
    found = threshold_scores(at)
    both = 0 < y.sum() < len(y)
    for i, threshold in enumerate(THRESHOLDS):
        tp = fp = tn = fn = 0
        for probability, label in zip(p.tolist(), y.tolist(), strict=True):
            if probability >= threshold:
                tp, fp = tp + label, fp + 1 - label
            else:
                fn, tn = fn + label, tn + 1 - label
        assert (at.tp[i], at.fp[i], at.tn[i], at.fn[i]) == (tp, fp, tn, fn)
        precision = tp / (tp + fp) if both and tp + fp else None
        recall = tp / (tp + fn) if tp + fn else None
        f1 = None
        if precision is not None and recall is not None:
            f1 = 2 * tp / (2 * tp + fp + fn)
        assert found["precision"][i] == precision
        assert found["recall"][i] == recall
        assert found["accuracy"][i] == (tp + tn) / len(p)
        assert found["f1"][i] == (None if f1 is None else pytest.approx(f1))


def test_probability_equal_to_the_threshold_is_called_real() -> None:
    at = counts(np.asarray([0.5], np.float32), np.asarray([1], np.int8), np.asarray([0.5]))
    assert int(at.tp[0]) == 1


def test_thresholds_are_the_hundredths() -> None:
    assert len(THRESHOLDS) == 99
    assert tuple(round(step * 0.01, 2) for step in range(1, 100)) == THRESHOLDS


@settings(deadline=None)
@given(sets)
def test_best_threshold_maximises_accuracy(arrays: Arrays) -> None:
    p, y = arrays
    accuracies = [((p.astype(np.float64) >= t) == (y == 1)).mean() for t in THRESHOLDS]
    best = [t for t, a in zip(THRESHOLDS, accuracies, strict=True) if a == max(accuracies)]
    assert best_threshold(p, y) == best[len(best) // 2]


def test_best_threshold_of_equals_is_the_middle_one() -> None:
    p = np.asarray([0.2, 0.8], np.float32)
    assert best_threshold(p, np.asarray([0, 1], np.int8)) == pytest.approx(0.51, abs=0.011)


# Calibration


def test_calibration_error_is_that_computed_by_hand() -> None:
    """Confidences 0.9, 0.9, 0.6, 0.7; the first two share a bin, one of them right."""
    p = np.asarray([0.9, 0.9, 0.4, 0.7])
    y = np.asarray([1, 0, 0, 0], np.int8)
    by_hand = 2 / 4 * abs(1 / 2 - 0.9) + 1 / 4 * abs(1 - 0.6) + 1 / 4 * abs(0 - 0.7)
    assert scores(p, y)["ece"] == pytest.approx(by_hand)


@settings(deadline=None)
@given(sets)
def test_calibration_error_is_that_of_a_plain_loop_over_bins(arrays: Arrays) -> None:
    p, y = arrays[0].astype(np.float64), arrays[1]
    confidence = np.maximum(p, 1 - p)
    right = (p >= 0.5) == (y == 1)
    total = 0.0
    for k in range(15):
        inside = (confidence * 15 >= k) & ((confidence * 15 < k + 1) | (k == 14))
        if inside.any():
            gap = abs(right[inside].mean() - confidence[inside].mean())
            total += inside.mean() * gap
    assert scores(p, y)["ece"] == pytest.approx(total, abs=1e-12)


def test_calibrated_probabilities_have_a_small_error() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(100_000)
    y = (rng.random(100_000) < p).astype(np.int8)
    assert scores(p, y)["ece"] < 0.01  # type: ignore[operator]
    assert scores(p**3, y)["ece"] > 0.1  # type: ignore[operator]


# The row of an evaluation


@settings(deadline=None, max_examples=50)
@given(sets, st.integers(0, 2**32 - 1))
def test_deduplicated_metrics_are_those_of_the_subset(arrays: Arrays, seed: int) -> None:
    p, y = arrays
    duplicates = np.random.default_rng(seed).random(len(p)) < 0.4
    row = evaluation(p, y, duplicates, None)
    assert row["n"] == len(p)
    assert row["n_deduplicated"] == (~duplicates).sum()
    subset = scores(p[~duplicates], y[~duplicates])
    for name in SCORES:
        assert row[name] == scores(p, y)[name]
        assert row[name + "_deduplicated"] == subset[name]


@settings(deadline=None, max_examples=50)
@given(sets, st.sampled_from(THRESHOLDS))
def test_validation_threshold_is_applied_and_not_chosen_here(
    arrays: Arrays, threshold: float
) -> None:
    p, y = arrays
    row = evaluation(p, y, np.zeros(len(p), np.bool_), threshold)
    assert row["validation_threshold"] == threshold
    assert row["threshold"] == 0.5
    assert row["accuracy_at_validation_threshold"] == scores(p, y, threshold)["accuracy"]


def test_evaluation_without_a_validation_threshold_has_nulls_there() -> None:
    p, y = np.asarray([0.2, 0.8], np.float32), np.asarray([0, 1], np.int8)
    row = evaluation(p, y, np.zeros(2, np.bool_), None)
    assert row["validation_threshold"] is None
    assert row["accuracy_at_validation_threshold"] is None


@given(sets)
@settings(deadline=None, max_examples=20)
def test_evaluation_fills_a_row_of_its_table(arrays: Arrays) -> None:
    p, y = arrays
    row = evaluation(p, y, np.zeros(len(p), np.bool_), 0.4)
    keys = {"run_id": "a" * 16, "epoch": 1, "dataset": "demo", "split": "test", "n_unreadable": 0}
    table = tables.TABLES["evaluations"].from_rows([{**keys, **row}])
    assert set(table.column_names) == {*keys, *row}
    assert row["tp"] + row["fp"] + row["tn"] + row["fn"] == len(p)  # type: ignore[operator]


# Classes


@settings(deadline=None, max_examples=50)
@given(sets, st.integers(0, 2**32 - 1))
def test_class_scores_are_those_of_pandas(arrays: Arrays, seed: int) -> None:
    p, y = arrays
    choices = np.asarray(["bird", "cat", "dog", None], object)
    names = np.random.default_rng(seed).choice(choices, len(p)).tolist()
    frame = pd.DataFrame({"name": names, "real": y == 1, "called": p.astype(np.float64) >= 0.5})
    frame["right"] = frame["real"] == frame["called"]
    expected = [
        {
            "name": name,
            "n": len(group),
            "recall_real": _mean(group.loc[group["real"], "right"]),
            "recall_fake": _mean(group.loc[~group["real"], "right"]),
            "accuracy": _mean(group["right"]),
        }
        for name, group in frame.dropna(subset=["name"]).groupby("name", sort=True)
    ]
    found = class_scores(p, y, names)
    assert len(found) == len(expected)
    for row, reference in zip(found, expected, strict=True):
        assert row == {
            key: pytest.approx(value) if isinstance(value, float) else value
            for key, value in reference.items()
        }


def _mean(column: pd.Series) -> float | None:
    return float(column.mean()) if len(column) else None


def test_images_without_a_class_have_no_row() -> None:
    p, y = np.asarray([0.2, 0.8], np.float32), np.asarray([0, 1], np.int8)
    assert class_scores(p, y, [None, None]) == []
