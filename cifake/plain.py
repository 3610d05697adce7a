"""Style recalibration in the state dicts of plain PyTorch code, by the names used here.

Such code calls the module anything (`srm1`, `net.att`), and so the number of channels tells at
which site it stands. Its channel-wise layer is a grouped `Conv1d` (`<name>.cfc.weight`, shape
(C, 1, 2)) or, as in the code of Lee, Kim and Nam 2019, a parameter (`<name>.cfc`, shape (C, 2)).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from cifake.errors import InputError, Mistake

Tensors = dict[str, torch.Tensor]

TUTORIAL_SITES: Mapping[int, tuple[str, ...]] = {6: ("after_pool1",), 16: ("after_pool2",)}
"""Where a module of so many channels stands in the base network, unless a placement is given."""

_LAYER = re.compile(r"(?:(?P<module>.+)\.)?cfc(?:\.weight)?")


def translate(
    where: str, state: Tensors, sites: Mapping[int, tuple[str, ...]] = TUTORIAL_SITES
) -> Tensors:
    """The state dict with every such module renamed to `attention.<site>`.

    Args:
        where: the file, for messages.
        state: names and tensors; modules that have their name already are left as they are.
        sites: by number of channels the sites where a module may stand.

    Raises:
        InputError: a module that belongs to no site, to several, or to another's.
    """
    mistakes: list[Mistake] = []
    names: dict[str, str] = {}
    for layer, weight in state.items():
        match = _LAYER.fullmatch(layer)
        if match is None or (match["module"] or "").startswith("attention."):
            continue
        module = match["module"] or ""
        channels = weight.shape[0] if weight.ndim else 0
        fitting = sites.get(channels, ())
        taken = [other for other, site in names.items() if site in fitting]
        problem = _problem(channels, fitting, taken, sites)
        if problem is None:
            names[module] = fitting[0]
        else:
            mistakes.append(Mistake(where=where, field=layer, problem=problem))
    if mistakes:
        raise InputError(mistakes)
    return {_rename(name, names): _as_conv(name, value) for name, value in state.items()}


def _problem(
    channels: int,
    fitting: tuple[str, ...],
    taken: list[str],
    sites: Mapping[int, tuple[str, ...]],
) -> str | None:
    if not fitting:
        known = ", ".join(f"{count} ({' or '.join(names)})" for count, names in sites.items())
        return f"has {channels} channels and belongs to no site; must have {known}"
    if len(fitting) > 1:
        return f"has {channels} channels and may be at {' or '.join(fitting)}; rename it yourself"
    if taken:
        return f"has {channels} channels as {taken[0]} has; one module may stand at {fitting[0]}"
    return None


def _rename(name: str, names: Mapping[str, str]) -> str:
    for module, site in names.items():
        prefix = f"{module}." if module else ""
        rest = name.removeprefix(prefix)
        if name.startswith(prefix) and rest.partition(".")[0] in ("cfc", "bn"):
            part = "cfc.weight" if rest == "cfc" else rest
            return f"attention.{site}.{part}"
    return name


def _as_conv(name: str, value: torch.Tensor) -> torch.Tensor:
    """The layer's weight of shape (C, 2) as that of a grouped convolution, (C, 1, 2)."""
    return value[:, None] if _LAYER.fullmatch(name) and value.ndim == 2 else value
