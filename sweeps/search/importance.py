"""How much each dimension of a space matters, from what a study tried."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
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

_SHARE = 1 / 3
"""Of the trials, that counts as the best. Optuna's tenth is for searches of hundreds: of 50 trials,
where a dimension decides as much as noise does, it was told from noise by a tenth in 2 of 15
searches, and by a third in all of them."""

_LEAST_BEST = 5

_SHUFFLES = 99
_LEAST_SHUFFLES = 39
_SHUFFLED_TRIALS = 20_000
"""Trials of all shuffles together, above which there are fewer of them."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """Of one dimension."""

    share: float
    """Of that of all dimensions. Shares add up to 1, where nothing matters too: see `p`."""

    p: float
    """Share of the shuffles of the trials' values that give it as much importance, the observed one
    among them. Exact for proposals drawn at random, and a guide for those of a sampler that learns,
    whose proposals depend on the values before them."""


def best_of(trials: int) -> int:
    """How many of so many trials count as the best: a third, and at least 5."""
    return max(_LEAST_BEST, math.ceil(_SHARE * trials))


def importances(
    search: Search,
    tried: Sequence[tuple[Mapping[str, Any], float]],
    direction: Literal["maximize", "minimize"],
) -> dict[str, Importance] | None:
    """How much each dimension has to do with whether a trial is one of the best.

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
    losses = np.asarray([value for _, value in tried]) * (-1 if direction == "maximize" else 1)
    shuffles = min(_SHUFFLES, max(_LEAST_SHUFFLES, _SHUFFLED_TRIALS // len(tried)))
    rng = np.random.default_rng((search.seed, len(tried)))
    with _quiet():
        study = _study(Space(search, {}), tried)
        found = _divergences(study, losses)
        total = sum(found.values())
        if not total > 0:
            return None
        reached = dict.fromkeys(found, 1)
        for _ in range(shuffles):
            for path, value in _divergences(study, rng.permutation(losses)).items():
                reached[path] += value >= found[path]
    return {
        path: Importance(share=value / total, p=reached[path] / (1 + shuffles))
        for path, value in found.items()
    }


def _study(space: Space, tried: Sequence[tuple[Mapping[str, Any], float]]) -> optuna.Study:
    """A study in memory that has tried some points."""
    study = optuna.create_study()
    study.add_trials(
        [
            optuna.create_trial(
                params=dict(params), distributions=space.distributions(params), value=value
            )
            for params, value in tried
        ]
    )
    return study


def _divergences(
    study: optuna.Study, losses: np.ndarray[Any, np.dtype[np.float64]]
) -> dict[str, float]:
    """How far the trials with the least losses lie from all, by dimension; no share yet."""
    evaluator = PedAnovaImportanceEvaluator(target_quantile=best_of(len(losses)) / len(losses))
    found = get_param_importances(
        study,
        evaluator=evaluator,
        target=lambda trial: float(losses[trial.number]),
        normalize=False,
    )
    return {path: float(value) for path, value in found.items()}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what Optuna says of new studies, of targets, of few trials, and of ties."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
