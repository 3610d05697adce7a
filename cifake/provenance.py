"""Where a run's numbers came from: code, machine and versions."""

from __future__ import annotations

import functools
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("cifake-sweeps", "numpy", "ray")


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape or schedule the numbers."""
    import torch

    packages = {name: version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **packages, "torch": torch.__version__}


def device_name(device: str) -> str:
    """The processor or GPU behind `cpu` or `cuda`."""
    if device == "cpu":
        return f"cpu {platform.machine()}"
    import torch

    return f"{device} {torch.cuda.get_device_name(device)}"


def git_commit() -> str | None:
    """The commit of this code; null outside a checkout."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607 - git is found where the user's is
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip() or None
