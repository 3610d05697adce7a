"""How the kernel of a convolution moves."""

from __future__ import annotations

from typing import NamedTuple


class Geometry(NamedTuple):
    """How a kernel moves over maps: pixels by dimension."""

    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
