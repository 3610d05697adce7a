"""Numbers as a person says them."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """So many of something, whose plural ends in s."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def after(epochs: int | None) -> str:
    """At which length configs are compared; null is the longest of each."""
    if epochs is None:
        return "at each config's longest length"
    return f"after {counted(epochs, 'epoch')}"


def duration(seconds: float) -> str:
    """A time span as a person says it."""
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
