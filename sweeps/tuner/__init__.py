"""Ray Tune at work: it schedules; the store, not its state, is the truth.

`authentication.prepare` must have been called before this package is imported. Every worker
imports it, and so it leaves out `search`, which needs Optuna and statistics.
"""

from __future__ import annotations

from sweeps.tuner.cluster import bundle, cluster
from sweeps.tuner.grid import run_rounds
from sweeps.tuner.nodes import inspect
from sweeps.tuner.placing import place, room_for

__all__ = ["bundle", "cluster", "inspect", "place", "room_for", "run_rounds"]
