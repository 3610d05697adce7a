"""A page of images beside their Grad-CAM maps, and the gates of attention modules."""

from __future__ import annotations

import io
import math

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator
from torch.nn import functional

from cifake.explain import GROUPS, Explained, Explanation, GateStatistics

REAL_COLOUR, FAKE_COLOUR = "#0072B2", "#D55E00"
"""Of Okabe and Ito's palette: told apart by colour-blind readers."""

_MEANINGS = {
    "true REAL": "photographs called REAL",
    "false REAL": "generated images called REAL",
    "true FAKE": "generated images called FAKE",
    "false FAKE": "photographs called FAKE",
}
_HEAT = mpl.colormaps["inferno"]
_PANEL_COLUMNS = 3
_BARS_AT_MOST = 32
_INCH_AN_IMAGE = 0.95


def draw_sheet(title: str, explanation: Explanation, columns: int, *, dpi: int = 150) -> bytes:
    """The page as PNG.

    Args:
        title: what network and which images.
        explanation: the images, their maps, and the gates.
        columns: images of a group side by side.
        dpi: pixels an inch.
    """
    panels = math.ceil(len(explanation.gates) / _PANEL_COLUMNS)
    heights = [2 * (2 * _INCH_AN_IMAGE + 0.75), 0.6, *([2.5 * panels + 0.7] if panels else [])]
    width = max(8.0, 2 * columns * _INCH_AN_IMAGE + 1.4)
    figure = Figure(figsize=(width, sum(heights) + 0.5), layout="constrained")
    figure.suptitle(title, fontsize=12)
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)
    _draw_groups(parts[0, 0], explanation, columns)
    _draw_key(parts[1, 0])
    if panels:
        _draw_gates(parts[2, 0], explanation, panels)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def _draw_groups(part: SubFigure, explanation: Explanation, columns: int) -> None:
    blocks = part.subfigures(2, 2, squeeze=False, hspace=0.03, wspace=0.03)
    for block, group in zip(blocks.T.flat, GROUPS, strict=True):
        members = [image for image in explanation.images if image.group == group]
        count = explanation.counts[group]
        block.suptitle(f"{group}: {_MEANINGS[group]}, {count:,} in all", fontsize=9.5)
        axes = block.subplots(2, columns, squeeze=False)
        for column in axes.T:
            for axis in column:
                axis.set_axis_off()
        for column, image in zip(axes.T, members, strict=False):
            _draw_image(column, image)
        if not members:
            axes[0, columns // 2].set_title("none", fontsize=9, color="0.4")


def _draw_image(axes: npt.NDArray[np.object_], image: Explained) -> None:
    above, below = axes
    above.imshow(image.pixels, interpolation="nearest")
    above.set_title(f"{image.probability:.3f}", fontsize=7.5, pad=2)
    below.imshow(overlay(image.pixels, image.map), interpolation="nearest")
    if not image.map.any():
        below.set_title("0 everywhere", fontsize=6.5, pad=1.5, color="0.4")


def _draw_key(part: SubFigure) -> None:
    text, bar = part.subplots(1, 2, width_ratios=(3, 1))
    text.set_axis_off()
    text.text(
        0,
        0.5,
        "Above: the image and its probability of REAL. Below: where the evidence for the class "
        "that is called comes from,\neach map scaled to its own maximum; without colour where "
        "there is none.",
        fontsize=8,
        va="center",
    )
    mappable = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), _HEAT)
    part.colorbar(mappable, cax=bar, orientation="horizontal")
    bar.set_box_aspect(0.05)
    bar.set_xticks([0, 1], ["none", "most"], fontsize=8)


def overlay(
    pixels: npt.NDArray[np.uint8], map_: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """A grey image of shape (32, 32, 3), 0…1, coloured where its map is large.

    The map of shape (h, w) is enlarged bilinearly and scaled to a maximum of 1.
    """
    size = (pixels.shape[0], pixels.shape[1])
    large = functional.interpolate(
        torch.from_numpy(map_)[None, None], size=size, mode="bilinear", align_corners=False
    )[0, 0].numpy()
    heat = large / large.max() if large.max() > 0 else large
    grey = (pixels.astype(np.float64) / 255).mean(2, keepdims=True).repeat(3, axis=2)
    return np.asarray(0.45 * grey + 0.55 * _HEAT(heat)[:, :, :3], np.float64)


def _draw_gates(part: SubFigure, explanation: Explanation, rows: int) -> None:
    part.suptitle(
        "gates by channel: mean and standard deviation over REAL and over FAKE images",
        fontsize=9.5,
    )
    columns = min(_PANEL_COLUMNS, len(explanation.gates))
    axes = part.subplots(rows, columns, squeeze=False, sharey=True)
    for axis in axes.flat[len(explanation.gates) :]:
        axis.set_axis_off()
    for axis, (site, gates) in zip(axes.flat, explanation.gates.items(), strict=False):
        _draw_site(axis, site, gates)
    for axis in axes[:, 0]:
        axis.set_ylabel("gate")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    part.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8)


def _draw_site(axis: Axes, site: str, gates: dict[str, GateStatistics]) -> None:
    for name, colour, shift in (("REAL", REAL_COLOUR, -0.15), ("FAKE", FAKE_COLOUR, 0.15)):
        found = gates[name]
        if not found.images:
            continue
        label = f"{name}, {found.images:,} images"
        channels = np.arange(1, len(found.mean) + 1)
        std = np.nan_to_num(found.std)
        if len(channels) <= _BARS_AT_MOST:
            axis.errorbar(
                channels + shift, found.mean, std, fmt="o", ms=3.5, lw=1, color=colour, label=label
            )
        else:
            axis.plot(channels, found.mean, lw=1, color=colour, label=label)
            axis.fill_between(
                channels, found.mean - std, found.mean + std, color=colour, alpha=0.18, lw=0
            )
    axis.set_title(site, fontsize=9)
    axis.set_xlabel("channel")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(visible=True, alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
