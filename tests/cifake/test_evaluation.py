"""Every metric is what scikit-learn, pandas or a few plain lines make of the same numbers."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from math import comb, log

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from cifake import tables
from cifake.evaluation import (
    FromValidation,
    at_temperature,
    best_temperature,
    best_threshold,
    class_scores,
    counts,
    disagreements,
    evaluation,
    from_validation,
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
    "recall_fake": lambda y, p: sk.recall_score(y, p >= 0.5, pos_label=0),
    "tpr_at_5_fpr": lambda y, p: _largest_recall(y, p, 0.05),
    "auroc": sk.roc_auc_score,
    "average_precision": sk.average_precision_score,
    "brier": sk.brier_score_loss,
    "loss": lambda y, p: sk.log_loss(y, _clipped(p), labels=[0, 1]),
}
"""Scores that are defined on every set of two classes."""


def _largest_recall(y: npt.NDArray[np.int8], p: npt.NDArray[np.float64], share: float) -> float:
    fpr, tpr, _ = sk.roc_curve(y, p, drop_intermediate=False)
    return float(tpr[fpr <= share].max())


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


@settings(deadline=None)
@given(two_class_sets)
def test_scores_of_fake_are_scikit_learns_and_null_where_nothing_is_called_fake(
    arrays: Arrays,
) -> None:
    p, y = arrays
    called = p.astype(np.float64) >= 0.5
    found = scores(p, y)
    if called.all():
        assert found["precision_fake"] is None
        assert found["f1_fake"] is None
        return
    assert found["precision_fake"] == pytest.approx(sk.precision_score(y, called, pos_label=0))
    assert found["f1_fake"] == pytest.approx(sk.f1_score(y, called, pos_label=0))


@settings(deadline=None, max_examples=50)
@given(two_class_sets)
def test_scores_of_fake_are_those_of_real_with_the_classes_exchanged(arrays: Arrays) -> None:
    p, y = arrays[0].astype(np.float64), arrays[1]
    called = (p >= 0.5).astype(np.float64)
    found, exchanged = scores(called, y), scores(1 - called, (1 - y).astype(np.int8))
    for name in ("precision", "recall", "f1"):
        assert found[name] == exchanged[name + "_fake"]
        assert found[name + "_fake"] == exchanged[name]


@pytest.mark.parametrize("fakes", [1, 19, 20, 21, 39, 40, 60, 999, 1000])
@pytest.mark.parametrize("tied", [False, True])
def test_recall_at_five_percent_false_positives_is_read_off_scikit_learns_curve(
    fakes: int, tied: bool
) -> None:
    rng = np.random.default_rng(fakes)
    y = np.repeat(np.asarray([0, 1], np.int8), [fakes, 300])
    p = rng.normal(0.4 + 0.2 * y, 0.2).clip(0, 1).round(1 if tied else 12)
    expected = _largest_recall(y, p, 0.05)
    assert scores(p, y)["tpr_at_5_fpr"] == pytest.approx(expected, rel=1e-12)


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
    for name in ("auroc", "average_precision", "tpr_at_5_fpr"):
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
    undefined = {
        "balanced_accuracy",
        "precision",
        "f1",
        "precision_fake",
        "f1_fake",
        "auroc",
        "average_precision",
        "tpr_at_5_fpr",
        "recall" if label == 0 else "recall_fake",
    }
    assert {name for name, value in found.items() if value is None} == undefined
    called = p.astype(np.float64) >= 0.5
    assert found["accuracy"] == pytest.approx((called == label).mean())
    if label == 1:
        assert found["recall"] == found["accuracy"]


def test_no_image_has_nulls_alone() -> None:
    empty = np.empty(0, np.float32), np.empty(0, np.int8)
    assert scores(*empty) == dict.fromkeys(SCORES)
    assert from_validation(*empty) == FromValidation(None, None)
    row = evaluation(*empty, np.empty(0, np.bool_), FromValidation(0.5, 1.0))
    assert row["n"] == row["tp"] == row["fp"] == row["tn"] == row["fn"] == 0
    assert row["accuracy"] is None
    assert row["accuracy_at_validation_threshold"] is None
    assert row["loss_at_temperature"] is None


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


# Temperature


def _loss_at(inverse: float, p: npt.NDArray[np.float32], y: npt.NDArray[np.int8]) -> float:
    logits = np.log(_clipped(p) / (1 - _clipped(p)))
    return float(np.logaddexp(0, -np.where(y == 1, 1, -1) * logits * inverse).mean())


@pytest.mark.parametrize("truth", [0.3, 1.0, 2.5])
def test_temperature_is_that_of_a_logistic_regression_on_the_logit(truth: float) -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, 20_000)
    y = (rng.random(20_000) < 1 / (1 + np.exp(-logits))).astype(np.int8)
    p = (1 / (1 + np.exp(-logits * truth))).astype(np.float32)
    seen = np.log(_clipped(p) / (1 - _clipped(p)))
    fitted = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=1000)
    slope = fitted.fit(seen[:, None], y).coef_[0, 0]
    found = best_temperature(p, y)
    assert found == pytest.approx(1 / slope, rel=1e-4)
    assert found == pytest.approx(truth, rel=0.1)


@settings(deadline=None)
@given(two_class_sets)
def test_no_temperature_in_its_range_has_less_loss(arrays: Arrays) -> None:
    p, y = arrays
    found = best_temperature(p, y)
    if found is None:
        assert (p == 0.5).all()
        return
    assert 0.01 <= found <= 100
    grid = [_loss_at(inverse, p, y) for inverse in np.geomspace(0.01, 100, 200)]
    assert _loss_at(1 / found, p, y) <= min(grid) + 1e-12


@settings(deadline=None)
@given(two_class_sets)
def test_the_fitted_temperature_does_not_raise_the_loss_of_validation(arrays: Arrays) -> None:
    p, y = arrays
    row = evaluation(p, y, np.zeros(len(p), np.bool_), from_validation(p, y))
    if row["temperature"] is not None:
        # A probability that is cooled to 1 is clipped again, by a float32's precision.
        assert row["loss_at_temperature"] <= row["loss"] + 2.0**-22  # type: ignore[operator]


def test_temperature_one_changes_nothing_but_the_clipped_ends() -> None:
    p = np.asarray([0.0, 0.1, 0.5, 0.9, 1.0], np.float32)
    assert at_temperature(p, 1.0) == pytest.approx(_clipped(p))


def test_perfect_validation_is_as_cold_and_inverted_validation_as_warm_as_is_looked_for() -> None:
    y = np.asarray([0, 0, 1, 1], np.int8)
    p = np.asarray([0.1, 0.2, 0.7, 0.9], np.float32)
    assert best_temperature(p, y) == 0.01
    assert best_temperature(1 - p, y) == 100.0
    assert best_temperature(np.full(4, 0.5, np.float32), y) is None


# Two classifiers on the same images


def test_disagreements_are_those_counted_by_hand() -> None:
    y = np.asarray([1, 1, 1, 0, 0, 0, 0, 1], np.int8)
    first = np.asarray([0.9, 0.5, 0.6, 0.1, 0.2, 0.9, 0.4, 0.1], np.float32)
    second = np.asarray([0.8, 0.1, 0.2, 0.7, 0.1, 0.8, 0.6, 0.7], np.float32)
    # The first alone is right on images 1, 2, 3 and 6, the second alone on image 7; 5 one-sided
    # draws of a fair coin with at most one head have the probability (1 + 5) / 32.
    *table, p = disagreements(first, second, y)
    assert table == [2, 4, 1, 1]
    assert p == pytest.approx(2 * 6 / 32)


@settings(deadline=None, max_examples=50)
@given(sets, st.integers(0, 2**32 - 1), st.sampled_from([0.25, 0.5]))
def test_disagreements_follow_the_binomial_distribution(
    arrays: Arrays, seed: int, threshold: float
) -> None:
    first, y = arrays
    second = np.random.default_rng(seed).random(len(y))
    found = disagreements(first, second, y, threshold)
    right = [
        [(value >= threshold) == bool(label) for value, label in zip(p.tolist(), y, strict=True)]
        for p in (first, second)
    ]
    table = Counter(zip(*right, strict=True))
    n, k = table[True, False] + table[False, True], table[True, False]
    tail = sum(comb(n, i) for i in range(min(k, n - k) + 1)) / 2**n
    assert (found.both_right, found.both_wrong) == (table[True, True], table[False, False])
    assert (found.only_first, found.only_second) == (k, n - k)
    assert found.p == pytest.approx(min(1.0, 2 * tail))
    swapped = disagreements(second, first, y, threshold)
    assert swapped.p == pytest.approx(found.p)


def test_predictions_of_different_images_have_no_disagreements() -> None:
    with pytest.raises(ValueError, match="2, 3 and 2"):
        disagreements(np.zeros(2), np.zeros(3), np.zeros(2, np.int8))


# The row of an evaluation


@settings(deadline=None, max_examples=50)
@given(sets, st.integers(0, 2**32 - 1))
def test_deduplicated_metrics_are_those_of_the_subset(arrays: Arrays, seed: int) -> None:
    p, y = arrays
    duplicates = np.random.default_rng(seed).random(len(p)) < 0.4
    row = evaluation(p, y, duplicates, FromValidation())
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
    row = evaluation(p, y, np.zeros(len(p), np.bool_), FromValidation(threshold=threshold))
    assert row["validation_threshold"] == threshold
    assert row["threshold"] == 0.5
    for name in ("accuracy", "balanced_accuracy", "f1"):
        assert row[f"{name}_at_validation_threshold"] == scores(p, y, threshold)[name]


@settings(deadline=None, max_examples=50)
@given(sets, st.floats(0.01, 100))
def test_validation_temperature_is_applied_and_not_chosen_here(
    arrays: Arrays, temperature: float
) -> None:
    p, y = arrays
    row = evaluation(p, y, np.zeros(len(p), np.bool_), FromValidation(temperature=temperature))
    cooled = scores(at_temperature(p, temperature), y)
    assert row["temperature"] == temperature
    for name in ("loss", "brier", "ece"):
        assert row[f"{name}_at_temperature"] == cooled[name]
        assert row[name] == scores(p, y)[name]


def test_evaluation_without_validation_has_nulls_there() -> None:
    p, y = np.asarray([0.2, 0.8], np.float32), np.asarray([0, 1], np.int8)
    row = evaluation(p, y, np.zeros(2, np.bool_), FromValidation())
    empty = {name for name, value in row.items() if value is None}
    threshold = {f"{name}_at_validation_threshold" for name in ("accuracy", "balanced_accuracy")}
    temperature = {f"{name}_at_temperature" for name in ("loss", "brier", "ece")}
    assert empty == {
        "validation_threshold",
        "f1_at_validation_threshold",
        "temperature",
        *threshold,
        *temperature,
    }


@given(sets)
@settings(deadline=None, max_examples=20)
def test_evaluation_fills_a_row_of_its_table(arrays: Arrays) -> None:
    p, y = arrays
    row = evaluation(p, y, np.zeros(len(p), np.bool_), from_validation(p, y))
    keys = {"run_id": "a" * 16, "epoch": 1, "dataset": "demo", "split": "test"}
    table = tables.TABLES["evaluations"].from_rows([{**keys, **row}])
    assert set(table.column_names) == {*keys, *row}
    assert row["tp"] + row["fp"] + row["tn"] + row["fn"] == len(p)  # type: ignore[operator]


# Classes


@pytest.mark.parametrize("threshold", [0.5, 0.25])
@settings(deadline=None, max_examples=50)
@given(sets, st.integers(0, 2**32 - 1))
def test_class_scores_are_those_of_pandas(threshold: float, arrays: Arrays, seed: int) -> None:
    p, y = arrays
    choices = np.asarray(["bird", "cat", "dog", None], object)
    names = np.random.default_rng(seed).choice(choices, len(p)).tolist()
    frame = pd.DataFrame(
        {"name": names, "real": y == 1, "called": p.astype(np.float64) >= threshold}
    )
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
    found = class_scores(p, y, names, threshold)
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
