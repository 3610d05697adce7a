"""Ray Tune at work: it schedules; the store, not its state, is the truth.

`authentication.prepare` must have been called before this package is imported.
"""

from __future__ import annotations

from sweeps.tuner.cluster import cluster
from sweeps.tuner.grid import run_rounds
from sweeps.tuner.search import run_search

__all__ = ["cluster", "run_rounds", "run_search"]
