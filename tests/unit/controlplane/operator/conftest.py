"""An API server of our own with one namespace of devices, and what makes their objects."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import SecretStr

from replicator.cluster.client import Cluster
from replicator.cluster.lease import Timing
from replicator.controlplane.operator.main import serve
from replicator.controlplane.settings import OperatorSettings
from replicator.errors import LeaseLost
from tests.apiserver.server import ApiServer
from tests.waiting import eventually

FLOTTA = "management.project-flotta.io/v1alpha1"
WORDS = {"BUCKET_NAME": "camera-5a7f", "BUCKET_HOST": "s3.svc", "BUCKET_PORT": "443", "BUCKET_REGION": ""}
KEYS = {"AWS_ACCESS_KEY_ID": "a2V5aWQ=", "AWS_SECRET_ACCESS_KEY": "c2VjcmV0LWtleQ=="}

PATIENT = Timing(duration_s=60.0, renew_within_s=50.0, retry_s=0.1)
"""An outage of some seconds, or a loaded machine, does not lose the Lease."""


@dataclass(frozen=True)
class Site:
    """The API server, and short words for what stands in it."""

    server: ApiServer

    def device(self, name: str = "camera", *, s3: Any = None, labels: Any = None, **status: Any) -> dict:
        """Register a device."""
        metadata = {"name": name, "namespace": "fleet", "labels": labels or {}, "finalizers": ["device-finalizer"]}
        spec = {} if s3 is None else {"storage": {"s3": s3}}
        made = {"apiVersion": FLOTTA, "kind": "EdgeDevice", "metadata": metadata, "spec": spec}
        return self.server.put(made | ({"status": status} if status else {}))

    def put(self, api_version: str, kind: str, name: str, **parts: Any) -> dict:
        metadata = {"name": name, "namespace": "fleet"} | parts.pop("metadata", {})
        return self.server.put({"apiVersion": api_version, "kind": kind, "metadata": metadata, **parts})

    def claim(self, name: str = "camera", **parts: Any) -> dict:
        """Somebody's claim, without an owner unless its metadata says so."""
        spec = {"storageClassName": "other", "generateBucketName": name}
        return self.put("objectbucket.io/v1alpha1", "ObjectBucketClaim", name, **({"spec": spec} | parts))

    def bind(self, name: str = "camera", **words: str | None) -> None:
        """What a provisioner does once the bucket is there; a word of None is left out."""
        told = {key: value for key, value in (WORDS | words).items() if value is not None}
        self.put("v1", "Secret", name, data=KEYS)
        self.put("v1", "ConfigMap", name, data=told)
        self.server.edit("objectbucketclaims", "fleet", name, {"spec": {"objectBucketName": f"obc-fleet-{name}"}})
        self.server.edit("objectbucketclaims", "fleet", name, {"status": {"phase": "Bound"}}, subresource="status")

    def get(self, plural: str, name: str = "camera") -> Any:
        return self.server.get(plural, "fleet", name)

    def release(self, name: str = "camera") -> None:
        """Flotta's own finalizer goes."""
        kept = [one for one in self.get("edgedevices", name)["metadata"]["finalizers"] if one != "device-finalizer"]
        self.server.edit("edgedevices", "fleet", name, {"metadata": {"finalizers": kept}})

    def ready(self, name: str = "camera") -> tuple[str, str]:
        """Status and reason of the device's StorageReady."""
        conditions = (self.get("edgedevices", name).get("status") or {}).get("conditions") or ()
        return next(((one["status"], one["reason"]) for one in conditions if one["type"] == "StorageReady"), ("", ""))

    def events(self) -> list[tuple[str, str]]:
        return sorted((one["type"], one["reason"]) for one in self.server.list("events", "fleet"))

    def writes(self) -> list[tuple[str, str]]:
        """Every write that came, but those of Events and the Lease."""
        return [
            (one.verb, f"{one.plural}/{one.subresource}".rstrip("/"))
            for one in self.server.requests
            if one.verb not in {"get", "list", "watch"} and one.plural not in {"events", "leases"}
        ]

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Wait for what has to come; what it gave."""
        return await eventually(condition)

    @contextlib.asynccontextmanager
    async def operator(self, settings: OperatorSettings, **changes: Any) -> AsyncIterator[asyncio.Task[None]]:
        """An operator beside the test; gives its task."""
        access = self.server.access(fixed_token=SecretStr("operator"))
        task = asyncio.create_task(serve(settings.model_copy(update=changes), access, timing=PATIENT))
        try:
            yield task
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, LeaseLost):
                await task


@pytest.fixture
def site() -> Iterator[Site]:
    with ApiServer() as server:
        yield Site(server)


@pytest.fixture
async def cluster(site) -> AsyncIterator[Cluster]:
    async with Cluster(site.server.access()) as made:
        yield made


@pytest.fixture
def settings() -> OperatorSettings:
    """Claims are told by their own words, so that neither Route nor authority has to be there."""
    return OperatorSettings(endpoint="claim", ca_secret="", storage_class="buckets", http_listen="")
