"""A real Kubernetes API server on this machine, for as long as a test wants it.

It and etcd are looked for in `$KUBEBUILDER_ASSETS`, as Kubernetes' own tests do, and on the path.
There is no scheduler and no kubelet: objects are admitted and kept, and no pod runs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.ports import free_ports

_READY_WITHIN = 120.0
_ADMIN, _USER = "admin-token", "user-token"


def program(name: str) -> str | None:
    """Where a program is, null if it is not installed."""
    assets = os.environ.get("KUBEBUILDER_ASSETS", "")
    return shutil.which(name, path=f"{assets}{os.pathsep}{os.environ['PATH']}")


MISSING = [name for name in ("etcd", "kube-apiserver", "kubectl") if program(name) is None]


class ApiServer:
    """An API server with two users: one who may do anything, and one who may do nothing yet.

    Args:
        folder: for its files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.port, self._etcd, self._peers = free_ports(3)
        self.kubeconfig = folder / "kubeconfig"

    def start(self) -> None:
        """Start it and wait until it is ready."""
        (self.folder / "tokens.csv").write_text(
            f"{_ADMIN},admin,admin,system:masters\n{_USER},user,user\n"
        )
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = serialization.Encoding.PEM
        private = key.private_bytes(
            pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        (self.folder / "accounts.key").write_bytes(private)
        self._run("etcd", *self._etcd_options())
        self._run("kube-apiserver", *self._server_options())
        self.kubeconfig.write_text(self._configuration())
        end = time.monotonic() + _READY_WITHIN
        while not self._ready():
            if any(process.poll() is not None for process in self.processes) or (
                time.monotonic() > end
            ):
                log = (self.folder / "kube-apiserver.log").read_text(errors="replace")
                raise RuntimeError(f"no API server: {log[-2000:]}")
            time.sleep(0.5)

    def stop(self) -> None:
        """End it."""
        for process in reversed(self.processes):
            process.kill()
            process.wait()

    def _run(self, name: str, *options: str) -> None:
        path = program(name)
        assert path is not None
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes.append(subprocess.Popen([path, *options], stdout=log, stderr=log))

    def _etcd_options(self) -> list[str]:
        clients, peers = (f"http://127.0.0.1:{port}" for port in (self._etcd, self._peers))
        return [
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--unsafe-no-fsync",
        ]

    def _server_options(self) -> list[str]:
        key = self.folder / "accounts.key"
        return [
            f"--etcd-servers=http://127.0.0.1:{self._etcd}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--cert-dir={self.folder / 'certificates'}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--disable-admission-plugins=ServiceAccount",
        ]

    def _configuration(self) -> str:
        contexts = "".join(
            f"- name: {name}\n  context: {{cluster: test, user: {name}}}\n"
            for name in ("admin", "user")
        )
        return (
            "apiVersion: v1\nkind: Config\ncurrent-context: admin\n"
            f"clusters:\n- name: test\n  cluster: {{server: 'https://127.0.0.1:{self.port}', "
            "insecure-skip-tls-verify: true}\n"
            f"contexts:\n{contexts}"
            f"users:\n- name: admin\n  user: {{token: {_ADMIN}}}\n"
            f"- name: user\n  user: {{token: {_USER}}}\n"
        )

    def _ready(self) -> bool:
        result = subprocess.run(
            ["kubectl", f"--kubeconfig={self.kubeconfig}", "get", "--raw=/readyz"],
            capture_output=True,
            check=False,
            timeout=60,
        )
        return result.returncode == 0
