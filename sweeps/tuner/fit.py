"""One fit of Ray Tune, how often what fails in it is tried, and how its failure is told."""

from __future__ import annotations

from typing import Any

from ray import tune

from sweeps.scratch import scratch_folder
from sweeps.spec import Resources
from sweeps.tuner.cluster import bundle

ATTEMPTS = 3
"""How often a stack is started before it stays failed."""


def fit(
    trainable: Any,
    resources: Resources,
    callback: tune.Callback,
    tune_config: tune.TuneConfig,
    **run_settings: Any,
) -> list[str]:
    """Let Tune run its trials, and keep nothing of what it writes.

    Args:
        trainable: what a trial runs.
        resources: of a trial.
        callback: hears of every trial.
        tune_config: which trials there are.
        run_settings: more of `tune.RunConfig`.

    Returns:
        A line for each trial that ended in an error.
    """
    with scratch_folder() as scratch:
        run_config = tune.RunConfig(
            name="sweep",
            storage_path=str(scratch),
            verbose=0,
            callbacks=[callback],
            **run_settings,
        )
        tuner = tune.Tuner(
            tune.with_resources(trainable, bundle(resources)),
            tune_config=tune_config,
            run_config=run_config,
        )
        return [last_line(error) for error in tuner.fit().errors]


def last_line(error: Exception | str) -> str:
    """What an error comes to, without its traceback."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
