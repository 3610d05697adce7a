"""What models, inputs and attention modules exist, declared without importing torch.

`build.py` makes modules from these declarations; the configuration is validated against them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cifake.config import Config, ModelOptions

Sites = dict[str, int]
"""Where attention can be put, in the order of the forward pass, with the channels there."""

SIDE = 32
"""Height and width of an image."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network as the specification names it."""

    description: str
    """One sentence for `sweeps list` and the README."""

    module: str
    """Import path of its class, `package.module:Class`."""

    options: Mapping[str, object] = field(default_factory=dict)
    """Its parameters, each with the value where none is given."""

    sites: Callable[[Any], Sites] = lambda _: {}
    """Its sites, for some `ModelOptions`."""

    usual: str = "after_pool"
    """How the sites begin that `both` and `all` stand for."""

    problems: Callable[[Any], Iterator[str]] = lambda _: iter(())
    """What is wrong with some `ModelOptions`, as `field: problem`."""

    normalises: bool = False
    """Whether it holds batch normalisation, which needs batches of at least two."""

    fitted: bool = False
    """Whether it is fitted at once, not by gradient descent; its one epoch is the fit."""

    unstackable: Callable[[Any], str | None] = lambda _: None
    """Why networks with some `ModelOptions` cannot be stacked; null where they can."""


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


@dataclass(frozen=True, kw_only=True)
class Module:
    """An attention module or an input filter as the specification names it."""

    description: str
    """One sentence for `sweeps list` and the README."""

    options: Mapping[str, object] = field(default_factory=dict)
    """Its details, each with the value where none is given."""

    normalises: bool = False
    """Whether it holds batch normalisation, which needs batches of at least two."""


BACKBONES: Mapping[str, Sites] = {
    "resnet18": {"stem": 64, "stage1": 64, "stage2": 128, "stage3": 256, "stage4": 512},
    "resnet34": {"stem": 64, "stage1": 64, "stage2": 128, "stage3": 256, "stage4": 512},
    "resnet50": {"stem": 64, "stage1": 256, "stage2": 512, "stage3": 1024, "stage4": 2048},
    "densenet121": {"stem": 64, "stage1": 256, "stage2": 512, "stage3": 1024, "stage4": 1024},
    "mobilenet_v2": {"stem": 32, "stage1": 24, "stage2": 32, "stage3": 96, "stage4": 1280},
    "efficientnet_b0": {"stem": 32, "stage1": 24, "stage2": 40, "stage3": 112, "stage4": 1280},
    "convnext_tiny": {"stem": 96, "stage1": 96, "stage2": 192, "stage3": 384, "stage4": 768},
}
"""Networks of torchvision with the channels after their stem and each stage."""

STACKABLE_BACKBONES = ("resnet18", "resnet34", "resnet50")
"""Those that can stand side by side in one network."""


def _base_sites(options: ModelOptions) -> Sites:
    del options
    return _conv_and_pool([6, 16])


def _paper_sites(options: ModelOptions) -> Sites:
    return _conv_and_pool([int(options.filters or 0)] * int(options.conv_layers or 0))


def _convnet_sites(options: ModelOptions) -> Sites:
    first = int(options.filters or 0)
    return _conv_and_pool([first * 2**layer for layer in range(int(options.conv_layers or 0))])


def _conv_and_pool(channels: Sequence[int]) -> Sites:
    """A site after every convolution and one after the pooling that follows it."""
    return {
        f"after_{kind}{number}": count
        for number, count in enumerate(channels, 1)
        for kind in ("conv", "pool")
    }


def _resnet_sites(options: ModelOptions) -> Sites:
    blocks, width = (int(options.depth or 2) - 2) // 6, int(options.width or 0)
    sites = {"after_stem": width}
    for stage in range(3):
        channels = width * 2**stage
        numbers = range(stage * blocks + 1, (stage + 1) * blocks + 1)
        sites |= {f"in_block{number}": channels for number in numbers}
        sites[f"after_stage{stage + 1}"] = channels
    return sites


def _backbone_sites(options: ModelOptions) -> Sites:
    channels = BACKBONES.get(str(options.backbone), {})
    return {f"after_{stage}": count for stage, count in channels.items()}


def _backbone_unstackable(options: ModelOptions) -> str | None:
    if options.backbone in STACKABLE_BACKBONES:
        return None
    return f"{options.backbone} looks across channels or draws at random"


def _paper_problems(options: ModelOptions) -> Iterator[str]:
    if int(options.conv_layers or 0) > 3:
        yield "model_options.conv_layers: must be at most 3 for paper"


def _resnet_problems(options: ModelOptions) -> Iterator[str]:
    if int(options.depth or 0) % 6 != 2:
        yield "model_options.depth: must be 6n + 2: 8, 14, 20, 26, 32, 44, 56, 110, …"


def _backbone_problems(options: ModelOptions) -> Iterator[str]:
    if options.backbone not in BACKBONES:
        yield f"model_options.backbone: must be one of {', '.join(BACKBONES)}"


ARCHITECTURES: dict[str, Architecture] = {
    "base": Architecture(
        description="the PyTorch CIFAR-10 tutorial's network with one output, 61,241 parameters",
        module="cifake.models.architectures:Base",
        sites=_base_sites,
    ),
    "paper": Architecture(
        description="the CIFAKE paper's family: 3×3 convolutions with pooling, then dense layers",
        module="cifake.models.architectures:Paper",
        options={"conv_layers": 2, "filters": 32, "dense_layers": 1, "neurons": 64},
        sites=_paper_sites,
        problems=_paper_problems,
    ),
    "convnet": Architecture(
        description="3×3 convolutions with batch normalisation and pooling, channels doubling",
        module="cifake.models.architectures:ConvNet",
        options={"conv_layers": 3, "filters": 16},
        sites=_convnet_sites,
        normalises=True,
    ),
    "resnet": Architecture(
        description="residual network of the CIFAR form, depth 6n + 2 (He et al. 2016)",
        module="cifake.models.residual:ResNet",
        options={"depth": 20, "width": 16},
        sites=_resnet_sites,
        usual="in_block",
        problems=_resnet_problems,
        normalises=True,
    ),
    "torchvision": Architecture(
        description="a network of torchvision, untrained, with a stem for 32×32 images",
        module="cifake.models.backbones:Backbone",
        options={"backbone": "resnet18"},
        sites=_backbone_sites,
        usual="after_stage",
        problems=_backbone_problems,
        normalises=True,
        unstackable=_backbone_unstackable,
    ),
    "linear": Architecture(
        description="logistic regression on the pixels, 3,073 parameters",
        module="cifake.models.architectures:Linear",
    ),
    "statistics": Architecture(
        description="gradient boosting on 38 colour, high-pass and spectrum statistics",
        module="cifake.models.boosting:Boosting",
        options={"trees": 800, "leaves": 63, "shrinkage": 0.05},
        fitted=True,
        unstackable=lambda _: "trees are fitted at once",
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

INPUTS: dict[str, Module] = {
    "rgb": Module(description="the image as it is"),
    "greyscale": Module(description="Rec. 601 luma in all three channels"),
    "low_pass": Module(description="blurred with a Gaussian", options={"sigma": 1.0}),
    "high_pass": Module(description="what that blur takes away", options={"sigma": 1.0}),
    "steg_srm": Module(
        description="residuals of the steganalysis rich model's filters, truncated",
        options={"filters": 30},
    ),
    "steg_srm_learned": Module(
        description="the same, with the filters trained from there", options={"filters": 30}
    ),
}

ATTENTION: dict[str, Module] = {
    "none": Module(description="no attention module"),
    "srm": Module(
        description="style-based recalibration (Lee, Kim, Nam 2019)",
        options={"init": "zero", "std": "unbiased", "eps": 1e-5, "pool": "both"},
        normalises=True,
    ),
    "se": Module(
        description="squeeze and excitation (Hu, Shen, Sun 2018)", options={"reduction": 4}
    ),
    "eca": Module(
        description="efficient channel attention (Wang et al. 2020)",
        options={"kernel_size": None},
    ),
    "cbam": Module(
        description="channel and then spatial attention (Woo et al. 2018)",
        options={"reduction": 4, "kernel_size": 7},
    ),
    "static_gate": Module(description="control: a learned constant gate per channel"),
    "batchnorm": Module(description="control: batch normalisation", normalises=True),
}

TWO_SITES = "both"
"""The placement at the usual sites of an architecture that has two of them."""

ALL_SITES = "all"
"""The placement at all usual sites of an architecture with any other number of them."""

_SITE = re.compile(r"(after_(stem|conv\d+|pool\d+|stage\d+)|in_block\d+)")


def model_names() -> tuple[str, ...]:
    """Every name that a specification may give as `model`."""
    return (*ARCHITECTURES, *PRESETS)


def epochs_allowed(model: str, epochs: int) -> int:
    """The epochs that a model trains when asked for `epochs`."""
    if model in ARCHITECTURES:
        return 1 if ARCHITECTURES[model].fitted else epochs
    preset = PRESETS.get(model)
    if preset is None or preset.max_epochs is None:
        return epochs
    return min(epochs, preset.max_epochs)


def stacking_problem(config: Config) -> str | None:
    """Why a configuration's seeds are trained one after another; null where they can be stacked."""
    if config.execution.precision == "fp16":
        return "fp16 has one loss scale"
    if config.shuffle == "frozen_batches" and config.data_order == "per_seed":
        return "the last batch of frozen_batches comes at another step for every seed"
    return ARCHITECTURES[config.model].unstackable(config.model_options)


def sites_of(config: Config) -> Sites:
    """The sites of a configuration's architecture."""
    return ARCHITECTURES[config.model].sites(config.model_options)


def placement_names(config: Config) -> tuple[str, ...]:
    """The placements that have a name; sites joined by `+` name any other subset."""
    sites = sites_of(config)
    group = _group(config)
    return ("none", *sites, *((group,) if group and group not in sites else ()))


def placement_written_right(placement: str) -> bool:
    """Whether some architecture could have a placement."""
    if placement in ("none", TWO_SITES, ALL_SITES):
        return True
    return all(_SITE.fullmatch(site) for site in placement.split("+"))


def placement_sites(config: Config, placement: str) -> tuple[str, ...]:
    """The sites that a placement names, in the order of the forward pass.

    Raises:
        ValueError: a site is unknown or named twice.
    """
    sites = tuple(sites_of(config))
    if placement == "none":
        return ()
    if placement in (TWO_SITES, ALL_SITES) and placement == _group(config):
        return _usual(config)
    named = placement.split("+")
    if len(set(named)) != len(named) or not set(named) <= set(sites):
        names = ", ".join(placement_names(config))
        raise ValueError(f"must be one of {names}, or sites joined by '+'")
    return tuple(site for site in sites if site in named)


def canonical_placement(config: Config, placement: str) -> str:
    """The one name of a placement, so that `b+a`, `a+b` and `both` are the same setting."""
    sites = placement_sites(config, placement)
    if not sites:
        return "none"
    if sites == _usual(config) and len(sites) > 1:
        return _group(config) or "none"
    return "+".join(sites)


def _usual(config: Config) -> tuple[str, ...]:
    usual = ARCHITECTURES[config.model].usual
    return tuple(site for site in sites_of(config) if site.startswith(usual))


def _group(config: Config) -> str | None:
    """The name of the usual sites together; null where there are none."""
    usual = _usual(config)
    if not usual:
        return None
    return TWO_SITES if len(usual) == 2 else ALL_SITES
