"""The message of a device: the form of Flotta's, and what each object adds to it."""

import base64
import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from replicator.config.manifests import EdgeWorkload
from replicator.config.message import is_disconnect, parse_message
from replicator.controlplane.edge_api.messages import (
    Contents,
    Rendering,
    disconnect,
    has_safe_paths,
    references,
    render,
)
from replicator.controlplane.edge_api.specification import yaml_of
from replicator.controlplane.storage import Bucket
from replicator.errors import ConfigError


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


BUCKET = Bucket("play.min.io", 443, "device-bucket-6", "us-east-1", "eWRheWFnaTEzNjk=", "eWRheWFnaTEzNjk=", "LS0tLS1C")
CONTAINER = {"name": "stats-collector", "image": "quay.io/jdzon/os-stats:v1"}
DATA = {
    "egress": [{"source": "stats", "target": "statistics"}],
    "ingress": [{"source": "remote/data", "target": "local/download/data"}],
}


def workload(name="os-stats", *, container=(), spec=(), pod=(), **metadata):
    pod_spec = {"containers": [CONTAINER | dict(container)]} | dict(pod)
    return {
        "metadata": {"name": name, "namespace": "fleet"} | metadata,
        "spec": {"type": "pod", "deviceSelector": {}, "data": DATA, "pod": {"spec": pod_spec}} | dict(spec),
    }


def contents(*workloads, spec=(), device_set=None, bucket: Bucket | None = BUCKET, secrets=(), config_maps=(), **more):
    metadata = {"name": "dev-ext", "namespace": "fleet", "resourceVersion": "338"} | more
    device = {"metadata": metadata, "spec": dict(spec)}

    def named(objects):
        return {name: {"metadata": {"name": name}, "data": words} for name, words in dict(objects).items()}

    return Contents(device, device_set, workloads, bucket, named(secrets), named(config_maps))


def told(given: Contents) -> dict:
    return json.loads(render(given).message(version="338", message_id="m", sent="s"))["content"]


def first(given: Contents) -> dict:
    return told(given)["workloads"][0]


def test_message_is_that_of_flotta():
    """The whole message, key by key and in its form: no blank, one layer of base64, the Pod as text in YAML."""
    message = render(contents(workload())).message(version="338", message_id="7f0c", sent="2026-11-22T14:18:01.960Z")

    assert message.startswith(
        b'{"type":"data","directive":"device","message_id":"7f0c","version":1,"sent":"2026-11-22T14:18:01.960Z",'
        b'"content":{"device_id":"dev-ext","version":"338","configuration":{'
    )
    assert json.loads(message)["content"] == {
        "device_id": "dev-ext",
        "version": "338",
        "configuration": {
            "heartbeat": {"period_seconds": 60, "hardware_profile": {}},
            "metrics": {"receiver": {"request_num_samples": 30000, "timeout_seconds": 10}},
            "mounts": [],
            "storage": {
                "s3": {
                    "bucket_host": "play.min.io",
                    "bucket_port": 443,
                    "bucket_name": "device-bucket-6",
                    "bucket_region": "us-east-1",
                    "aws_access_key_id": "eWRheWFnaTEzNjk=",
                    "aws_secret_access_key": "eWRheWFnaTEzNjk=",
                    "aws_ca_bundle": "LS0tLS1C",
                }
            },
        },
        "workloads": [
            {
                "name": "os-stats",
                "namespace": "fleet",
                "specification": (
                    "containers:\n- image: quay.io/jdzon/os-stats:v1\n  name: stats-collector\n  resources: {}\n"
                ),
                "data": DATA,
            }
        ],
    }


def test_our_client_reads_it():
    """What this server renders, `parse_message` takes."""
    bucket = Bucket("play.min.io", 443, "device-bucket-6", "ignore", b64("ydayagi1369"), b64("key"))
    message = render(contents(workload(), bucket=bucket)).message(version="338", message_id="m", sent="s")
    parsed = parse_message(message, where="w")

    assert (parsed.device, parsed.version, parsed.workloads[0].workload) == ("dev-ext", "338", "os-stats")
    assert parsed.storage.values["AWS_ACCESS_KEY_ID"] == "ydayagi1369"
    assert "BUCKET_REGION" not in parsed.storage.values


def test_disconnect_is_that_of_flotta():
    """The command without a directive, its arguments null."""
    assert disconnect(message_id="m", sent="s") == (
        b'{"type":"command","message_id":"m","version":1,"sent":"s",'
        b'"content":{"command":"disconnect","arguments":null}}'
    )
    assert is_disconnect(disconnect(message_id="m", sent="s"), where="w")


def test_device_without_a_bucket_is_told_the_rest():
    """No storage is a field that is not there, and nothing else."""
    assert "storage" not in told(contents(workload(), bucket=None))["configuration"]


def test_device_that_leaves_is_told_its_bucket_alone():
    """Without workloads and Secrets, but with what it needs to send its last files."""
    leaving = contents(workload(), deletionTimestamp="2026-11-23T11:00:00Z")

    assert set(told(leaving)) == {"device_id", "version", "configuration"}
    assert "storage" in told(leaving)["configuration"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"egress": DATA["egress"]}, {"egress": DATA["egress"], "ingress": None}),
        ({"ingress": DATA["ingress"], "egress": []}, {"egress": None, "ingress": DATA["ingress"]}),
        ({}, {"egress": None, "ingress": None}),
    ],
)
def test_side_without_paths_is_null(data, expected):
    """Both sides are always there, as in the agent's own model."""
    assert first(contents(workload(spec={"data": data})))["data"] == expected


def test_workload_without_data_has_none():
    """No section, no field."""
    assert "data" not in first(contents(workload(spec={"data": None})))


def test_workloads_come_by_name():
    """In whatever order a watch told of them, the message is the same."""
    one, other = workload("a"), workload("b")

    assert render(contents(one, other)) == render(contents(other, one))


def test_labels_and_annotations_for_podman_are_told():
    """Those that begin so, without it; others are the cluster's."""
    words = {"podman/app": "x", "selector/dc": "true"}

    assert first(contents(workload(labels=words, annotations=words)))["labels"] == {"app": "x"}
    assert first(contents(workload(labels=words, annotations=words)))["annotations"] == {"app": "x"}


def test_secrets_are_told_once_and_as_they_are():
    """By name, as JSON in a string, with the one layer of base64 that they have."""
    container = {
        "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "zeta", "key": "a"}}}],
        "envFrom": [{"secretRef": {"name": "alpha"}}],
    }
    both = workload("a", container=container), workload("b", container=container)

    assert told(contents(*both, secrets={"zeta": {"a": b64("x")}, "alpha": {}}))["secrets"] == [
        {"data": "{}", "name": "alpha"},
        {"data": json.dumps({"a": b64("x")}, separators=(",", ":")), "name": "zeta"},
    ]


def test_config_maps_are_told_with_their_workload():
    """As YAML that podman plays, from variables and volumes."""
    container = {"envFrom": [{"configMapRef": {"name": "words"}}]}
    volumes = {"volumes": [{"name": "v", "configMap": {"name": "files", "optional": True}}]}
    given = contents(
        workload(container=container, pod=volumes), config_maps={"words": {"a": "1e3"}, "files": {"b": "c"}}
    )
    files, words = first(given)["configmaps"]

    assert (
        words
        == 'apiVersion: v1\ndata:\n  "a": "1e3"\nkind: ConfigMap\nmetadata:\n  creationTimestamp: null\n  name: words\n'
    )
    assert yaml.safe_load(files)["metadata"]["name"] == "files"


def test_credentials_of_a_registry_are_told_with_their_workload():
    """Decoded, and not among the Secrets."""
    given = contents(
        workload(spec={"imageRegistries": {"secretRef": {"name": "pull"}}}),
        secrets={"pull": {".dockerconfigjson": b64('{"auths":{}}')}},
    )

    assert first(given)["imageRegistries"] == {"authFile": '{"auths":{}}'}
    assert "secrets" not in told(given)


REQUIRED: dict = {
    "Secret": {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
    "ConfigMap": {"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "s", "key": "k"}}}]},
}


@pytest.mark.fault("E10")
@pytest.mark.parametrize("kind", REQUIRED)
def test_missing_reference_leaves_the_device_as_it_is(kind):
    """Half a message would stop a workload that runs: it is refused with the name, until object and key are there."""
    one = workload(container=REQUIRED[kind])

    def given_with(words: dict):
        return contents(one, secrets=words) if kind == "Secret" else contents(one, config_maps=words)

    with pytest.raises(ConfigError, match=f"needs {kind} 's'"):
        render(given_with({}))
    with pytest.raises(ConfigError, match=f"needs the key 'k' of {kind} 's'"):
        render(given_with({"s": {"other": "eA=="}}))
    assert render(given_with({"s": {"k": "eA=="}}))


def test_optional_reference_may_be_missing():
    """Unless another container insists on it."""
    optional = {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}}
    insisting = {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "l"}}}

    assert references([workload(container={"env": [optional]})]).secrets == {"s": None}
    assert references([workload(container={"env": [optional, insisting]})]).secrets == {"s": frozenset({"l"})}
    assert references([workload(container={"env": [insisting, optional]})]).secrets == {"s": frozenset({"l"})}
    assert render(contents(workload(container={"env": [optional]})))


def test_set_replaces_what_its_members_say():
    """Heartbeat and mounts are the set's, also where it has none."""
    own = {"heartbeat": {"periodSeconds": 5}, "mounts": [{"device": "/dev/sdb", "folder": "/mnt", "type": "ext4"}]}
    a_set = {
        "metadata": {"name": "home"},
        "spec": {"heartbeat": {"periodSeconds": 7, "hardwareProfile": {"include": True}}},
    }

    alone, member = (told(contents(spec=own, device_set=one))["configuration"] for one in (None, a_set))

    assert alone["heartbeat"] == {"period_seconds": 5, "hardware_profile": {}}
    assert alone["mounts"] == [{"device": "/dev/sdb", "directory": "/mnt", "type": "ext4"}]
    assert member["heartbeat"] == {"period_seconds": 7, "hardware_profile": {"include": True}}
    assert member["mounts"] == []


def test_metrics_are_told_where_they_are_asked_for():
    """A workload's port and containers, a device's receiver, retention and intervals."""
    metrics = {"port": 9477, "path": "/metrics", "containers": {"c": {"disabled": True}}}
    device = {"receiverConfiguration": {"timeoutSeconds": 3}, "retention": {"maxMiB": 9}, "system": {"interval": 60}}
    given = contents(workload(spec={"metrics": metrics}), spec={"metrics": device})

    assert first(given)["metrics"] == {"path": "/metrics", "port": 9477, "containers": {"c": {"disabled": True}}}
    assert told(given)["configuration"]["metrics"] == {
        "receiver": {"request_num_samples": 30000, "timeout_seconds": 3},
        "retention": {"max_mib": 9},
        "system": {"interval": 60},
    }


# The mark


def test_mark_knows_the_content_and_nothing_else():
    """Id, time and the object's version differ in each answer and leave it; a word of the content does not."""
    one = render(contents(workload(), resourceVersion="1"))

    assert one.etag == render(contents(workload(), resourceVersion="2")).etag
    assert one.etag != render(contents(workload("other"))).etag
    assert one.message(version="1", message_id="a", sent="b") != one.message(version="2", message_id="c", sent="d")


def test_rendering_shows_no_secret():
    """A rendering in a log line tells no word of the message."""
    assert "eWRheWFnaTEzNjk" not in repr(render(contents(workload())))
    assert "eWRheWFnaTEzNjk" not in repr(contents(workload(), secrets={"s": {"k": "eWRheWFnaTEzNjk="}}))


# Names that others could take for something else


@pytest.mark.slow
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda some: st.lists(some) | st.dictionaries(st.text(), some),
    )
)
def test_specification_says_what_the_object_says(given_object):
    """Whatever is in an object, the YAML reads as the same."""
    assert yaml.safe_load(yaml_of(given_object)) == given_object


@pytest.mark.parametrize(
    "text", ["1e3", "0o7", "0x1F", "1_000", "yes", "NO", "y", "null", "~", "2026-11-23", "1:20", ".5", ""]
)
def test_string_that_looks_like_another_type_stands_in_quotes(text):
    """YAML's readers disagree on such words, so none is left to them."""
    assert yaml_of({"value": text}) == f'value: "{text}"\n'


def test_no_alias_is_written():
    """An object that occurs twice is written twice."""
    shared = {"a": ["b"]}

    assert "*" not in yaml_of({"first": shared, "second": shared})


@pytest.mark.fault("E7")
@pytest.mark.parametrize("path", ["..", "../x", "/etc", "a/../../b", "", "a\x00b"])
def test_path_that_leads_elsewhere_is_seen(path):
    """What admission should have refused is told to no device."""
    parsed = EdgeWorkload.of(workload(spec={"data": {"egress": [{"source": path, "target": "t"}]}}), where="w", fix="f")

    assert not has_safe_paths(parsed)
    assert has_safe_paths(EdgeWorkload.of(workload(), where="w", fix="f"))


def test_rendering_of_nothing_is_a_message():
    """A device that does nothing has a configuration all the same."""
    assert isinstance(render(contents(bucket=None)), Rendering)
