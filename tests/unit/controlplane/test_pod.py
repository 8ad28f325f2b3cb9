"""The Pod of a workload: what Flotta's agent makes of it, and what the sidecar adds."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from replicator.config.manifests import EdgeWorkload, parse
from replicator.config.settings import load
from replicator.config.sources.env import EnvSource
from replicator.controlplane.pod import Place, chosen, render, user_of, volume_name
from replicator.controlplane.rendering import Wish, pod_yaml
from replicator.controlplane.sidecar import Bucket, Form, Kept, Sidecar
from replicator.errors import ConfigError

OS_STATS = """
apiVersion: management.project-flotta.io/v1alpha1
kind: EdgeWorkload
metadata:
  name: os-stats
spec:
  deviceSelector:
    matchLabels:
      dc: home
  data:
    egress:
      - source: stats
        target: statistics
  type: pod
  pod:
    spec:
      containers:
        - name: stats-collector
          image: quay.io/jdzon/os-stats:v1
"""

ON_A_DEVICE = """
kind: Pod
metadata:
  creationTimestamp: null
  name: os-stats
spec:
  containers:
  - image: quay.io/jdzon/os-stats:v1
    name: stats-collector
    resources: {}
    volumeMounts:
    - mountPath: /export
      name: export-os-stats
  volumes:
  - hostPath:
      path: /var/local/yggdrasil/device/volumes/os-stats
      type: DirectoryOrCreate
    name: export-os-stats
"""
"""What runs on a Flotta device for that workload."""

SAMPLES = Path(__file__).parents[3] / "config/kubernetes"


def workload_of(text: str = OS_STATS, **spec) -> EdgeWorkload:
    document = yaml.safe_load(text)
    document["spec"]["pod"]["spec"] |= spec
    return EdgeWorkload.of(document, where="w.yaml", fix="")


def meant(value):
    """A document without what says nothing: nulls and empty values."""
    if isinstance(value, dict):
        shorter = {key: meant(one) for key, one in value.items()}
        return {key: one for key, one in shorter.items() if one not in (None, {}, [])}
    return [meant(one) for one in value] if isinstance(value, list) else value


def sidecar(form=Form.NATIVE, **changes) -> Sidecar:
    words: dict[str, Any] = {"image": "r:1", "bucket": Bucket("c", "c", is_claim=True), "grace_s": 60, "user": 0}
    return Sidecar(form=form, **(words | {"has_own_volume": False} | changes))


def sidecar_in(pod: dict) -> dict:
    containers = [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]
    (found,) = [one for one in containers if one["name"] == "replicator"]
    return found


def environment_in(pod: dict) -> dict[str, str]:
    return {one["name"]: one["value"] for one in sidecar_in(pod)["env"] if "value" in one}


def test_pod_is_what_flottas_agent_makes():
    """Volume, mount, place and type are those of a device; only the API version is said as well."""
    pod = render(workload_of(), place=Place(), sidecar=None)

    assert pod.pop("apiVersion") == "v1"
    assert meant(pod) == meant(yaml.safe_load(ON_A_DEVICE))


def test_every_container_and_no_init_container_gets_the_export():
    """Containers share the export and know their device; what runs before them does not see it."""
    workload = workload_of(
        containers=[{"name": "a", "volumeMounts": [{"name": "own", "mountPath": "/own"}]}, {"name": "b"}],
        initContainers=[{"name": "before"}],
        volumes=[{"name": "own", "hostPath": {"path": "/own"}}],
    )

    spec = render(workload, place=Place(volumes_dir="/data/volumes"), sidecar=None, device="gateway-7")["spec"]

    export = {"name": "export-os-stats", "mountPath": "/export"}
    assert [one["volumeMounts"] for one in spec["containers"]] == [
        [{"name": "own", "mountPath": "/own"}, export],
        [export],
    ]
    assert [one["env"] for one in spec["containers"]] == [[{"name": "DEVICE_ID", "value": "gateway-7"}]] * 2
    assert spec["initContainers"] == [{"name": "before"}]
    assert [one["name"] for one in spec["volumes"]] == ["own", "export-os-stats"]
    assert spec["volumes"][1]["hostPath"]["path"] == "/data/volumes/os-stats"


def test_the_workload_itself_is_left_as_it_was():
    """Rendering twice gives the same Pod twice."""
    workload = workload_of()

    assert render(workload, place=Place(), sidecar=sidecar()) == render(workload, place=Place(), sidecar=sidecar())


def test_labels_for_podman_are_the_pods():
    """Labels that begin with podman/ are the Pod's without it; others stay the workload's."""
    workload = workload_of(OS_STATS.replace("name: os-stats\n", "name: os-stats\n  labels: {podman/a: x, b: y}\n", 1))

    assert render(workload, place=Place(), sidecar=None)["metadata"]["labels"] == {"a": "x"}


@pytest.mark.parametrize(
    "name", ["os-stats", "a" * 56, "a" * 57, "a" * 200, "with.dots", "Upper_Case", "-", "ends-", "é"]
)
def test_volume_has_a_name_that_kubernetes_takes(name):
    """Whatever a workload is called, its volume is a DNS label."""
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", volume_name("export", name))


def test_volume_names_that_had_to_be_changed_stay_apart():
    """Two workloads never share a volume because their names became equal."""
    names = ["a.b", "a_b", "A-b", "a" * 60, "a" * 61]

    assert len({volume_name("export", name) for name in names}) == len(names)
    assert volume_name("export", "a-b") == "export-a-b"


def test_native_sidecar_starts_first_and_restarts_for_ever():
    """An init container with restartPolicy Always and probes, before others; no preStop hook, and time to drain."""
    pod = render(workload_of(initContainers=[{"name": "before"}]), place=Place(), sidecar=sidecar())

    first, second = pod["spec"]["initContainers"]
    assert (first["name"], first["restartPolicy"], second["name"]) == ("replicator", "Always", "before")
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= first.keys()
    assert "lifecycle" not in first
    assert pod["spec"]["terminationGracePeriodSeconds"] == 60
    assert float(environment_in(pod)["REPLICATOR_DRAIN_TIMEOUT_S"]) < 60


def test_container_sidecar_uses_nothing_that_podman_lacks():
    """Beside the others, without probes of the kubelet, restart rule, seccomp profile or runAsNonRoot."""
    pod = render(workload_of(), place=Place(), sidecar=sidecar(Form.CONTAINER))

    assert [one["name"] for one in pod["spec"]["containers"]] == ["stats-collector", "replicator"]
    assert "initContainers" not in pod["spec"]
    made = sidecar_in(pod)
    assert not {"restartPolicy", "startupProbe", "readinessProbe", "livenessProbe", "lifecycle"} & made.keys()
    assert not {"runAsNonRoot", "seccompProfile"} & made["securityContext"].keys()


@pytest.mark.parametrize("form", [Form.NATIVE, Form.CONTAINER])
def test_sidecar_has_no_privilege(form):
    """A read-only root, no capabilities, no escalation; a volume for each path that is written."""
    pod = render(workload_of(), place=Place(), sidecar=sidecar(form))

    made = sidecar_in(pod)
    assert made["securityContext"]["readOnlyRootFilesystem"]
    assert not made["securityContext"]["allowPrivilegeEscalation"]
    assert made["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    volumes = {one["name"] for one in pod["spec"]["volumes"]}
    assert {one["mountPath"] for one in made["volumeMounts"]} == {"/export", "/var/lib/replicator", "/tmp"}
    assert {one["name"] for one in made["volumeMounts"]} <= volumes
    assert made["resources"]["limits"].keys() == {"memory"}


def test_journal_is_kept_where_the_export_is_kept():
    """A directory below the volumes that is no workload's; nothing outlives the Pod with emptyDir."""
    for kept, expected in (
        (Kept.HOST_PATH, {"hostPath": {"path": "/d/volumes/.replicator/os-stats", "type": "DirectoryOrCreate"}}),
        (Kept.EMPTY_DIR, {"emptyDir": {}}),
    ):
        pod = render(workload_of(), place=Place(kept, "/d/volumes"), sidecar=sidecar())

        (state,) = [one for one in pod["spec"]["volumes"] if one["name"] == "replicator-os-stats"]
        assert state == {"name": "replicator-os-stats"} | expected


def test_sidecar_is_the_user_whose_files_they_are():
    """The workload's own uid; else root's where the kubelet makes the directory, else the image's."""
    own = workload_of(containers=[{"name": "a", "securityContext": {"runAsUser": 1000}}])
    whole = workload_of(securityContext={"runAsUser": 2000})

    assert user_of(own, kept=Kept.HOST_PATH, default=65532) == 1000
    assert user_of(whole, kept=Kept.EMPTY_DIR, default=65532) == 2000
    assert user_of(workload_of(), kept=Kept.HOST_PATH, default=65532) == 0
    assert user_of(workload_of(), kept=Kept.EMPTY_DIR, default=65532) == 65532
    made = sidecar_in(render(own, place=Place(), sidecar=sidecar(user=1000)))
    assert made["securityContext"]["runAsNonRoot"]


def test_volume_of_the_pod_belongs_to_the_sidecars_group():
    """Kubernetes gives an emptyDir to the group; the workload's own word about it wins."""
    place = Place(Kept.EMPTY_DIR)
    made = sidecar(user=65532, has_own_volume=True)

    assert render(workload_of(), place=place, sidecar=made)["spec"]["securityContext"] == {"fsGroup": 65532}
    own = workload_of(securityContext={"fsGroup": 5})
    assert render(own, place=place, sidecar=made)["spec"]["securityContext"] == {"fsGroup": 5}


@pytest.mark.parametrize(
    ("bucket", "prefix"), [(Bucket("c", "c", is_claim=True), "OBC_"), (Bucket("m", "s", is_claim=False), "EXTERNAL_")]
)
def test_sidecar_finds_mappings_and_bucket(bucket, prefix):
    """With its variables and the words of ConfigMap and Secret, replicator serves exactly the workload's paths.

    Also where podman passes over the prefix.
    """
    text = OS_STATS.replace("target: statistics", "target: 'a=b, c'")
    made = sidecar(bucket=bucket)

    pod = render(workload_of(text), place=Place(), sidecar=made)

    told = sidecar_in(pod)["envFrom"]
    assert told == [
        {"prefix": prefix, "configMapRef": {"name": bucket.config_map}},
        {"prefix": prefix, "secretRef": {"name": bucket.secret}},
    ]
    words = {"BUCKET_HOST": "s3", "BUCKET_NAME": "b", "AWS_ACCESS_KEY_ID": "i", "AWS_SECRET_ACCESS_KEY": "s"}
    for before in (prefix, ""):
        environ = environment_in(pod) | {before + word: text for word, text in words.items()}
        (target,) = EnvSource(load({}, environ).settings, environ).read()
        assert (target.workload, target.root, target.subdir) == ("os-stats", "/export", "stats")
        assert (str(target.prefix), target.storage.bucket) == ("a=b, c/", "b")


def test_generated_sidecar_agrees_with_the_sample():
    """The sample manifest and the generator give the sidecar the same probes, resources, ports and posture."""
    deployment = yaml.safe_load((SAMPLES / "sidecar-claim.yaml").read_text())
    sample = sidecar_in(deployment["spec"]["template"])

    made = sidecar_in(render(workload_of(), place=Place(Kept.EMPTY_DIR), sidecar=sidecar(user=65532)))

    for word in ("ports", "startupProbe", "readinessProbe", "livenessProbe", "resources", "restartPolicy"):
        assert made[word] == sample[word], word
    assert made["securityContext"].items() <= sample["securityContext"].items()
    assert {one["name"] for one in made["env"]} == {one["name"] for one in sample["env"]}


REFUSED: dict[str, tuple[dict, str]] = {
    "no containers": ({"containers": []}, "spec.pod.spec.containers"),
    "own export": (
        {"containers": [{"name": "a"}, {"name": "b", "volumeMounts": [{"mountPath": "/export/"}]}]},
        "containers[1].volumeMounts",
    ),
    "the sidecar's name": ({"containers": [{"name": "replicator"}]}, "containers[0].name"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_run_is_refused_by_its_field(case):
    """The error names the file, the field and what to do."""
    spec, field = REFUSED[case]

    with pytest.raises(ConfigError) as caught:
        render(workload_of(**spec), place=Place(), sidecar=sidecar())
    assert caught.value.where.startswith("w.yaml: ")
    assert field in caught.value.where


def test_paths_are_checked_as_the_sidecar_would():
    """A path that leads out of the export is refused before there is a Pod."""
    with pytest.raises(ConfigError, match="leads upwards"):
        render(workload_of(OS_STATS.replace("source: stats", "source: ../x")), place=Place(), sidecar=None)


def test_sidecar_without_mappings_is_refused():
    """A sidecar that nothing is mapped for could only fail."""
    text = re.sub(r"  data:\n.*?\n  type", "  type", OS_STATS, flags=re.DOTALL)

    with pytest.raises(ConfigError, match="maps nothing"):
        render(workload_of(text), place=Place(), sidecar=sidecar())
    assert render(workload_of(text), place=Place(), sidecar=None)


def wish(**changes) -> Wish:
    words: dict[str, Any] = {
        "workload": "",
        "form": Form.NONE,
        "claim": "",
        "external": "",
        "image": "r:1",
        "place": Place(),
    }
    return Wish(**(words | {"device": "", "user": None, "grace_s": 60} | changes))


def test_file_becomes_yaml_that_reads_back(tmp_path):
    """What is printed is the Pod, without YAML's aliases."""
    (tmp_path / "w.yaml").write_text(OS_STATS)

    text = pod_yaml(tmp_path / "w.yaml", wish(form=Form.NATIVE, external="m/s"))

    assert "&" not in text
    assert json.loads(json.dumps(yaml.safe_load(text)))["metadata"]["name"] == "os-stats"


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({}, "--sidecar"),
        ({"claim": "c", "external": "m/s"}, "--sidecar"),
        ({"external": "m"}, "--external"),
        ({"external": "m/s/t"}, "--external"),
        ({"claim": "c", "grace_s": 1}, "--grace-s"),
    ],
)
def test_wish_that_cannot_be_met_is_refused(tmp_path, changes, where):
    """Each option that does not fit is named."""
    (tmp_path / "w.yaml").write_text(OS_STATS)

    with pytest.raises(ConfigError) as caught:
        pod_yaml(tmp_path / "w.yaml", wish(form=Form.NATIVE, **changes))
    assert caught.value.where == where


def test_relative_volumes_directory_is_refused():
    """A hostPath is absolute."""
    with pytest.raises(ConfigError, match="--volumes-dir"):
        Place(volumes_dir="volumes")


def test_workload_is_chosen_by_name():
    """The only one by itself; of several the named one; else the error says which there are."""
    two = parse(f"{OS_STATS}---{OS_STATS.replace('os-stats', 'other')}", where="w.yaml")

    assert chosen(two, name="other", where="w").metadata.name == "other"
    assert chosen(two[:1], name="", where="w").metadata.name == "os-stats"
    for name, given in (("", two), ("absent", two), ("", ())):
        with pytest.raises(ConfigError):
            chosen(given, name=name, where="w")
