"""How the kernel of a convolution moves."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn


class Geometry(NamedTuple):
    """How a kernel moves over maps: pixels by dimension."""

    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)


def of_convolution(conv: nn.Conv2d) -> Geometry | None:
    """How a convolution moves; null where it has not the same padding on opposite sides."""
    if isinstance(conv.padding, tuple):
        return Geometry(conv.stride, conv.padding, conv.dilation)
    spans = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
    if conv.padding == "same" and any(span % 2 for span in spans):
        return None
    padding = (0, 0) if conv.padding == "valid" else tuple(span // 2 for span in spans)
    return Geometry(conv.stride, padding, conv.dilation)
