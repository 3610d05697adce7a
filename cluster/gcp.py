"""What is asked of Google's cloud beside Ray's launcher: whether it would work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cifake.errors import Mistake, one_line
from cluster.ray_launcher import GcpProfile, Instance

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_NEEDED = (
    "compute.disks.create",
    "compute.instances.create",
    "compute.instances.delete",
    "compute.instances.get",
    "compute.instances.list",
    "compute.instances.setLabels",
    "compute.instances.setMetadata",
    "compute.instances.setServiceAccount",
    "compute.subnetworks.use",
    "compute.zoneOperations.get",
    "iam.serviceAccounts.get",
    "resourcemanager.projects.get",
    "resourcemanager.projects.getIamPolicy",
)
"""Of the project, by what Ray's launcher does; cluster/permissions/gcp.yaml grants them."""


def problems(profile: GcpProfile) -> list[Mistake]:
    """What keeps a cluster from being made: packages, credentials, names, permissions."""
    try:
        import google.auth
        from google.auth.exceptions import GoogleAuthError
        from googleapiclient.discovery import build
        from googleapiclient.errors import HttpError
    except ModuleNotFoundError:
        problem = "is not installed; pip install 'cifake-sweeps[gcp]'"
        return [Mistake(where="google-api-python-client", problem=problem)]
    try:
        credentials, _ = google.auth.default(scopes=[_SCOPE])
        compute = build("compute", "v1", credentials=credentials, cache_discovery=False)
        projects = build(
            "cloudresourcemanager", "v1", credentials=credentials, cache_discovery=False
        ).projects()
        return [*_permission_problems(projects, profile), *_name_problems(compute, profile)]
    except GoogleAuthError as error:
        problem = f"{one_line(error)}; `gcloud auth application-default login` makes credentials"
        return [Mistake(where="Google", problem=problem)]
    except HttpError as error:
        return [Mistake(where="Google", problem=one_line(error.reason))]


def _permission_problems(projects: Any, profile: GcpProfile) -> Iterator[Mistake]:
    asked = {"permissions": list(_NEEDED)}
    answer = projects.testIamPermissions(resource=profile.project, body=asked).execute()
    denied = [each for each in _NEEDED if each not in answer.get("permissions", [])]
    if denied:
        problem = f"you lack {', '.join(denied)}; cluster/permissions/gcp.yaml says which roles"
        yield _mistake("project", profile.project, problem)


def _name_problems(compute: Any, profile: GcpProfile) -> Iterator[Mistake]:
    place = {"project": profile.project, "zone": profile.zone}
    zone = _found(compute.zones().get(**place))
    if zone is None:
        yield _mistake("zone", profile.zone, "there is no such zone")
        return
    if not zone["region"].endswith(f"/{profile.region}"):
        yield _mistake("zone", profile.zone, f"is not in {profile.region}")
    kinds: dict[str, Instance] = {"head": profile.head}
    kinds |= {f"workers.{name}": group for name, group in profile.workers.items()}
    for field, instance in kinds.items():
        if _found(compute.machineTypes().get(machineType=instance.type, **place)) is None:
            problem = f"there are no such machines in {profile.zone}"
            yield _mistake(f"{field}.type", instance.type, problem)
    for name, group in profile.workers.items():
        if group.accelerator is None:
            continue
        if (
            _found(compute.acceleratorTypes().get(acceleratorType=group.accelerator, **place))
            is None
        ):
            problem = f"there are no such GPUs in {profile.zone}"
            yield _mistake(f"workers.{name}.accelerator", group.accelerator, problem)


def _found(request: Any) -> dict[str, Any] | None:
    from googleapiclient.errors import HttpError

    try:
        found: dict[str, Any] = request.execute()
    except HttpError as error:
        if error.resp.status == 404:
            return None
        raise
    return found


def _mistake(field: str, value: object, problem: str) -> Mistake:
    return Mistake(where="Google", field=field, value=value, problem=problem)
