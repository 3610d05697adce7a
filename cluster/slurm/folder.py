"""The folder of a job of Slurm, which the user's machine and every node see."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from cifake.files import write_aside
from cluster.job import CODE, LOG, STOPPED, SUBMISSION
from cluster.token import token_path

HEAD = "0"
"""What tells the head from the job's other nodes."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """Where the head of a job's cluster is."""

    job: str
    node: str
    address: str
    """Of its control store, HOST:PORT."""

    dashboard_port: int
    usable: bool = False
    """Whether its Ray has started."""


@dataclass(frozen=True)
class JobFolder:
    """Where everything of a job lies."""

    path: Path

    @property
    def script(self) -> Path:
        """What sbatch is given."""
        return self.path / "job.sbatch"

    @property
    def extra_script(self) -> Path:
        """What sbatch is given for the nodes that join."""
        return self.path / "extra.sbatch"

    @property
    def on_head(self) -> Path:
        """What runs a command of the head's Python, in a step of the job."""
        return self.path / "on-head"

    @property
    def number(self) -> Path:
        """The job's number, as sbatch printed it."""
        return self.path / "number"

    @property
    def extra_number(self) -> Path:
        """That of the array of nodes that join."""
        return self.path / "extra-number"

    @property
    def log(self) -> Path:
        """What the job prints."""
        return self.path / LOG

    @property
    def nodes_log(self) -> Path:
        """What its nodes print."""
        return self.path / "nodes.log"

    @property
    def cluster(self) -> Path:
        """Where the head is; there as long as its Ray is to run."""
        return self.path / "cluster.json"

    @property
    def members(self) -> Path:
        """A file for each node whose Ray has started."""
        return self.path / "members"

    @property
    def token(self) -> Path:
        """What the cluster asks for."""
        return token_path(self.path)

    @property
    def secrets(self) -> Path:
        """More of every node's environment, for its owner alone."""
        return self.path / "secrets"

    @property
    def requeued(self) -> Path:
        """How often the job has queued itself again."""
        return self.path / "requeued"

    @property
    def submission(self) -> Path:
        """The sweep that it runs."""
        return self.path / SUBMISSION

    @property
    def code(self) -> Path:
        """The sweep's exit code, once it has ended."""
        return self.path / CODE

    @property
    def stopped(self) -> Path:
        """There if somebody stopped it."""
        return self.path / STOPPED

    @property
    def jobs(self) -> Path:
        """Sweeps that were submitted to its cluster; they outlive the allocation."""
        return self.path / "jobs"

    def read_head(self) -> Head | None:
        """Where the head is; null while there is none."""
        try:
            return Head(**json.loads(self.cluster.read_text()))
        except FileNotFoundError:
            return None

    def write_head(self, head: Head) -> None:
        """Tell all who see the folder where the head is."""
        write_aside(self.cluster, json.dumps(asdict(head)).encode())

    def forget_secrets(self) -> None:
        """Remove what nobody needs when the job is over."""
        shutil.rmtree(self.token.parents[1], ignore_errors=True)
        self.secrets.unlink(missing_ok=True)

    def read_number(self, path: Path | None = None) -> str | None:
        """A job's number; null where it was not handed over."""
        path = path or self.number
        text = path.read_text().strip() if path.is_file() else ""
        # On a cluster of several, sbatch adds the cluster's name.
        return text.partition(";")[0] or None


def node_name(job: str, node: str) -> str:
    """The name of a node's own folder, below its folder of temporary files.

    Args:
        job: its number.
        node: what tells it from the job's other nodes.
    """
    return f"cifake-slurm-{job}-{node}"


def node_folder(job: str, node: str) -> Path:
    """That folder, on the node itself."""
    return Path(tempfile.gettempdir()) / node_name(job, node)
