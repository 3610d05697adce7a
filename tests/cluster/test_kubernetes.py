"""Kubernetes: what it is told is valid, holds no secret, and changes only when somebody says so."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from cifake.errors import InputError
from cluster import kuberay, rayjob
from cluster.actions import perform, script
from cluster.kuberay import KubernetesProfile, Manifest, Toleration
from cluster.launcher import Submission
from cluster.launchers import LAUNCHERS
from cluster.launchers.kubernetes import Kubernetes
from cluster.profile import read_profile, shipped
from tests.cluster import golden
from tests.cluster.api_server import MISSING, ApiServer

pytestmark = pytest.mark.heavy

SCHEMAS = Path(__file__).parents[3] / "shared" / "schemas"
CRDS = {"RayCluster": "ray.io_rayclusters.yaml", "RayJob": "ray.io_rayjobs.yaml"}
HIDDEN = "hunter2-is-hidden"

SUBMISSION = Submission(
    job="Demo_sweep-20261126-041522",
    file="demo.yaml",
    spec='name: Demo_sweep\nquestion: "What\'s this?"\n',
    store="s3://my-bucket/cifake",
    arguments=("--store", "s3://my-bucket/cifake", "--set", 'question="a $b `c`"'),
)

needs_kubectl = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl is not installed"
)


def shipped_profile(**changes: Any) -> KubernetesProfile:
    _, profile = read_profile("kubernetes", LAUNCHERS)
    return KubernetesProfile.model_validate({**profile.model_dump(), **changes}, strict=False)


def full_profile(tmp_path: Path) -> KubernetesProfile:
    """One that uses every setting."""
    secrets = tmp_path / "secrets"
    secrets.write_text(f"# of the store\nexport AWS_SECRET_ACCESS_KEY='{HIDDEN}'\n\n")
    shipped = shipped_profile().model_dump()
    cpu = shipped["workers"]["cpu"] | {
        "node_selector": {"cloud.google.com/gke-spot": "true"},
        "tolerations": (
            Toleration(key="cloud.google.com/gke-spot", value="true", effect="NoSchedule"),
        ),
        "least": 1,
    }
    return shipped_profile(
        secrets=str(secrets),
        claims={"/store": "cifake-store", "/data": "cifake-data"},
        pull_secrets=("registry",),
        packs_folder="/var/lib/cifake",
        service_account_annotations={"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/nodes"},
        workers={"cpu": cpu, "gpu": shipped["workers"]["gpu"]},
    )


@pytest.fixture(params=["shipped", "full"])
def manifests(request: pytest.FixtureRequest, tmp_path: Path) -> list[Manifest]:
    """All that a profile makes, as it is read from the text that Kubernetes gets."""
    profile = shipped_profile() if request.param == "shipped" else full_profile(tmp_path)
    name = kuberay.name_of("kubernetes")
    made = [
        *kuberay.shared_manifests(name, profile),
        kuberay.cluster_manifest(name, profile),
        *kuberay.job_manifests(name, profile, SUBMISSION),
    ]
    return list(yaml.safe_load_all(kuberay.text_of(made)))


def closed(schema: Any) -> Any:
    """A schema whose objects may have no properties but those that they list."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        made["additionalProperties"] = False
    return made


@pytest.fixture(scope="module")
def crds() -> dict[str, Any]:
    """The schema of each of KubeRay's kinds, closed."""
    if not SCHEMAS.is_dir():
        pytest.skip(f"KubeRay's definitions are not in {SCHEMAS}")
    found = {}
    for kind, file in CRDS.items():
        definition = yaml.load((SCHEMAS / file).read_text(), Loader=yaml.CSafeLoader)
        version = next(v for v in definition["spec"]["versions"] if v["name"] == "v1")
        schema = version["schema"]["openAPIV3Schema"]
        schema["properties"]["metadata"] = {"type": "object", "additionalProperties": True}
        found[kind] = closed(schema)
    return found


def pods_of(manifest: Manifest) -> list[Manifest]:
    """The templates of pods in one of KubeRay's objects."""
    spec = manifest["spec"]
    cluster = spec.get("rayClusterSpec", spec)
    submitter = [spec["submitterPodTemplate"]] if "submitterPodTemplate" in spec else []
    workers = [group["template"] for group in cluster["workerGroupSpecs"]]
    return [cluster["headGroupSpec"]["template"], *workers, *submitter]


class TestManifests:
    def test_are_valid_by_kubernetes_own_schemas(self, manifests: list[Manifest]) -> None:
        builtin = [each for each in manifests if each["kind"] not in CRDS]
        assert {each["kind"] for each in builtin} == {
            "ServiceAccount",
            "NetworkPolicy",
            "ConfigMap",
        }
        for each in builtin:
            kubernetes_validate.validate(each, "1.32", strict=True)

    def test_are_valid_by_kuberays_definitions(
        self, manifests: list[Manifest], crds: dict[str, Any]
    ) -> None:
        for each in manifests:
            if each["kind"] in crds:
                jsonschema.validate(each, crds[each["kind"]])

    def test_have_pods_that_kubernetes_would_take(self, manifests: list[Manifest]) -> None:
        templates = [pod for each in manifests if each["kind"] in CRDS for pod in pods_of(each)]
        assert len(templates) == 7
        for template in templates:
            pod = {"apiVersion": "v1", "kind": "Pod", **template}
            kubernetes_validate.validate(pod, "1.32", strict=True)

    def test_with_an_unknown_field_would_not_be_valid(
        self, manifests: list[Manifest], crds: dict[str, Any]
    ) -> None:
        cluster = next(each for each in manifests if each["kind"] == "RayCluster")
        wrong = copy.deepcopy(cluster)
        container = wrong["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
        container["securityContext"]["privilegedEscalation"] = False
        with pytest.raises(jsonschema.ValidationError, match="privilegedEscalation"):
            jsonschema.validate(wrong, crds["RayCluster"])
        pod = {"apiVersion": "v1", "kind": "Pod", **pods_of(wrong)[0]}
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(pod, "1.32", strict=True)

    def test_let_no_pod_be_root_or_become_it(self, manifests: list[Manifest]) -> None:
        for each in manifests:
            for template in pods_of(each) if each["kind"] in CRDS else []:
                assert template["spec"]["securityContext"]["runAsNonRoot"]
                for container in template["spec"]["containers"]:
                    security = container["securityContext"]
                    assert security["allowPrivilegeEscalation"] is False
                    assert security["capabilities"] == {"drop": ["ALL"]}

    def test_limit_what_every_container_takes(self, manifests: list[Manifest]) -> None:
        for each in manifests:
            for template in pods_of(each) if each["kind"] in CRDS else []:
                for container in template["spec"]["containers"]:
                    resources = container["resources"]
                    assert resources["limits"] == resources["requests"]
                    assert {"cpu", "memory"} <= resources["limits"].keys()

    def test_ask_for_a_token_that_they_do_not_hold(self, manifests: list[Manifest]) -> None:
        for each in manifests:
            if each["kind"] in CRDS:
                spec = each["spec"].get("rayClusterSpec", each["spec"])
                assert spec["authOptions"]["mode"] == "token"
                assert spec["authOptions"]["secretName"] == "cifake-kubernetes-token"
        assert all(each["kind"] != "Secret" for each in manifests)

    def test_keep_the_dashboard_of_a_cluster_that_stays_on_loopback(
        self, manifests: list[Manifest]
    ) -> None:
        cluster = next(each for each in manifests if each["kind"] == "RayCluster")
        assert cluster["spec"]["headGroupSpec"]["rayStartParams"]["dashboard-host"] == "127.0.0.1"

    def test_let_only_the_head_speak_to_kubernetes(self, manifests: list[Manifest]) -> None:
        cluster = next(each for each in manifests if each["kind"] == "RayCluster")
        head, *workers = pods_of(cluster)
        assert head["spec"]["automountServiceAccountToken"] is True
        assert {each["spec"]["automountServiceAccountToken"] for each in workers} == {False}

    def test_start_workers_from_none(self) -> None:
        made = kuberay.cluster_manifest("name", shipped_profile())
        assert {group["minReplicas"] for group in made["spec"]["workerGroupSpecs"]} == {0}
        assert made["spec"]["enableInTreeAutoscaling"]

    def test_give_the_job_the_sweep_word_for_word(
        self, manifests: list[Manifest], tmp_path: Path
    ) -> None:
        """What the pod finds in its folder is what would be run, however it is quoted."""
        files = next(each for each in manifests if each["kind"] == "ConfigMap")["data"]
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        words = rayjob.command(tmp_path, "1.2.3.4:6379")
        assert (tmp_path / "demo.yaml").read_text() == SUBMISSION.spec
        assert words[-4:] == list(SUBMISSION.arguments)
        assert words[1:6] == ["-m", "sweeps", "run", str(tmp_path / "demo.yaml"), "--address"]


class TestNames:
    def test_that_kubernetes_takes_stay_as_they_are(self) -> None:
        assert kuberay.job_name("demo-20261126-041522") == "demo-20261126-041522"

    @pytest.mark.parametrize("job", ["Demo_sweep-2026", "d" * 60, "ähnlich", "a.b"])
    def test_that_it_does_not_take_become_others_that_differ(self, job: str) -> None:
        name = kuberay.job_name(job)
        assert kuberay.job_name(f"{job}x") != name
        assert len(name) <= 40
        assert name == name.lower()
        assert name.replace("-", "").isalnum()
        assert name.isascii()


class TestGoldenFiles:
    def test_what_up_writes_and_runs(self, tmp_path: Path) -> None:
        launcher = Kubernetes("kubernetes", full_profile(tmp_path), tmp_path / "state")
        golden.check("kubernetes-up.sh", general(script(launcher.up()), tmp_path))

    def test_what_submit_writes_and_runs(self, tmp_path: Path) -> None:
        launcher = Kubernetes("kubernetes", shipped_profile(), tmp_path / "state")
        golden.check("kubernetes-submit.sh", general(script(launcher.submit(SUBMISSION)), tmp_path))

    def test_what_down_and_stop_run(self, tmp_path: Path) -> None:
        launcher = Kubernetes("kubernetes", shipped_profile(), tmp_path / "state")
        actions = [*launcher.stop(SUBMISSION.job), *launcher.down()]
        golden.check("kubernetes-down.sh", general(script(actions), tmp_path))


def general(text: str, tmp_path: Path) -> str:
    """A text without what is of this machine."""
    return text.replace(str(tmp_path), "/FOLDER").replace(sys.executable, "PYTHON") + "\n"


class TestProfile:
    def test_every_mistake_is_named_at_once(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.yaml"
        text = shipped()["kubernetes"].read_text()
        text = text.replace("memory: 8Gi", "memory: 8GB").replace("most: 20", "most: 0")
        path.write_text(text.replace("namespace: default", "namespace: Default"))
        with pytest.raises(InputError) as caught:
            read_profile(str(path), LAUNCHERS)
        fields = {mistake.field for mistake in caught.value.mistakes}
        assert fields == {"head.memory", "workers.cpu.most", "namespace"}


@needs_kubectl
class TestWhatIsMissing:
    def test_kubectl_itself(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        problems = Kubernetes("kubernetes", shipped_profile(), tmp_path).problems()
        assert [mistake.where for mistake in problems] == ["kubectl"]

    def test_a_context(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
        problems = Kubernetes("kubernetes", shipped_profile(), tmp_path).problems()
        assert "no current context" in str(problems[0])
        named = shipped_profile(context="mine")
        problems = Kubernetes("kubernetes", named, tmp_path).problems()
        assert "no such context" in str(problems[0])

    def test_an_answer(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        configuration = tmp_path / "kubeconfig"
        configuration.write_text(
            "apiVersion: v1\nkind: Config\ncurrent-context: here\n"
            "clusters:\n- {name: here, cluster: {server: 'https://127.0.0.1:1'}}\n"
            "contexts:\n- {name: here, context: {cluster: here, user: me}}\n"
            "users:\n- {name: me, user: {token: none}}\n"
        )
        monkeypatch.setenv("KUBECONFIG", str(configuration))
        problems = Kubernetes("kubernetes", shipped_profile(), tmp_path).problems()
        assert len(problems) == 1
        assert "does not answer" in str(problems[0])
        assert "refused" in str(problems[0])

    def test_a_file_of_secrets_is_told_with_the_rest(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
        profile = shipped_profile(secrets=str(tmp_path / "absent"))
        problems = Kubernetes("kubernetes", profile, tmp_path).problems()
        assert {mistake.field for mistake in problems} == {"secrets", "context"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A real API server that knows KubeRay's kinds."""
    if MISSING:
        pytest.skip(f"{' and '.join(MISSING)} not found; name their folder in KUBEBUILDER_ASSETS")
    if not SCHEMAS.is_dir():
        pytest.skip(f"KubeRay's definitions are not in {SCHEMAS}")
    started = ApiServer(tmp_path_factory.mktemp("kubernetes"))
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.fixture
def kubectl(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """kubectl as a user of that server."""
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig))

    def run(*arguments: str) -> str:
        result = subprocess.run(
            ["kubectl", *arguments], capture_output=True, text=True, check=False, timeout=120
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


@pytest.fixture
def kuberay_kinds(kubectl: Any, tmp_path: Path) -> None:
    """A server that knows KubeRay's kinds."""
    if "rayjobs.ray.io" in kubectl("get", "crd", "--output=name"):
        return
    for file in CRDS.values():
        path = tmp_path / file
        path.write_text(with_other_defaults((SCHEMAS / file).read_text()))
        kubectl("create", "--validate=false", f"--filename={path}")
    end = time.monotonic() + 60
    look = ["kubectl", "get", "rayclusters,rayjobs"]
    while subprocess.run(look, capture_output=True, check=False).returncode != 0:
        assert time.monotonic() < end
        time.sleep(0.5)


@pytest.mark.long  # the server is in no package: whoever has built or fetched one names it
@pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)} (see KUBEBUILDER_ASSETS)")
class TestWithAServer:
    @pytest.mark.usefixtures("kubectl")
    def test_missing_kuberay_is_named(self, tmp_path: Path) -> None:
        problems = Kubernetes("kubernetes", shipped_profile(), tmp_path).problems()
        assert "lacks rayclusters.ray.io and rayjobs.ray.io" in str(problems[0])

    @pytest.mark.usefixtures("kuberay_kinds")
    def test_a_cluster_comes_and_goes(
        self, kubectl: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        profile = full_profile(tmp_path).model_copy(update={"claims": {}, "pull_secrets": ()})
        launcher = Kubernetes("kubernetes", profile, tmp_path / "state")
        assert launcher._kubectl_problems() == []
        told: list[str] = []
        without_waiting = [each for each in launcher.up() if not getattr(each, "patience", 0)]
        for _ in range(2):
            perform(without_waiting, told.append)
            assert launcher.is_up()
        perform(launcher.submit(SUBMISSION), told.append)
        assert launcher.jobs() == {SUBMISSION.job: "new"}
        kept = kubectl("get", "rayclusters,rayjobs,configmaps,networkpolicies", "-o", "yaml")
        shown = kept + "".join(told) + "".join(capfd.readouterr()) + log_of(tmp_path / "state")
        token = (tmp_path / "state" / "home" / ".ray" / "auth_token").read_text()
        assert HIDDEN not in shown
        assert token not in shown
        secret = kubectl("get", "secret", "cifake-kubernetes-environment", "-o", "yaml")
        assert "last-applied" not in secret
        perform(launcher.stop(SUBMISSION.job), told.append)
        assert launcher.jobs() == {}
        for _ in range(2):
            perform(launcher.down(), told.append)
            assert not launcher.is_up()
        left = kubectl("get", "secrets,serviceaccounts,configmaps,networkpolicies", "-o", "name")
        assert "cifake" not in left

    @pytest.mark.usefixtures("kuberay_kinds")
    def test_nothing_of_what_was_sent_is_dropped(self, kubectl: Any, tmp_path: Path) -> None:
        """A server passes over fields that it does not know, unless it is told to be strict."""
        name, profile = kuberay.name_of("kubernetes"), full_profile(tmp_path)
        sent = kuberay.cluster_manifest(name, profile)
        path = tmp_path / "cluster.yaml"
        path.write_text(kuberay.text_of([sent]))
        kept = yaml.safe_load(kubectl("create", f"--filename={path}", "--output=yaml"))
        kubectl("delete", f"--filename={path}")
        assert is_in(sent["spec"], kept["spec"])

    @pytest.mark.usefixtures("kuberay_kinds")
    def test_a_user_without_permission_is_told_what_to_be_granted(
        self, kubectl: Any, tmp_path: Path
    ) -> None:
        profile = shipped_profile(context="user")
        problems = Kubernetes("kubernetes", profile, tmp_path)._kubectl_problems()
        assert "you may not" in str(problems[0])
        assert "create rayclusters.ray.io" in str(problems[0])
        role = Path(kuberay.__file__).parent / "permissions" / "kubernetes.yaml"
        kubectl("apply", f"--filename={role}")
        kubectl("create", "rolebinding", "may", "--role=cifake-launcher", "--user=user")
        assert Kubernetes("kubernetes", profile, tmp_path)._kubectl_problems() == []

    @pytest.mark.usefixtures("kubectl")
    def test_a_missing_namespace_is_named(self, tmp_path: Path) -> None:
        problems = Kubernetes("k", shipped_profile(namespace="away"), tmp_path).problems()
        assert "kubectl create namespace away" in str(problems[0])

    @pytest.mark.usefixtures("kuberay_kinds")
    def test_a_missing_claim_is_named(self, tmp_path: Path) -> None:
        profile = shipped_profile(claims={"/store": "cifake-store"})
        problems = Kubernetes("kubernetes", profile, tmp_path).problems()
        assert [mistake.value for mistake in problems] == ["cifake-store"]


def is_in(part: Any, whole: Any) -> bool:
    """Whether all of a value is in another, which may have more settings."""
    if isinstance(part, dict):
        return all(key in whole and is_in(value, whole[key]) for key, value in part.items())
    if isinstance(part, list):
        return len(part) == len(whole) and all(map(is_in, part, whole))
    return bool(part == whole)


def with_other_defaults(text: str) -> str:
    """A definition that servers before 1.21 take, too: they read a default of "" as none."""
    return text.replace('default: ""', "default: absent")


def log_of(folder: Path) -> str:
    """All that was written on this machine, the token's own file aside."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "auth_token"]
    return "".join(path.read_text() for path in files)


def test_a_job_that_ended_has_the_sweeps_exit_code() -> None:
    ended = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED"}
    message = "Job entrypoint command failed with exit code 1, last available logs: …"
    assert rayjob.exit_code({**ended, "message": message}) == 1
    assert rayjob.exit_code({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}) == 0
    assert rayjob.exit_code(ended) == 1
    assert rayjob.describe({}) == "new"
    assert rayjob.describe({**ended, "message": message}) == "ended with exit code 1"


def test_the_driver_in_the_pod_is_the_sweep_itself(tmp_path: Path) -> None:
    """With the folder as KubeRay mounts it, read-only, and a specification that is refused."""
    name = kuberay.name_of("kubernetes")
    submission = Submission("job", "bad.yaml", "name: bad\nepochs: x\n", "/s", ())
    files = kuberay.job_manifests(name, shipped_profile(), submission)[0]["data"]
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    result = subprocess.run(
        [sys.executable, "-m", "cluster.rayjob", "run", str(tmp_path)],
        env={**os.environ, "RAY_ADDRESS": "127.0.0.1:1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "bad.yaml" in result.stderr
    assert "Traceback" not in result.stderr
