"""What Ray's cluster launcher is told of a cluster in a cloud. Settings in, YAML out.

No text holds a secret: the token and the secrets are files that are mounted.
"""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator

from cifake.config import Settings
from cluster import bundle, node, ray_start
from cluster.launcher import Profile

Config = dict[str, Any]

PUBLIC_KEY, GROUP = "PUBLIC_KEY_OF_THIS_CLUSTER", "SECURITY_GROUP_OF_THIS_CLUSTER"
"""What stands for what is only known when it has been made."""

_HEAD = "ray-head"
_GroupName = Annotated[str, Field(pattern="^[a-z]([a-z0-9]*-?[a-z0-9]+)?$", max_length=30)]
_OPEN_FILES = 65536


class Instance(Settings):
    """A virtual machine."""

    type: str
    """What the cloud calls machines of its size."""

    image: str
    """What its disk begins as: an Ubuntu or Debian; for GPUs one with NVIDIA's driver."""

    disk_gb: int = Field(100, ge=20)
    """Of its disk."""


class Group(Instance):
    """A group of like workers that comes and goes by demand."""

    cpus: int = Field(..., ge=1)
    """Cores of one, by which demand is turned into machines."""

    gpus: int = Field(0, ge=0)
    """GPUs of one."""

    spot: bool = True
    """Whether it runs on spare capacity, which costs a third and may be taken away."""

    least: int = Field(0, ge=0)
    """Machines that stay when there is nothing to do."""

    most: int = Field(..., ge=1)
    """Machines at most."""


class CloudProfile(Profile):
    """What a profile of a cloud says."""

    region: str
    """Where everything is made, the store's region at best."""

    head: Instance
    """The head, which trains nothing, and is never on spare capacity."""

    workers: Mapping[_GroupName, Group] = Field(min_length=1)
    """Groups of workers by name."""

    idle_minutes: float = Field(5, gt=0)
    """After which a machine without work goes."""

    user: str = Field("ubuntu", pattern=r"^[a-z_][a-z0-9_-]*$")
    """Who logs in, as the image has it."""

    internal: bool = False
    """Whether machines have addresses of their network alone, and this machine is in it."""

    pip: tuple[str, ...] = ()
    """Arguments of `pip install` there, such as --extra-index-url=…."""

    @field_validator("workers")
    @classmethod
    def _check_groups(cls, workers: Mapping[str, Group]) -> Mapping[str, Group]:
        if _HEAD in workers:
            raise ValueError(f"{_HEAD} is the head; call the group otherwise")
        return workers


class AwsProfile(CloudProfile):
    """What a profile of AWS says."""

    subnets: tuple[str, ...] = ()
    """Where machines are put, of one network; none for the default network's."""

    ssh_from: tuple[str, ...] = Field(min_length=1)
    """Address ranges from which machines let people in by ssh."""

    head_profile: str
    """Instance profile of the head, which may make workers; cluster/permissions/aws-head.json."""

    worker_profile: str
    """Instance profile of workers; cluster/permissions/aws-worker.json."""


class GcpGroup(Group):
    """A group of workers on Google's cloud."""

    accelerator: str | None = None
    """Kind of its GPUs, such as nvidia-tesla-t4; null for machines that bring theirs along."""


class GcpProfile(CloudProfile):
    """What a profile of Google's cloud says."""

    project: str
    """That pays."""

    zone: str
    """In which all machines are."""

    workers: Mapping[_GroupName, GcpGroup] = Field(min_length=1)
    """Groups of workers by name."""

    subnetwork: str | None = None
    """Where machines are put, as projects/P/regions/R/subnetworks/S; null for the first one."""

    worker_account: str
    """E-mail of the workers' service account; cluster/permissions/gcp.yaml."""


def home(profile: CloudProfile) -> str:
    """Where on a machine what belongs to the cluster is."""
    return f"/home/{profile.user}/cifake"


def python(profile: CloudProfile) -> str:
    """The interpreter that has the project there."""
    return f"{home(profile)}/env/bin/python"


def inside(profile: CloudProfile, *arguments: str) -> str:
    """The shell command that runs something of that Python with what Ray needs around it."""
    words = [python(profile), "-m", "cluster.node", "exec", home(profile), *arguments]
    return shlex.join(words)


def node_text(profile: CloudProfile) -> str:
    """What every machine is told of itself, as `cluster.node` reads it."""
    described = node.Node(
        name="node",
        mark="node",
        code=bundle.digest(),
        head=True,
        address=_local(profile),
        dashboard_port=profile.dashboard_port,
        environment=profile.environment,
    )
    return described.model_dump_json(indent=2)


def mounts(profile: CloudProfile, folder: Path, token: Path) -> dict[str, str]:
    """Files of this machine that every node gets, by where they are there."""
    there = {
        bundle.FILE: folder / bundle.FILE,
        node.NODE: folder / node.NODE,
        node.TOKEN: token,
    }
    if profile.secrets is not None:
        there[node.SECRETS] = Path(profile.secrets).expanduser()
    return {f"{home(profile)}/{name}": str(path) for name, path in there.items()}


def aws(name: str, profile: AwsProfile, folder: Path, token: Path) -> Config:
    """What Ray is told of a cluster on AWS.

    Args:
        name: of the cluster there.
        profile: what it says.
        folder: of the cluster, on this machine.
        token: file that holds the token, on this machine.
    """
    provider = {
        "type": "aws",
        "region": profile.region,
        "cache_stopped_nodes": False,
        "use_internal_ips": profile.internal,
    }
    head = _aws_node(profile, profile.head) | {"IamInstanceProfile": {"Name": profile.head_profile}}
    types = {_HEAD: _head_type(head)}
    for group, workers in profile.workers.items():
        config = _aws_node(profile, workers) | {
            "IamInstanceProfile": {"Name": profile.worker_profile}
        }
        if workers.spot:
            config["InstanceMarketOptions"] = {
                "MarketType": "spot",
                "SpotOptions": {
                    "SpotInstanceType": "one-time",
                    "InstanceInterruptionBehavior": "terminate",
                },
            }
        types[group] = _worker_type(workers, config)
    return _config(name, profile, folder, token, provider, types, package="boto3")


def _aws_node(profile: AwsProfile, instance: Instance) -> Config:
    config: Config = {
        "InstanceType": instance.type,
        "ImageId": instance.image,
        "SecurityGroupIds": [GROUP],
        # Cloud-init lets the cluster's own key in: no key pair is left behind in the account.
        "UserData": f"#cloud-config\nssh_authorized_keys:\n  - {PUBLIC_KEY}\n",
        "BlockDeviceMappings": [
            {
                "DeviceName": "/dev/sda1",
                "Ebs": {
                    "VolumeSize": instance.disk_gb,
                    "VolumeType": "gp3",
                    "Encrypted": True,
                    "DeleteOnTermination": True,
                },
            }
        ],
        # A container or a script on a machine gets no credentials by asking a plain address.
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
    }
    if profile.subnets:
        config["SubnetIds"] = list(profile.subnets)
    return config


def gcp(name: str, profile: GcpProfile, folder: Path, token: Path) -> Config:
    """What Ray is told of a cluster on Google's cloud.

    Args:
        name: of the cluster there.
        profile: what it says.
        folder: of the cluster, on this machine.
        token: file that holds the token, on this machine.
    """
    provider = {
        "type": "gcp",
        "region": profile.region,
        "availability_zone": profile.zone,
        "project_id": profile.project,
        "cache_stopped_nodes": False,
        "use_internal_ips": profile.internal,
    }
    types = {_HEAD: _head_type(_gcp_node(profile, profile.head))}
    for group, workers in profile.workers.items():
        config = _gcp_node(profile, workers)
        scopes = ["https://www.googleapis.com/auth/devstorage.read_write"]
        config["serviceAccounts"] = [{"email": profile.worker_account, "scopes": scopes}]
        scheduling: Config = {}
        if workers.gpus:
            scheduling["onHostMaintenance"] = "TERMINATE"
        if workers.spot:
            scheduling |= {
                "provisioningModel": "SPOT",
                "instanceTerminationAction": "DELETE",
                "onHostMaintenance": "TERMINATE",
                "automaticRestart": False,
            }
        if scheduling:
            config["scheduling"] = scheduling
        if workers.accelerator is not None:
            zone = f"projects/{profile.project}/zones/{profile.zone}"
            kind = f"{zone}/acceleratorTypes/{workers.accelerator}"
            accelerator = {"acceleratorType": kind, "acceleratorCount": workers.gpus}
            config["guestAccelerators"] = [accelerator]
        types[group] = _worker_type(workers, config)
    package = "google-api-python-client"
    return _config(name, profile, folder, token, provider, types, package=package)


def _gcp_node(profile: GcpProfile, instance: Instance) -> Config:
    config: Config = {
        "machineType": instance.type,
        "disks": [
            {
                "boot": True,
                "autoDelete": True,
                "type": "PERSISTENT",
                "initializeParams": {
                    "diskSizeGb": instance.disk_gb,
                    "sourceImage": instance.image,
                },
            }
        ],
        # Of each machine: no key is left behind in the project's metadata.
        "metadata": {
            "items": [
                {"key": "ssh-keys", "value": f"{profile.user}:{PUBLIC_KEY}"},
                {"key": "block-project-ssh-keys", "value": "true"},
            ]
        },
    }
    if profile.subnetwork is not None:
        network: Config = {"subnetwork": profile.subnetwork}
        if not profile.internal:
            network["accessConfigs"] = [{"name": "External NAT", "type": "ONE_TO_ONE_NAT"}]
        config["networkInterfaces"] = [network]
    return config


def _head_type(node_config: Config) -> Config:
    return {
        "resources": {"CPU": 0, "GPU": 0},
        "min_workers": 0,
        "max_workers": 0,
        "node_config": node_config,
    }


def _worker_type(group: Group, node_config: Config) -> Config:
    gpus = {"GPU": group.gpus} if group.gpus else {}
    return {
        "resources": {"CPU": group.cpus, **gpus},
        "min_workers": group.least,
        "max_workers": group.most,
        "node_config": node_config,
    }


def _config(
    name: str,
    profile: CloudProfile,
    folder: Path,
    token: Path,
    provider: Config,
    types: Config,
    package: str,
) -> Config:
    return {
        "cluster_name": name,
        "provider": provider,
        "max_workers": sum(group.most for group in profile.workers.values()),
        "upscaling_speed": 100.0,  # all that is asked for at once
        "idle_timeout_minutes": profile.idle_minutes,
        "auth": {"ssh_user": profile.user, "ssh_private_key": str(folder / KEY)},
        "head_node_type": _HEAD,
        "available_node_types": types,
        "file_mounts": mounts(profile, folder, token),
        "cluster_synced_files": [],
        "initialization_commands": ["cloud-init status --wait > /dev/null || true"],
        "setup_commands": setup(profile),
        "head_setup_commands": [_install(profile, _pinned(package))],
        "worker_setup_commands": [],
        "head_start_ray_commands": [_keep_head(profile)],
        "worker_start_ray_commands": [
            inside(profile, *_RAY, "stop"),
            _start(profile, "worker", ""),
        ],
    }


KEY = "key"
"""The cluster's private key, in its folder; its public one lies beside it."""

_BOOTSTRAP = "ray_bootstrap_config.yaml"
_RAY = ("-m", "ray.scripts.scripts")
_HEAD_OPTIONS = "--num-cpus=0 --num-gpus=0"


def _keep_head(profile: CloudProfile) -> str:
    """The shell command that starts the head, unless it runs, and the jobs that it had."""
    alive = f"bash -c '< /dev/tcp/{ray_start.LOOPBACK}/{profile.port}' 2> /dev/null"
    stop = inside(profile, *_RAY, "stop")
    start = _start(profile, "head", f"{_HEAD_OPTIONS} --autoscaling-config=~/{_BOOTSTRAP}")
    resume = inside(profile, "-m", "cluster.head", "resume")
    return f"{alive} || ({stop}; {start} && {resume})"


def _local(profile: CloudProfile) -> str:
    return f"{ray_start.LOOPBACK}:{profile.port}"


def _start(profile: CloudProfile, role: Literal["head", "worker"], more: str) -> str:
    """The shell command that is `ray start`; in it `$RAY_HEAD_IP` is for the shell."""
    if role == "head":
        given = ray_start.head_options(profile.port, profile.dashboard_port)
    else:
        given = ray_start.worker_options(f"$RAY_HEAD_IP:{profile.port}")
    start = inside(profile, *_RAY, "start")
    # Ray's second autoscaler has not been seen to start workers from this launcher.
    words = ["RAY_enable_autoscaler_v2=0", start, *given, more]
    return f"ulimit -n {_OPEN_FILES}; {' '.join(filter(None, words))}"


def setup(profile: CloudProfile) -> list[str]:
    """What brings an interpreter like this one and the project; done again, it does nothing."""
    where, version = home(profile), platform.python_version()
    uv, env = f"{where}/uv/bin/uv", f"{where}/env"
    packages = "python3-venv rsync"
    apt = "sudo DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300"
    get_uv = f"python3 -m venv {where}/uv && {where}/uv/bin/pip install --quiet uv"
    secret = f"{where}/{node.TOKEN} {where}/{node.SECRETS}"
    return [
        f"chmod -f 600 {secret} || true",
        f"test -x {uv} || ({apt} update && {apt} install -y {packages} && {get_uv})",
        f"test -x {env}/bin/python || {uv} venv --quiet --python {version} {env}",
        f"tar -xf {where}/{bundle.FILE} -C {where}",
        _install(
            profile,
            f"./{bundle.wheel_name()}[{bundle.EXTRA}]",
            # Another code of the same version would be taken for what is there.
            f"--reinstall-package={bundle.PROJECT}",
        ),
    ]


def _install(profile: CloudProfile, *what: str) -> str:
    words = [f"{home(profile)}/uv/bin/uv", "pip", "install", "--quiet", "--python", python(profile)]
    words += [*profile.pip, "--constraint", bundle.LOCK, *what]
    return f"cd {home(profile)} && {shlex.join(words)}"


def _pinned(package: str) -> str:
    """A package in the version that is here, if it is."""
    try:
        return f"{package}=={importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return package


def text_of(config: Config) -> str:
    """A configuration as YAML."""
    return yaml.safe_dump(config, sort_keys=False, width=1000)


def filled(template: Path, target: Path, values: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The command that puts what programs print into a text, where a word stands for it.

    Args:
        template: the text.
        target: the file to write.
        values: the programs with their arguments, by that word.
    """
    steps = [
        f'{word}=$({shlex.join(program)}) && test -n "${word}"' for word, program in values.items()
    ]
    replace = " ".join(f'-e "s|{word}|${word}|g"' for word in values)
    sed = f"sed {replace} {shlex.quote(str(template))} > {shlex.quote(str(target))}"
    return ("sh", "-c", " && ".join([*steps, sed]))
