"""What the operator counts of devices: which have no bucket and why, which leave, and whose time was over."""

import pytest

from replicator.cluster.kinds import EDGE_DEVICE
from replicator.controlplane.operator.main import Operator
from replicator.observe.operator_metrics import OperatorMetrics

KEY = ("fleet", "camera")
ASKS = {"createOBC": True}


class Counted:
    """An operator that hears of a device, looks, and tells its numbers."""

    def __init__(self, operator: Operator, site) -> None:
        self._operator, self._site = operator, site

    async def look(self) -> None:
        self._operator._hearing.hear(EDGE_DEVICE, self._site.get("edgedevices"), False)
        await self._operator.reconcile(KEY)

    def above_zero(self) -> dict[str, float]:
        """Each series of these that is not 0, without what all their names begin with."""
        self._operator.publish()
        lines = self._operator._metrics.render().decode().splitlines()
        named = ("devices_without_bucket", "leaving_devices", "overdue_drains")
        found = {}
        for line in lines:
            name, _, value = line.removeprefix("replicator_operator_").rpartition(" ")
            if name.startswith(named) and float(value):
                found[name] = float(value)
        return found


@pytest.fixture
def counted(cluster, settings, site) -> Counted:
    return Counted(
        Operator(cluster, settings.model_copy(update={"unregister_grace_s": 900.0}), OperatorMetrics()), site
    )


@pytest.fixture
def impatient(cluster, settings, site) -> Counted:
    return Counted(Operator(cluster, settings.model_copy(update={"unregister_grace_s": 0.0}), OperatorMetrics()), site)


async def test_device_is_counted_by_why_it_has_no_bucket(site, counted):
    """From the claim that is asked for to the bucket that is there; what contradicts itself is counted as refused."""
    site.device(s3=ASKS)
    await counted.look()
    assert counted.above_zero() == {'devices_without_bucket{reason="OBCPending"}': 1}

    site.bind()
    await counted.look()
    assert counted.above_zero() == {}

    site.server.delete("edgedevices", "fleet", "camera")
    site.release()
    site.server.edit("edgedevices", "fleet", "camera", {"metadata": {"finalizers": None}})
    site.device(s3=ASKS | {"secretName": "keys"})
    await counted.look()
    assert counted.above_zero() == {'devices_without_bucket{reason="StorageRefused"}': 1}


async def test_device_that_leaves_is_counted_until_it_is_gone(site, counted):
    """Draining while its claim waits, going while that is deleted; drained in time, nothing is overdue."""
    site.device(s3=ASKS)
    await counted.look()
    site.server.edit(
        "objectbucketclaims", "fleet", "camera", {"metadata": {"finalizers": ["objectbucket.io/finalizer"]}}
    )
    site.server.delete("edgedevices", "fleet", "camera")
    await counted.look()
    assert counted.above_zero() == {'leaving_devices{step="draining"}': 1}

    told = {"drainedAt": site.get("edgedevices")["metadata"]["deletionTimestamp"]}
    site.server.edit("edgedevices", "fleet", "camera", {"status": {"replication": told}}, subresource="status")
    for _ in range(2):
        await counted.look()
        assert counted.above_zero() == {'leaving_devices{step="going"}': 1}

    counted._operator._hearing.forget(KEY)
    assert counted.above_zero() == {}


async def test_claim_that_goes_before_all_is_sent_is_counted(site, impatient):
    """The time is over and nobody has told that all is sent: files may be lost, so somebody should look."""
    site.device(s3=ASKS)
    await impatient.look()
    site.server.delete("edgedevices", "fleet", "camera")

    await impatient.look()

    assert impatient.above_zero()["overdue_drains_total"] == 1
