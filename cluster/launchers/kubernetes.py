"""A cluster in Kubernetes, by KubeRay's operator: `RayCluster` for `up`, `RayJob` for one sweep."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

from cifake.errors import InputError, Mistake, refuse
from cluster import bucket, kuberay, rayjob
from cluster.actions import Action, Command, RemoveFile, WriteFile
from cluster.kuberay import KubernetesProfile
from cluster.launcher import Profile, Submission
from cluster.secret_file import secret_problems
from cluster.token import make_token, token_path

_MANIFESTS = "cluster.yaml"
_WITHIN = "--request-timeout=30s"
_UP_SECONDS = 900.0
"""A head's image is pulled meanwhile, and a node for it may have to be started."""

_MADE = ("rayclusters.ray.io", "rayjobs.ray.io")
_RIGHTS = (
    *(f"{verb} {kind}" for kind in _MADE for verb in ("create", "get", "list", "patch", "delete")),
    *(f"{verb} secrets" for verb in ("create", "get", "patch", "delete")),
    *(f"{verb} serviceaccounts" for verb in ("create", "get", "patch", "delete")),
    *(f"{verb} configmaps" for verb in ("create", "get", "patch", "delete")),
    *(f"{verb} networkpolicies.networking.k8s.io" for verb in ("create", "get", "patch", "delete")),
    *("get pods", "list pods", "get services", "get pods/log"),
    *("create pods/exec", "create pods/portforward"),
)
"""What `kubectl` does for the commands; `cluster/permissions/kubernetes.yaml` grants it."""


class Kubernetes:
    """A cluster in Kubernetes.

    Args:
        name: of its profile.
        profile: what it is made of.
        folder: on this machine, where what is known of it is kept.
    """

    settings: ClassVar[type[Profile]] = KubernetesProfile

    def __init__(self, name: str, profile: Profile, folder: Path) -> None:
        self.name = kuberay.name_of(name)
        self.profile = KubernetesProfile.model_validate(profile.model_dump())
        self.folder = folder

    def problems(self) -> list[Mistake]:
        """kubectl, the cluster, KubeRay, permissions, claims, secrets and the store."""
        found = [*secret_problems(self.profile.secrets), *self._kubectl_problems()]
        if not found and self.profile.secrets is not None:
            found += bucket.problems(self.profile)
        return found

    def up(self) -> list[Action]:
        """What makes the cluster and waits for its head."""
        manifests = [
            *kuberay.shared_manifests(self.name, self.profile),
            kuberay.cluster_manifest(self.name, self.profile),
        ]
        remove = ("delete", "raycluster", self.name, "--ignore-not-found", "--wait=false")
        wait = ("wait", "--for=condition=HeadPodReady", f"raycluster/{self.name}", "--timeout=10s")
        return [
            *self._secrets(),
            WriteFile(path=self.folder / _MANIFESTS, text=kuberay.text_of(manifests)),
            Command(
                what=f"make the cluster {self.name}",
                argv=self._kubectl("apply", f"--filename={self.folder / _MANIFESTS}"),
                undo=self._kubectl(*remove),
            ),
            Command(what="wait for its head", argv=self._kubectl(*wait), patience=_UP_SECONDS),
        ]

    def down(self) -> list[Action]:
        """What removes the cluster, its jobs, and all that was made for them."""
        mine = f"--selector={kuberay.INSTANCE}={self.name}"
        kinds = "serviceaccounts,networkpolicies,configmaps"
        secrets = (kuberay.token_secret(self.name), kuberay.environment_secret(self.name))
        return [
            # First KubeRay's own, since its operator needs the Secret to stop jobs in order.
            self._remove("jobs and cluster", f"{','.join(reversed(_MADE))}", mine),
            self._remove("accounts, policies and specifications", kinds, mine),
            self._remove("secrets", "secrets", *secrets),
        ]

    def is_up(self) -> bool:
        """Whether there is a cluster of that name."""
        return bool(self._ask("get", "raycluster", self.name, "--ignore-not-found", "-o", "name"))

    def on_head(self, command: Sequence[str]) -> list[str]:
        """A command of the Python of the head's pod."""
        where = (f"service/{self.name}-head-svc", f"--container={kuberay.HEAD_CONTAINER}")
        return [*self._kubectl("exec", "--stdin", *where, "--", "python", *command)]

    def reach(self) -> Mapping[str, str]:
        """A port of this machine that leads to the head's dashboard, and its token."""
        port = self.profile.dashboard_port
        forward = self._kubectl("port-forward", f"service/{self.name}-head-svc", f"{port}:{port}")
        secret, key = kuberay.token_secret(self.name), kuberay.TOKEN_KEY
        token = self._kubectl("get", "secret", secret, f"--output=jsonpath={{.data.{key}}}")
        return {
            f"dashboard, at http://127.0.0.1:{port}": shlex.join(forward),
            "token of the dashboard": f"{shlex.join(token)} | base64 -d",
        }

    def submit(self, submission: Submission) -> list[Action]:
        """What makes a job that brings its own cluster."""
        manifests = [
            *kuberay.shared_manifests(self.name, self.profile),
            *kuberay.job_manifests(self.name, self.profile, submission),
        ]
        path = self.folder / f"{submission.job}.yaml"
        return [
            *self._secrets(),
            WriteFile(path=path, text=kuberay.text_of(manifests)),
            Command(
                what=f"make the job {submission.job}",
                argv=self._kubectl("apply", f"--filename={path}"),
            ),
        ]

    def follow(self, job: str) -> list[str]:
        """What prints a job's log until it ends."""
        program = (sys.executable, "-m", "cluster.rayjob", "follow", kuberay.job_name(job))
        return [*program, "--", *self._kubectl()]

    def stop(self, job: str) -> list[Action]:
        """What has KubeRay stop the job and remove its cluster."""
        name = kuberay.job_name(job)
        return [
            self._remove(f"the job {job}", f"rayjob/{name}"),
            self._remove(f"the specification of {job}", f"configmap/{name}"),
            RemoveFile(path=self.folder / f"{job}.yaml"),
        ]

    def jobs(self) -> Mapping[str, str]:
        """The states of the jobs that brought their own clusters."""
        mine = f"--selector={kuberay.INSTANCE}={self.name}"
        found: dict[str, Any] = json.loads(self._ask("get", "rayjobs", mine, "--output=json"))
        return {
            job["metadata"]["annotations"][kuberay.JOB]: rayjob.describe(job.get("status", {}))
            for job in found["items"]
        }

    def _secrets(self) -> list[Action]:
        """The token as a Secret, unless it is there, and the secrets as they are now."""
        kubectl = self._kubectl()
        token = kuberay.token_secret(self.name)
        keep = f'"$@" get secret {token} > /dev/null 2>&1 || "$@" create secret generic {token}'
        source = f"--from-file={kuberay.TOKEN_KEY}={token_path(self.folder)}"
        actions: list[Action] = [
            *make_token(self.folder),
            Command(
                what="keep the token as a Secret",
                argv=("sh", "-c", f"{keep} {shlex.quote(source)}", "kubectl", *kubectl),
            ),
        ]
        if self.profile.secrets is not None:
            read = (sys.executable, "-m", "cluster.secret_file", str(Path(self.profile.secrets)))
            name = kuberay.environment_secret(self.name)
            make = (
                f"create secret generic {name} --from-env-file=/dev/stdin --dry-run=client -o yaml"
            )
            # On the server's side: the client's own way would copy the secrets into an annotation.
            give = "apply --server-side --force-conflicts --filename=-"
            line = f'{shlex.join(read)} | "$@" {make} | "$@" {give}'
            argv = ("sh", "-c", line, "kubectl", *kubectl)
            actions.append(Command(what="keep the secrets as a Secret", argv=argv))
        return actions

    def _remove(self, what: str, *which: str) -> Command:
        argv = self._kubectl("delete", *which, "--ignore-not-found", "--wait", "--timeout=5m")
        return Command(what=f"remove {what}", argv=argv)

    def _kubectl(self, *arguments: str) -> tuple[str, ...]:
        context = () if self.profile.context is None else (f"--context={self.profile.context}",)
        return ("kubectl", *context, f"--namespace={self.profile.namespace}", *arguments)

    def _ask(self, *arguments: str) -> str:
        """What kubectl prints.

        Raises:
            InputError: it fails.
        """
        code, output, errors = _run(self._kubectl(*arguments, _WITHIN))
        if code != 0:
            refuse("kubectl", errors)
        return output

    def _kubectl_problems(self) -> list[Mistake]:
        """From the program to the permissions, as far as it goes."""
        if shutil.which("kubectl") is None:
            problem = "is not installed; see Kubernetes' page on installing tools"
            return [Mistake(where="kubectl", problem=problem)]
        if mistakes := self._context_problems():
            return mistakes
        namespace = self.profile.namespace
        code, _, errors = _run(self._kubectl("get", "namespace", namespace, _WITHIN))
        if code != 0 and "NotFound" in errors:
            problem = f"is not there; kubectl create namespace {namespace}"
            return [_mistake("namespace", namespace, problem)]
        if code != 0 and "Forbidden" not in errors:
            return [_mistake("context", self.profile.context, f"does not answer: {errors}")]
        code, kinds, _ = _run(self._kubectl("api-resources", "--api-group=ray.io", "-o", "name"))
        missing = [kind for kind in _MADE if kind not in kinds.split()]
        if missing:
            problem = f"lacks {' and '.join(missing)}: install KubeRay's operator, 1.6 or newer"
            return [_mistake("context", self.profile.context, problem)]
        return [*self._permission_problems(), *self._thing_problems()]

    def _context_problems(self) -> list[Mistake]:
        wanted = self.profile.context
        _, known, _ = _run(("kubectl", "config", "get-contexts", "--output=name"))
        listed = ", ".join(known.split()) or "none"
        if wanted is not None and wanted not in known.split():
            return [_mistake("context", wanted, f"kubectl has no such context; known: {listed}")]
        code, _, _ = _run(("kubectl", "config", "current-context"))
        if wanted is None and code != 0:
            problem = f"kubectl has no current context; name one of: {listed}"
            return [_mistake("context", None, problem)]
        return []

    def _permission_problems(self) -> list[Mistake]:
        with ThreadPoolExecutor(8) as pool:
            denied = [right for right, may in pool.map(self._may, _RIGHTS) if not may]
        if not denied:
            return []
        problem = f"you may not {', '.join(denied)}; cluster/permissions/kubernetes.yaml grants it"
        return [_mistake("namespace", self.profile.namespace, problem)]

    def _may(self, right: str) -> tuple[str, bool]:
        verb, _, kind = right.partition(" ")
        kind, _, part = kind.partition("/")
        sub = (f"--subresource={part}",) if part else ()
        code, _, _ = _run(self._kubectl("auth", "can-i", verb, kind, *sub, "--quiet", _WITHIN))
        return right, code == 0

    def _thing_problems(self) -> list[Mistake]:
        """Claims and Secrets that the profile says are there."""
        wanted = [
            *(("claims", "persistentvolumeclaim", name) for name in self.profile.claims.values()),
            *(("pull_secrets", "secret", name) for name in self.profile.pull_secrets),
        ]
        mistakes = []
        for field, kind, name in wanted:
            code, _, errors = _run(self._kubectl("get", kind, name, _WITHIN))
            if code != 0 and "NotFound" in errors:
                problem = f"there is no such {kind} in the namespace {self.profile.namespace}"
                mistakes.append(_mistake(field, name, problem))
        return mistakes


def _mistake(field: str, value: object, problem: str) -> Mistake:
    return Mistake(where="Kubernetes", field=field, value=value, problem=problem)


def _run(argv: Sequence[str]) -> tuple[int, str, str]:
    """Exit code, output, and complaint in a line."""
    try:
        result = subprocess.run(  # noqa: S603 - kubectl
            argv, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return 124, "", "no answer within 60 s"
    except OSError as error:
        raise InputError([Mistake(where=argv[0], problem=str(error.strerror))]) from None
    return result.returncode, result.stdout, " ".join(result.stderr.split())
