"""The API server of tests, and a real one where there is one: what both have to do the same is tested against both.

`REPLICATOR_TEST_KUBECONFIG` names a kubeconfig whose user may make and delete namespaces, and anything in them.
"""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from replicator.cluster.access import from_kubeconfig
from replicator.cluster.client import Cluster
from replicator.cluster.kinds import Kind, Object
from replicator.cluster.mirror import Mirror, Rhythm
from tests.apiserver.server import ApiServer

NAMESPACE = Kind("", "v1", "namespaces", "Namespace")


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as one:
        yield one


@pytest.fixture
async def cluster(server) -> AsyncIterator[Cluster]:
    async with Cluster(server.access()) as one:
        yield one


@dataclass(frozen=True)
class Place:
    """A namespace of one's own at some API server."""

    cluster: Cluster
    namespace: str

    def config_map(self, name: str, **words) -> Object:
        meta = {"name": name, "namespace": self.namespace, **words.pop("metadata", {})}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, **words}


@pytest.fixture(params=["ours", "given"])
async def place(request) -> AsyncIterator[Place]:
    """A namespace at our API server, and the same at the one that is given."""
    namespace = f"replicator-test-{uuid.uuid4().hex[:8]}"
    if request.param == "ours":
        with ApiServer() as server:
            async with Cluster(server.access()) as cluster:
                yield Place(cluster, namespace)
        return
    kubeconfig = os.environ.get("REPLICATOR_TEST_KUBECONFIG")
    if not kubeconfig:
        pytest.skip("no cluster is given by REPLICATOR_TEST_KUBECONFIG")
    async with Cluster(from_kubeconfig(Path(kubeconfig))) as cluster:
        await cluster.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        yield Place(cluster, namespace)
        await cluster.delete(NAMESPACE, "", namespace)


@pytest.fixture
def quick() -> Rhythm:
    """Without pauses that a test would have to sit out; a list comes when something breaks, never by time."""
    return Rhythm(resync_s=3600, doubt_s=3600, pause_s=lambda failures: 0.01)


@pytest.fixture
async def mirror(cluster) -> AsyncIterator[Callable[..., Mirror]]:
    """Starts mirrors, and ends them with the test."""
    tasks: list[asyncio.Task] = []

    def start(kind: Kind, namespace: str = "", **words) -> Mirror:
        one = Mirror(cluster, kind, namespace, **words)
        tasks.append(asyncio.create_task(one.run()))
        return one

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
