"""Sidecars in a device's message: who gets one, what comes along, and what becomes of it on a device."""

import json
from typing import Any

import pytest

from replicator.config.manifests import EdgeWorkload
from replicator.config.message import parse_message
from replicator.config.settings import load
from replicator.config.sources.env import EnvSource
from replicator.controlplane.edge_api.messages import Contents, render
from replicator.controlplane.edge_api.sidecars import ANNOTATION, Rules, with_sidecars
from replicator.controlplane.pod import Place
from replicator.controlplane.pod import render as pod_of
from replicator.controlplane.settings import EdgeApiSettings
from replicator.controlplane.settings import load as load_control
from replicator.controlplane.sidecar import Bucket as Words
from replicator.controlplane.sidecar import Form, Sidecar
from replicator.controlplane.storage import Bucket
from replicator.errors import ConfigError
from tests.agent import container_in, environment, pod_on_device
from tests.edge import b64, workload

RULES = Rules(image="registry.example/replicator:1")
BUCKET = Bucket("s3.example", 443, "device-bucket-6", "ignore", b64("AKID"), b64("s3cr3t"))
WANTED = {ANNOTATION: "container"}


def annotated(name="os-stats", *, annotations: Any = None, **spec) -> dict[str, Any]:
    one = workload(name, **spec)
    one["metadata"]["annotations"] = WANTED if annotations is None else annotations
    return one


def contents(*workloads, bucket: Bucket | None = BUCKET, **metadata) -> Contents:
    device = {"metadata": {"name": "gateway-7", "namespace": "fleet"} | metadata, "spec": {}}
    return Contents(device, None, workloads, bucket, {}, {})


def told(given: Contents, rules: Rules = RULES) -> dict[str, Any]:
    message = render(with_sidecars(given, rules)).message(version="1", message_id="m", sent="s")
    return json.loads(message)["content"]


def test_pod_on_the_device_is_the_one_of_the_command():
    """What the agent makes of the message is what `replicator pod --sidecar container` prints: volumes and all."""
    content = told(contents(annotated()))

    made = pod_on_device(content)
    words = container_in(made)["envFrom"][0]["configMapRef"]["name"]

    one = Sidecar(Form.CONTAINER, RULES.image, Words(words, words, is_claim=False), 60, 0, has_own_volume=False)
    parsed = EdgeWorkload.of(workload(), where="w", fix="")
    printed = pod_of(parsed, place=Place(), sidecar=one)["spec"]
    assert without_order(made) == without_order(printed)


def without_order(value: Any) -> Any:
    """A document whose lists have no order, and without what is empty."""
    if isinstance(value, dict):
        return {key: without_order(one) for key, one in value.items() if one != {}}
    if isinstance(value, list):
        return sorted((without_order(one) for one in value), key=lambda one: json.dumps(one, sort_keys=True))
    return value


def test_sidecar_finds_its_bucket_and_its_paths_as_podman_starts_it():
    """With the words of the message alone `run` serves exactly the workload's paths, in the device's bucket."""
    data = {
        "egress": [{"source": "stats", "target": "a=b, c"}],
        "ingress": [{"source": "remote/data", "target": "download"}],
    }
    content = told(contents(annotated(data=data)))

    environ = environment(content, container_in(pod_on_device(content)))

    targets = EnvSource(load({}, environ).settings, environ).read()
    assert [(one.workload, one.subdir, str(one.prefix)) for one in targets] == [
        ("os-stats", "stats", "a=b, c/"),
        ("os-stats", "download", "remote/data/"),
    ]
    storage = targets[0].storage
    assert (storage.endpoint, storage.bucket, storage.region) == ("https://s3.example", "device-bucket-6", "us-east-1")
    assert storage.secret_access_key.get_secret_value() == "s3cr3t"


def test_directory_has_one_writer():
    """The agent is told no paths of that workload, so neither it nor a replicator beside it serves them."""
    content = told(contents(annotated(), workload("other")))

    assert ["data" in one for one in content["workloads"]] == [False, True]
    message = render(with_sidecars(contents(annotated()), RULES)).message(version="1", message_id="m", sent="s")
    assert [(one.egress, one.ingress) for one in parse_message(message, where="w").workloads] == [((), ())]


@pytest.mark.parametrize(
    "one",
    [workload(), annotated(annotations={ANNOTATION: "off"}), annotated(data=None), annotated(data={"egress": []})],
    ids=["not asked for", "off", "without data", "nothing mapped"],
)
def test_message_without_a_sidecar_is_the_same_to_the_byte(one):
    """Nothing is added, left out or in another place for whoever has not asked for it, or has nothing mapped."""
    given = contents(one)

    assert with_sidecars(given, RULES) is given


def test_annotation_wins_over_the_setting():
    """`container` as the usual form puts one into each Pod but those that say off."""
    given = contents(workload("a"), annotated("b", annotations={ANNOTATION: "off"}), annotated("c"))

    content = told(given, Rules("container", "r:1"))

    assert ["replicator" in one["specification"] for one in content["workloads"]] == [True, False, True]
    assert ["data" in one for one in content["workloads"]] == [False, True, False]


def test_workload_runs_alone_until_there_is_a_bucket():
    """Its Pod is as it was written, and the agent is not told to sync meanwhile; the bucket brings the sidecar."""
    alone, joined = (told(contents(annotated(), bucket=bucket)) for bucket in (None, BUCKET))

    assert [one["name"] for one in pod_on_device(alone)["containers"]] == ["stats"]
    assert "data" not in alone["workloads"][0]
    assert "secrets" not in alone
    assert [one["name"] for one in pod_on_device(joined)["containers"]] == ["stats", "replicator"]


def test_bucket_that_is_lost_leaves_the_device_as_it_is():
    """To take the sidecar out and put it in again would stop the workload twice; whoever has none is told the rest."""
    with pytest.raises(ConfigError, match="has lost the bucket that its sidecars use"):
        with_sidecars(contents(annotated(), bucket=None), RULES, had_bucket=True)

    given = contents(workload(), bucket=None)
    assert with_sidecars(given, RULES, had_bucket=True) is given


def test_device_that_leaves_is_told_its_bucket_alone():
    """Whatever its workloads say: a word that is wrong does not keep it from sending its last files."""
    leaving = contents(annotated(annotations={ANNOTATION: "native"}), deletionTimestamp="2026-11-23T11:00:00Z")

    assert set(told(leaving)) == {"device_id", "version", "configuration"}


def test_new_credentials_start_the_pod_anew():
    """The agent compares the Pod's text alone: so it changes with the keys, and with nothing else of the device."""
    rotated = Bucket("s3.example", 443, "device-bucket-6", "ignore", b64("AKID"), b64("an0ther"))
    before, same, after = (
        told(given)["workloads"][0]["specification"]
        for given in (
            contents(annotated()),
            contents(annotated(), resourceVersion="7", labels={"dc": "home"}),
            contents(annotated(), bucket=rotated),
        )
    )

    assert before == same
    assert before != after
    assert "an0ther" not in after


def test_authority_of_the_endpoint_comes_along():
    """As a word of the Secret, for the device's own trust may not know it."""
    bundle = Bucket("s3.example", 443, "b", "eu-1", b64("AKID"), b64("s3cr3t"), b64("-----BEGIN"))
    content = told(contents(annotated(), bucket=bundle))

    environ = environment(content, container_in(pod_on_device(content)))

    assert (environ["tls.crt"], environ["BUCKET_REGION"]) == ("-----BEGIN", "eu-1")


def test_workloads_share_one_secret():
    """A device has one bucket: one Secret, and beside each workload the ConfigMap."""
    content = told(contents(annotated("a"), annotated("b")))

    assert len(content["secrets"]) == 1
    assert [len(one["configmaps"]) for one in content["workloads"]] == [1, 1]
    volumes = [one["name"] for number in (0, 1) for one in pod_on_device(content, number)["volumes"]]
    assert {"replicator-a", "replicator-b"} <= set(volumes)


def taken(name: str) -> dict[str, Any]:
    return {"name": "stats", "image": "i", "envFrom": [{"secretRef": {"name": name, "optional": True}}]}


def made_up_name() -> str:
    (secret,) = told(contents(annotated()))["secrets"]
    return secret["name"]


REFUSED: dict[str, tuple[Any, str]] = {
    "another word": (lambda: annotated(annotations={ANNOTATION: "native"}), "is neither 'off' nor 'container'"),
    "container": (lambda: annotated(container={"name": "replicator"}), r"containers\[0\].name: is 'replicator'"),
    "no Pod": (lambda: annotated(pod=None), "spec.pod.spec.containers: is missing"),
    "no containers": (lambda: annotated(pod={"spec": {"containers": []}}), "spec.pod.spec.containers: is missing"),
    "export": (
        lambda: annotated(container={"volumeMounts": [{"name": "mine", "mountPath": "/export"}]}),
        "mounts /export",
    ),
    "volume": (
        lambda: annotated(pod={"spec": {"containers": [{"name": "a"}], "volumes": [{"name": "replicator-tmp"}]}}),
        r"volumes\[0\].name",
    ),
    "Secret": (
        lambda: annotated(pod={"spec": {"containers": [taken(made_up_name())]}}),
        "which is its sidecar's",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_by_its_field(case):
    """The device keeps what it was told, and the reason names the field."""
    make, problem = REFUSED[case]

    with pytest.raises(ConfigError, match=problem):
        with_sidecars(contents(make()), RULES)


def test_sidecar_without_an_image_is_refused():
    """By the workload that asks for one, and by the setting that would give one to all."""
    with pytest.raises(ConfigError, match="needs an image"):
        with_sidecars(contents(annotated()), Rules())
    with pytest.raises(ConfigError, match="sidecar needs sidecar_image"):
        load_control(EdgeApiSettings, {"REPLICATOR_CONTROL_SIDECAR": "container"})


def test_authority_that_no_program_could_be_started_with_is_refused():
    """A variable has a limit in the kernel: better told here than by a container that never starts."""
    bundle = Bucket("s3.example", 443, "b", "", b64("AKID"), b64("s3cr3t"), b64("x" * 100_000))

    with pytest.raises(ConfigError, match="more than 96 KiB"):
        with_sidecars(contents(annotated(), bucket=bundle), RULES)
