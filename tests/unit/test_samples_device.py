"""The sample of a device with source kubernetes: its role is enough and no more, and its posture is a safe one."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from replicator.config.settings import load
from replicator.config.sources.kubernetes import KubernetesSource
from tests import fleet
from tests.apiserver.server import ApiServer, Request

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "config" / "kubernetes"


def documents(name: str) -> dict[str, dict[str, Any]]:
    """The objects of a sample by kind."""
    found = yaml.safe_load_all((SAMPLES / name).read_text(encoding="utf-8"))
    return {document["kind"]: document for document in found}


def is_allowed(role: dict[str, Any], request: Request) -> bool:
    """As the API server decides: a list or watch of one name is one of that name."""
    name = request.name or request.query.get("fieldSelector", "").removeprefix("metadata.name=")
    resource = f"{request.plural}/{request.subresource}".rstrip("/")
    return any(
        resource in rule["resources"]
        and request.verb in rule["verbs"]
        and ("resourceNames" not in rule or name in rule["resourceNames"])
        for rule in role["rules"]
    )


@pytest.fixture
def pod() -> dict[str, Any]:
    template: dict[str, Any] = documents("device.yaml")["Deployment"]["spec"]["template"]
    return template


@pytest.fixture
def environment(pod) -> dict[str, str]:
    (container,) = pod["spec"]["containers"]
    return {item["name"]: item["value"] for item in container["env"]}


def test_role_allows_what_the_device_asks_and_no_other_secret(environment, tmp_path):
    """Every request of the sample's device is within the sample's role, which opens no other Secret, set or device."""
    role = documents("rbac-device.yaml")["Role"]
    name = environment["REPLICATOR_DEVICE"]
    environ = environment | {"REPLICATOR_STATE_DIR": str(tmp_path / "state")}
    with ApiServer() as server:
        for one in (fleet.device(name, obc=name, member_of="gateways"), fleet.device_set("gateways", {})):
            server.put(one)
        for one in (fleet.workload(), *fleet.bucket_words(name)):
            server.put(one)
        config = server.kubeconfig(tmp_path / "config", namespace=role["metadata"]["namespace"])
        targets = KubernetesSource(load({}, environ).settings, {"KUBECONFIG": str(config)}).read()
        requests = list(server.requests)

    assert [target.id for target in targets] == ["os-stats/egress/statistics"]
    assert [(one.verb, one.path, one.query) for one in requests if not is_allowed(role, one)] == []
    for plural in ("secrets", "configmaps", "edgedevices", "edgedevicesets"):
        for query in ({}, {"fieldSelector": "metadata.name=other"}):
            stranger = Request("list", plural, "fleet", "", "", "GET", "", query, "")
            assert not is_allowed(role, stranger)


def test_role_is_that_of_the_device(pod):
    """Account, binding and Pod are of one name and namespace; the token is in the Pod that needs it alone."""
    objects = documents("rbac-device.yaml")
    account = objects["ServiceAccount"]
    subject = {"kind": "ServiceAccount", **{word: account["metadata"][word] for word in ("name", "namespace")}}

    assert objects["RoleBinding"]["subjects"] == [subject]
    assert objects["RoleBinding"]["roleRef"]["name"] == objects["Role"]["metadata"]["name"]
    assert pod["spec"]["serviceAccountName"] == account["metadata"]["name"]
    assert (account["automountServiceAccountToken"], pod["spec"]["automountServiceAccountToken"]) == (False, True)
    assert {one["metadata"]["namespace"] for one in [*objects.values(), documents("device.yaml")["Deployment"]]} == {
        "fleet"
    }


def test_device_settings_exist_and_fit_the_pod(pod, environment):
    """Settings are accepted, volumes and state are mounted where they point, and the drain has its time."""
    settings = load({}, environment).settings
    (container,) = pod["spec"]["containers"]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}

    assert (settings.source, settings.device) == ("kubernetes", "gateway-7")
    assert {str(settings.volumes_dir), str(settings.state_dir), "/tmp"} == mounts
    assert pod["spec"]["terminationGracePeriodSeconds"] - settings.drain_timeout_s >= 15
    assert settings.http_listen == f"0.0.0.0:{container['ports'][0]['containerPort']}"


def test_device_has_no_privilege(pod):
    """Root, as the owner of what the kubelet makes, without capabilities and on a read-only root."""
    (container,) = pod["spec"]["containers"]

    assert container["securityContext"] == {
        "runAsUser": 0,
        "runAsGroup": 0,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["spec"]["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod["spec"].keys()


def test_device_names_this_version():
    """The image carries the version of the package; the Deployment selects its own Pods, one at a time."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    deployment = documents("device.yaml")["Deployment"]["spec"]

    assert re.findall(r"image: replicator:(\S+)", (SAMPLES / "device.yaml").read_text()) == [version]
    assert deployment["selector"]["matchLabels"].items() <= deployment["template"]["metadata"]["labels"].items()
    assert deployment["strategy"] == {"type": "Recreate"}
