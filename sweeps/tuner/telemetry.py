"""What Ray counts of its users, kept from costing them time."""

from __future__ import annotations

import importlib
import sys


def leave_out_mlflow() -> None:
    """Have Ray take MLflow for absent in this process, unless it is imported already.

    Tune counts which callbacks are loggers of Ray's, MLflow's among them, and to know would import
    MLflow, which takes most of a second. What logs to MLflow here is none of Ray's.
    """
    if "mlflow" in sys.modules:
        return
    absent: None = None
    sys.modules["mlflow"] = absent  # type: ignore[assignment]  # so the import system is told
    try:
        importlib.import_module("ray.air.integrations.mlflow")
    finally:
        del sys.modules["mlflow"]
