"""How much each dimension of a space matters, from what a study tried."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from sweeps.search.space import Space
from sweeps.spec import Search

METHOD = "PED-ANOVA"
"""Watanabe et al. 2023 (IJCAI, arXiv:2304.10255), for conditional spaces as Optuna has it. It asks
by how much the best trials lie elsewhere than all trials do. Optuna's fANOVA knows no conditional
dimension, measures a log scale as a linear one, and takes half a minute for a thousand trials."""

FEWEST = 10
"""Trials below which nothing is said."""

_SHARE = 0.1
_LEAST_BEST = 5


def best_of(trials: int) -> int:
    """How many of so many trials count as the best: a tenth, and at least 5."""
    return max(_LEAST_BEST, math.ceil(_SHARE * trials))


def importances(
    search: Search,
    tried: Sequence[tuple[Mapping[str, Any], float]],
    direction: Literal["maximize", "minimize"],
) -> dict[str, float] | None:
    """The share of each dimension in what makes a trial one of the best; they add up to 1.

    Args:
        search: whose space it is.
        tried: a point of the space and its value, for each trial that reached its end.
        direction: which values are the best.

    Returns:
        By dimension; one that no trial has is left out. Null below 10 trials, and where the best
        lie nowhere else than all.
    """
    if len(tried) < FEWEST:
        return None
    space = Space(search, {})
    trials = [
        optuna.create_trial(
            params=dict(params), distributions=space.distributions(params), value=value
        )
        for params, value in tried
    ]
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            # That few trials have some condition, or that all are as good: the numbers say it too.
            warnings.simplefilter("ignore")
            study = optuna.create_study(direction=direction)
            study.add_trials(trials)
            evaluator = PedAnovaImportanceEvaluator(
                target_quantile=best_of(len(tried)) / len(tried)
            )
            found = get_param_importances(study, evaluator=evaluator, normalize=False)
    finally:
        optuna.logging.set_verbosity(verbosity)
    total = sum(found.values())
    if not total > 0:
        return None
    return {path: float(value / total) for path, value in found.items()}
