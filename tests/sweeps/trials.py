"""Stacks run in this process: what a test does with a task."""

from __future__ import annotations

from cifake.config import Config, run_id
from sweeps.trial import Report, Task, run_stack


def run_of(task: Task, seed: int) -> str:
    """The run of a seed."""
    return run_id(Config.model_validate(task.config).config_id, seed)


def ran(task: Task) -> list[Report]:
    """What a stack reports from begin to end."""
    reports: list[Report] = []
    run_stack(task, reports.append)
    return reports


def trained(reports: list[Report]) -> int:
    """Epochs trained, over all runs."""
    return sum(report.epochs_trained for report in reports)
