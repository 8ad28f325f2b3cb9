"""A report in the status of the EdgeDevice: on the object as it is now, and on no other."""

import pytest

from replicator.cluster.client import Cluster
from replicator.config.sources.device_status import tell
from replicator.errors import ClusterError, Conflict
from replicator.observe.standing import Report, Stand, Standing
from tests.apiserver.server import ApiServer

NOW_TS = 1_800_000_000.0
SENT = Report((Standing("os-stats", Stand.SYNCED, last_upload_ts=NOW_TS),), is_drained=False, at_ts=NOW_TS)
NAME = {"namespace": "factory", "name": "gateway-7"}


@pytest.fixture
def server():
    with ApiServer() as one:
        yield one


@pytest.fixture
async def cluster(server):
    async with Cluster(server.access()) as one:
        yield one


@pytest.fixture
def uid(server) -> str:
    device = {
        "apiVersion": "management.project-flotta.io/v1alpha1",
        "kind": "EdgeDevice",
        "metadata": NAME | {"finalizers": ["device-finalizer"]},
        "spec": {},
    }
    uid: str = server.put(device)["metadata"]["uid"]
    status = {"dataObc": "gateway-7", "workloads": [{"name": "os-stats", "phase": "Running"}]}
    server.edit("edgedevices", "factory", "gateway-7", {"status": status}, subresource="status")
    return uid


def status_at(server) -> dict:
    status: dict = server.get("edgedevices", "factory", "gateway-7")["status"]
    return status


async def test_status_has_the_report_beside_what_others_wrote(server, cluster, uid):
    """Totals, conditions, the workload's last upload; Flotta's fields stay."""
    assert await tell(cluster, SENT, uid=uid, **NAME)

    status = status_at(server)
    assert status["dataObc"] == "gateway-7"
    assert status["workloads"] == [{"name": "os-stats", "phase": "Running", "lastDataUpload": "2027-01-15T08:00:00Z"}]
    assert status["replication"]["pendingFiles"] == 0
    assert [one["type"] for one in status["conditions"] if one["status"] == "True"] == ["Synced"]


@pytest.mark.fault("E5")
async def test_object_that_moved_is_read_again(server, cluster, uid):
    """A conflict is answered with the object as it is now; one that never ends is told."""
    server.answer(409, plural="edgedevices", method="PATCH", times=2)
    assert await tell(cluster, SENT, uid=uid, **NAME)
    assert status_at(server)["replication"]["reportedAt"] == "2027-01-15T08:00:00Z"

    server.answer(409, plural="edgedevices", method="PATCH", times=100)
    with pytest.raises(Conflict):
        await tell(cluster, SENT, uid=uid, **NAME)


@pytest.mark.fault("E5")
async def test_what_others_write_meanwhile_is_not_lost(server, uid):
    """Between our look and our patch Flotta writes its list: ours is made anew from that."""

    class Late(Cluster):
        is_late = True

        async def patch(self, *words, **more):
            if self.is_late:
                self.is_late = False
                theirs = {"workloads": [{"name": "os-stats", "phase": "Exited"}]}
                server.edit("edgedevices", "factory", "gateway-7", {"status": theirs}, subresource="status")
            return await super().patch(*words, **more)

    async with Late(server.access()) as cluster:
        assert await tell(cluster, SENT, uid=uid, **NAME)

    (workload,) = status_at(server)["workloads"]
    assert (workload["phase"], workload["lastDataUpload"]) == ("Exited", "2027-01-15T08:00:00Z")


@pytest.mark.fault("E5")
@pytest.mark.parametrize("status", [403, 422, 500])
async def test_status_that_may_not_be_written_is_told_once(server, cluster, uid, status):
    """No second attempt: the right is missing, or the object breaks a rule; the next report tries again."""
    server.answer(status, plural="edgedevices", method="PATCH", times=100)

    with pytest.raises(ClusterError) as caught:
        await tell(cluster, SENT, uid=uid, **NAME)
    assert caught.value.status == status
    assert server.count("patch", "edgedevices") == 1


async def test_another_device_of_the_name_is_told_nothing(server, cluster, uid):
    """A device that was made again has a state of its own; one that is gone has none."""
    assert not await tell(cluster, SENT, uid="another", **NAME)
    assert "replication" not in status_at(server)
    assert not await tell(cluster, SENT, uid=uid, namespace="factory", name="nobody")


async def test_drained_is_never_before_the_deletion(server, cluster, uid):
    """The device's clock may be behind; what it drained after it saw the deletion was drained after it."""
    server.delete("edgedevices", "factory", "gateway-7")
    deleted = server.get("edgedevices", "factory", "gateway-7")["metadata"]["deletionTimestamp"]
    early = Report((), is_drained=True, at_ts=1.0)

    assert await tell(cluster, early, uid=uid, **NAME)
    assert status_at(server)["replication"]["drainedAt"] == deleted
    assert await tell(cluster, Report((), is_drained=True, at_ts=4e9), uid=uid, **NAME)
    assert status_at(server)["replication"]["drainedAt"] > deleted
