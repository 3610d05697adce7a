"""Runs of the store in the tools of those who live elsewhere: TensorBoard and MLflow.

What is logged is made of the store's tables and never of what happens, so that a sweep that was
killed and went on has the same curves as one that was not. Nothing is written to the store.
"""

from sweeps.loggers.following import following, log_runs
from sweeps.loggers.opening import NAMES, Logger, open_loggers

__all__ = ["NAMES", "Logger", "following", "log_runs", "open_loggers"]
