"""Stacks run in this process: what a test does with a task."""

from __future__ import annotations

from rich.console import Console

from cifake.config import Config, run_id
from sweeps.outcome import write_cells
from sweeps.plan import Stack
from sweeps.spec import Spec
from sweeps.store import Store
from sweeps.sweep import Sweep, open_sweep
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


def planned(spec: Spec, store: Store) -> Sweep:
    """A sweep whose cells the store knows."""
    sweep = open_sweep(spec, [], Console(stderr=True))
    write_cells(spec, store, sweep.cells())
    return sweep


def train(sweep: Sweep, store: Store, seed: int, epochs: int = 2) -> None:
    """Train the runs of a seed, or train them on, evaluating every epoch."""
    milestones = tuple(range(1, epochs + 1))
    for config in sorted({cell.variant.config for cell in sweep.cells()}, key=str):
        stack = Stack(config=config, seeds=(seed,), start=0, epochs=epochs, milestones=milestones)
        ran(sweep.task(stack, store, None))
