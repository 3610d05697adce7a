"""Importances of a search's dimensions: Optuna's numbers, and what shuffled scores give."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from sweeps.search.importance import FEWEST, best_of, importances
from sweeps.search.space import Space
from sweeps.spec import Search

Tried = list[tuple[dict[str, Any], float]]

SEARCH = Search.model_validate(
    {
        "trials": 4,
        "metric": "validation.auroc",
        "space": {
            "optimizer.lr": {"log_uniform": [1e-4, 1e-1]},
            "optimizer.momentum": {"uniform": [0.5, 0.98]},
            "batch_size": {"int_uniform": [8, 64]},
            "attention": {"choice": ["none", "srm"]},
            "placement": {"choice": ["after_pool1", "both"], "when": {"attention": "srm"}},
        },
    }
)


def tried(count: int, seed: int = 0, *, noise: float = 0.0, effect: float = 1.0) -> Tried:
    """Points at random, with a value that the learning rate alone decides but for noise."""
    rng = np.random.default_rng(seed)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    space = Space(SEARCH, {})
    points = [space(study.ask()) for _ in range(count)]
    return [
        (
            point,
            -effect * abs(np.log10(point["optimizer.lr"]) + 2) + noise * float(rng.normal()),
        )
        for point in points
    ]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_shares_are_those_of_optuna(direction: Any) -> None:
    given = tried(40)
    study = optuna.create_study(direction=direction)
    space = Space(SEARCH, {})
    for params, value in given:
        study.add_trial(
            optuna.create_trial(
                params=params, distributions=space.distributions(params), value=value
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = PedAnovaImportanceEvaluator(target_quantile=14 / 40)
        expected = get_param_importances(study, evaluator=evaluator)
    found = importances(SEARCH, given, direction)
    assert found is not None
    assert {path: each.share for path, each in found.items()} == pytest.approx(expected)


def test_the_worst_of_a_maximum_are_the_best_of_a_minimum() -> None:
    given = tried(30)
    mirrored = [(params, -value) for params, value in given]
    assert importances(SEARCH, given, "maximize") == importances(SEARCH, mirrored, "minimize")


def test_what_decides_is_told_from_noise() -> None:
    found = importances(SEARCH, tried(60, noise=0.05), "maximize")
    assert found is not None
    assert max(found, key=lambda path: found[path].share) == "optimizer.lr"
    assert found["optimizer.lr"].p == pytest.approx(0.01)


def _of_noise(searches: int) -> np.ndarray:
    """The p of every dimension in searches whose values are nothing but noise."""
    found = [
        [each.p for each in (importances(SEARCH, given, "maximize") or {}).values()]
        for given in (tried(24, seed, noise=1, effect=0) for seed in range(searches))
    ]
    return np.asarray(found)


def test_shuffled_scores_make_few_dimensions_look_important() -> None:
    assert np.mean(_of_noise(6) <= 0.2) <= 0.35


@pytest.mark.long
def test_shuffled_scores_make_a_dimension_important_as_often_as_p_says() -> None:
    found = _of_noise(80)
    assert np.mean(found <= 0.2) == pytest.approx(0.2, abs=0.07)
    assert np.mean(found <= 0.05) <= 0.08


def test_shares_of_noise_add_up_to_one_all_the_same() -> None:
    found = importances(SEARCH, tried(24, noise=1, effect=0), "maximize")
    assert found is not None
    assert sum(each.share for each in found.values()) == pytest.approx(1)
    assert max(each.share for each in found.values()) > 0.3


def test_nothing_is_said_of_few_trials_or_of_equal_ones() -> None:
    assert importances(SEARCH, tried(FEWEST - 1), "maximize") is None
    assert importances(SEARCH, [], "maximize") is None
    equal = [(params, 0.5) for params, _ in tried(20)]
    assert importances(SEARCH, equal, "maximize") is None


def test_a_third_are_the_best_and_at_least_five() -> None:
    assert [best_of(count) for count in (10, 15, 16, 300)] == [5, 5, 6, 100]


def test_a_study_is_looked_at_without_a_word(
    capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    level = optuna.logging.get_verbosity()
    importances(SEARCH, tried(12), "maximize")
    assert optuna.logging.get_verbosity() == level
    assert [each for each in recwarn if "sweeps" in str(each.filename)] == []
    assert "importance" not in capfd.readouterr().err.lower()
