"""What proposes the next values, and what stops a trial early, by the names of a specification."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

from optuna.exceptions import ExperimentalWarning
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    SuccessiveHalvingPruner,
)
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)

from sweeps.spec import Scheduler, Search

T = TypeVar("T")

_STARTUP = 5
"""Trials that the median of others needs before it says anything."""


def make_sampler(search: Search, seed: int) -> BaseSampler:
    """The sampler of a search; a grid's points are queued, so that nothing is left to draw.

    Args:
        search: names it.
        seed: of its randomness.
    """
    samplers: dict[str, Callable[[], BaseSampler]] = {
        # `group` is what models a conditional space jointly.
        "tpe": lambda: TPESampler(seed=seed, multivariate=True, group=True),
        "random": lambda: RandomSampler(seed=seed),
        "cma_es": lambda: CmaEsSampler(seed=seed),
        "gp": lambda: GPSampler(seed=seed, warn_independent_sampling=False),
        "nsga2": lambda: NSGAIISampler(seed=seed),
        "grid": lambda: RandomSampler(seed=seed),
    }
    return _quietly(samplers[search.sampler])


def make_pruner(scheduler: Scheduler | None, epochs: int) -> BasePruner:
    """What stops the trials of a search early.

    Args:
        scheduler: names it; null lets every trial reach its end.
        epochs: length of a trial.
    """
    if scheduler is None:
        return NopPruner()
    grace = min(scheduler.grace_epochs, epochs)
    pruners: dict[str, Callable[[], BasePruner]] = {
        "asha": lambda: SuccessiveHalvingPruner(
            min_resource=grace, reduction_factor=scheduler.reduction_factor
        ),
        "hyperband": lambda: HyperbandPruner(
            min_resource=grace, max_resource=epochs, reduction_factor=scheduler.reduction_factor
        ),
        "median": lambda: MedianPruner(n_startup_trials=_STARTUP, n_warmup_steps=max(0, grace - 1)),
    }
    return _quietly(pruners[scheduler.name])


def _quietly(make: Callable[[], T]) -> T:
    with warnings.catch_warnings():
        # Optuna calls several of them experimental; its version is pinned.
        warnings.simplefilter("ignore", ExperimentalWarning)
        return make()
