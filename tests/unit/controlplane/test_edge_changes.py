"""What moves a device's message: each kind of change, over the watch that shows it or the question that finds it."""

import asyncio
import logging

import pytest

from replicator.controlplane.edge_api.sidecars import ANNOTATION
from tests.certificates import issue
from tests.edge import asked_until, b64, config_map, device, made, secret, workload
from tests.waiting import eventually

pytestmark = pytest.mark.slow

CLAIM = "objectbucket.io/v1alpha1"
BOUND = {"spec": {"objectBucketName": "obc-fleet-gateway-7"}, "status": {"phase": "Bound"}}
OF_CLAIM = {"bucket-provisioner": "openshift-storage.noobaa.io-obc"}
MEMBER = {"flotta/member-of": "home"}
WITH_SIDECAR = {"metadata": {"annotations": {ANNOTATION: "container"}}}


def claimed(cluster):
    """The device has a claim, its objects are labelled as provisioners do, and a Route leads to the store."""
    claim = made("ObjectBucketClaim", "gateway-7", version=CLAIM, **BOUND)
    route = made(
        "Route", "s3", version="route.openshift.io/v1", namespace="openshift-storage", spec={"host": "s3.example"}
    )
    objects = [claim, route, config_map("gateway-7", labels=OF_CLAIM), secret("gateway-7", labels=OF_CLAIM)]
    for one in [*objects, device(obc="gateway-7")]:
        cluster.put(one)


def in_set(cluster):
    cluster.put(device(labels=MEMBER))
    cluster.put(
        made("EdgeDeviceSet", "home", spec={"storage": {"s3": {"secretName": "keys", "configMapName": "words"}}})
    )


def with_words(cluster):
    """The workload names a Secret and a ConfigMap, and a Secret of a registry."""
    sources = [{"secretRef": {"name": "theirs"}}, {"configMapRef": {"name": "settings"}}]
    cluster.put(workload(container={"envFrom": sources}, imageRegistries={"secretRef": {"name": "pull"}}))
    cluster.put(made("Secret", "theirs", version="v1", data={"a": b64("1")}))
    cluster.put(made("ConfigMap", "settings", version="v1", data={"a": "1"}))
    cluster.put(made("Secret", "pull", version="v1", data={".dockerconfigjson": b64("{}")}))


def nothing(_):
    pass


# name: (what is there, what changes)
CHANGES = {
    "spec of the device": (
        nothing,
        lambda c: c.edit("edgedevices", "fleet", "gateway-7", {"spec": {"heartbeat": {"periodSeconds": 5}}}),
    ),
    "labels of the device": (
        in_set,
        lambda c: c.edit(
            "edgedevices",
            "fleet",
            "gateway-7",
            {"metadata": {"labels": {"flotta/member-of": None}}, "spec": {"heartbeat": {"periodSeconds": 5}}},
        ),
    ),
    "claim of the device": (
        claimed,
        lambda c: c.edit("edgedevices", "fleet", "gateway-7", {"status": {"dataObc": None}}),
    ),
    "set": (in_set, lambda c: c.edit("edgedevicesets", "fleet", "home", {"spec": {"storage": None}})),
    "set is gone": (
        in_set,
        lambda c: (
            c.edit("edgedevices", "fleet", "gateway-7", {"spec": {"heartbeat": {"periodSeconds": 5}}}),
            c.delete("edgedevicesets", "fleet", "home"),
        ),
    ),
    "set comes": (lambda c: c.put(device(labels=MEMBER)), lambda c: c.put(made("EdgeDeviceSet", "home", spec={}))),
    "workload": (
        nothing,
        lambda c: c.edit(
            "edgeworkloads", "fleet", "os-stats", {"spec": {"data": {"egress": [{"source": "a", "target": "b"}]}}}
        ),
    ),
    "workload comes": (nothing, lambda c: c.put(workload("another"))),
    "workload is gone": (nothing, lambda c: c.delete("edgeworkloads", "fleet", "os-stats")),
    "workload is moved elsewhere": (
        nothing,
        lambda c: c.edit(
            "edgeworkloads", "fleet", "os-stats", {"spec": {"deviceSelector": {"matchLabels": {"dc": "away"}}}}
        ),
    ),
    "sidecar of the workload": (
        nothing,
        lambda c: c.edit("edgeworkloads", "fleet", "os-stats", WITH_SIDECAR),
    ),
    "annotations of the workload": (
        nothing,
        lambda c: c.edit("edgeworkloads", "fleet", "os-stats", {"metadata": {"annotations": {"podman/a": "b"}}}),
    ),
    "claim is lost": (
        claimed,
        lambda c: c.edit("objectbucketclaims", "fleet", "gateway-7", {"status": {"phase": "Pending"}}),
    ),
    "claim is gone": (claimed, lambda c: c.delete("objectbucketclaims", "fleet", "gateway-7")),
    "ConfigMap of the claim": (claimed, lambda c: c.put(config_map("gateway-7", labels=OF_CLAIM, BUCKET_NAME="c"))),
    "Secret of the claim": (
        claimed,
        lambda c: c.put(secret("gateway-7", labels=OF_CLAIM, AWS_SECRET_ACCESS_KEY=b64("new"))),
    ),
    "Route": (claimed, lambda c: c.edit("routes", "openshift-storage", "s3", {"spec": {"host": "s3.elsewhere"}})),
    "external ConfigMap": (nothing, lambda c: c.put(config_map(BUCKET_NAME="c"))),
    "external Secret": (nothing, lambda c: c.put(secret(AWS_SECRET_ACCESS_KEY=b64("new")))),
    "external Secret is gone": (nothing, lambda c: c.delete("secrets", "fleet", "keys")),
    "Secret of a workload": (with_words, lambda c: c.edit("secrets", "fleet", "theirs", {"data": {"a": b64("2")}})),
    "ConfigMap of a workload": (with_words, lambda c: c.edit("configmaps", "fleet", "settings", {"data": {"a": "2"}})),
    "Secret of a registry": (
        with_words,
        lambda c: c.edit("secrets", "fleet", "pull", {"data": {".dockerconfigjson": b64("[]")}}),
    ),
}


@pytest.mark.parametrize("case", CHANGES)
async def test_change_is_told_at_the_next_polls(case, cluster, start):
    """Whoever asks for news gets them once the watch, or the next question by name, has brought them."""
    prepare, change = CHANGES[case]
    prepare(cluster)
    edge = await start()
    one = edge.device()
    before = await asyncio.to_thread(one.ask)
    change(cluster)

    after = await asked_until(one, lambda said: said.status != 304, If_None_Match=before.headers["etag"])

    assert (before.status, after.status) == (200, 200)
    assert after.content != before.content


async def test_authority_of_the_store_is_told_when_it_changes(cluster, start):
    """The Secret of the cluster's router, watched by its name."""
    claimed(cluster)
    names = {"namespace": "openshift-ingress-operator"}
    cluster.put(secret("router-ca", **names))
    edge = await start(ca_secret="router-ca")
    one = edge.device()
    assert "aws_ca_bundle" not in (await asyncio.to_thread(one.ask)).content["configuration"]["storage"]["s3"]
    bundle = b64(issue("router", is_authority=True).pem)
    cluster.put(secret("router-ca", **names, **{"tls.crt": bundle}))

    def told(said):
        return said.content["configuration"]["storage"]["s3"].get("aws_ca_bundle") == bundle

    await asked_until(one, told)


SAME = {
    "status of the workload": lambda c: c.edit("edgeworkloads", "fleet", "os-stats", {"status": {"conditions": []}}),
    "status of the device": lambda c: c.edit("edgedevices", "fleet", "gateway-7", {"status": {"phase": "up"}}),
    "workload of others": lambda c: c.put(workload("theirs", deviceSelector={"matchLabels": {"dc": "away"}})),
    "device beside": lambda c: c.put(device("gateway-8")),
    "strange Secret": lambda c: c.put(secret("strange", labels=OF_CLAIM)),
}


@pytest.mark.parametrize("case", SAME)
async def test_change_that_is_not_the_devices_renders_nothing(case, cluster, edge):
    """What is not in a message does not make it anew."""
    one = edge.device()
    before = await asyncio.to_thread(one.ask)
    SAME[case](cluster)
    devices, workloads, _ = edge.serving.world.needed
    cluster.put(device("last"))
    cluster.put(workload("last", device="last"))
    await eventually(lambda: all(("fleet", "last") in mirror.objects for mirror in (devices, workloads)))

    for _ in range(20):
        said = await asyncio.to_thread(one.ask, If_None_Match=before.headers["etag"])
        assert said.status == 304
    assert edge.metric("replicator_edge_renderings_total") == 1


async def test_secrets_of_strangers_are_not_asked_for(cluster, edge):
    """Secrets are watched by the label of provisioners and read by name, never listed as a whole."""
    cluster.put(secret("strange"))
    await asyncio.to_thread(edge.device().ask)

    asked = [request for request in cluster.requests if request.plural == "secrets"]
    assert {request.query.get("labelSelector") for request in asked if request.verb != "get"} == {"bucket-provisioner"}
    assert {request.name for request in asked if request.verb == "get"} == {"keys"}


async def test_without_a_label_no_secret_is_watched(cluster, start):
    """Then the right to get is enough, and changes arrive by the next question."""
    claimed(cluster)
    edge = await start(edge_watched_labels="")
    one = edge.device()
    assert (await asyncio.to_thread(one.ask)).status == 200
    cluster.put(secret("gateway-7", labels=OF_CLAIM, AWS_SECRET_ACCESS_KEY=b64("new")))

    def told(said):
        return said.content["configuration"]["storage"]["s3"]["aws_secret_access_key"] == b64("new")

    await asked_until(one, told)
    asked = {request.verb for request in cluster.requests if request.plural in ("secrets", "configmaps")}
    assert asked == {"get"}


async def test_secret_that_is_shared_is_asked_for_once(cluster, start):
    """A fleet with one external bucket costs one question in the time that an answer is believed."""
    for number in range(10):
        cluster.put(device(f"gateway-{number}"))
    edge = await start(edge_reread_s=60)
    for number in range(10):
        assert (await asyncio.to_thread(edge.device(f"gateway-{number}").ask)).status == 200

    assert cluster.count("get", "secrets") == 1


@pytest.mark.fault("E10")
async def test_missing_secret_of_a_workload_leaves_its_device_alone(cluster, edge):
    """It is told an error with the name, keeps what it has, and goes on once the Secret is there; others run."""
    cluster.put(workload(container={"envFrom": [{"secretRef": {"name": "gone"}}]}, device="gateway-7"))
    cluster.put(device("gateway-8"))
    one = edge.device()
    said = await asked_until(one, lambda said: said.status == 500)

    assert b"needs Secret 'gone', which is not there" in said.body
    assert (await asyncio.to_thread(one.ask, "control")).body == b""
    assert (await asyncio.to_thread(edge.device("gateway-8").ask)).status == 200
    cluster.put(made("Secret", "gone", version="v1", data={}))
    edge.serving.world._answers.clear()  # what was not there is asked for again after 5 s
    assert (await asked_until(one, lambda said: said.status == 200)).content["secrets"] == [
        {"data": "{}", "name": "gone"}
    ]


@pytest.mark.fault("E7")
async def test_workload_with_a_path_that_climbs_has_no_data(cluster, edge, caplog):
    """Its containers run, its paths are told to nobody, and a person is told; its neighbour is not touched."""
    with caplog.at_level(logging.WARNING):
        cluster.put(workload("climbs", data={"egress": [{"source": "../../etc", "target": "t"}]}))
        said = await asked_until(edge.device(), lambda said: len(said.content["workloads"]) == 2)

    climbs, neighbour = said.content["workloads"]
    assert "data" not in climbs
    assert "data" in neighbour
    assert "data paths left out" in caplog.text


async def test_selection_is_computed_here(cluster, edge):
    """Labels that another controller left on the device, and status.workloads, select nothing."""
    cluster.edit("edgedevices", "fleet", "gateway-7", {"metadata": {"labels": {"workload/stale": "true"}}})
    status = {"workloads": [{"name": "stale", "lastTransitionTime": None, "lastDataUpload": None}]}
    cluster.edit("edgedevices", "fleet", "gateway-7", {"status": status}, subresource="status")
    cluster.put(workload("stale", deviceSelector={"matchLabels": {"dc": "away"}}))
    cluster.put(workload("named", device="gateway-7", deviceSelector=None))
    said = await asked_until(edge.device(), lambda said: len(said.content["workloads"]) == 2)

    assert [one["name"] for one in said.content["workloads"]] == ["named", "os-stats"]


async def test_sidecars_stay_while_the_bucket_is_not_whole(cluster, start):
    """A Secret that is gone for a moment stops no workload; storage that nobody configures takes the sidecar out."""
    cluster.edit("edgeworkloads", "fleet", "os-stats", WITH_SIDECAR)
    edge = await start()
    one = edge.device()
    before = (await asked_until(one, lambda said: said.status == 200)).headers["etag"]

    cluster.delete("secrets", "fleet", "keys")
    said = await asked_until(one, lambda said: said.status != 200)
    assert (said.status, b"has lost the bucket" in said.body) == (500, True)
    cluster.put(secret())
    await asked_until(one, lambda said: said.headers.get("etag") == before)

    cluster.edit("edgedevices", "fleet", "gateway-7", {"spec": {"storage": None}})
    said = await asked_until(one, lambda said: said.status == 200 and said.headers["etag"] != before)
    assert "replicator" not in said.content["workloads"][0]["specification"]
