"""What is applied to a cluster: definitions, policies and the operator's own objects say what the code does."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from replicator.config.settings import text_of
from replicator.controlplane.edge_api.sidecars import ANNOTATION, CONTAINER, OFF
from replicator.controlplane.operator.desired import MIXED
from replicator.controlplane.operator.main import KINDS
from replicator.controlplane.settings import EdgeApiSettings, OperatorSettings, load
from replicator.errors import ConfigError

ROOT = Path(__file__).parents[4]
CONFIG = ROOT / "config"


def documents(name: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all((CONFIG / name).read_text(encoding="utf-8")) if one]


def one(name: str, kind: str, called: str) -> dict[str, Any]:
    (found,) = [d for d in documents(name) if (d["kind"], d["metadata"]["name"]) == (kind, called)]
    return found


CRDS = {one.stem: documents(f"crd/{one.name}")[0] for one in sorted((CONFIG / "crd").glob("*.yaml"))}


# Definitions


def test_every_kind_of_ours_is_defined_as_it_is_asked_for():
    """Group, version, plural and kind of each definition are those that are watched."""
    defined = {
        (crd["spec"]["group"], version["name"], crd["spec"]["names"]["plural"], crd["spec"]["names"]["kind"])
        for crd in CRDS.values()
        for version in crd["spec"]["versions"]
    }

    ours = {(kind.group, kind.version, kind.plural, kind.kind) for kind in KINDS}
    assert defined == {kind for kind in ours if kind[0] == "management.project-flotta.io"}


@pytest.mark.parametrize("name", CRDS)
def test_definition_is_whole(name):
    """Its name is plural and group; status is a subresource of its own; conditions are a list by type."""
    spec = CRDS[name]["spec"]
    (version,) = spec["versions"]
    status = version["schema"]["openAPIV3Schema"]["properties"]["status"]

    assert CRDS[name]["metadata"]["name"] == f"{spec['names']['plural']}.{spec['group']}"
    assert version["subresources"] == {"status": {}}
    for conditions in [status["properties"]["conditions"]] if "properties" in status else []:
        assert (conditions["x-kubernetes-list-type"], conditions["x-kubernetes-list-map-keys"]) == ("map", ["type"])


@pytest.mark.parametrize("name", CRDS)
def test_columns_show_fields_that_exist(name):
    """Every printer column leads to a field of the schema."""
    (version,) = CRDS[name]["spec"]["versions"]
    for column in version["additionalPrinterColumns"]:
        schema = version["schema"]["openAPIV3Schema"]
        path = re.sub(r"\[\?\(@\.type==\"\w+\"\)\]", ".items", column["jsonPath"]).strip(".").split(".")
        if path[0] == "metadata":
            continue
        for step in path:
            schema = schema["items"] if step == "items" else schema["properties"][step]
        assert schema["type"] in {"string", "integer"}, column


def test_workload_keeps_every_word_of_its_pod(site):
    """The Pod's specification is stored as it was written, also words that are younger than the definition."""
    pod = {"spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "b", "restartPolicy": "Always"}]}}

    stored = site.put("management.project-flotta.io/v1alpha1", "EdgeWorkload", "a", spec={"type": "pod", "pod": pod})

    assert stored["spec"]["pod"] == pod


# Admission


def test_refusal_of_the_policy_is_that_of_the_operator():
    """One rule, one text; a policy's message has one line."""
    policy = one("kubernetes/admission.yaml", "ValidatingAdmissionPolicy", "replicator-storage")

    assert [rule["message"] for rule in policy["spec"]["validations"]] == [MIXED.replace("\n", " ")]


def test_policy_knows_the_words_that_the_server_knows():
    """Admission lets through what a message can be made of, and nothing else."""
    policy = one("kubernetes/admission.yaml", "ValidatingAdmissionPolicy", "replicator-sidecar")
    (rule,) = policy["spec"]["validations"]

    assert rule["expression"].endswith(f"object.metadata.annotations['{ANNOTATION}'] in ['{OFF}', '{CONTAINER}']")
    assert rule["message"].startswith(f"annotation {ANNOTATION}: is neither '{OFF}' nor '{CONTAINER}'")


def test_policies_are_bound_and_match_requests():
    """Resources are written in lower case and the plural, or they never match; each policy denies."""
    policies = [d for d in documents("kubernetes/admission.yaml") if d["kind"] == "ValidatingAdmissionPolicy"]
    bindings = [d for d in documents("kubernetes/admission.yaml") if d["kind"] == "ValidatingAdmissionPolicyBinding"]
    plurals = {crd["spec"]["names"]["plural"] for crd in CRDS.values()}

    assert {b["spec"]["policyName"] for b in bindings} == {p["metadata"]["name"] for p in policies}
    assert all(b["spec"]["validationActions"] == ["Deny"] for b in bindings)
    for policy in policies:
        (rule,) = policy["spec"]["matchConstraints"]["resourceRules"]
        assert set(rule["resources"]) <= plurals
        assert rule["operations"] == ["CREATE", "UPDATE"]
        assert policy["spec"]["failurePolicy"] == "Fail"
        assert all("\n" not in one["message"].strip() for one in policy["spec"]["validations"])


# Rights


def rights(kind: str) -> set[tuple[str, str, str]]:
    """(group, resource, verb) of the operator's role of this kind."""
    role = one("kubernetes/operator.yaml", kind, "replicator-operator")
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_lease_is_the_one_thing_that_is_written_in_the_own_namespace():
    """Only the Lease of the settings' name is changed; making one cannot be bound to a name."""
    role = one("kubernetes/operator.yaml", "Role", "replicator-operator")

    assert rights("Role") == {("coordination.k8s.io", "leases", verb) for verb in ("create", "get", "update")}
    assert [rule.get("resourceNames") for rule in role["rules"]] == [None, [OperatorSettings().lease_name]]


# The Deployment


@pytest.fixture
def pod() -> dict[str, Any]:
    return one("kubernetes/operator.yaml", "Deployment", "replicator-operator")["spec"]["template"]["spec"]


@pytest.fixture
def container(pod) -> dict[str, Any]:
    (found,) = pod["containers"]
    return found


def test_deployment_sets_what_exists(container):
    """Its variables are settings, its command a command, its image this version; claims are made as the README says."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    loaded = load(OperatorSettings, {item["name"]: item["value"] for item in container["env"]})

    assert (container["image"], container["args"]) == (f"replicator:{version}", ["operator"])
    assert loaded.auto_create
    assert loaded.http_listen == f"0.0.0.0:{container['ports'][0]['containerPort']}"


@pytest.mark.fault("F16")
def test_deployment_has_no_privilege(pod, container):
    """It fits the `restricted` standard, writes nowhere, and is bounded in memory."""
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "volumes" not in pod
    assert container["resources"]["limits"].keys() == {"memory"}


def test_two_replicas_wait_for_each_other(container):
    """Two of them, one may be away; whether each lives and is ready is asked of the process, not of the API server."""
    deployment = one("kubernetes/operator.yaml", "Deployment", "replicator-operator")
    budget = one("kubernetes/operator.yaml", "PodDisruptionBudget", "replicator-operator")
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}

    assert (deployment["spec"]["replicas"], budget["spec"]["minAvailable"]) == (2, 1)
    assert budget["spec"]["selector"] == deployment["spec"]["selector"]
    assert paths == {"startup": "/healthz", "readiness": "/readyz", "liveness": "/healthz"}


# Settings


@pytest.mark.parametrize(("variable", "name"), OperatorSettings.variables().items())
def test_sample_shows_the_setting(variable, name):
    """config/operator.env has each setting with its default, its meaning above it."""
    field = OperatorSettings.model_fields[name]
    line = f"\n# {(field.description or '').splitlines()[0]}\n#{variable}={text_of(field.default)}\n"

    assert line in (CONFIG / "operator.env").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"REPLICATOR_CONTROL_AUTOCREATE": "true"}, "no such setting.*AUTO_CREATE"),
        ({"REPLICATOR_CONTROL_AUTO_CREATE": "perhaps"}, "AUTO_CREATE"),
        ({"REPLICATOR_CONTROL_STORAGE_CLASS": "../x"}, "STORAGE_CLASS"),
        ({"REPLICATOR_CONTROL_ROUTE_NAMESPACE": ""}, "ROUTE_NAMESPACE"),
        ({"REPLICATOR_CONTROL_UNREGISTER_GRACE_S": "-1"}, "UNREGISTER_GRACE_S"),
        ({"REPLICATOR_CONTROL_ENDPOINT": "fixed"}, "endpoint_host"),
        ({"REPLICATOR_CONTROL_HTTP_LISTEN": "everywhere"}, "HTTP_LISTEN"),
    ],
)
def test_setting_that_cannot_be_is_refused_by_its_name(environ, problem):
    """Before anything starts, with the variable and the fix."""
    with pytest.raises(ConfigError, match=problem):
        load(OperatorSettings, environ)


@pytest.mark.parametrize(
    ("environ", "is_on"),
    [
        ({}, False),
        ({"OBC_AUTO_CREATE": "true"}, True),
        ({"OBC_AUTO_CREATE": "true", "REPLICATOR_CONTROL_AUTO_CREATE": "false"}, False),
        ({"REPLICATOR_CONTROL_AUTO_CREATE": "true", "REPLICATOR_SOURCE": "files"}, True),
    ],
)
def test_word_of_flotta_counts_where_ours_is_not_said(environ, is_on):
    """OBC_AUTO_CREATE is the default of auto_create, and no more."""
    assert load(OperatorSettings, environ).auto_create == is_on


def test_both_programs_may_be_given_one_environment():
    """What only the other one reads is passed over; what neither reads is refused."""
    environ = {"REPLICATOR_CONTROL_AUTO_CREATE": "true", "REPLICATOR_CONTROL_EDGE_RATE": "5"}

    assert load(OperatorSettings, environ).auto_create
    assert load(EdgeApiSettings, environ).edge_rate == 5
    with pytest.raises(ConfigError, match="no such setting"):
        load(EdgeApiSettings, environ | {"REPLICATOR_CONTROL_EDGE_RATES": "5"})
