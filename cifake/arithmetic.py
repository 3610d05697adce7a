"""Arithmetic on a GPU that is as exact as its numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact() -> Iterator[None]:
    """Convolutions in the precision that was asked for.

    cuDNN by itself rounds the factors of float32 to 10 bits (TF32).
    """
    with torch.backends.cudnn.flags(
        enabled=True,
        benchmark=False,
        allow_tf32=False,
        fp32_precision="ieee",  # else "none", which takes the line before back
    ):
        yield
