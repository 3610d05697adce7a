"""AWS's API on this machine, by moto: what is asked for is in its books, and nowhere else."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3

REGION = "eu-central-1"
KEY, SECRET = "tests", "tests-secret"
_READY_WITHIN = 60.0


class Api:
    """moto's server.

    Args:
        host: to listen on.
        port: to listen on.
        log: file for what it says.
    """

    def __init__(self, host: str, port: int, log: Path) -> None:
        self.url = f"http://{host}:{port}"
        self.log = log
        self.command = [sys.executable, "-m", "moto.server", "-H", host, "-p", str(port)]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def variables(self) -> dict[str, str]:
        """The environment in which AWS's tools find it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, service: str) -> Any:
        """A client of one of its services."""
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        end = time.monotonic() + _READY_WITHIN
        while True:
            with contextlib.suppress(Exception):
                self.client("ec2").describe_vpcs()
                return
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"no API: {self.log.read_text()[-2000:]}")
            time.sleep(0.2)

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def instances(self) -> list[dict[str, Any]]:
        """All that were ever started."""
        found = self.client("ec2").describe_instances()["Reservations"]
        return [instance for reservation in found for instance in reservation["Instances"]]

    def make_roles(self, *names: str) -> None:
        """Make instance profiles."""
        for name in names:
            self.client("iam").create_instance_profile(InstanceProfileName=name)


@contextlib.contextmanager
def api(host: str, port: int, log: Path) -> Iterator[Api]:
    """moto's server for as long as the block lasts."""
    made = Api(host, port, log)
    try:
        made.start()
        yield made
    finally:
        made.stop()
