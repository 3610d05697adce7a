"""What Kubernetes is told: clusters and jobs of KubeRay, as manifests. Texts in, texts out.

No manifest holds a secret: pods name the Secrets that have them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Annotated, Any

import yaml
from pydantic import Field

from cifake.config import Settings
from cluster import ray_start
from cluster.launcher import Profile, Submission
from cluster.names import dns_name

Manifest = dict[str, Any]

INSTANCE = "app.kubernetes.io/instance"
"""Label of everything that belongs to a profile, pods included."""

JOB = "cifake-sweeps/job"
"""Annotation of a RayJob: the job's name as people know it."""

TOKEN_KEY = "auth_token"  # noqa: S105 - what KubeRay calls it
"""Where in its Secret KubeRay looks for the token."""

HEAD_CONTAINER = "ray-head"

_USER = 1000
"""Of the image, as `cluster/Dockerfile` makes it."""

_PACKS, _JOB_FOLDER = "/var/cache/cifake", "/etc/cifake/job"
_LONGEST_NAME = 40
"""KubeRay hangs more on it, and a label has 63 characters at most."""

_NAME = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
_QUANTITY = r"^[0-9]+(Mi|Gi|Ti)$"
_GRACE_SECONDS = 60
"""From a pod's notice to its end: the epoch in flight may be written by then."""


class Toleration(Settings):
    """A taint that does not keep pods away, in Kubernetes' words."""

    key: str | None = None
    """Of the taint; null for every one."""

    operator: str = Field("Equal", pattern="^(Equal|Exists)$")
    """Whether the value counts."""

    value: str | None = None
    """Of the taint."""

    effect: str | None = Field(None, pattern="^(NoSchedule|PreferNoSchedule|NoExecute)$")
    """Of the taint; null for every one."""


class Pods(Settings):
    """What one pod asks for, and where it may run."""

    cpus: int = Field(2, ge=1)
    """Cores, as request and as limit."""

    memory: str = Field("4Gi", pattern=_QUANTITY)
    """Memory, as request and as limit: beyond it a pod is killed."""

    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels that its node must have, such as that of spot capacity."""

    tolerations: tuple[Toleration, ...] = ()
    """Taints of nodes that it may run on all the same."""


class Workers(Pods):
    """A group of like workers that comes and goes by demand."""

    gpus: int = Field(0, ge=0)
    """GPUs a pod."""

    gpu_resource: str = "nvidia.com/gpu"
    """What the cluster calls a GPU."""

    least: int = Field(0, ge=0)
    """Pods that stay when there is nothing to do."""

    most: int = Field(..., ge=1)
    """Pods at most."""


class KubernetesProfile(Profile):
    """What a profile of a Kubernetes cluster with KubeRay says."""

    image: str
    """Made by `cluster/Dockerfile`, in a registry that the nodes can pull from."""

    context: str | None = None
    """Of kubectl's configuration; null for the current one."""

    namespace: str = Field("default", pattern=_NAME)
    """Where everything is made; it is there already."""

    pull_secrets: tuple[str, ...] = ()
    """Secrets, there already, by which the image may be pulled."""

    service_account_annotations: dict[str, str] = Field(default_factory=dict)
    """What ties the pods to a role of the cloud, so that no keys of an object store are needed."""

    head: Pods = Pods()
    """The head, which trains nothing."""

    workers: dict[Annotated[str, Field(pattern=_NAME)], Workers] = Field(min_length=1)
    """Groups of workers by name."""

    idle_seconds: int = Field(300, ge=1)
    """After which a pod without work goes."""

    claims: dict[str, str] = Field(default_factory=dict)
    """Persistent volume claims, there already, by the folder where every pod sees them: a store or
    data sets on a shared file system, of access mode ReadWriteMany."""

    packs_folder: str | None = Field(None, pattern="^/")
    """A folder of every node, there already and writable by user 1000, where packed data sets stay
    when pods go, if the cluster allows hostPath; null for one of each pod, which goes with it."""

    packs_size: str = Field("20Gi", pattern=_QUANTITY)
    """What packed data sets may take of a node's disk."""

    retries: int = Field(2, ge=0)
    """Of a job whose head was lost or whose runs failed: it goes on from its store."""


def name_of(profile_name: str) -> str:
    """What the cluster of a profile is called in Kubernetes."""
    return dns_name(f"cifake-{profile_name}", _LONGEST_NAME)


def token_secret(name: str) -> str:
    """The Secret with the token."""
    return f"{name}-token"


def environment_secret(name: str) -> str:
    """The Secret with the profile's secrets."""
    return f"{name}-environment"


def job_name(job: str) -> str:
    """What a job is called in Kubernetes."""
    return dns_name(job, _LONGEST_NAME)


def shared_manifests(name: str, profile: KubernetesProfile) -> list[Manifest]:
    """What clusters and jobs of a profile both need.

    Args:
        name: of the cluster in Kubernetes.
        profile: what it says.
    """
    return [_service_account(name, profile), _network_policy(name, profile)]


def cluster_manifest(name: str, profile: KubernetesProfile) -> Manifest:
    """A cluster that stays until it is deleted; its dashboard is on loopback.

    Args:
        name: of the cluster in Kubernetes.
        profile: what it says.
    """
    spec = _cluster_spec(name, profile, dashboard_host=ray_start.LOOPBACK)
    return _object("ray.io/v1", "RayCluster", name, profile, name) | {"spec": spec}


def job_manifests(name: str, profile: KubernetesProfile, submission: Submission) -> list[Manifest]:
    """A sweep whose cluster begins and ends with it.

    KubeRay's operator speaks to its dashboard, which therefore listens beyond loopback: for who has
    the token, from where the network policy lets them.

    Args:
        name: of the profile's clusters in Kubernetes.
        profile: what it says.
        submission: the sweep.
    """
    job = job_name(submission.job)
    files = {"job.json": json.dumps(asdict(submission), indent=2), submission.file: submission.spec}
    spec = _cluster_spec(name, profile, dashboard_host="0.0.0.0")  # noqa: S104 - see above
    _mount(
        spec["headGroupSpec"]["template"]["spec"],
        "job",
        {"configMap": {"name": job}},
        _JOB_FOLDER,
        read_only=True,
    )
    known_as = {JOB: submission.job}
    return [
        _object("v1", "ConfigMap", job, profile, name, known_as) | {"data": files},
        _object("ray.io/v1", "RayJob", job, profile, name, known_as)
        | {
            "spec": {
                "entrypoint": f"python -m cluster.rayjob run {_JOB_FOLDER}",
                "submissionMode": "K8sJobMode",
                "submitterPodTemplate": {
                    "metadata": {"labels": {INSTANCE: name}},
                    "spec": _submitter(name, profile),
                },
                "shutdownAfterJobFinishes": True,
                "ttlSecondsAfterFinished": 0,
                "backoffLimit": profile.retries,
                "rayClusterSpec": spec,
            }
        },
    ]


def text_of(manifests: Sequence[Manifest]) -> str:
    """Manifests as YAML documents."""
    return yaml.safe_dump_all(manifests, sort_keys=False, width=100)


def _object(
    api: str,
    kind: str,
    name: str,
    profile: KubernetesProfile,
    instance: str,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    metadata: Manifest = {
        "name": name,
        "namespace": profile.namespace,
        "labels": {INSTANCE: instance, "app.kubernetes.io/part-of": "cifake-sweeps"},
    }
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"apiVersion": api, "kind": kind, "metadata": metadata}


def _service_account(name: str, profile: KubernetesProfile) -> Manifest:
    """Of every pod. KubeRay gives it the autoscaler's role, to which the head alone has the key."""
    annotations = profile.service_account_annotations
    account = _object("v1", "ServiceAccount", name, profile, name, annotations)
    return account | {"automountServiceAccountToken": False}


def _network_policy(name: str, profile: KubernetesProfile) -> Manifest:
    """Ray's ports are for its own pods, and the dashboard's for KubeRay's operator besides."""
    own = {"podSelector": {"matchLabels": {INSTANCE: name}}}
    operator = {
        "namespaceSelector": {},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}},
    }
    dashboard = {"protocol": "TCP", "port": profile.dashboard_port}
    return _object("networking.k8s.io/v1", "NetworkPolicy", name, profile, name) | {
        "spec": {
            "podSelector": {"matchLabels": {INSTANCE: name}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [own]}, {"from": [operator], "ports": [dashboard]}],
        }
    }


def _cluster_spec(name: str, profile: KubernetesProfile, dashboard_host: str) -> Manifest:
    return {
        "rayVersion": version("ray"),
        "authOptions": {"mode": "token", "secretName": token_secret(name)},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "version": "v2",
            "idleTimeoutSeconds": profile.idle_seconds,
            "resources": _resources({"cpu": "500m", "memory": "1Gi"}),
            "securityContext": _container_security(),
            "env": _listed(ray_start.ENVIRONMENT),
        },
        "headGroupSpec": {
            "rayStartParams": _common_params()
            | {
                "port": str(profile.port),
                "dashboard-host": dashboard_host,
                "dashboard-port": str(profile.dashboard_port),
                "num-cpus": "0",
                "num-gpus": "0",
            },
            "template": _template(name, profile, profile.head, HEAD_CONTAINER),
        },
        "workerGroupSpecs": [
            {
                "groupName": group,
                "replicas": workers.least,
                "minReplicas": workers.least,
                "maxReplicas": workers.most,
                "rayStartParams": _common_params(),
                "template": _template(name, profile, workers, "ray-worker"),
            }
            for group, workers in profile.workers.items()
        ],
    }


def _common_params() -> dict[str, str]:
    return {
        "object-store-memory": str(ray_start.OBJECT_STORE_BYTES),
        "disable-usage-stats": "true",
    }


def _template(name: str, profile: KubernetesProfile, pods: Pods, container: str) -> Manifest:
    is_head = container == HEAD_CONTAINER
    limits = {"cpu": str(pods.cpus), "memory": pods.memory}
    if isinstance(pods, Workers) and pods.gpus:
        limits[pods.gpu_resource] = str(pods.gpus)
    spec: Manifest = {
        "serviceAccountName": name,
        "automountServiceAccountToken": is_head,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "securityContext": _pod_security(),
        "containers": [
            {
                "name": container,
                "image": profile.image,
                "env": _variables(profile),
                **_env_from(name, profile),
                "resources": _resources(limits),
                "securityContext": _container_security(),
                "volumeMounts": [],
            }
        ],
        "volumes": [],
    }
    if profile.packs_folder is None:
        packs: Manifest = {"emptyDir": {"sizeLimit": profile.packs_size}}
    else:
        packs = {"hostPath": {"path": profile.packs_folder, "type": "Directory"}}
    _mount(spec, "packs", packs, _PACKS)
    for place, (folder, claim) in enumerate(sorted(profile.claims.items())):
        _mount(spec, f"claim-{place}", {"persistentVolumeClaim": {"claimName": claim}}, folder)
    if profile.pull_secrets:
        spec["imagePullSecrets"] = [{"name": secret} for secret in profile.pull_secrets]
    if pods.node_selector:
        spec["nodeSelector"] = pods.node_selector
    if pods.tolerations:
        spec["tolerations"] = [each.model_dump(exclude_none=True) for each in pods.tolerations]
    return {"metadata": {"labels": {INSTANCE: name}}, "spec": spec}


def _submitter(name: str, profile: KubernetesProfile) -> Manifest:
    """The pod that hands the job to its cluster and shows its log, also when that is gone."""
    spec: Manifest = {
        "restartPolicy": "Never",
        "serviceAccountName": name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": _pod_security(),
        "containers": [
            {
                "name": "ray-job-submitter",
                "image": profile.image,
                "resources": _resources({"cpu": "500m", "memory": "1Gi"}),
                "securityContext": _container_security(),
            }
        ],
    }
    if profile.pull_secrets:
        spec["imagePullSecrets"] = [{"name": secret} for secret in profile.pull_secrets]
    return spec


def _variables(profile: KubernetesProfile) -> list[Manifest]:
    """Without `RAY_AUTH_TOKEN`, which KubeRay takes from the Secret."""
    variables = {
        **profile.environment,
        **ray_start.ENVIRONMENT,
        "RAY_API_SERVER_ADDRESS": f"http://{ray_start.LOOPBACK}:{profile.dashboard_port}",
        "CIFAKE_CACHE": _PACKS,
        "CIFAKE_JOBS": "/tmp/cifake-jobs",  # noqa: S108 - of a container's own
    }
    return _listed(variables)


def _listed(variables: Mapping[str, str]) -> list[Manifest]:
    return [{"name": key, "value": value} for key, value in variables.items()]


def _env_from(name: str, profile: KubernetesProfile) -> Manifest:
    if profile.secrets is None:
        return {}
    return {"envFrom": [{"secretRef": {"name": environment_secret(name)}}]}


def _resources(limits: Mapping[str, str]) -> Manifest:
    """What is asked for is what is had: no pod is evicted for another's hunger."""
    return {"requests": dict(limits), "limits": dict(limits)}


def _pod_security() -> Manifest:
    return {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": _USER,
        "fsGroup": _USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _container_security() -> Manifest:
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
    }


def _mount(
    spec: Manifest, name: str, source: Manifest, folder: str, *, read_only: bool = False
) -> None:
    """Give the first container of a pod a volume."""
    spec["volumes"].append({"name": name, **source})
    mount = {"name": name, "mountPath": folder} | ({"readOnly": True} if read_only else {})
    spec["containers"][0]["volumeMounts"].append(mount)
