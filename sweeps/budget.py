"""What a search has spent of its budget; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Spent:
    """What one study has cost so far."""

    trials: int = 0
    """Proposals that ended or are being trained."""

    seconds: float = 0.0
    """Time that it was worked on."""

    core_seconds: float = 0.0
    gpu_seconds: float = 0.0

    @property
    def by_kind(self) -> dict[str, float]:
        """In the terms of a budget."""
        return {
            "trials": self.trials,
            "hours": self.seconds / 3600,
            "core_hours": self.core_seconds / 3600,
            "gpu_hours": self.gpu_seconds / 3600,
        }


def used_up(budget: Mapping[str, float], spent: Spent) -> str | None:
    """The first part of a budget that is spent, in words; null while some is left of each."""
    for kind, most in budget.items():
        if spent.by_kind[kind] >= most:
            return f"{most:g} {kind.replace('_', '-')}"
    return None
