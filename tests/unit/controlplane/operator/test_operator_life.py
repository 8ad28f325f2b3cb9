"""A device's whole life beside a provisioner that makes and takes down real buckets: nothing is left of it."""

import asyncio
import base64
import contextlib
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr

from replicator.cluster.client import Cluster
from replicator.cluster.kinds import CLAIM, CONFIG_MAP, SECRET, Key, Object
from replicator.cluster.mirror import Mirror
from replicator.controlplane.operator.reading import is_leaving, text

OPERATOR = Path(__file__).parents[4] / "config" / "kubernetes" / "operator.yaml"
HOLD = "objectbucket.io/finalizer"


class Provisioner:
    """What lib-bucket-provisioner does, with S3 behind it: Secret, ConfigMap, bucket, phase; and all of it back."""

    def __init__(self, cluster: Cluster, s3, *, reclaims: bool = True) -> None:
        self.cluster = cluster
        self.s3 = s3
        self.reclaims = reclaims
        self.hints: asyncio.Queue[Key] = asyncio.Queue()
        self.mirror = Mirror(cluster, CLAIM, on_change=lambda key, _old, _new: self.hints.put_nowait(key))

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.mirror.run())
            while True:
                key = await self.hints.get()
                claim = await self.cluster.get(CLAIM, *key)
                if claim and is_leaving(claim):
                    await self.take_down(*key, claim)
                elif claim and text(claim, "status", "phase") != "Bound":
                    await self.provision(*key, claim)

    async def provision(self, namespace: str, name: str, claim: Object) -> None:
        bucket = f"{claim['spec']['generateBucketName'][:26]}-{uuid.uuid4()}"
        await self.cluster.patch(CLAIM, namespace, name, {"metadata": {"finalizers": [HOLD]}})
        await self.cluster.patch(CLAIM, namespace, name, {"spec": {"bucketName": bucket}})
        await asyncio.to_thread(self.s3.create_bucket, Bucket=bucket)
        meta = {"name": name, "namespace": namespace, "finalizers": [HOLD], "labels": {"bucket-provisioner": "test"}}
        keys = {"AWS_ACCESS_KEY_ID": "testing-id", "AWS_SECRET_ACCESS_KEY": "testing-key"}
        secret = {word: base64.b64encode(value.encode()).decode() for word, value in keys.items()}
        words = {"BUCKET_NAME": bucket, "BUCKET_HOST": "s3.storage.svc", "BUCKET_PORT": "443", "BUCKET_REGION": ""}
        for kind, content in ((SECRET, secret), (CONFIG_MAP, words)):
            made = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta, "data": content}
            await self.cluster.create(kind, made)
        await self.cluster.patch(CLAIM, namespace, name, {"spec": {"objectBucketName": f"obc-{namespace}-{name}"}})
        await self.cluster.patch(CLAIM, namespace, name, {"status": {"phase": "Bound"}}, subresource="status")

    async def take_down(self, namespace: str, name: str, claim: Object) -> None:
        if self.reclaims:
            await asyncio.to_thread(self.purge, claim["spec"]["bucketName"])
        for kind in (SECRET, CONFIG_MAP):
            await self.cluster.delete(kind, namespace, name)
            await self.cluster.patch(kind, namespace, name, {"metadata": {"finalizers": None}})
        await self.cluster.patch(CLAIM, namespace, name, {"metadata": {"finalizers": None}})

    def purge(self, bucket: str) -> None:
        for one in self.s3.list_objects_v2(Bucket=bucket).get("Contents", ()):
            self.s3.delete_object(Bucket=bucket, Key=one["Key"])
        self.s3.delete_bucket(Bucket=bucket)

    def buckets(self) -> set[str]:
        """Those of the device `camera`."""
        return {one["Name"] for one in self.s3.list_buckets()["Buckets"] if one["Name"].startswith("camera-")}


@pytest.fixture
async def provisioner(site, witness) -> AsyncIterator[Provisioner]:
    async with Cluster(site.server.access(fixed_token=SecretStr("provisioner"))) as cluster:
        one = Provisioner(cluster, witness.client)
        task = asyncio.create_task(one.run())
        yield one
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        for bucket in one.buckets():
            await asyncio.to_thread(one.purge, bucket)


def rights() -> set[tuple[str, str]]:
    """(resource with its group, verb) that config/kubernetes/operator.yaml grants."""
    return {
        (f"{resource}.{group}".rstrip("."), verb)
        for role in yaml.safe_load_all(OPERATOR.read_text(encoding="utf-8"))
        if role["kind"] in {"Role", "ClusterRole"}
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def used(site) -> set[tuple[str, str]]:
    """What the operator has asked for, in the same words; an apply may create, and is a patch."""
    asked = [request for request in site.server.requests if request.token == "operator" and request.plural]
    return {
        (
            f"{request.plural}{'/' * bool(request.subresource)}{request.subresource}.{group_of(request.path)}".rstrip(
                "."
            ),
            verb,
        )
        for request in asked
        for verb in (("patch", "create") if request.verb == "apply" else (request.verb,))
    }


def group_of(path: str) -> str:
    parts = path.strip("/").split("/")
    return parts[1] if parts[0] == "apis" else ""


@pytest.mark.slow
@pytest.mark.fault("E4")
async def test_device_that_is_unregistered_takes_its_bucket_along_and_comes_back_clean(site, settings, provisioner):
    """Registered, bound, filled, told to leave, drained, gone; registered again with a bucket that never saw a file.

    All of it with no more rights than config/kubernetes/operator.yaml grants, and with every one of those.
    """
    site.put("management.project-flotta.io/v1alpha1", "EdgeDeviceSet", "cameras", spec={})
    member = {"flotta/member-of": "cameras"}
    site.device(s3={"createOBC": True}, labels=member)
    async with site.operator(settings) as task:
        await site.until(lambda: site.ready() == ("True", "OBCBound"))
        (bucket,) = provisioner.buckets()
        provisioner.s3.put_object(Bucket=bucket, Key="stats/a", Body=b"a")

        site.server.delete("edgedevices", "fleet", "camera")
        await site.until(lambda: ("Normal", "WaitingForDrain") in site.events())
        provisioner.s3.put_object(Bucket=bucket, Key="stats/late", Body=b"sent after it was told to leave")
        assert provisioner.buckets() == {bucket}

        drained = {"drainedAt": site.get("edgedevices")["metadata"]["deletionTimestamp"]}
        site.server.edit("edgedevices", "fleet", "camera", {"status": {"replication": drained}}, subresource="status")
        await site.until(lambda: site.get("edgedevices")["metadata"]["finalizers"] == ["device-finalizer"])
        assert [site.get(kind) for kind in ("objectbucketclaims", "configmaps", "secrets")] == [None] * 3
        assert provisioner.buckets() == set()

        site.release()
        site.device(s3={"createOBC": True}, labels=member)
        await site.until(lambda: site.ready() == ("True", "OBCBound"))
        (clean,) = provisioner.buckets()
        assert clean != bucket
        assert "Contents" not in provisioner.s3.list_objects_v2(Bucket=clean)
        assert not task.done()

    # Told apart by what a cluster is like: a Route, owners that block a deletion, workloads whose sum is due.
    assert used(site) - rights() == set()
    assert rights() - used(site) == {
        ("routes.route.openshift.io", "get"),
        ("edgedevices/finalizers.management.project-flotta.io", "update"),
        ("edgeworkloads/status.management.project-flotta.io", "patch"),
    }


@pytest.mark.slow
async def test_bucket_of_a_class_that_retains_stays_with_its_objects(site, settings, provisioner):
    """What becomes of a bucket is its StorageClass's word; the claim goes all the same."""
    provisioner.reclaims = False
    site.device(s3={"createOBC": True})
    async with site.operator(settings, unregister_grace_s=0.0):
        await site.until(lambda: site.ready() == ("True", "OBCBound"))
        (bucket,) = provisioner.buckets()
        provisioner.s3.put_object(Bucket=bucket, Key="stats/a", Body=b"a")

        site.server.delete("edgedevices", "fleet", "camera")
        await site.until(lambda: site.get("objectbucketclaims") is None)

    assert [one["Key"] for one in provisioner.s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["stats/a"]
