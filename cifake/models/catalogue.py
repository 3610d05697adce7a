"""What models and attention modules exist, declared without importing torch.

`build.py` makes modules from these declarations; the configuration is validated against them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network as the specification names it."""

    description: str
    """One sentence for `sweeps list` and the README."""

    module: str
    """Import path of its class, `package.module:Class`."""

    sites: Mapping[str, int]
    """Where attention can be put, in the order of the forward pass, with the channels there."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A second name for an architecture with other defaults; it has no identity of its own."""

    description: str
    """One sentence for `sweeps list` and the README."""

    model: str
    """The architecture it stands for."""

    defaults: Mapping[str, object] = field(default_factory=dict)
    """Settings that apply where the specification is silent."""

    max_epochs: int | None = None
    """The longest training that the preset stands for; a longer request is cut to it."""


ARCHITECTURES: dict[str, Architecture] = {
    "base": Architecture(
        description="the PyTorch CIFAR-10 tutorial's network with one output, 61,241 parameters",
        module="cifake.models.architectures:Base",
        sites={"after_pool1": 6, "after_pool2": 16},
    ),
}

PRESETS: dict[str, Preset] = {
    "mini": Preset(
        description="base for a single epoch, read through its first-epoch difficulty curve",
        model="base",
        max_epochs=1,
    ),
    "attn": Preset(
        description="base with style-based recalibration, after the first pooling unless placed",
        model="base",
        defaults={"attention": "srm", "placement": "after_pool1"},
    ),
}

ATTENTION: dict[str, str] = {
    "none": "no attention module",
    "srm": "style-based recalibration (Lee, Kim, Nam 2019)",
}

ALL_SITES = "both"
"""The placement at every site of an architecture that has two."""


def model_names() -> tuple[str, ...]:
    """Every name that a specification may give as `model`."""
    return (*ARCHITECTURES, *PRESETS)


def epochs_allowed(model: str, epochs: int) -> int:
    """The epochs that a model trains when asked for `epochs`."""
    preset = PRESETS.get(model)
    if preset is None or preset.max_epochs is None:
        return epochs
    return min(epochs, preset.max_epochs)


def placement_names(architecture: str) -> tuple[str, ...]:
    """The placements of an architecture that have a name; `a+b` names any other subset."""
    sites = tuple(ARCHITECTURES[architecture].sites)
    return ("none", *sites, *((ALL_SITES,) if len(sites) == 2 else ()))


def all_placement_names() -> tuple[str, ...]:
    """The named placements of every architecture."""
    names = (name for architecture in ARCHITECTURES for name in placement_names(architecture))
    return tuple(dict.fromkeys(names))


def placement_exists(placement: str) -> bool:
    """Whether some architecture has a placement."""
    for architecture in ARCHITECTURES:
        try:
            placement_sites(architecture, placement)
        except ValueError:
            continue
        return True
    return False


def placement_sites(architecture: str, placement: str) -> tuple[str, ...]:
    """The sites that a placement names, in the order of the forward pass.

    Raises:
        ValueError: a site is unknown or named twice.
    """
    sites = tuple(ARCHITECTURES[architecture].sites)
    if placement == "none":
        return ()
    if placement == ALL_SITES and len(sites) == 2:
        return sites
    named = placement.split("+")
    if len(set(named)) != len(named) or not set(named) <= set(sites):
        raise ValueError(
            f"must be one of {', '.join(placement_names(architecture))}, or sites joined by '+'"
        )
    return tuple(site for site in sites if site in named)


def canonical_placement(architecture: str, placement: str) -> str:
    """The one name of a placement, so that `b+a`, `a+b` and `both` are the same setting."""
    sites = placement_sites(architecture, placement)
    if not sites:
        return "none"
    everything = len(sites) == len(ARCHITECTURES[architecture].sites) == 2
    return ALL_SITES if everything else "+".join(sites)
