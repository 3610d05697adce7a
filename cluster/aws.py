"""What is asked of AWS beside Ray's launcher: whether it would work, and a closed security group.

    python -m cluster.aws make-group REGION NAME SUBNET|- RANGE…    # prints its id
    python -m cluster.aws remove-group REGION NAME

Credentials are those that every tool of AWS finds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any, NoReturn

from cifake.errors import Mistake, one_line, refuse, run_command, suggest
from cluster.ray_launcher import AwsProfile, Instance

_SSH_PORT = 22
_REMOVED_WITHIN = 600.0
"""Seconds: a group goes when the last of its machines has ended."""

_AGAIN_AFTER = 5.0
_ENDPOINT = "AWS_ENDPOINT_URL"
_PROFILE_FILE = "cluster/permissions"


def problems(profile: AwsProfile) -> list[Mistake]:
    """What keeps a cluster from being made: packages, credentials, names, permissions.

    Nothing is made: machines are asked for in AWS's own dry run.
    """
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ModuleNotFoundError:
        return [
            Mistake(where="boto3", problem="is not installed; pip install 'cifake-sweeps[aws]'")
        ]
    session = boto3.Session(region_name=profile.region)
    regions = session.get_available_regions("ec2")
    found = list(_endpoint_problems(profile))
    if profile.region not in regions:
        problem = f"AWS has no such region; {suggest(profile.region, regions)}"
        return [*found, _mistake("region", profile.region, problem)]
    if session.get_credentials() is None:
        problem = "no credentials: `aws configure`, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        return [*found, Mistake(where="AWS", problem=problem)]
    try:
        session.client("sts").get_caller_identity()
        named = [*_type_problems(session, profile), *_role_problems(session, profile)]
        # With a wrong name every dry run would say so once more.
        return [*found, *(named or _start_problems(session, profile))]
    except ClientError as error:
        return [*found, Mistake(where="AWS", problem=_said(error))]
    except BotoCoreError as error:
        return [*found, Mistake(where="AWS", problem=one_line(error))]


def _endpoint_problems(profile: AwsProfile) -> Iterator[Mistake]:
    """The head asks AWS for machines, with the environment that it is given."""
    if _ENDPOINT in profile.environment:
        problem = f"would be asked for machines, too; give a store's as {_ENDPOINT}_S3"
        yield _mistake(f"environment.{_ENDPOINT}", profile.environment[_ENDPOINT], problem)


def _instances(profile: AwsProfile) -> dict[str, Instance]:
    """All kinds of machines, by the field of the profile that says what they are."""
    return {"head": profile.head, **{f"workers.{n}": g for n, g in profile.workers.items()}}


def _type_problems(session: Any, profile: AwsProfile) -> Iterator[Mistake]:
    client = session.client("ec2")
    for field, instance in _instances(profile).items():
        filters = [{"Name": "instance-type", "Values": [instance.type]}]
        if not client.describe_instance_type_offerings(Filters=filters)["InstanceTypeOfferings"]:
            problem = f"there are no such machines in {profile.region}"
            yield _mistake(f"{field}.type", instance.type, problem)


def _role_problems(session: Any, profile: AwsProfile) -> Iterator[Mistake]:
    from botocore.exceptions import ClientError

    client = session.client("iam")
    roles = {"head_profile": profile.head_profile, "worker_profile": profile.worker_profile}
    for field, name in roles.items():
        try:
            client.get_instance_profile(InstanceProfileName=name)
        except ClientError as error:
            # Who may not look may still hand it to a machine, which the dry run tells.
            if error.response["Error"]["Code"] == "NoSuchEntity":
                problem = f"there is no such instance profile; {_PROFILE_FILE} says how it is made"
                yield _mistake(field, name, problem)


def _start_problems(session: Any, profile: AwsProfile) -> Iterator[Mistake]:
    """What AWS says to machines of each kind in a dry run."""
    from botocore.exceptions import ClientError

    client = session.client("ec2")
    where: dict[str, Any] = {"SubnetId": profile.subnets[0]} if profile.subnets else {}
    for field, instance in _instances(profile).items():
        role = profile.head_profile if field == "head" else profile.worker_profile
        try:
            client.run_instances(
                DryRun=True,
                MinCount=1,
                MaxCount=1,
                InstanceType=instance.type,
                ImageId=instance.image,
                IamInstanceProfile={"Name": role},
                **where,
            )
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code == "UnauthorizedOperation":
                problem = f"you may not start such machines; {_PROFILE_FILE}/aws-launcher.json"
                yield _mistake(field, instance.type, problem)
            elif code.startswith("InvalidAMI") or "parameter" in _said(error).lower():
                yield _mistake(f"{field}.image", instance.image, _said(error))
            elif code != "DryRunOperation":
                yield _mistake(field, instance.type, _said(error))


def make_group_command(name: str, profile: AwsProfile) -> tuple[str, ...]:
    """The command that makes a cluster's security group and prints its id."""
    subnet = profile.subnets[0] if profile.subnets else "-"
    program = (sys.executable, "-m", "cluster.aws")
    return (*program, "make-group", profile.region, name, subnet, *profile.ssh_from)


def remove_group_command(name: str, profile: AwsProfile) -> tuple[str, ...]:
    """The command that removes it, once its machines have ended."""
    return (sys.executable, "-m", "cluster.aws", "remove-group", profile.region, name)


def make_group(region: str, name: str, subnet: str | None, ranges: list[str]) -> str:
    """Make a security group, or set one that is there right; its id.

    Machines of the group reach each other; people reach them by ssh from some ranges, and nobody
    reaches anything else.

    Args:
        region: of AWS.
        name: of the group, and of the cluster.
        subnet: in whose network it is; null for the region's default network.
        ranges: addresses from which ssh is let in.

    Raises:
        InputError: there is no such network.
    """
    client = _client(region)
    network = _network(client, region, subnet)
    group = _find_group(client, name, network)
    if group is None:
        tags = [{"Key": "ray-cluster-name", "Value": name}]
        made = client.create_security_group(
            GroupName=name,
            Description="Machines of a cluster of cifake-sweeps",
            VpcId=network,
            TagSpecifications=[{"ResourceType": "security-group", "Tags": tags}],
        )
        group = {"GroupId": made["GroupId"], "IpPermissions": []}
    identity = str(group["GroupId"])
    if group["IpPermissions"]:
        client.revoke_security_group_ingress(GroupId=identity, IpPermissions=group["IpPermissions"])
    ssh = {"IpProtocol": "tcp", "FromPort": _SSH_PORT, "ToPort": _SSH_PORT}
    client.authorize_security_group_ingress(
        GroupId=identity,
        IpPermissions=[
            {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": identity}]},
            {**ssh, "IpRanges": [{"CidrIp": each} for each in ranges if ":" not in each]},
            {**ssh, "Ipv6Ranges": [{"CidrIpv6": each} for each in ranges if ":" in each]},
        ],
    )
    return identity


def remove_group(region: str, name: str) -> None:
    """Remove a cluster's security groups, once their machines have ended.

    Raises:
        InputError: machines of it do not end.
    """
    from botocore.exceptions import ClientError

    client = _client(region)
    end = time.monotonic() + _REMOVED_WITHIN
    while group := _find_group(client, name, None):
        try:
            client.delete_security_group(GroupId=group["GroupId"])
        except ClientError as error:
            if error.response["Error"]["Code"] != "DependencyViolation":
                raise
            if time.monotonic() > end:
                refuse(group["GroupId"], "machines are in it still; `cluster down` again")
            time.sleep(_AGAIN_AFTER)


def _network(client: Any, region: str, subnet: str | None) -> str:
    if subnet is not None:
        return str(client.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["VpcId"])
    default = [{"Name": "is-default", "Values": ["true"]}]
    found = client.describe_vpcs(Filters=default)["Vpcs"]
    if not found:
        refuse(region, "has no default network in this account; name `subnets`", field="subnets")
    return str(found[0]["VpcId"])


def _find_group(client: Any, name: str, network: str | None) -> dict[str, Any] | None:
    filters = [{"Name": "group-name", "Values": [name]}]
    if network is not None:
        filters.append({"Name": "vpc-id", "Values": [network]})
    found: list[dict[str, Any]] = client.describe_security_groups(Filters=filters)["SecurityGroups"]
    return found[0] if found else None


def _client(region: str) -> Any:
    import boto3

    return boto3.client("ec2", region_name=region)


def _mistake(field: str, value: object, problem: str) -> Mistake:
    return Mistake(where="AWS", field=field, value=value, problem=problem)


def _said(error: Any) -> str:
    return one_line(error.response["Error"].get("Message") or error)


def main() -> NoReturn:
    """Do what the command line says."""
    command, region, name, *rest = sys.argv[1:]

    def act() -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            if command == "make-group":
                print(make_group(region, name, None if rest[0] == "-" else rest[0], rest[1:]))
            else:
                remove_group(region, name)
        except ClientError as error:
            refuse("AWS", _said(error))
        except BotoCoreError as error:
            refuse("AWS", one_line(error))

    run_command(act, "cluster.aws")


if __name__ == "__main__":
    main()
