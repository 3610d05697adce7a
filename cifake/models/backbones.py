"""Networks of torchvision, untrained, with a stem for 32×32 images."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from cifake.config import ModelOptions
from cifake.models.inputs import Pixels
from cifake.models.network import Network
from cifake.models.stacked import declare_channelwise

declare_channelwise(BasicBlock, Bottleneck)


class Backbone(Network):
    """A network of torchvision, cut into a stem, four stages and a head.

    The stem keeps the resolution (ConvNeXt's halves it, by patches of 2×2), since torchvision's own
    are made for 224×224. All else, initial weights included, is torchvision's. The sites are after
    the stem and after each stage.
    """

    def __init__(
        self, options: ModelOptions, pixels: Pixels, attention: Mapping[str, nn.Module]
    ) -> None:
        super().__init__(pixels, attention)
        self.parts = _Parts(str(options.backbone), pixels.channels)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (n, 1) for (n, channels, 32, 32)."""
        *stages, (_, head) = self.parts.named_children()
        for name, stage in stages:
            x = self.site(f"after_{name}", stage(x))
        logits: torch.Tensor = head(x)
        return logits


class _Parts(nn.ModuleDict):
    """Stem, stages and head, whose initial weights are torchvision's."""

    def __init__(self, name: str, channels: int) -> None:
        self.name = name
        self.channels = channels
        super().__init__(_make_parts(name, channels))

    def reset_parameters(self) -> None:
        """Draw the initial weights from torch's global generator, as torchvision does."""
        fresh = nn.ModuleDict(_make_parts(self.name, self.channels))
        self.load_state_dict(fresh.state_dict())


Parts = dict[str, nn.Module]


def _resnet(name: str, channels: int) -> Parts:
    model = _make(name)
    conv = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return {
        "stem": nn.Sequential(conv, model.bn1, nn.ReLU()),
        "stage1": model.layer1,
        "stage2": model.layer2,
        "stage3": model.layer3,
        "stage4": model.layer4,
        "head": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.fc),
    }


def _densenet(name: str, channels: int) -> Parts:
    model = _make(name)
    f = model.features
    conv = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight)
    return {
        "stem": nn.Sequential(conv, f.norm0, nn.ReLU()),
        "stage1": f.denseblock1,
        "stage2": nn.Sequential(f.transition1, f.denseblock2),
        "stage3": nn.Sequential(f.transition2, f.denseblock3),
        "stage4": nn.Sequential(f.transition3, f.denseblock4, f.norm5, nn.ReLU()),
        "head": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.classifier),
    }


def _mobilenet(name: str, channels: int) -> Parts:
    model = _make(name)
    _keep_resolution(model.features[0], channels)
    return _sliced(model, (1, 4, 7, 14))


def _efficientnet(name: str, channels: int) -> Parts:
    model = _make(name)
    _keep_resolution(model.features[0], channels)
    return _sliced(model, (1, 3, 4, 6))


def _convnext(name: str, channels: int) -> Parts:
    model = _make(name)
    conv = nn.Conv2d(channels, 96, 2, stride=2)
    nn.init.trunc_normal_(conv.weight, std=0.02)
    nn.init.zeros_(cast("nn.Parameter", conv.bias))
    model.features[0][0] = conv
    parts = _sliced(model, (1, 2, 4, 6))
    # ConvNeXt normalises between pooling and flattening, and its classifier does all of it.
    parts["head"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), model.classifier)
    return parts


_FAMILIES: Mapping[str, Callable[[str, int], Parts]] = {
    "resnet": _resnet,
    "densenet": _densenet,
    "mobilenet_v": _mobilenet,
    "efficientnet_b": _efficientnet,
    "convnext_tiny": _convnext,
}


def _make_parts(name: str, channels: int) -> Parts:
    return _FAMILIES[name.rstrip("0123456789")](name, channels)


def _make(name: str) -> Any:
    return torchvision.models.get_model(name, weights=None, num_classes=1)


def _sliced(model: Any, starts: tuple[int, ...]) -> Parts:
    """A sequence of features, cut before some of them."""
    bounds = [0, *starts, len(model.features)]
    names = ("stem", "stage1", "stage2", "stage3", "stage4")
    parts: Parts = {
        name: model.features[first:last]
        for name, (first, last) in zip(names, itertools.pairwise(bounds), strict=True)
    }
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return parts | {"head": nn.Sequential(*pool, model.classifier)}


def _keep_resolution(stem: Any, channels: int) -> None:
    """Let a 3×3 stem run with stride 1 over `channels` channels."""
    stem[0] = nn.Conv2d(channels, stem[0].out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem[0].weight, mode="fan_out")
