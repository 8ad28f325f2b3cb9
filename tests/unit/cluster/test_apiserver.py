"""Our own API server: what only it can be told to do, and what kopf needs of it."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from urllib.request import urlopen

import pytest

from replicator.cluster.client import Cluster
from replicator.cluster.kinds import CONFIG_MAP, EDGE_DEVICE, uid_of
from replicator.errors import Invalid
from tests.apiserver.server import ApiServer

ROOT = Path(__file__).parents[3]

CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: edgedevices.management.project-flotta.io}
spec:
  group: management.project-flotta.io
  scope: Namespaced
  names: {plural: edgedevices, kind: EdgeDevice, shortNames: [ed]}
  versions:
    - name: v1alpha1
      subresources: {status: {}}
      schema:
        openAPIV3Schema:
          type: object
          properties:
            metadata: {type: object}
            spec:
              type: object
              required: [name]
              properties:
                name: {type: string, minLength: 1}
                size: {type: integer, default: 3}
                port: {x-kubernetes-int-or-string: true}
                maybe: {type: string, nullable: true}
                free: {type: object, x-kubernetes-preserve-unknown-fields: true}
                labels: {type: object, additionalProperties: {type: string}}
            status:
              type: object
              properties: {phase: {type: string, enum: [up, down]}}
"""


def device(**words):
    meta = {"name": "d", "namespace": "ns", "labels": {"a": "b"}}
    return {"apiVersion": EDGE_DEVICE.api_version, "kind": "EdgeDevice", "metadata": meta, **words}


@pytest.fixture
def strict(tmp_path):
    """A server with one CustomResourceDefinition."""
    (tmp_path / "edgedevices.yaml").write_text(CRD)
    with ApiServer(crds=tmp_path) as one:
        yield one


async def test_a_schema_is_kept(strict):
    """Defaults are filled in, unknown fields are dropped, and what breaks the schema is 422 with the field."""
    free = {"any": {"thing": 1}}
    words = {"name": "x", "strange": 1, "port": "http", "maybe": None, "free": free, "labels": {"k": "v"}}
    async with Cluster(strict.access()) as cluster:
        made = await cluster.create(EDGE_DEVICE, device(spec=words))

        expected = {"name": "x", "size": 3, "port": "http", "maybe": None, "free": free, "labels": {"k": "v"}}
        assert made["spec"] == expected
        assert made["metadata"]["labels"] == {"a": "b"}
        for wrong, field in (
            ({"name": 3}, "spec.name"),
            ({"labels": {"k": 1}}, "spec.labels.k"),
            ({"name": None}, "spec"),
        ):
            with pytest.raises(Invalid, match=field):
                await cluster.patch(EDGE_DEVICE, "ns", "d", {"spec": wrong})
        with pytest.raises(Invalid, match=r"status\.phase"):
            await cluster.patch(EDGE_DEVICE, "ns", "d", {"status": {"phase": "sideways"}}, subresource="status")


async def test_what_is_deleted_and_has_no_owner_is_collected(server, cluster):
    """An object whose owner is of another uid than what lives goes at once."""
    owner = server.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "o", "namespace": "ns"}})
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": uid_of(owner)}

    for uid, is_there in ((uid_of(owner), True), ("another", False)):
        meta = {"name": "a", "namespace": "ns", "ownerReferences": [reference | {"uid": uid}]}
        await cluster.create(CONFIG_MAP, {"metadata": meta})
        assert (server.get("configmaps", "ns", "a") is not None) == is_there
        await cluster.delete(CONFIG_MAP, "ns", "a")


def test_it_comes_back_on_the_same_port_with_all_it_had(server):
    """Stopped and started, the address and the objects are the same."""
    server.put(device())
    before = server.url

    server.stop()
    server.start()

    with urlopen(f"{before}/apis/management.project-flotta.io/v1alpha1/edgedevices") as answer:
        assert len(json.load(answer)["items"]) == 1


def test_it_tells_what_it_knows(server):
    """Discovery lists groups and kinds, with their status where it is apart."""
    with urlopen(f"{server.url}/apis/management.project-flotta.io/v1alpha1") as answer:
        names = {one["name"] for one in json.load(answer)["resources"]}

    assert {"edgedevices", "edgedevices/status", "edgeworkloads"} <= names


def test_a_watch_may_begin_with_all_there_is(server):
    """sendInitialEvents: every object, then a bookmark that says so."""
    server.put(device())

    path = "apis/management.project-flotta.io/v1alpha1/edgedevices"
    query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    with urlopen(f"{server.url}/{path}?{query}") as answer:
        first, second = (json.loads(answer.readline()) for _ in range(2))

    assert (first["type"], second["type"]) == ("ADDED", "BOOKMARK")
    assert second["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


@pytest.mark.slow
def test_a_process_of_its_own(tmp_path):
    """`python -m tests.apiserver` says where it is, writes a kubeconfig and ends at SIGTERM."""
    command = [sys.executable, "-m", "tests.apiserver", "--kubeconfig", str(tmp_path / "kubeconfig")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().split()[1]
            with urlopen(f"{url}/version") as answer:
                assert json.load(answer)["major"] == "1"
            assert url in (tmp_path / "kubeconfig").read_text()
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()


@pytest.mark.slow
async def test_kopf_runs_against_it(server, until):
    """An operator of kopf sees what is created, changed and removed, and its finalizers come and go."""
    import kopf

    registry, settings = kopf.OperatorRegistry(), kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    told, deleted = [], []
    words = ("management.project-flotta.io", "v1alpha1", "edgedevices")

    @kopf.on.login(registry=registry)
    def login(**_):
        return kopf.ConnectionInfo(server=server.url)

    @kopf.on.event(*words, registry=registry)
    def event(event, **_):
        told.append(event["type"])

    @kopf.on.delete(*words, registry=registry)
    def delete(name, **_):
        deleted.append(name)

    stop, ready = threading.Event(), threading.Event()
    operator = threading.Thread(
        target=kopf.run,
        kwargs={
            "registry": registry,
            "settings": settings,
            "clusterwide": True,
            "stop_flag": stop,
            "ready_flag": ready,
        },
    )
    operator.start()
    try:
        assert await asyncio.to_thread(ready.wait, 10)
        await until(lambda: server.watching("edgedevices"))
        server.put(device(spec={"a": 1}))
        await until(lambda: (server.get("edgedevices", "ns", "d") or {})["metadata"].get("finalizers"))
        server.edit("edgedevices", "ns", "d", {"spec": {"a": 2}})
        server.delete("edgedevices", "ns", "d")
        await until(lambda: server.get("edgedevices", "ns", "d") is None)
        await until(lambda: told and told[-1] == "DELETED")
    finally:
        stop.set()
        await asyncio.to_thread(operator.join, 20)

    assert told[0] == "ADDED"
    assert deleted == ["d"]
