"""The operator's decisions, row by row: what a device's world is, and what has to be done for it."""

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicator.controlplane.operator.desired import FINALIZER, MIXED, plan
from replicator.controlplane.operator.reading import stamp, text
from replicator.controlplane.operator.world import Claim, Hold, Plan, Release, Rules, Unclaim, Verdict, World

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
LATELY = NOW - timedelta(minutes=5)
RULES = Rules("openshift-storage.noobaa.io", grace=timedelta(minutes=15))
AUTO = dataclasses.replace(RULES, auto_create=True)
READY = Verdict(is_ready=True, reason="OBCBound", message="bound")
PENDING = Verdict(is_ready=False, reason="OBCPending", message="pending")
ASKS = {"createOBC": True}
NAMES = {"configMapName": "words", "secretName": "keys"}


def device(
    s3: Any = None, *, told: str = "", held: bool = False, since: datetime | None = None, labels=None, **status: Any
) -> dict:
    metadata: dict[str, Any] = {"name": "camera", "namespace": "fleet", "uid": "uid-2", "generation": 3}
    metadata["finalizers"] = ["device-finalizer", *([FINALIZER] if held else [])]
    metadata["labels"] = labels or {}
    if since:
        metadata["deletionTimestamp"] = stamp(since)
    made: dict[str, Any] = {"metadata": metadata, "spec": {}, "status": dict(status)}
    if s3 is not None:
        made["spec"]["storage"] = {"s3": s3}
    if told:
        made["status"]["dataObc"] = told
    return made


def claim(*owners: Mapping[str, str], leaving: bool = False, name: str = "camera", **spec: str) -> dict:
    metadata: dict[str, Any] = {"name": name, "namespace": "fleet", "uid": "claim-1", "ownerReferences": list(owners)}
    if leaving:
        metadata["deletionTimestamp"] = stamp(LATELY)
    return {"metadata": metadata, "spec": {"storageClassName": "other", "generateBucketName": "camera", **spec}}


OWN = {"apiVersion": "management.project-flotta.io/v1alpha1", "kind": "EdgeDevice", "name": "camera", "uid": "uid-2"}
PREDECESSOR = OWN | {"uid": "uid-1"}
STRANGER = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "uid-9"}


def world(of: dict | None, *claims: dict, device_set: dict | None = None) -> World:
    return World(of, NOW, device_set=device_set, claims={one["metadata"]["name"]: one for one in claims})


def planned(of: World, rules: Rules = RULES, verdict: Verdict = READY) -> Plan:
    return plan(of, rules, lambda _: verdict)


def condition(of: Plan) -> tuple[str, str]:
    """Status and reason of StorageReady, as the plan writes it."""
    (found,) = [one for one in of.status["conditions"] if one["type"] == "StorageReady"]
    return found["status"], found["reason"]


def reasons(of: Plan) -> list[str]:
    return [notice.reason for notice in of.notices]


def kinds(of: Plan) -> list[type]:
    return [type(action) for action in of.actions]


# A device that is registered


@pytest.mark.parametrize(
    ("s3", "rules", "is_claimed"),
    [
        (None, RULES, False),
        ({}, RULES, False),
        ({"createOBC": False}, RULES, False),
        ({"createOBC": "true"}, RULES, False),
        (ASKS, RULES, True),
        (ASKS, AUTO, True),
        (None, AUTO, True),
        (NAMES, RULES, False),
        (NAMES, AUTO, False),
        ({"configMapName": "words"}, AUTO, False),
    ],
)
def test_device_without_a_claim_gets_one_where_it_or_the_operator_says_so(s3, rules, is_claimed):
    """createOBC or auto_create make a claim; a device that names external storage has chosen, and gets none."""
    found = planned(world(device(s3)), rules, Verdict(is_ready=False, reason="NoStorage", message="none"))

    assert kinds(found) == ([Hold, Claim] if is_claimed else [])
    assert found.status.get("dataObc") == ("camera" if is_claimed else None)
    assert condition(found) == ("False", "OBCPending" if is_claimed else "NoStorage")


def test_new_claim_is_named_and_owned_as_the_device():
    """The claim has the device's name and namespace, and the device for the owner that waits for it."""
    wanted = planned(world(device(ASKS))).actions[1].wanted

    assert wanted == {
        "apiVersion": "objectbucket.io/v1alpha1",
        "kind": "ObjectBucketClaim",
        "metadata": {
            "name": "camera",
            "namespace": "fleet",
            "labels": {"app.kubernetes.io/managed-by": "replicator"},
            "ownerReferences": [OWN | {"controller": True, "blockOwnerDeletion": True}],
        },
        "spec": {"generateBucketName": "camera", "storageClassName": "openshift-storage.noobaa.io"},
    }


@pytest.mark.parametrize("rules", [RULES, AUTO])
@pytest.mark.parametrize("names", [NAMES, {"configMapName": "words"}, {"secretName": "keys"}])
@pytest.mark.fault("E7")
def test_claim_and_names_at_once_are_refused(names, rules):
    """createOBC beside external names makes nothing: the condition and an Event say so in Flotta's own words."""
    found = planned(world(device(ASKS | names)), rules)

    assert found.actions == ()
    assert condition(found) == ("False", "StorageRefused")
    assert found.status["conditions"][0]["message"] == MIXED
    assert [(notice.reason, notice.message, notice.is_warning) for notice in found.notices] == [
        ("StorageRefused", MIXED, True)
    ]


@pytest.mark.parametrize(
    ("s3", "told", "is_adopted"), [(ASKS, "", True), (None, "camera", True), (None, "", False), (NAMES, "", False)]
)
def test_unowned_claim_is_adopted_by_the_device_that_uses_it(s3, told, is_adopted):
    """A claim without an owner becomes the device's, spec as it is, if it is wanted or in status.dataObc."""
    found = planned(world(device(s3, told=told), claim()))

    assert kinds(found) == ([Hold, Claim] if is_adopted else [])
    if is_adopted:
        wanted = found.actions[1].wanted
        assert wanted["spec"] == {"storageClassName": "other", "generateBucketName": "camera"}
        assert [owner["uid"] for owner in wanted["metadata"]["ownerReferences"]] == ["uid-2"]


@pytest.mark.parametrize(("s3", "told"), [(ASKS, ""), (ASKS, "camera"), (None, "camera")])
def test_claim_of_somebody_else_is_left_alone(s3, told):
    """A claim that another object owns is neither adopted nor used; the condition names the reason."""
    found = planned(world(device(s3, told=told), claim(STRANGER)))

    assert found.actions == ()
    assert condition(found) == ("False", "OBCForeign")
    assert reasons(found) == ["OBCForeign"]
    assert found.status.get("dataObc") is None


@pytest.mark.fault("E7")
def test_claim_of_another_device_in_the_status_is_no_storage():
    """status.dataObc that names another device's claim is refused, whatever is in that claim."""
    other = OWN | {"name": "neighbour", "uid": "uid-7"}

    found = planned(world(device(told="neighbour"), claim(other, name="neighbour")))

    assert found.actions == ()
    assert condition(found) == ("False", "OBCForeign")


@pytest.mark.parametrize("verdict", [READY, PENDING])
def test_own_claim_is_judged(verdict):
    """A claim that is the device's needs nothing but the verdict: pending, or bound with its words there."""
    found = planned(world(device(ASKS, told="camera", held=True), claim(OWN)), verdict=verdict)

    assert found.actions == ()
    assert condition(found) == (str(verdict.is_ready), verdict.reason)
    assert found.again_s == (None if verdict.is_ready else 60.0)


def test_judge_sees_the_claim_that_is_about_to_be_told():
    """The verdict is on the storage as the plan leaves it, not as it was."""
    seen = []

    def judge(found: World) -> Verdict:
        seen.append(text(found.device, "status", "dataObc"))
        return READY

    plan(world(device(ASKS), claim(OWN)), RULES, judge)

    assert seen == ["camera"]


def test_own_claim_is_told_when_nobody_told_it():
    """A crash between claim and status ends in status.dataObc all the same, also with every switch off."""
    found = planned(world(device(held=True), claim(OWN)))

    assert found.status["dataObc"] == "camera"


def test_lost_finalizer_comes_back():
    """Whoever overwrites the list of finalizers takes ours for a moment only."""
    assert kinds(planned(world(device(ASKS, told="camera"), claim(OWN)))) == [Hold]


def test_claim_that_is_gone_is_made_again_if_it_is_wanted():
    """A claim that somebody deleted comes back where a switch asks for it; else its absence is told."""
    missing = Verdict(is_ready=False, reason="OBCMissing", message="gone")

    asked = planned(world(device(ASKS, told="camera", held=True)))
    switched_off = planned(world(device(told="camera", held=True)), verdict=missing)

    assert kinds(asked) == [Claim]
    assert switched_off.actions == ()
    assert condition(switched_off) == ("False", "OBCMissing")
    assert reasons(switched_off) == ["OBCMissing"]


@pytest.mark.parametrize(
    "found", [claim(OWN, leaving=True), claim(PREDECESSOR, leaving=True), claim(PREDECESSOR), claim(leaving=True)]
)
@pytest.mark.fault("E4")
def test_claim_on_its_way_out_is_waited_for(found):
    """A device never takes over the claim of the device that had its name before: it waits until that is gone."""
    made = planned(world(device(ASKS), found))

    assert Claim not in kinds(made)
    assert condition(made) == ("False", "OBCPending")
    assert made.again_s is not None


@pytest.mark.fault("E4")
def test_reclaimed_name_starts_clean():
    """Once the predecessor's claim is gone, its name gets a claim of its own, owned by the new uid."""
    made = planned(world(device(ASKS)))

    assert kinds(made) == [Hold, Claim]
    assert made.actions[1].wanted["metadata"]["ownerReferences"][0]["uid"] == "uid-2"


# Sets


def device_set(s3: Any = None) -> dict:
    return {"metadata": {"name": "cameras"}, "spec": {} if s3 is None else {"storage": {"s3": s3}}}


MEMBER = {"flotta/member-of": "cameras"}


def test_set_replaces_the_storage_as_a_whole():
    """A set without storage of its own takes away the device's; an Event says so, for nothing else does."""
    found = planned(world(device(NAMES, labels=MEMBER), device_set=device_set()), AUTO)

    assert kinds(found) == [Hold, Claim]
    assert reasons(found) == ["SetReplacesStorage"]


def test_set_with_external_storage_speaks_for_its_devices():
    """With auto_create, a device whose set names external storage gets no claim."""
    assert planned(world(device(labels=MEMBER), device_set=device_set(NAMES)), AUTO).actions == ()


def test_claim_asked_for_by_a_set_is_not_made_and_told():
    """createOBC counts in the EdgeDevice only; in a set it is ignored, and an Event says so."""
    found = planned(world(device(labels=MEMBER), device_set=device_set(ASKS)))

    assert found.actions == ()
    assert reasons(found) == ["SetIgnored"]


def test_set_that_cannot_be_read_is_ignored_and_told():
    """The device's own storage counts then."""
    found = planned(world(device(NAMES, labels=MEMBER)), AUTO)

    assert found.actions == ()
    assert reasons(found) == ["SetMissing"]


def test_external_storage_behind_a_claim_is_told():
    """status.dataObc comes before external storage, which a person should hear of."""
    found = planned(world(device(NAMES, told="camera", held=True), claim(OWN)))

    assert reasons(found) == ["ExternalStorageUnused"]


# Status


def test_condition_moves_its_time_only_with_its_status():
    """lastTransitionTime is when the status last changed; another reason alone leaves it."""
    before = {"type": "StorageReady", "status": "False", "reason": "X", "lastTransitionTime": "2026-11-01T00:00:00Z"}
    of = world(device(told="camera", held=True, conditions=[before]), claim(OWN))

    still, turned = planned(of, verdict=PENDING), planned(of)

    assert still.status["conditions"][0]["lastTransitionTime"] == "2026-11-01T00:00:00Z"
    assert turned.status["conditions"][0]["lastTransitionTime"] == stamp(NOW)


def test_conditions_of_others_stay():
    """The list is written as a whole, so what others told goes along."""
    synced = {"type": "Synced", "status": "True"}

    found = planned(world(device(told="camera", held=True, conditions=[synced]), claim(OWN)))

    assert found.status["conditions"][0] == synced


def test_nothing_is_written_twice():
    """In a world that is as it should be there is nothing to do, and nothing to write."""
    found = device(ASKS, told="camera", held=True)
    found["status"] |= planned(world(found, claim(OWN))).status

    assert planned(world(found, claim(OWN))) == Plan()


# A device that leaves


def at_s(seconds: float) -> str:
    return stamp(LATELY + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("replication", "since", "left_s"),
    [
        ({"drainedAt": at_s(0)}, LATELY, 0),
        ({"drainedAt": at_s(60)}, LATELY, 0),
        ({"drainedAt": at_s(-1)}, LATELY, 600),
        ({"drainedAt": "soon"}, LATELY, 600),
        ({"drainedAt": 5}, LATELY, 600),
        ({"reportedAt": at_s(60), "pendingFiles": 0}, LATELY, 600),
        ({}, LATELY, 600),
        ({}, NOW - timedelta(minutes=15), 0),
        ({}, NOW - timedelta(days=1), 0),
    ],
)
def test_claim_goes_when_the_device_is_drained_or_its_time_is_over(replication, since, left_s):
    """Only a report from after the deletion counts as drained; a device that never reports has its grace."""
    of = world(device(held=True, since=since, replication=replication), claim(OWN))

    found = planned(of)

    if left_s:
        assert (found.actions, found.again_s) == ((), left_s)
        assert found.standing == "draining"
        assert [(notice.reason, notice.is_warning) for notice in found.notices] == [("WaitingForDrain", False)]
    else:
        is_overdue = not replication
        assert (found.actions, found.standing) == ((Unclaim("camera", "claim-1", is_overdue=is_overdue),), "going")


@pytest.mark.parametrize("found", [None, claim(), claim(STRANGER), claim(PREDECESSOR)])
def test_device_without_a_claim_of_its_own_goes_at_once(found):
    """External storage, and claims that are not the device's, are never touched; only our finalizer goes."""
    of = world(device(NAMES, held=True, since=LATELY), *([found] if found else []))

    assert planned(of) == Plan(actions=(Release(),))


def test_device_waits_until_its_claim_is_gone():
    """The finalizer stays while the provisioner takes the bucket down."""
    found = planned(world(device(held=True, since=NOW - timedelta(days=1)), claim(OWN, leaving=True)))

    assert found.actions == ()
    assert found.again_s


@pytest.mark.parametrize("of", [world(None), world(device(since=LATELY)), world(device(since=LATELY), claim(OWN))])
def test_what_is_not_held_is_none_of_our_business(of):
    """A device that is gone, or leaves without our finalizer, is left to Kubernetes."""
    assert planned(of) == Plan()


# Fields of strangers

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["camera", "file:///etc/passwd"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.fault("E7")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(spec=JSON, status=JSON, labels=JSON, stamp_=JSON, found=JSON)
def test_no_content_of_an_object_is_an_exception(spec, status, labels, stamp_, found):
    """Whatever stands in the fields of an object, the answer is a plan, and it never deletes what is not ours."""
    metadata = {
        "name": "camera",
        "uid": "uid-2",
        "labels": labels,
        "deletionTimestamp": stamp_,
        "finalizers": [FINALIZER],
    }
    strange = {"metadata": metadata, "spec": {"storage": {"s3": spec}}, "status": status}
    held = {"metadata": {"name": "camera", "ownerReferences": found}, "spec": spec, "status": status}

    made = plan(World(strange, NOW, claims={"camera": held}, device_set={"spec": spec}), AUTO, lambda _: READY)

    assert Unclaim not in kinds(made)
