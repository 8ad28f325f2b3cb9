"""What a look at a device leads to, at a real API server: claims, finalizers, status and Events."""

import asyncio
import math

import pytest

from replicator.cluster.kinds import EDGE_DEVICE, EDGE_WORKLOAD
from replicator.controlplane.operator.desired import FINALIZER
from replicator.controlplane.operator.driver import carry_out
from replicator.controlplane.operator.main import Operator
from replicator.controlplane.settings import OperatorSettings
from replicator.errors import ClusterError, Conflict, Forbidden, Invalid
from replicator.observe.operator_metrics import OperatorMetrics

KEY = ("fleet", "camera")
ASKS = {"createOBC": True}
FLOTTA = "management.project-flotta.io/v1alpha1"


@pytest.fixture
def operator(cluster, settings):
    return Operator(cluster, settings, OperatorMetrics())


@pytest.fixture
def impatient(cluster, settings):
    """An operator that grants devices no time to drain."""
    return Operator(cluster, settings.model_copy(update={"unregister_grace_s": 0.0}), OperatorMetrics())


async def settle(operator, key=KEY, *, attempts=12):
    """Look again as the operator would, until a look neither fails nor changes anything; gives the errors."""
    errors = []
    for _ in range(attempts):
        try:
            await operator.reconcile(key)
        except ClusterError as error:
            errors.append(error)
        else:
            return errors
    raise AssertionError(f"it never settles: {errors}")


async def test_registered_device_gets_its_claim(site, operator):
    """One look: finalizer, claim with its owner, status.dataObc and the condition."""
    device = site.device(s3=ASKS)

    await operator.reconcile(KEY)

    claim, found = site.get("objectbucketclaims"), site.get("edgedevices")
    assert claim["spec"] == {"generateBucketName": "camera", "storageClassName": "buckets"}
    assert claim["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "replicator"}
    assert claim["metadata"]["ownerReferences"] == [
        {
            "apiVersion": FLOTTA,
            "kind": "EdgeDevice",
            "name": "camera",
            "uid": device["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]
    assert found["metadata"]["finalizers"] == ["device-finalizer", FINALIZER]
    assert found["status"]["dataObc"] == "camera"
    assert site.ready() == ("False", "OBCPending")


async def test_bound_claim_makes_the_storage_ready(site, operator):
    """Bound, with its object bucket, its ConfigMap and its Secret there: what devices are told is complete."""
    site.device(s3=ASKS)
    await operator.reconcile(KEY)
    site.bind()

    assert await operator.reconcile(KEY) is None

    assert site.ready() == ("True", "OBCBound")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"BUCKET_NAME": None}, "MissingField"),
        ({"BUCKET_HOST": "169.254.169.254"}, "InvalidHost"),
        ({"BUCKET_HOST": "file:///etc/passwd"}, "InvalidHost"),
        ({"BUCKET_PORT": "abc"}, "InvalidPort"),
    ],
)
@pytest.mark.fault("E7")
async def test_words_that_no_device_may_be_told_are_a_reason(site, operator, words, reason):
    """A missing word, a bad port and an address that leads elsewhere are refused by their name; an Event says so."""
    site.device(s3=ASKS)
    await operator.reconcile(KEY)
    site.bind(**words)

    assert await operator.reconcile(KEY) == 60.0

    assert site.ready() == ("False", reason)
    assert site.events() == [("Warning", reason)]


async def test_external_storage_is_judged_and_never_touched(site, operator):
    """Valid, renamed, missing and mended: the condition follows, and no finalizer or claim is made."""
    s3 = {"configMapName": "words", "secretName": "keys"}
    site.device(s3=s3)
    await operator.reconcile(KEY)
    assert site.ready() == ("False", "ExternalNotFound")

    site.put("v1", "Secret", "keys", data={"AWS_ACCESS_KEY_ID": "a2V5aWQ=", "AWS_SECRET": "c2VjcmV0LWtleQ=="})
    site.put(
        "v1",
        "ConfigMap",
        "words",
        data={"BUCKET_NAME": "b", "BUCKET_HOST": "s3.example.com", "BUCKET_PORT": "443", "BUCKET_REGION": "eu"},
    )
    await operator.reconcile(KEY)
    assert site.ready() == ("False", "MissingField")

    site.server.edit("secrets", "fleet", "keys", {"data": {"AWS_SECRET_ACCESS_KEY": "c2VjcmV0LWtleQ=="}})
    assert await operator.reconcile(KEY) is None

    assert site.ready() == ("True", "External")
    assert site.get("objectbucketclaims") is None
    assert site.get("edgedevices")["metadata"]["finalizers"] == ["device-finalizer"]


async def test_claim_and_names_at_once_are_refused_and_told_once(site, operator):
    """Nothing is made; looking again tells no second Event."""
    site.device(s3=ASKS | {"secretName": "keys"})

    await operator.reconcile(KEY)
    await operator.reconcile(KEY)

    assert site.get("objectbucketclaims") is None
    assert site.ready() == ("False", "StorageRefused")
    assert site.events() == [("Warning", "StorageRefused")]


async def test_unowned_claim_is_adopted_with_its_bucket(site, operator):
    """A claim that Flotta's own operator made gets an owner, and keeps every word of its spec and its labels."""
    device = site.device(dataObc="camera")
    labels = {"app.kubernetes.io/managed-by": "Helm"}
    spec = {"storageClassName": "other", "generateBucketName": "camera", "bucketName": "camera-5a7f"}
    site.claim(spec=spec, metadata={"labels": labels})

    await operator.reconcile(KEY)

    claim = site.get("objectbucketclaims")
    assert [owner["uid"] for owner in claim["metadata"]["ownerReferences"]] == [device["metadata"]["uid"]]
    assert claim["spec"] == spec
    assert claim["metadata"]["labels"] == labels


async def test_claim_whose_owner_was_taken_away_keeps_its_spec_when_it_is_adopted_again(site, operator):
    """A second apply of ours, which has to name what the first one set, or that would go."""
    site.device(s3=ASKS)
    await operator.reconcile(KEY)
    site.server.edit("objectbucketclaims", "fleet", "camera", {"metadata": {"ownerReferences": []}})

    await operator.reconcile(KEY)

    assert site.get("objectbucketclaims")["spec"] == {"generateBucketName": "camera", "storageClassName": "buckets"}
    assert len(site.get("objectbucketclaims")["metadata"]["ownerReferences"]) == 1


async def test_settled_device_costs_no_write(site, operator):
    """Once all is as it should be, a look only reads."""
    site.device(s3=ASKS)
    await operator.reconcile(KEY)
    site.bind()
    await operator.reconcile(KEY)
    before = site.writes()

    await operator.reconcile(KEY)

    assert site.writes() == before


# Killed anywhere

STEPS = [
    {"plural": "edgedevices", "method": "PATCH", "subresource": ""},
    {"plural": "objectbucketclaims", "verb": "apply"},
    {"plural": "edgedevices", "method": "PATCH", "subresource": "status"},
    {"plural": "edgedevices", "verb": "get"},
    {"plural": "objectbucketclaims", "verb": "get"},
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: "-".join(step.values()))
@pytest.mark.parametrize("status", [409, 422, 500, 403])
@pytest.mark.fault("E5", "E6")
async def test_provisioning_that_breaks_off_anywhere_ends_the_same(site, operator, step, status):
    """Each request in turn is refused twice; looking again ends in the same objects, once each."""
    site.device(s3=ASKS)
    site.server.answer(status, times=2, **step)

    await settle(operator)
    await settle(operator)
    await settle(operator)

    assert site.get("edgedevices")["metadata"]["finalizers"].count(FINALIZER) == 1
    assert site.get("edgedevices")["status"]["dataObc"] == "camera"
    assert len(site.server.list("objectbucketclaims", "fleet")) == 1
    assert site.ready() == ("False", "OBCPending")


@pytest.mark.parametrize("status", [403, 422])
@pytest.mark.fault("E5")
async def test_missing_right_to_the_status_does_not_stop_provisioning(site, operator, status):
    """A status that cannot be written is told in the log; finalizer and claim are there all the same."""
    site.device(s3=ASKS)
    site.server.answer(status, times=math.inf, plural="edgedevices", subresource="status")

    assert await settle(operator) == []

    assert site.get("objectbucketclaims") is not None
    assert FINALIZER in site.get("edgedevices")["metadata"]["finalizers"]


@pytest.mark.fault("E5")
async def test_events_that_cannot_be_written_stop_nothing(site, operator):
    """An Event is a courtesy."""
    site.device(s3=ASKS | {"secretName": "keys"})
    site.server.answer(403, times=math.inf, plural="events")

    assert await settle(operator) == []

    assert site.ready() == ("False", "StorageRefused")


@pytest.mark.parametrize(("status", "error"), [(403, Forbidden), (422, Invalid), (409, Conflict)])
@pytest.mark.fault("E5")
async def test_refused_claim_is_told_and_not_taken_for_made(site, operator, status, error):
    """Without the right to make claims the status names none, and an Event says what the API server said."""
    site.device(s3=ASKS)
    site.server.answer(status, times=math.inf, plural="objectbucketclaims", verb="apply")

    with pytest.raises(error):
        await operator.reconcile(KEY)

    assert "dataObc" not in (site.get("edgedevices").get("status") or {})
    assert site.events() == ([] if error is Conflict else [("Warning", "StorageRefused")])


@pytest.mark.fault("E5")
async def test_conditions_of_others_are_never_overwritten(site, operator):
    """A status that moved between look and write is a conflict: the list of conditions is written anew, not over."""
    site.device(s3=ASKS)
    await settle(operator)
    site.bind()
    world = await operator._look.at(KEY)
    ours = site.get("edgedevices")["status"]["conditions"]
    told = [*ours, {"type": "Synced", "status": "True", "lastTransitionTime": "2026-11-23T12:00:00Z"}]
    site.server.edit("edgedevices", "fleet", "camera", {"status": {"conditions": told}}, subresource="status")

    with pytest.raises(Conflict):
        await carry_out(operator._cluster, world.device, operator._plan(world))
    await settle(operator)

    types = [one["type"] for one in site.get("edgedevices")["status"]["conditions"]]
    assert sorted(types) == ["StorageReady", "Synced"]
    assert site.ready() == ("True", "OBCBound")


# Leaving


async def test_device_that_leaves_takes_its_claim_along(site, impatient):
    """Claim first, then our finalizer, never Flotta's own."""
    site.device(s3=ASKS)
    await settle(impatient)
    site.server.edit(
        "objectbucketclaims", "fleet", "camera", {"metadata": {"finalizers": ["objectbucket.io/finalizer"]}}
    )
    site.server.delete("edgedevices", "fleet", "camera")

    await settle(impatient)

    assert site.get("objectbucketclaims")["metadata"]["deletionTimestamp"]
    assert FINALIZER in site.get("edgedevices")["metadata"]["finalizers"]

    site.server.edit("objectbucketclaims", "fleet", "camera", {"metadata": {"finalizers": []}})
    await settle(impatient)

    assert site.get("objectbucketclaims") is None
    assert site.get("edgedevices")["metadata"]["finalizers"] == ["device-finalizer"]


async def test_claim_waits_for_the_drain(site, operator):
    """Within its time the claim goes only when the device has told that all is sent."""
    site.device(s3=ASKS)
    await settle(operator)
    site.server.delete("edgedevices", "fleet", "camera")

    assert 0 < await operator.reconcile(KEY) <= 900
    assert site.get("objectbucketclaims") is not None
    assert site.events() == [("Normal", "WaitingForDrain")]

    told = {"drainedAt": site.get("edgedevices")["metadata"]["deletionTimestamp"]}
    site.server.edit("edgedevices", "fleet", "camera", {"status": {"replication": told}}, subresource="status")
    await settle(operator)
    assert site.get("objectbucketclaims") is None


LEAVING = [
    {"plural": "objectbucketclaims", "verb": "delete"},
    {"plural": "edgedevices", "method": "PATCH", "subresource": ""},
    {"plural": "objectbucketclaims", "verb": "get"},
]


@pytest.mark.parametrize("step", LEAVING, ids=lambda step: "-".join(step.values()))
@pytest.mark.parametrize("status", [409, 403, 500])
@pytest.mark.fault("E5", "E6")
async def test_leaving_that_breaks_off_anywhere_ends_the_same(site, impatient, step, status):
    """Each request in turn is refused twice; in the end the claim is gone and the device may go."""
    site.device(s3=ASKS)
    await settle(impatient)
    site.server.delete("edgedevices", "fleet", "camera")
    site.server.answer(status, times=2, **step)

    for _ in range(3):
        await settle(impatient)

    assert site.get("objectbucketclaims") is None
    assert site.get("edgedevices")["metadata"]["finalizers"] == ["device-finalizer"]


@pytest.mark.fault("E4")
async def test_device_that_comes_back_starts_clean(site, impatient):
    """While the old claim is being taken down the new device waits; then it gets a claim of its own."""
    site.device(s3=ASKS)
    await settle(impatient)
    site.server.edit(
        "objectbucketclaims", "fleet", "camera", {"metadata": {"finalizers": ["objectbucket.io/finalizer"]}}
    )
    old = site.get("objectbucketclaims")["metadata"]["uid"]
    site.server.edit("edgedevices", "fleet", "camera", {"metadata": {"finalizers": []}})
    site.server.delete("edgedevices", "fleet", "camera")
    device = site.device(s3=ASKS)

    await settle(impatient)
    assert site.get("objectbucketclaims")["metadata"]["uid"] == old
    assert site.ready() == ("False", "OBCPending")
    assert "dataObc" not in site.get("edgedevices")["status"]

    site.server.edit("objectbucketclaims", "fleet", "camera", {"metadata": {"finalizers": []}})
    await settle(impatient)
    claim = site.get("objectbucketclaims")
    assert claim["metadata"]["uid"] != old
    assert [owner["uid"] for owner in claim["metadata"]["ownerReferences"]] == [device["metadata"]["uid"]]


@pytest.mark.fault("E6")
async def test_claim_that_was_made_anew_is_not_deleted_for_the_old_one(site, impatient):
    """Deletion names the uid that was looked at: a claim made in between is another object."""
    site.device(s3=ASKS)
    await settle(impatient)
    site.server.delete("edgedevices", "fleet", "camera")
    world = await impatient._look.at(KEY)
    site.server.delete("objectbucketclaims", "fleet", "camera")
    site.claim()

    with pytest.raises(Conflict):
        await carry_out(impatient._cluster, world.device, impatient._plan(world))

    assert site.get("objectbucketclaims") is not None


# Fields of strangers


@pytest.mark.parametrize("name", ["../../kube-system/secrets/token", "..", "a/b", "A", "x" * 300, "a?x=1", "%2e%2e"])
@pytest.mark.fault("E7")
async def test_no_name_leads_to_another_path(site, operator, name):
    """A name that no object can have is never asked for, in whichever field it stands."""
    site.device(s3={"configMapName": name, "secretName": name}, labels={"flotta/member-of": name}, dataObc=name)

    await settle(operator)

    asked = [one.path for one in site.server.requests if one.plural not in {"edgedevices", "events"}]
    assert asked == ["/apis/objectbucket.io/v1alpha1/namespaces/fleet/objectbucketclaims/camera"]


@pytest.mark.fault("E7")
async def test_claim_of_a_neighbour_is_no_storage(site, operator):
    """A device whose status names another device's claim is told so, and the claim stays as it was."""
    site.device("neighbour", s3=ASKS)
    await settle(operator, ("fleet", "neighbour"))
    before = site.get("objectbucketclaims", "neighbour")
    site.device(dataObc="neighbour")

    await settle(operator)

    assert site.ready() == ("False", "OBCForeign")
    assert site.get("objectbucketclaims", "neighbour") == before


# Many devices, and workloads


@pytest.mark.slow
async def test_one_bad_device_does_not_stop_the_others(site, operator):
    """What goes wrong with one is counted, put off with growing pauses, and tried again; the others are served."""
    hear = operator._hearing.hear
    for name in ("bad", "good"):
        hear(EDGE_DEVICE, site.device(name, s3=ASKS), False)
    site.server.answer(500, times=2, plural="objectbucketclaims", verb="get", name="bad")
    work = asyncio.create_task(operator._work())

    await site.until(lambda: site.get("objectbucketclaims", "bad"))
    work.cancel()

    assert site.get("objectbucketclaims", "good")
    assert 'looks_total{outcome="unreachable"} 2.0' in operator._metrics.render().decode()


async def test_device_that_is_gone_unheard_is_forgotten_at_the_next_look(site, operator):
    """An outage may swallow a deletion; the resync's look finds out."""
    operator._hearing.hear(EDGE_DEVICE, site.device(), False)
    site.release()
    site.server.delete("edgedevices", "fleet", "camera")

    await operator.reconcile(KEY)

    assert operator._hearing.devices == ()


async def test_workload_tells_where_its_devices_stand(site, operator):
    """One patch with the conditions and the sum; none while nothing changes; a conflict is tried again."""
    conditions = [{"type": "Synced", "status": "True"}]
    device = site.device(conditions=conditions, replication={"pendingBytes": 7})
    operator._hearing.hear(EDGE_DEVICE, device, False)
    spec = {"type": "pod", "deviceSelector": {}}
    workload = site.put(FLOTTA, "EdgeWorkload", "stats", spec=spec)
    operator._hearing.hear(EDGE_WORKLOAD, workload, False)
    site.server.answer(409, plural="edgeworkloads", subresource="status")

    for _ in range(3):
        await operator.tell_workloads()

    told = site.get("edgeworkloads", "stats")["status"]
    assert told["replication"] == {"devices": 1, "synced": 1, "lagging": 0, "blocked": 0, "pendingBytes": 7}
    assert {one["type"]: one["message"] for one in told["conditions"]}["Synced"] == "1 of 1 devices"
    assert site.writes().count(("patch", "edgeworkloads/status")) == 2


@pytest.mark.fault("E5")
async def test_workload_whose_status_cannot_be_written_stops_nothing(site, operator):
    """Without the right to it, the others are told all the same."""
    for name in ("a", "b"):
        workload = site.put(FLOTTA, "EdgeWorkload", name, spec={"type": "pod", "deviceSelector": {}})
        operator._hearing.hear(EDGE_WORKLOAD, workload, False)
    site.server.answer(403, plural="edgeworkloads", name="a")

    await operator.tell_workloads()

    assert "status" not in site.get("edgeworkloads", "a")
    assert site.get("edgeworkloads", "b")["status"]["conditions"]


def test_settings_default_to_what_flotta_has():
    """Without a word of ours the operator makes what Flotta's own makes, where it makes it."""
    found = OperatorSettings()

    assert (found.storage_class, found.auto_create) == ("openshift-storage.noobaa.io", False)
    assert (found.rules.route_name, found.rules.route_namespace) == ("s3", "openshift-storage")
