"""What a network looks at: Grad-CAM of its decisions, and the gates of its attention modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import LayerGradCam
from torch import nn

from cifake.config import Config
from cifake.errors import refuse
from cifake.evaluation import DEFAULT_THRESHOLD
from cifake.evaluations import Images
from cifake.models import catalogue
from cifake.models.network import Network

GROUPS: Mapping[str, tuple[int, bool]] = {
    "true REAL": (1, True),
    "false REAL": (0, True),
    "true FAKE": (0, False),
    "false FAKE": (1, False),
}
"""Label of an image, and whether it is called REAL, by the name of the group it belongs to."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GateStatistics:
    """The gates of one site over the images of one label."""

    images: int
    mean: Floats
    """Shape (channels,); NaN without an image."""

    std: Floats
    """Sample standard deviation, shape (channels,); NaN with fewer than two images."""


@dataclass(frozen=True)
class Explained:
    """One image, how it was called, and where that comes from."""

    group: str
    row: int
    """Of the image in its pack."""

    probability: float
    """Of REAL."""

    pixels: npt.NDArray[np.uint8]
    """Shape (32, 32, 3), uint8."""

    map: npt.NDArray[np.float32]
    """Grad-CAM at the feature map's resolution, shape (h, w), at least 0."""


@dataclass(frozen=True)
class Explanation:
    """What a network looks at in a split of a data set."""

    site: str
    """Whose feature map the maps are of."""

    images: list[Explained]
    """By group, in the order of `GROUPS`."""

    counts: dict[str, int]
    """Images of the split in each group."""

    gates: dict[str, dict[str, GateStatistics]] = field(default_factory=dict)
    """By site, and by label REAL and FAKE."""


def explain(
    model: nn.Module, config: Config, images: Images, *, site: str | None, per_group: int, seed: int
) -> Explanation:
    """Ask a network about a split, and explain a few decisions of each kind.

    Args:
        model: in evaluation mode.
        config: its configuration.
        images: the split.
        site: whose feature map is looked at; by default the last one.
        per_group: images of each group to explain, fewer where it has fewer.
        seed: of the draw within each group.

    Raises:
        InputError: a model without feature maps, or a site that it does not have.
        NotFiniteError: probabilities are NaN.
    """
    site = feature_site(config, site)
    network = as_network(model)
    with recorded_gates(network) as recorded:
        probabilities = images.probabilities(network)
    labels = images.labels
    drawn = draw(probabilities, labels, per_group, seed)
    explained = []
    for group, places in drawn.items():
        rows = images.rows[places]
        pixels = np.take(images.pack.pixels, rows, axis=0)
        maps = grad_cam(network, torch.from_numpy(pixels), site).numpy()
        explained += [
            Explained(group, int(row), float(p), image, map_)
            for row, p, image, map_ in zip(rows, probabilities[places], pixels, maps, strict=True)
        ]
    counts = {group: len(_members(group, probabilities, labels)) for group in GROUPS}
    gates = {name: gate_statistics(torch.cat(parts), labels) for name, parts in recorded.items()}
    return Explanation(site, explained, counts, gates)


def as_network(model: nn.Module) -> Network:
    """A model as one that has feature maps.

    Raises:
        InputError: it has none.
    """
    if not isinstance(model, Network):
        refuse("explain", "Grad-CAM needs feature maps, and this model has none")
    return model


def feature_site(config: Config, site: str | None) -> str:
    """The site whose feature map is looked at, by default the last of the forward pass.

    Raises:
        InputError: the architecture has no feature maps, or not this site.
    """
    sites = [*catalogue.sites_of(config)]
    if not sites:
        refuse(
            "explain",
            f"Grad-CAM needs feature maps, and model {config.model} has none",
        )
    if site is not None and site not in sites:
        refuse("--site", f"model {config.model} has {', '.join(sites)}", value=site)
    return site or sites[-1]


def grad_cam(network: Network, pixels: torch.Tensor, site: str) -> torch.Tensor:
    """Gradient-weighted class activation maps (Selvaraju et al. 2017, section 3, by captum).

    The channels of the feature map are weighted by the mean gradient of the score of the class
    that is called, summed, and cut at 0. That score is the logit where REAL is called, and minus
    the logit where FAKE is.

    Args:
        network: in evaluation mode.
        pixels: shape (n, 32, 32, 3), uint8.
        site: whose feature map is taken, after the attention module there.

    Returns:
        Shape (n, h, w), float32, at the resolution of the feature map.
    """
    if not len(pixels):
        return torch.empty(0, 1, 1)

    def called_score(images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = network(images)
        real = torch.sigmoid(logits.detach()) >= DEFAULT_THRESHOLD
        return torch.where(real, logits, -logits)

    with network.tap(site) as layer:
        captum = LayerGradCam(called_score, layer)
        maps: torch.Tensor = captum.attribute(pixels, relu_attributions=True)
    return maps.detach()[:, 0].float()


@contextmanager
def recorded_gates(network: Network) -> Iterator[dict[str, list[torch.Tensor]]]:
    """The gates of every batch that goes through the network while the context lasts.

    Yields:
        By site, tensors of shape (batch, channels) in order. Modules that scale no channels, such
        as batch normalisation, are left out.
    """
    recorded: dict[str, list[torch.Tensor]] = {}
    handles = []
    for site, module in network.attention.items():
        if not hasattr(module, "gates"):
            continue
        kept = recorded.setdefault(site, [])

        def keep(module: Any, inputs: Any, output: Any, kept: list[torch.Tensor] = kept) -> None:
            del output
            kept.append(module.gates(inputs[0]).detach().float().cpu())

        handles.append(module.register_forward_hook(keep))
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


def gate_statistics(gates: torch.Tensor, labels: npt.NDArray[np.int8]) -> dict[str, GateStatistics]:
    """Mean and spread of gates of shape (n, channels) over the REAL and over the FAKE images."""
    values = gates.numpy().astype(np.float64)
    missing = np.full(values.shape[1], np.nan)
    found = {}
    for name, label in (("REAL", 1), ("FAKE", 0)):
        part = values[labels == label]
        mean = part.mean(0) if len(part) else missing
        std = part.std(0, ddof=1) if len(part) > 1 else missing
        found[name] = GateStatistics(len(part), mean, std)
    return found


def draw(
    probabilities: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int8],
    per_group: int,
    seed: int,
) -> dict[str, npt.NDArray[np.int64]]:
    """Positions of some images of each group, ascending; one group's draw changes no other's."""
    drawn = {}
    for number, group in enumerate(GROUPS):
        members = _members(group, probabilities, labels)
        order = np.random.default_rng([seed, number]).permutation(len(members))
        drawn[group] = np.sort(members[order[:per_group]])
    return drawn


def _members(
    group: str, probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int8]
) -> npt.NDArray[np.int64]:
    label, real = GROUPS[group]
    return np.flatnonzero((labels == label) & ((probabilities >= DEFAULT_THRESHOLD) == real))
