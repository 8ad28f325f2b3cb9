"""The samples in config/: every setting is shown, every name that is used exists, and the posture is a safe one."""

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from replicator.config.settings import FLAGS, load
from replicator.config.sources.source import make_source
from replicator.errors import ConfigError
from replicator.model import Target

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config"
MANIFESTS = sorted((CONFIG / "kubernetes").glob("*.yaml"))
DEPLOYMENTS = sorted((CONFIG / "kubernetes").glob("sidecar-*.yaml"))
VARIABLES = {flag.variable for flag in FLAGS}
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def text_of(name: str) -> str:
    return (CONFIG / name).read_text(encoding="utf-8")


def named(path: Path) -> str:
    return path.relative_to(CONFIG).as_posix()


def assignments(text: str, *, commented: bool = False) -> dict[str, str]:
    """NAME=value lines of an environment file; with `commented`, those behind a '#'."""
    mark = "#" if commented else ""
    return dict(re.findall(rf"^{mark}([A-Za-z_][\w.]*)=(.*)$", text, flags=re.MULTILINE))


def documents(path: Path) -> list[dict]:
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]


def pod_of(path: Path) -> dict:
    """The one Pod that a sidecar sample describes."""
    (pod,) = [document["spec"]["template"] for document in documents(path) if document["kind"] == "Deployment"]
    return pod


def sidecar_of(path: Path) -> dict:
    spec = pod_of(path)["spec"]
    containers = [*spec.get("initContainers", ()), *spec["containers"]]
    (sidecar,) = [container for container in containers if container["name"] == "replicator"]
    return sidecar


def environment_of(path: Path) -> dict[str, str]:
    return {item["name"]: item["value"] for item in sidecar_of(path)["env"] if "value" in item}


BUCKET = {
    "BUCKET_HOST": "s3.example.com",
    "BUCKET_NAME": "os-stats-5a7f",
    "BUCKET_PORT": "443",
    "BUCKET_REGION": "",
    "BUCKET_SUBREGION": "",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
}
"""What a provisioner writes into the ConfigMap and the Secret of a claim."""


def targets_of(environ: dict[str, str]) -> dict[str, Target]:
    """The targets, by id, of a replicator that starts in this environment."""
    return {target.id: target for target in make_source(load({}, environ).settings, environ).read()}


def projected(path: Path, *, into: Path) -> None:
    """Lay the files of the `manifests` volume out as a kubelet does."""
    texts = {
        (document["kind"].lower(), document["metadata"]["name"]): document.get("data") or document.get("stringData", {})
        for document in documents(path)
    }
    (volume,) = [item for item in pod_of(path)["spec"]["volumes"] if item["name"] == "manifests"]
    for source in volume["projected"]["sources"]:
        ((kind, options),) = source.items()
        entries = texts[kind.lower(), options["name"]]
        for item in options.get("items") or [{"key": key, "path": key} for key in entries]:
            if item["key"] in entries:
                (into / item["path"]).parent.mkdir(parents=True, exist_ok=True)
                (into / item["path"]).write_text(entries[item["key"]])


# Settings


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_environment_sample_shows_the_setting(flag):
    """config/replicator.env has each setting as a commented line with its default, its meaning above it."""
    assert f"\n# {flag.help}\n#{flag.variable}={flag.default}\n" in text_of("replicator.env")


def test_environment_sample_changes_nothing_and_invents_nothing():
    """As it stands config/replicator.env sets nothing, and no line in it names what is not a setting."""
    shown = assignments(text_of("replicator.env"), commented=True)

    assert {name for name in shown if name.startswith("REPLICATOR_")} == VARIABLES
    assert assignments(text_of("replicator.env")) == {}


def test_settings_sample_makes_targets():
    """config/replicator.yaml is a settings file as it stands, and its options reach the target they name."""
    targets = targets_of({"REPLICATOR_CONFIG": str(CONFIG / "replicator.yaml"), **BUCKET})

    assert {name: target.options.quota_bytes for name, target in targets.items()} == {
        "os-stats/egress/statistics": 0,
        "os-stats/ingress/remote/data": 2**30,
    }


# Kubernetes


@pytest.mark.parametrize("path", MANIFESTS, ids=named)
def test_manifest_parses(path):
    """Every document has a kind, a version and a name."""
    for document in documents(path):
        assert {"apiVersion", "kind", "metadata"} <= document.keys()
        assert document["metadata"]["name"]


@pytest.mark.parametrize("path", DEPLOYMENTS, ids=named)
def test_sidecar_settings_exist(path):
    """Every REPLICATOR_ variable in the sample is a setting, and their values are accepted."""
    settings = {name: value for name, value in environment_of(path).items() if name.startswith("REPLICATOR_")}

    assert settings.keys() <= VARIABLES
    assert load({}, settings)


@pytest.mark.fault("F16")
@pytest.mark.parametrize("path", DEPLOYMENTS, ids=named)
def test_sidecar_has_no_privilege(path):
    """The sidecar is uid 65532 without capabilities, on a read-only root, with the runtime's seccomp profile."""
    assert sidecar_of(path)["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


@pytest.mark.fault("F16")
@pytest.mark.parametrize("path", DEPLOYMENTS, ids=named)
def test_pod_tells_the_sidecar_nothing_about_the_cluster(path):
    """No service account token is mounted, and no Service leaks into the environment."""
    spec = pod_of(path)["spec"]

    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()


@pytest.mark.fault("F16")
@pytest.mark.parametrize("path", DEPLOYMENTS, ids=named)
def test_pod_is_admitted_where_pod_security_is_restricted(path):
    """Each container fits the `restricted` standard, whose volumes leave hostPath out."""
    spec = pod_of(path)["spec"]

    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in [*spec.get("initContainers", ()), *spec["containers"]]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
    assert [volume["name"] for volume in spec["volumes"] if "hostPath" in volume] == []


@pytest.mark.parametrize("path", DEPLOYMENTS, ids=named)
def test_pod_gives_the_drain_its_time(path):
    """The grace period leaves the workload 15 seconds and more before the sidecar's drain must end; no hook runs."""
    drain_s = load({}, {"REPLICATOR_DRAIN_TIMEOUT_S": environment_of(path)["REPLICATOR_DRAIN_TIMEOUT_S"]})

    assert pod_of(path)["spec"]["terminationGracePeriodSeconds"] - drain_s.settings.drain_timeout_s >= 15
    assert "lifecycle" not in sidecar_of(path)


@pytest.mark.parametrize("path", DEPLOYMENTS, ids=named)
def test_a_dead_link_neither_kills_the_sidecar_nor_holds_the_workload(path):
    """Start and life are asked of the process (/healthz); only readiness asks about the storage (/readyz)."""
    sidecar = sidecar_of(path)
    paths = {name: sidecar[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}

    assert paths == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}


@pytest.mark.parametrize("path", DEPLOYMENTS, ids=named)
def test_probes_and_metrics_reach_the_port_that_is_listened_on(path):
    """The port named `metrics` is the one that REPLICATOR_HTTP_LISTEN opens to the Pod's network."""
    sidecar = sidecar_of(path)
    (port,) = sidecar["ports"]

    assert environment_of(path)["REPLICATOR_HTTP_LISTEN"] == f"0.0.0.0:{port['containerPort']}"
    assert port["name"] == "metrics"
    assert {sidecar[f"{name}Probe"]["httpGet"]["port"] for name in ("startup", "liveness", "readiness")} == {"metrics"}


@pytest.mark.fault("F16")
@pytest.mark.parametrize("path", DEPLOYMENTS, ids=named)
def test_sidecar_writes_to_volumes_only(path):
    """State, /tmp and the export are volumes, and the workload has the same export."""
    spec = pod_of(path)["spec"]
    mounts = {mount["mountPath"]: mount["name"] for mount in sidecar_of(path)["volumeMounts"]}
    (workload,) = [container for container in spec["containers"] if container["name"] != "replicator"]

    assert {"/export", "/var/lib/replicator", "/tmp"} <= mounts.keys()
    assert set(mounts.values()) == {volume["name"] for volume in spec["volumes"]}
    assert {"name": mounts["/export"], "mountPath": "/export"} in workload["volumeMounts"]


@pytest.mark.parametrize("path", DEPLOYMENTS, ids=named)
def test_sidecar_is_bounded_in_memory(path):
    """Memory has a request and a limit above the transfers' budget."""
    resources = sidecar_of(path)["resources"]
    budget_mib = load({}, {}).settings.transfer_memory_bytes / 2**20

    assert resources["requests"].keys() == {"cpu", "memory"}
    assert int(resources["limits"]["memory"].removesuffix("Mi")) >= 2 * budget_mib


@pytest.mark.parametrize("path", DEPLOYMENTS, ids=named)
def test_native_sidecars_restart_and_old_ones_are_containers(path):
    """A native sidecar is an init container that always restarts; the sample for older clusters has none."""
    native = [item for item in pod_of(path)["spec"].get("initContainers", ()) if item["name"] == "replicator"]

    assert [item["restartPolicy"] for item in native] == ([] if path.stem == "sidecar-container" else ["Always"])
    assert "restartPolicy" not in sidecar_of(path) or native


@pytest.mark.parametrize("name", ["sidecar-claim.yaml", "sidecar-container.yaml"])
def test_claimed_bucket_configures_the_sidecar(name):
    """The claim's ConfigMap and Secret, named like the claim, are all that the sidecar needs to know its bucket."""
    path = CONFIG / "kubernetes" / name
    (claim,) = documents(CONFIG / "kubernetes" / "claim.yaml")
    references = [source.get("configMapRef") or source.get("secretRef") for source in sidecar_of(path)["envFrom"]]
    (prefix,) = {source["prefix"] for source in sidecar_of(path)["envFrom"]}

    targets = targets_of(environment_of(path) | {prefix + word: text for word, text in BUCKET.items()})

    assert references == [{"name": claim["metadata"]["name"]}] * 2
    assert [(name, target.storage.place) for name, target in targets.items()] == [
        ("os-stats/egress/statistics", "https://s3.example.com/os-stats-5a7f")
    ]
    assert prefix == "OBC_"


def test_claimed_bucket_gets_the_certificate_authority_of_the_cluster():
    """The name under which the CA reaches the environment is one that is looked for."""
    variables = [item["name"] for item in sidecar_of(CONFIG / "kubernetes" / "sidecar-claim.yaml")["env"]]
    environ = {"REPLICATOR_EGRESS": "a=b", **{f"OBC_{word}": text for word, text in BUCKET.items()}}

    with pytest.raises(ConfigError, match=r"tls\.crt"):
        targets_of(environ | {"OBC_tls.crt": "not a certificate"})

    assert "OBC_tls.crt" in variables


def test_external_sample_makes_targets(tmp_path):
    """The mounted files of the sample are a complete configuration: mapping, bucket, credentials."""
    path = CONFIG / "kubernetes" / "sidecar-external.yaml"
    projected(path, into=tmp_path)

    targets = targets_of(environment_of(path) | {"REPLICATOR_MANIFESTS_DIR": str(tmp_path)})

    assert [(name, target.storage.place) for name, target in targets.items()] == [
        ("os-stats/egress/statistics", "https://s3.example.com/device-bucket-6")
    ]


def test_external_bucket_is_mounted_a_file_a_word():
    """Each word of external storage is mounted where source `files` looks for it, the CA only where there is one."""
    path = CONFIG / "kubernetes" / "sidecar-external.yaml"
    (volume,) = [item for item in pod_of(path)["spec"]["volumes"] if item["name"] == "manifests"]
    kinds = [next(iter(source.values())) | {"kind": next(iter(source))} for source in volume["projected"]["sources"]]
    items = {item["path"]: source.get("optional", False) for source in kinds for item in source.get("items", ())}
    objects = {(document["kind"].lower(), document["metadata"]["name"]) for document in documents(path)}

    words = ("BUCKET_HOST", "BUCKET_NAME", "BUCKET_PORT", "BUCKET_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    assert items == {f"storage/external/{word}": False for word in words} | {"storage/external/tls.crt": True}
    assert {(source["kind"].lower(), source["name"]) for source in kinds} <= objects


def test_monitor_and_policy_select_the_sidecars():
    """The label and the port that PodMonitor and NetworkPolicy name are those of every sidecar sample."""
    (monitor,) = documents(CONFIG / "kubernetes" / "podmonitor.yaml")
    (policy,) = documents(CONFIG / "kubernetes" / "networkpolicy.yaml")
    label = {"replicator": "sidecar"}

    assert [pod_of(path)["metadata"]["labels"].items() >= label.items() for path in DEPLOYMENTS] == [True] * 3
    assert monitor["spec"]["selector"]["matchLabels"] == policy["spec"]["podSelector"]["matchLabels"] == label
    assert [endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]] == ["metrics"]
    assert policy["spec"]["ingress"][0]["ports"] == [{"port": "metrics"}]


def test_deployments_select_their_own_pods():
    """A Deployment whose selector misses its template is refused by the API server."""
    for path in DEPLOYMENTS:
        (deployment,) = [document["spec"] for document in documents(path) if document["kind"] == "Deployment"]
        labels = deployment["template"]["metadata"]["labels"]

        assert deployment["selector"]["matchLabels"].items() <= labels.items()
        assert deployment["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize("path", [*DEPLOYMENTS, CONFIG / "quadlet" / "replicator.container"], ids=named)
def test_samples_name_this_version(path):
    """The image in every sample carries the version of the package."""
    tags = re.findall(r"(?m)^\s*[Ii]mage(?::\s+|=)(?:localhost/)?replicator:(\S+)", path.read_text(encoding="utf-8"))

    assert tags == [VERSION]


# Quadlet


def unit(name: str) -> Iterator[tuple[str, str, str]]:
    """(section, key, value) of each line of a systemd unit file; keys may repeat."""
    section = ""
    for line in text_of(f"quadlet/{name}").splitlines():
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            section = heading.group(1)
        elif line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert equals, f"{name}: not a unit file line: {line!r}"
            assert section, f"{name}: {line!r} stands before any section"
            yield section, key, value


@pytest.fixture(scope="module")
def container() -> dict[str, list[str]]:
    """The [Container] section of the quadlet."""
    found: dict[str, list[str]] = {}
    for section, key, value in unit("replicator.container"):
        if section == "Container":
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.fault("F16")
def test_quadlet_has_no_privilege(container):
    """On the device too: read-only root, no capability, no way to gain one."""
    assert container["ReadOnly"] == container["NoNewPrivileges"] == ["true"]
    assert container["DropCapability"] == ["all"]
    assert not {"AddCapability", "SecurityLabelDisable", "AddDevice"} & container.keys()


def test_quadlet_environment_exists(container):
    """replicator.env beside the quadlet sets what exists, for all workloads of the device."""
    variables = assignments(text_of("quadlet/replicator.env"))
    settings = load({}, variables).settings
    mounted = [value.split(":")[1] for value in container["Volume"]]

    assert variables.keys() | assignments(text_of("quadlet/replicator.env"), commented=True).keys() <= VARIABLES
    assert (settings.source, str(settings.volumes_dir)) == ("files", "/var/local/yggdrasil/device/volumes")
    assert {str(settings.volumes_dir), str(settings.manifests_dir), str(settings.state_dir)} == set(mounted)


def test_quadlet_keeps_its_state_in_the_volume_beside_it(container):
    """The state directory is the named volume that replicator.volume makes."""
    assert "replicator.volume:/var/lib/replicator" in container["Volume"]
    assert ("Volume", "VolumeName", "replicator-state") in list(unit("replicator.volume"))


def test_quadlet_gives_the_drain_its_time(container):
    """drain timeout < podman's wait < systemd's wait: nobody kills what still sends."""
    drain_s = load({}, assignments(text_of("quadlet/replicator.env"))).settings.drain_timeout_s
    (argument,) = shlex.split(container["PodmanArgs"][0])
    service = {key: value for section, key, value in unit("replicator.container") if section == "Service"}

    assert drain_s < int(argument.removeprefix("--stop-timeout=")) < int(service["TimeoutStopSec"])


def test_quadlet_asks_the_port_that_is_listened_on(container):
    """The health command and the published port are those of REPLICATOR_HTTP_LISTEN."""
    port = assignments(text_of("quadlet/replicator.env"))["REPLICATOR_HTTP_LISTEN"].rpartition(":")[2]
    command = json.loads(container["HealthCmd"][0])

    assert command[:2] == ["python", "-c"]
    assert f"http://127.0.0.1:{port}/healthz" in command[2]
    assert container["PublishPort"] == [f"127.0.0.1:{port}:{port}"]
