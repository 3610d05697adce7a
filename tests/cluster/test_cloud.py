"""AWS and Google's cloud: what Ray's launcher is told, and what becomes of it."""

from __future__ import annotations

import copy
import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cifake.errors import InputError
from cluster import aws, bundle, ray_launcher
from cluster.actions import perform, script
from cluster.launcher import Profile
from cluster.launchers import LAUNCHERS
from cluster.launchers.cloud import Aws, Cloud, Gcp
from cluster.profile import read_profile, shipped
from cluster.state import came_up, folder_of
from tests.cluster import fake_ec2, golden
from tests.cluster.conftest import Command
from tests.cluster.fake_ec2 import Api
from tests.ports import free_port

pytestmark = pytest.mark.heavy

CLOUDS = ("aws", "gcp")
PERMISSIONS = Path(aws.__file__).parent / "permissions"
HIDDEN = "hunter2-is-hidden"


def profile_of(cloud: str, **changes: Any) -> Profile:
    _, profile = read_profile(cloud, LAUNCHERS)
    settings = LAUNCHERS[cloud].settings
    return settings.model_validate({**profile.model_dump(), **changes}, strict=False)


def launcher_of(cloud: str, folder: Path, **changes: Any) -> Cloud:
    return {"aws": Aws, "gcp": Gcp}[cloud](cloud, profile_of(cloud, **changes), folder)


@pytest.fixture(params=CLOUDS)
def config(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """What a shipped profile becomes, read as Ray reads it."""
    made = launcher_of(request.param, tmp_path)._config()
    loaded: dict[str, Any] = yaml.safe_load(ray_launcher.text_of(made))
    return loaded


class TestConfiguration:
    def test_is_valid_by_rays_own_schema(self, config: dict[str, Any]) -> None:
        from ray.autoscaler._private.util import prepare_config, validate_config

        validate_config(config)
        prepared = prepare_config(copy.deepcopy(config))
        validate_config(prepared)
        # Nothing of Ray's defaults is left in it: no dashboard on every interface, no other Ray.
        text = json.dumps(prepared)
        assert "--dashboard-host=0" not in text
        assert "anaconda" not in text
        assert prepared["available_node_types"].keys() == config["available_node_types"].keys()

    def test_with_an_unknown_field_would_not_be_valid(self, config: dict[str, Any]) -> None:
        import jsonschema
        from ray.autoscaler._private.util import validate_config

        config["available_node_types"]["cpu"]["node_confg"] = {}
        with pytest.raises(jsonschema.ValidationError, match="node_confg"):
            validate_config(config)

    def test_starts_workers_from_none_on_spare_capacity(self, config: dict[str, Any]) -> None:
        types = config["available_node_types"]
        assert {each["min_workers"] for each in types.values()} == {0}
        for group in ("cpu", "gpu"):
            node = types[group]["node_config"]
            spot = node.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
            assert spot or node["scheduling"]["provisioningModel"] == "SPOT"
        head = types[config["head_node_type"]]["node_config"]
        assert "InstanceMarketOptions" not in head
        assert "scheduling" not in head

    def test_tells_demand_for_cores_and_for_gpus_apart(self, config: dict[str, Any]) -> None:
        types = config["available_node_types"]
        assert types[config["head_node_type"]]["resources"] == {"CPU": 0, "GPU": 0}
        assert "GPU" not in types["cpu"]["resources"]
        assert types["gpu"]["resources"]["GPU"] == 1

    def test_gives_the_head_and_workers_different_rights(self, config: dict[str, Any]) -> None:
        types = config["available_node_types"]
        role = {"aws": "IamInstanceProfile", "gcp": "serviceAccounts"}[config["provider"]["type"]]
        head = types[config["head_node_type"]]["node_config"].get(role)
        workers = {json.dumps(types[group]["node_config"][role]) for group in ("cpu", "gpu")}
        assert len(workers) == 1
        assert json.dumps(head) not in workers

    def test_ends_machines_for_good(self, config: dict[str, Any]) -> None:
        assert config["provider"]["cache_stopped_nodes"] is False

    def test_starts_ray_with_a_token_from_a_file(self, config: dict[str, Any]) -> None:
        start = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
        assert all("-m cluster.node exec" in command for command in start)
        assert any(path.endswith("/cifake/token") for path in config["file_mounts"])


@pytest.mark.parametrize("cloud", CLOUDS)
class TestGoldenFiles:
    def test_what_up_writes_and_runs(self, cloud: str, tmp_path: Path) -> None:
        secrets = tmp_path / "secrets"
        secrets.write_text(f"AWS_SECRET_ACCESS_KEY={HIDDEN}\n")
        launcher = launcher_of(cloud, tmp_path / "state", secrets=str(secrets))
        text = script(launcher.up())
        assert HIDDEN not in text
        golden.check(f"{cloud}-up.sh", general(text, tmp_path))

    def test_what_down_runs(self, cloud: str, tmp_path: Path) -> None:
        launcher = launcher_of(cloud, tmp_path / "state")
        golden.check(f"{cloud}-down.sh", general(script(launcher.down()), tmp_path))


def general(text: str, tmp_path: Path) -> str:
    """A text without what is of this machine, its Python and the state of the code."""
    for found, name in (
        (str(tmp_path), "/FOLDER"),
        (sys.executable, "PYTHON"),
        (bundle.digest(), "CODE"),
        (f"--python {sys.version.split()[0]} ", "--python VERSION "),
    ):
        text = text.replace(found, name)
    for package in ("boto3", "google-api-python-client"):
        try:
            text = text.replace(f"{package}=={importlib.metadata.version(package)}", package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"{text}\n"


class TestProfiles:
    def test_every_mistake_is_named_at_once(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.yaml"
        text = shipped()["aws"].read_text()
        path.write_text(
            text.replace("ssh_from: [203.0.113.0/24]", "ssh_from: []")
            .replace("  gpu:\n", "  ray-head:\n")
            .replace("most: 16", "most: 0")
        )
        with pytest.raises(InputError) as caught:
            read_profile(str(path), LAUNCHERS)
        fields = {mistake.field for mistake in caught.value.mistakes}
        assert fields == {"ssh_from", "workers.cpu.most"}

    def test_a_group_is_not_called_as_the_head(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.yaml"
        path.write_text(shipped()["gcp"].read_text().replace("  gpu:\n", "  ray-head:\n"))
        with pytest.raises(InputError, match="ray-head is the head"):
            read_profile(str(path), LAUNCHERS)


class TestPermissions:
    @pytest.mark.parametrize("name", ["aws-launcher", "aws-head", "aws-worker"])
    def test_are_policies_that_grant_nothing_on_everything(self, name: str) -> None:
        policy = json.loads((PERMISSIONS / f"{name}.json").read_text())
        assert policy["Version"] == "2012-10-17"
        for statement in policy["Statement"]:
            assert statement["Effect"] == "Allow"
            assert all("*" not in action for action in statement["Action"])
            if statement["Resource"] == "*":
                reads = ("Describe", "GetCallerIdentity")
                assert all(action.split(":")[1].startswith(reads) for action in statement["Action"])

    @pytest.mark.parametrize("name", ["aws-launcher", "aws-head", "aws-worker"])
    def test_are_taken_by_iam(self, name: str, server: Api) -> None:
        """moto checks a policy's form as AWS does."""
        text = (PERMISSIONS / f"{name}.json").read_text()
        made = server.client("iam").create_policy(PolicyName=name, PolicyDocument=text)
        assert made["Policy"]["PolicyName"] == name
        wrong = text.replace('"Effect"', '"Efect"')
        with pytest.raises(Exception, match="MalformedPolicyDocument"):
            server.client("iam").create_policy(PolicyName="wrong", PolicyDocument=wrong)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """AWS's API on this machine."""
    folder = tmp_path_factory.mktemp("api")
    with fake_ec2.api("127.0.0.1", free_port(), folder / "log") as made:
        made.make_roles("cifake-head", "cifake-worker")
        yield made


@pytest.fixture
def here(server: Api, monkeypatch: pytest.MonkeyPatch) -> Api:
    """The same, found by this process."""
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)
    return server


@pytest.mark.skipif(shutil.which("rsync") is None, reason="no rsync; apt-get install rsync")
class TestWhatWouldNotWork:
    @pytest.mark.parametrize(("cloud", "package"), [("aws", "boto3"), ("gcp", "googleapiclient")])
    def test_without_the_clouds_package_it_is_named(
        self, cloud: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.setitem(sys.modules, f"{package}.discovery", None)
        problems = launcher_of(cloud, tmp_path).problems()
        assert f"pip install 'cifake-sweeps[{cloud}]'" in str(problems[0])

    def test_without_credentials_aws_says_how_to_give_them(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("HOME", str(tmp_path))
        problems = launcher_of("aws", tmp_path).problems()
        assert [str(each) for each in problems] == [
            "AWS: no credentials: `aws configure`, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ]

    def test_without_credentials_google_says_how_to_give_them(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
        monkeypatch.setenv("NO_GCE_CHECK", "true")
        problems = launcher_of("gcp", tmp_path).problems()
        assert len(problems) == 1
        assert "gcloud auth application-default login" in str(problems[0])

    def test_an_unknown_region_is_met_with_those_nearby(self, here: Api, tmp_path: Path) -> None:
        problems = launcher_of("aws", tmp_path, region="eu-centrel-1").problems()
        assert here is not None
        assert "did you mean eu-central-1" in str(problems[0])

    def test_wrong_names_are_told_all_at_once(self, here: Api, tmp_path: Path) -> None:
        workers = profile_of("aws").model_dump()["workers"]
        workers["cpu"]["type"] = "c7i.enormous"
        launcher = launcher_of(
            "aws",
            tmp_path,
            workers=workers,
            head_profile="nobody",
            secrets=str(tmp_path / "absent"),
            environment={"AWS_ENDPOINT_URL": here.url},
        )
        fields = {mistake.field for mistake in launcher.problems()}
        wanted = {"workers.cpu.type", "head_profile", "secrets", "environment.AWS_ENDPOINT_URL"}
        assert fields == wanted

    def test_a_bucket_that_is_not_there_is_told(self, here: Api, tmp_path: Path) -> None:
        assert here is not None
        launcher = launcher_of("aws", tmp_path, store="s3://absent/cifake")
        problems = launcher.problems()
        assert [mistake.field for mistake in problems] == ["store"]

    def test_what_would_work_has_no_problems(self, here: Api, tmp_path: Path) -> None:
        place = {"LocationConstraint": fake_ec2.REGION}
        here.client("s3").create_bucket(Bucket="my-bucket", CreateBucketConfiguration=place)
        assert launcher_of("aws", tmp_path).problems() == []


class TestSecurityGroup:
    def test_lets_in_ssh_from_the_ranges_and_nothing_else(self, here: Api) -> None:
        ranges = ["203.0.113.0/24", "2001:db8::/32"]
        made = aws.make_group(fake_ec2.REGION, "closed", None, ranges)
        assert aws.make_group(fake_ec2.REGION, "closed", None, ranges[:1]) == made
        client = here.client("ec2")
        group = client.describe_security_groups(GroupIds=[made])["SecurityGroups"][0]
        found = [
            (
                rule.get("FromPort"),
                [each["CidrIp"] for each in rule["IpRanges"]],
                [each["CidrIpv6"] for each in rule["Ipv6Ranges"]],
                [each["GroupId"] for each in rule["UserIdGroupPairs"]],
            )
            for rule in group["IpPermissions"]
        ]
        rules = [rule for rule in found if any(rule[1:])]
        assert sorted(rules, key=str) == sorted(
            [(None, [], [], [made]), (22, ranges[:1], [], [])], key=str
        )
        for _ in range(2):
            aws.remove_group(fake_ec2.REGION, "closed")
        filters = [{"Name": "group-name", "Values": ["closed"]}]
        assert client.describe_security_groups(Filters=filters)["SecurityGroups"] == []


@pytest.mark.long
def test_a_cluster_that_was_there_before_is_left_where_up_fails(
    here: Api, cluster: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine of moto's answers to nobody, so that each `up` fails."""
    monkeypatch.setenv("AUTOSCALER_NODE_START_WAIT_S", "2")
    place = {"LocationConstraint": fake_ec2.REGION}
    here.client("s3").create_bucket(Bucket="left", CreateBucketConfiguration=place)
    path = tmp_path / "left.yaml"
    path.write_text(shipped()["aws"].read_text().replace("s3://my-bucket", "s3://left"))
    name, profile = read_profile(str(path), LAUNCHERS)
    launcher = Aws(name, profile, folder_of(name))
    with pytest.raises(InputError, match="Failed to setup head node"):
        perform(launcher.up(), [].append, undo=False)
    perform([came_up(launcher.folder)], [].append)
    head = here.instances()[-1]["InstanceId"]
    again = cluster("up", path)
    assert again.returncode == 2, again.stderr
    assert "Failed to setup head node" in again.stderr
    left = {each["InstanceId"]: each["State"]["Name"] for each in here.instances()}
    assert left[head] == "running"
    assert cluster("down", path).returncode == 0
    assert {each["State"]["Name"] for each in here.instances()} == {"terminated"}


def test_a_head_that_cannot_be_reached_is_removed_with_all_that_was_made(
    here: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray asks for the instance as the profile says; nobody answers at its address."""
    monkeypatch.setenv("AUTOSCALER_NODE_START_WAIT_S", "2")
    secrets = tmp_path / "secrets"
    secrets.write_text(f"AWS_SECRET_ACCESS_KEY={HIDDEN}\n")
    launcher = launcher_of("aws", tmp_path / "state", secrets=str(secrets))
    with pytest.raises(InputError, match="Failed to setup head node") as caught:
        perform(launcher.up(), [].append)
    instance = here.instances()[-1]
    assert instance["State"]["Name"] == "terminated"
    assert instance["InstanceType"] == "m7i.large"
    assert [group["GroupName"] for group in instance["SecurityGroups"]] == ["cifake-aws"]
    groups = here.client("ec2").describe_security_groups()["SecurityGroups"]
    assert "cifake-aws" not in {group["GroupName"] for group in groups}
    token = (tmp_path / "state" / "home" / ".ray" / "auth_token").read_text()
    kept = "".join(
        path.read_text(errors="replace")
        for path in (tmp_path / "state").rglob("*")
        if path.is_file() and path.name != "auth_token"
    )
    for secret in (token, HIDDEN):
        assert secret not in kept + str(caught.value) + json.dumps(here.instances(), default=str)
    assert not launcher_of("aws", tmp_path / "state").is_up()
