"""A server that speaks as Amazon's S3 does, on this machine, for as long as a test wants it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from tests.ports import free_port

BUCKET = "bucket"
KEY, SECRET = "key", "secret"
WEED = Path(sys.executable).parent / "weed"
"""SeaweedFS, as its package on PyPI installs it."""

_READY_WITHIN = 60.0
_SERVERS = ("master", "volume", "filer", "s3")


class ObjectStore:
    """SeaweedFS with one bucket, on ports of its own; only who has the key may use it.

    Args:
        folder: for its files.
        address: of this machine, on which it listens.
    """

    def __init__(self, folder: Path, address: str = "127.0.0.1") -> None:
        self.folder = folder
        self.address = address
        self.ports = {name: free_port() for name in _SERVERS}
        self.inner_ports = {name: free_port() for name in _SERVERS}
        """On which they speak to each other."""

        identity = {
            "name": "tests",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"http://{self.address}:{self.ports['s3']}"

    @property
    def variables(self) -> dict[str, str]:
        """The environment in which it is found and its key known."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    def start(self) -> None:
        """Start it and wait until it answers."""
        ports = [f"-{name}.port={port}" for name, port in self.ports.items()]
        ports += [f"-{name}.port.grpc={port}" for name, port in self.inner_ports.items()]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    WEED,
                    "server",
                    f"-dir={self.folder}",
                    f"-ip={self.address}",
                    f"-ip.bind={self.address}",
                    "-volume.max=50",
                    "-master.volumeSizeLimitMB=64",
                    "-s3",
                    "-s3.port.iceberg=0",
                    "-s3.port.lance=0",
                    "-master.telemetry=false",
                    f"-s3.config={self.folder / 's3.json'}",
                    *ports,
                ],
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + _READY_WITHIN
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"no object store: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End it; its files stay."""
        if self.process is not None:
            self.process.kill()  # asked to end, it would take half a minute
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        """Whether it can write, which it can some seconds after it listens."""
        import obstore
        from obstore.exceptions import BaseError
        from obstore.store import S3Store

        bucket = S3Store(
            BUCKET,
            endpoint=self.endpoint,
            access_key_id=KEY,
            secret_access_key=SECRET,
            region="us-east-1",
            client_options={"allow_http": True, "timeout": "2s"},
            retry_config={"max_retries": 0},
        )
        try:
            obstore.put(bucket, "ready", b"")
            obstore.delete(bucket, "ready")
        except BaseError:
            return False
        return True
