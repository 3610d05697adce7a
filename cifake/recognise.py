"""From the names and shapes in a state dict to the configuration that it belongs to.

What leaves no trace there takes its default: an input filter of three channels, the normalisation,
and the details of an attention module that change no shape.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from cifake.models import catalogue

Shapes = Mapping[str, tuple[int, ...]]
Found = dict[str, object]

BASE_LAYERS = ("conv1", "conv2", "fc1", "fc2", "fc3")
"""Layers of the base network, as the PyTorch tutorial names them."""

_ATTENTION = re.compile(r"attention\.([^.]+)\.(.+)")


def recognise(shapes: Shapes) -> Found | None:
    """Settings by dotted path, as far as they can be told; null where no network is recognised.

    Args:
        shapes: shape of every tensor by its name in the state dict, named as this package does.
    """
    for tell in (_base, _statistics, _torchvision, _resnet, _convnet, _paper, _linear):
        found = tell(shapes)
        if found is not None:
            return found | _pixels(shapes, _channels(shapes, found)) | _attention(shapes)
    return None


def is_base(shapes: Shapes) -> bool:
    """Whether most layers of the base network are there."""
    return sum(f"{layer}.weight" in shapes for layer in BASE_LAYERS) >= 3


def _base(shapes: Shapes) -> Found | None:
    return {"model": "base"} if is_base(shapes) else None


def _statistics(shapes: Shapes) -> Found | None:
    if not {"feature", "threshold", "left", "right"} <= shapes.keys():
        return None
    trees, nodes = _two(shapes["feature"])
    return _options("statistics", trees=trees, leaves=(nodes + 1) // 2)


def _torchvision(shapes: Shapes) -> Found | None:
    if not any(name.startswith("parts.stem.") for name in shapes):
        return None
    likely = max(catalogue.BACKBONES, key=lambda name: _in_common(name, shapes))
    return _options("torchvision", backbone=likely)


def _in_common(backbone: str, shapes: Shapes) -> float:
    """The share of names and shapes that a state dict has in common with a backbone's."""
    import torch

    from cifake.config import ModelOptions
    from cifake.models.backbones import Backbone
    from cifake.models.inputs import Pixels

    with torch.device("meta"):
        network = Backbone(ModelOptions(backbone=backbone), Pixels("half"), {})
    own = {(name, tuple(value.shape)) for name, value in network.state_dict().items()}
    given = set(shapes.items())
    return len(own & given) / len(own | given)


def _resnet(shapes: Shapes) -> Found | None:
    blocks = _count(shapes, "blocks.{}.conv1.weight")
    if not blocks or "conv.weight" not in shapes:
        return None
    return _options("resnet", depth=2 * blocks + 2, width=_two(shapes["conv.weight"])[0])


def _convnet(shapes: Shapes) -> Found | None:
    layers = _count(shapes, "convs.{}.weight")
    if not layers or not _count(shapes, "norms.{}.weight"):
        return None
    return _options("convnet", conv_layers=layers, filters=_two(shapes["convs.0.weight"])[0])


def _paper(shapes: Shapes) -> Found | None:
    layers, dense = _count(shapes, "convs.{}.weight"), _count(shapes, "dense.{}.weight")
    if not layers or not dense:
        return None
    return _options(
        "paper",
        conv_layers=layers,
        filters=_two(shapes["convs.0.weight"])[0],
        dense_layers=dense - 1,
        neurons=_two(shapes["dense.0.weight"])[0] if dense > 1 else None,
    )


def _linear(shapes: Shapes) -> Found | None:
    head = shapes.get("head.weight", ())
    return {"model": "linear"} if len(head) == 2 and head[1] % catalogue.SIDE**2 == 0 else None


def _channels(shapes: Shapes, found: Found) -> int:
    """Channels that the first layer takes."""
    if found["model"] == "linear":
        return shapes["head.weight"][1] // catalogue.SIDE**2
    first = ("conv1.weight", "conv.weight", "convs.0.weight", "parts.stem.0.weight")
    shape = next((shapes[name] for name in first if name in shapes), ())
    return shape[1] if len(shape) == 4 else 3


def _pixels(shapes: Shapes, channels: int) -> Found:
    if "pixels.weight" in shapes:
        filters = _two(shapes["pixels.weight"])[0]
        return {"input": "steg_srm_learned", "input_options.filters": filters}
    if channels == 30:
        return {"input": "steg_srm", "input_options.filters": channels}
    return {"normalization": "dataset"} if "pixels.mean" in shapes else {}


def _attention(shapes: Shapes) -> Found:
    sites: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        if match := _ATTENTION.fullmatch(name):
            sites.setdefault(match[1], {})[match[2]] = shape
    if not sites:
        return {}
    one = next(iter(sites.values()))
    kind = next((kind for names, kind in _SIGNS if names <= one.keys()), None)
    if kind is None:
        return {}
    details = _DETAILS[kind]([*sites.values()]) if kind in _DETAILS else {}
    options = {f"attention_options.{name}": value for name, value in details.items()}
    return {"attention": kind, "placement": "+".join(sites), **options}


_SIGNS: tuple[tuple[set[str], str], ...] = (
    ({"cfc.weight"}, "srm"),
    ({"fc1.weight", "conv.weight"}, "cbam"),
    ({"fc1.weight"}, "se"),
    ({"conv.weight"}, "eca"),
    ({"weight", "running_mean"}, "batchnorm"),
    ({"weight"}, "static_gate"),
)
"""Names that tell a module; those of the first that fits decide."""

_USUAL_REDUCTION = 4

Sites = list[dict[str, tuple[int, ...]]]


def _hidden(sites: Sites) -> Found:
    """The reduction that gives every module its hidden units; the usual one where it does."""
    widths = [_two(site["fc1.weight"]) for site in sites]
    for reduction in (_USUAL_REDUCTION, *range(1, 1025)):
        if all(hidden == max(1, channels // reduction) for hidden, channels in widths):
            return {"reduction": reduction}
    return {}


def _cbam(sites: Sites) -> Found:
    return {**_hidden(sites), "kernel_size": _last(sites[0]["conv.weight"])}


def _eca(sites: Sites) -> Found:
    """The width where all modules have one; where they differ it follows from the channels."""
    widths = {_last(site["conv.weight"]) for site in sites}
    return {"kernel_size": widths.pop()} if len(widths) == 1 else {}


_DETAILS: dict[str, Callable[[Sites], Found]] = {"se": _hidden, "cbam": _cbam, "eca": _eca}


def _options(model: str, **options: object) -> Found:
    return {"model": model, **{f"model_options.{name}": value for name, value in options.items()}}


def _count(shapes: Shapes, form: str) -> int:
    """How many names of a numbered form follow each other from 0."""
    number = 0
    while form.format(number) in shapes:
        number += 1
    return number


def _two(shape: tuple[int, ...]) -> tuple[int, int]:
    """The first two sizes of a shape, 0 where it has fewer: a wrong rank is told later."""
    first, second, *_ = (*shape, 0, 0)
    return first, second


def _last(shape: tuple[int, ...]) -> int:
    return shape[-1] if shape else 0
