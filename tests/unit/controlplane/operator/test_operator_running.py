"""The operator as it runs: kopf hears, workers look, the Lease lets one replica act. Real HTTP, nothing scripted."""

import asyncio

import pytest

from replicator.cluster.kinds import CLAIM, EDGE_DEVICE, EDGE_DEVICE_SET, EDGE_WORKLOAD
from replicator.controlplane.operator.desired import FINALIZER
from replicator.controlplane.operator.fleet import Fleet
from replicator.controlplane.operator.hearing import Hearing
from replicator.controlplane.operator.line import Line
from replicator.errors import LeaseLost

ASKS = {"createOBC": True}
# What is heard


@pytest.fixture
def hearing():
    return Hearing(Line(), Fleet())


def device(name="camera", *, labels=None, generation=1, finalizers=(), leaves="", **status):
    metadata = {"name": name, "namespace": "fleet", "uid": "1", "generation": generation, "labels": labels or {}}
    metadata["finalizers"] = list(finalizers)
    if leaves:
        metadata["deletionTimestamp"] = leaves
    return {"metadata": metadata, "status": status}


async def heard(hearing, *events):
    """Which devices are in line after these events, once all from before were looked at."""
    line = hearing._line
    for kind, found in events:
        hearing.hear(kind, found, False)
    keys = []
    while len(line):
        keys.append(await line.take())
        line.done(keys[-1])
    return [name for _, name in keys]


async def test_heartbeat_costs_no_look(hearing):
    """What a device tells of itself, and conditions of whoever, put nothing into the line."""
    assert await heard(hearing, (EDGE_DEVICE, device())) == ["camera"]

    told = device(phase="up", replication={"pendingBytes": 5, "drainedAt": "2026-11-23T12:00:00Z"}, conditions=[{}])
    assert await heard(hearing, (EDGE_DEVICE, device()), (EDGE_DEVICE, told)) == []


@pytest.mark.parametrize(
    "changed",
    [
        device(generation=2),
        device(labels={"flotta/member-of": "cameras"}),
        device(dataObc="camera"),
        device(finalizers=[FINALIZER]),
        device(leaves="2026-11-23T12:00:00Z"),
        device() | {"metadata": device()["metadata"] | {"uid": "2"}},
    ],
    ids=["spec", "labels", "dataObc", "finalizer", "deletion", "uid"],
)
async def test_change_that_matters_to_the_storage_is_looked_at(hearing, changed):
    """Spec, labels, claim, finalizer, deletion, and another object of the same name."""
    await heard(hearing, (EDGE_DEVICE, device()))

    assert await heard(hearing, (EDGE_DEVICE, changed)) == ["camera"]


async def test_drain_of_a_device_that_leaves_is_looked_at(hearing):
    """Then, and only then, what it tells decides."""
    leaves = "2026-11-23T12:00:00Z"
    await heard(hearing, (EDGE_DEVICE, device(leaves=leaves)))

    drained = device(leaves=leaves, replication={"drainedAt": leaves})
    assert await heard(hearing, (EDGE_DEVICE, drained)) == ["camera"]


async def test_set_and_claim_concern_their_devices(hearing):
    """A set its members, a claim the device of its name, a claim of nobody's nobody."""
    member = {"flotta/member-of": "cameras"}
    await heard(hearing, (EDGE_DEVICE, device("a", labels=member)), (EDGE_DEVICE, device("b")))
    cameras, claim = device("cameras"), device("b")

    assert await heard(hearing, (EDGE_DEVICE_SET, cameras)) == ["a"]
    assert await heard(hearing, (CLAIM, claim)) == ["b"]
    assert await heard(hearing, (CLAIM, device("c")), (EDGE_WORKLOAD, device("d"))) == []


async def test_device_that_is_gone_is_forgotten(hearing):
    """Neither it nor its set's events come to the line any more; made again, it is new."""
    await heard(hearing, (EDGE_DEVICE, device()))
    hearing.hear(EDGE_DEVICE, device(), True)

    assert await heard(hearing, (CLAIM, device())) == []
    assert await heard(hearing, (EDGE_DEVICE, device())) == ["camera"]


# The whole


@pytest.mark.slow
async def test_operator_gives_and_takes_back(site, settings, caplog):
    """A device that was there, one that comes later, a claim that is bound, one that leaves; nothing to warn of."""
    site.device("early", s3=ASKS)
    async with site.operator(settings, unregister_grace_s=0.0):
        await site.until(lambda: site.get("objectbucketclaims", "early"))
        site.device("late", s3=ASKS)
        await site.until(lambda: site.get("objectbucketclaims", "late"))

        site.bind("late")
        await site.until(lambda: site.ready("late") == ("True", "OBCBound"))

        site.server.delete("edgedevices", "fleet", "late")
        await site.until(lambda: site.get("objectbucketclaims", "late") is None)
        await site.until(lambda: FINALIZER not in site.get("edgedevices", "late")["metadata"]["finalizers"])
        assert site.get("objectbucketclaims", "early")
        assert "kopf" not in str(site.get("edgedevices", "early"))
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == []


@pytest.mark.slow
@pytest.mark.fault("E1")
async def test_operator_hears_on_after_closed_watches_and_a_compaction(site, settings):
    """Whatever ends a watch, what happened meanwhile is heard."""
    site.device("early", s3=ASKS)
    async with site.operator(settings):
        await site.until(lambda: site.get("objectbucketclaims", "early"))

        site.server.stop()
        site.device("meanwhile", s3=ASKS)
        site.server.compact()
        site.server.start()

        await site.until(lambda: site.get("objectbucketclaims", "meanwhile"))


@pytest.mark.slow
@pytest.mark.fault("E6")
async def test_of_two_operators_one_writes_until_it_dies(site, settings):
    """Each write of the first is its own; when its Lease is lost it ends, and the second goes on where it was."""
    async with site.operator(settings) as first:
        await site.until(lambda: site.server.list("leases", "default") and site.server.watching("edgedevices"))
        holder = site.server.list("leases", "default")[0]["spec"]["holderIdentity"]
        async with site.operator(settings) as second:
            for number in range(5):
                site.device(f"camera-{number}", s3=ASKS)
            await site.until(lambda: len(site.server.list("objectbucketclaims", "fleet")) == 5)
            await site.until(lambda: all(site.ready(f"camera-{number}")[0] for number in range(5)))
            assert site.server.watching("edgedevices") == 1
            assert site.writes().count(("apply", "objectbucketclaims")) == 5
            assert site.writes().count(("patch", "edgedevices")) == 5

            stolen = {"holderIdentity": "somebody", "leaseDurationSeconds": 1}
            site.server.edit("leases", "default", settings.lease_name, {"spec": stolen})
            with pytest.raises(LeaseLost):
                await asyncio.wait_for(first, 30)
            site.device("after", s3=ASKS)
            await site.until(lambda: site.get("objectbucketclaims", "after"))
            assert site.server.list("leases", "default")[0]["spec"]["holderIdentity"] not in {holder, "somebody"}
            assert not second.done()
