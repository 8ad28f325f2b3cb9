"""A provisioner of bucket claims for tests, as far as a cluster sees one."""

import asyncio
import base64
import contextlib
import uuid
from collections.abc import AsyncIterator

from replicator.cluster.client import Cluster
from replicator.cluster.kinds import CLAIM, CONFIG_MAP, SECRET, Key, Object
from replicator.cluster.mirror import Mirror
from replicator.controlplane.operator.reading import is_leaving, text

HOLD = "objectbucket.io/finalizer"


class Provisioner:
    """What lib-bucket-provisioner does, with S3 behind it: Secret, ConfigMap, bucket, phase; and all of it back."""

    def __init__(self, cluster: Cluster, s3, *, address: dict[str, str] | None = None) -> None:
        """`address`: words of the ConfigMaps that differ."""
        self.cluster = cluster
        self.s3 = s3
        self.reclaims = True
        self.made: set[str] = set()
        self.purged: dict[str, set[str]] = {}
        """What was in a bucket when it was taken down."""
        self.words = {"BUCKET_HOST": "s3.storage.svc", "BUCKET_PORT": "443", "BUCKET_REGION": ""} | (address or {})
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
        self.made.add(bucket)
        meta = {"name": name, "namespace": namespace, "finalizers": [HOLD], "labels": {"bucket-provisioner": "test"}}
        keys = {"AWS_ACCESS_KEY_ID": "testing-id", "AWS_SECRET_ACCESS_KEY": "testing-key"}
        secret = {word: base64.b64encode(value.encode()).decode() for word, value in keys.items()}
        words = self.words | {"BUCKET_NAME": bucket}
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
        self.purged[bucket] = self.keys(bucket)
        for key in self.purged[bucket]:
            self.s3.delete_object(Bucket=bucket, Key=key)
        self.s3.delete_bucket(Bucket=bucket)

    def buckets(self) -> set[str]:
        """Those it made that are still there."""
        return self.made & {one["Name"] for one in self.s3.list_buckets()["Buckets"]}

    def keys(self, bucket: str) -> set[str]:
        return {one["Key"] for one in self.s3.list_objects_v2(Bucket=bucket).get("Contents", ())}


@contextlib.asynccontextmanager
async def running(one: Provisioner) -> AsyncIterator[Provisioner]:
    """It works meanwhile; its buckets end with it."""
    task = asyncio.create_task(one.run())
    try:
        yield one
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        for bucket in one.buckets():
            await asyncio.to_thread(one.purge, bucket)
