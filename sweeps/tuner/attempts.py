"""How often what fails is tried, and how its failure is told."""

from __future__ import annotations

ATTEMPTS = 3
"""How often a stack is started before it stays failed."""


def last_line(error: Exception | str) -> str:
    """What an error comes to, without its traceback."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
