"""The search space as Optuna sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from sweeps.spec import Dimension, Search, ordered_space


@dataclass(frozen=True)
class Space:
    """The search space as the function that Optuna calls to define a trial by running it."""

    search: Search
    context: Mapping[str, Any]
    """Parameters that have one value in this sweep; conditions may look at them."""

    def __call__(self, trial: optuna.Trial) -> dict[str, Any]:
        """Ask a trial for every dimension whose condition holds."""
        values: dict[str, Any] = dict(self.context)
        asked = {}
        for path, dimension in ordered_space(self.search):
            if dimension.exists(values):
                asked[path] = values[path] = _suggest(trial, path, distribution(dimension))
        return asked

    def distributions(self, params: Mapping[str, Any]) -> dict[str, BaseDistribution]:
        """What each of some parameters was drawn from."""
        return {path: distribution(self.search.space[path]) for path in params}


def distribution(dimension: Dimension) -> BaseDistribution:
    """A dimension in Optuna's terms."""
    low, high = dimension.values[0], dimension.values[-1]
    match dimension.kinds[0]:
        case "uniform":
            return FloatDistribution(low, high)
        case "log_uniform":
            return FloatDistribution(low, high, log=True)
        case "int_uniform":
            return IntDistribution(low, high)
        case _:
            return CategoricalDistribution(dimension.values)


def _suggest(trial: optuna.Trial, path: str, drawn_from: BaseDistribution) -> Any:
    match drawn_from:
        case FloatDistribution():
            return trial.suggest_float(path, drawn_from.low, drawn_from.high, log=drawn_from.log)
        case IntDistribution():
            return trial.suggest_int(path, drawn_from.low, drawn_from.high)
        case CategoricalDistribution():
            return trial.suggest_categorical(path, drawn_from.choices)
    raise TypeError(f"no range of ours: {drawn_from}")
