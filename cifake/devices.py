"""What this machine has to train on, as far as it can be told without torch."""

from __future__ import annotations

import os
from pathlib import Path

_DRIVER = Path("/proc/driver/nvidia/gpus")


def has_gpu() -> bool:
    """Whether there is a GPU of NVIDIA's that this process may use, by what its driver says."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    return not hidden and any(_DRIVER.glob("*"))
