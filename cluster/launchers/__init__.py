"""What starts clusters, one file a kind."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.launcher import Launcher
from cluster.launchers.cloud import Aws, Gcp
from cluster.launchers.hosts import Hosts
from cluster.launchers.kubernetes import Kubernetes
from cluster.launchers.local import Local
from cluster.launchers.slurm import Slurm

LAUNCHERS: Mapping[str, type[Launcher]] = {
    "aws": Aws,
    "gcp": Gcp,
    "hosts": Hosts,
    "kubernetes": Kubernetes,
    "local": Local,
    "slurm": Slurm,
}
"""By the name that a profile gives."""
