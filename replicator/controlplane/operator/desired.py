"""What a device's storage should be, and what has to be done for it: THE OPERATOR'S DECISIONS, pure.

Level-triggered: the whole world of one device in, a plan out; whoever was interrupted asks again. A device counts as
registered while its EdgeDevice is there and not being deleted, as for Flotta itself, so that its bucket is ready when
it first asks for its configuration. A claim is the device's if it has its name and its owner is the device, or nobody.
External storage is never touched. Never: a clock, a request, a word of a Secret in a message.
Source: Flotta's storage precedence (status.dataObc, then external names); lib-bucket-provisioner's claims; Kubernetes'
ownerReferences and finalizers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from replicator.controlplane.operator.claims import Tenure, adopted, new_claim, tenure_of
from replicator.controlplane.operator.reading import (
    Object,
    at,
    is_leaving,
    mapping,
    mappings,
    moment,
    name_of,
    stamp,
    text,
    texts,
    uid_of,
)
from replicator.controlplane.operator.world import (
    DRAINING,
    GOING,
    Action,
    Claim,
    Hold,
    Judge,
    Notice,
    Plan,
    Release,
    Rules,
    Unclaim,
    Verdict,
    World,
)
from replicator.controlplane.storage import MEMBER_OF

FINALIZER = "replicator.project-flotta.io/storage"
STORAGE_READY = "StorageReady"
REFUSED = "StorageRefused"
"""The reason where what is asked for contradicts itself."""

MIXED = (
    "spec.storage.s3.createOBC=true is invalid when spec.storage.s3.secretName or spec.storage.s3.configMapName values "
    "are set.\nEither set spec.storage.s3.createOBC=false or remove the values from spec.storage.s3.secretName and "
    "spec.storage.s3.configMapName"
)

_LOOK_AGAIN_S = 60.0
"""At what is not ready: ConfigMaps and Secrets of others are not watched, so nobody tells when they are mended."""
_GOING_S = 10.0
"""At what is on its way out; its last event usually comes first."""


@dataclass(frozen=True, slots=True)
class _S3:
    """A `spec.storage.s3`."""

    has_names: bool
    creates: bool

    @classmethod
    def of(cls, found: Object | None) -> "_S3":
        s3 = mapping(found, "spec", "storage", "s3")
        return cls(bool(text(s3, "configMapName") or text(s3, "secretName")), at(s3, "createOBC") is True)


def plan(world: World, rules: Rules, judge: Judge) -> Plan:
    """What has to be done for the device, given how the world is."""
    if world.device is None:
        return Plan()
    if is_leaving(world.device):
        return _part(world.device, world, rules)
    return _keep(world.device, world, rules, judge)


def set_of(device: Object | None) -> str:
    """The name of the EdgeDeviceSet that the device is a member of, or ''."""
    return text(device, "metadata", "labels", MEMBER_OF)


def is_held(device: Object | None) -> bool:
    """Whether our finalizer is on the device."""
    return FINALIZER in texts(device, "metadata", "finalizers")


def drained_at(device: Object | None) -> datetime | None:
    """When the device told that nothing is left to send, if it did."""
    return moment(text(device, "status", "replication", "drainedAt"))


# A device that stays


def _keep(device: Object, world: World, rules: Rules, judge: Judge) -> Plan:
    name, told = name_of(device), text(device, "status", "dataObc")
    own, claim = _S3.of(device), world.claims.get(name)
    names_storage = (_S3.of(world.device_set) if world.device_set else own).has_names
    is_mixed = own.creates and own.has_names
    is_wanted = (
        not is_mixed and not (told and told != name) and (own.creates or (rules.auto_create and not names_storage))
    )
    tenure = tenure_of(claim, device)
    actions, verdict = _claim(device, claim, tenure, is_wanted=is_wanted, rules=rules)
    if verdict is None and is_mixed and not told:
        verdict = Verdict(is_ready=False, reason=REFUSED, message=MIXED)
    if tenure is Tenure.OWN or any(isinstance(action, Claim) for action in actions):
        told = name
    if not is_held(device) and told == name and (actions or tenure is Tenure.OWN):
        actions = (Hold(), *actions)
    if verdict is None:
        as_told = {**device, "status": {**mapping(device, "status"), "dataObc": told}}
        verdict = _judged(as_told, replace(world, device=as_told), judge)
    return Plan(
        actions=actions,
        status=_status(device, told, verdict, world.now),
        notices=_notices(world, own, verdict, told=told, is_mixed=is_mixed, names_storage=names_storage),
        standing="" if verdict.is_ready else verdict.reason,
        again_s=_pause_s(verdict, claim),
    )


def _claim(
    device: Object, claim: Object | None, tenure: Tenure, *, is_wanted: bool, rules: Rules
) -> tuple[tuple[Action, ...], Verdict | None]:
    """What to do about the claim of the device's name; a verdict where the claim stands in the way by itself."""
    name = name_of(device)
    is_used = is_wanted or text(device, "status", "dataObc") == name
    if not is_used and tenure is not Tenure.OWN:
        return (), None
    if tenure is Tenure.ABSENT:
        if not is_wanted:
            return (), None
        pending = Verdict(
            is_ready=False, reason="OBCPending", message=f"ObjectBucketClaim {name!r} was asked for just now"
        )
        return (Claim(new_claim(device, storage_class=rules.storage_class)),), pending
    if tenure is Tenure.FOREIGN:
        return (), _foreign(name)
    if is_leaving(claim) or tenure is Tenure.OF_PREDECESSOR:
        problem = f"ObjectBucketClaim {name!r} of before is being deleted; a new one is made when it is gone"
        return (), Verdict(is_ready=False, reason="OBCPending", message=problem)
    return ((Claim(adopted(device, claim or {})),) if tenure is Tenure.UNOWNED else ()), None


def _judged(device: Object, world: World, judge: Judge) -> Verdict:
    """The verdict on what is configured. A claim that has another device for its owner is no storage of this one."""
    told = text(device, "status", "dataObc")
    if told != name_of(device) and tenure_of(world.claims.get(told), device) in (Tenure.FOREIGN, Tenure.OF_PREDECESSOR):
        return _foreign(told)
    return judge(world)


def _foreign(name: str) -> Verdict:
    message = f"ObjectBucketClaim {name!r} belongs to another object; remove it, or give the device another name"
    return Verdict(is_ready=False, reason="OBCForeign", message=message)


def _status(device: Object, told: str, verdict: Verdict, now: datetime) -> Mapping[str, Any]:
    """The change of status that tells both; other conditions stay as they are."""
    change: dict[str, Any] = {}
    if told != text(device, "status", "dataObc"):
        change["dataObc"] = told
    conditions = mappings(device, "status", "conditions")
    found = next((one for one in conditions if text(one, "type") == STORAGE_READY), {})
    word = "True" if verdict.is_ready else "False"
    condition = {
        "type": STORAGE_READY,
        "status": word,
        "reason": verdict.reason,
        "message": verdict.message,
        "observedGeneration": at(device, "metadata", "generation") or 0,
        "lastTransitionTime": text(found, "lastTransitionTime") if text(found, "status") == word else stamp(now),
    }
    if found != condition:
        change["conditions"] = [*(one for one in conditions if text(one, "type") != STORAGE_READY), condition]
    return change


def _notices(
    world: World, own: _S3, verdict: Verdict, *, told: str, is_mixed: bool, names_storage: bool
) -> tuple[Notice, ...]:
    """What a person would want to know and no other field says."""
    notices = []
    member_of = set_of(world.device)
    if is_mixed:
        notices.append(Notice(REFUSED, MIXED))
    if member_of and world.device_set is None:
        problem = f"EdgeDeviceSet {member_of!r} cannot be read, so the device's own storage counts"
        notices.append(Notice("SetMissing", problem))
    if world.device_set and _S3.of(world.device_set).creates:
        problem = f"createOBC of EdgeDeviceSet {member_of!r} is not read; set it in the EdgeDevice"
        notices.append(Notice("SetIgnored", problem))
    if world.device_set and own.has_names:
        problem = f"EdgeDeviceSet {member_of!r} replaces spec.storage of the device as a whole"
        notices.append(Notice("SetReplacesStorage", problem))
    if told and names_storage:
        problem = f"external storage is not used: ObjectBucketClaim {told!r} of status.dataObc comes before it"
        notices.append(Notice("ExternalStorageUnused", problem))
    if not verdict.is_ready and verdict.reason not in ("OBCPending", "NoStorage", REFUSED):
        notices.append(Notice(verdict.reason, verdict.message))
    return tuple(notices)


def _pause_s(verdict: Verdict, claim: Object | None) -> float | None:
    if is_leaving(claim):
        return _GOING_S
    return None if verdict.is_ready or verdict.reason in ("NoStorage", REFUSED) else _LOOK_AGAIN_S


# A device that leaves


def _part(device: Object, world: World, rules: Rules) -> Plan:
    """The claim goes once the device has told that all is sent, or its time is over; then the device may go."""
    if not is_held(device):
        return Plan()
    claim = world.claims.get(name_of(device))
    if claim is None or tenure_of(claim, device) is not Tenure.OWN:
        return Plan(actions=(Release(),))
    if is_leaving(claim):
        return Plan(standing=GOING, again_s=_GOING_S)
    is_drained = _is_drained(device, world.now)
    left_s = 0.0 if is_drained else _left_s(device, world.now, rules.grace)
    if left_s > 0:
        problem = (
            f"ObjectBucketClaim {name_of(claim)!r} stays until the device tells that all is sent, or its time is over"
        )
        return Plan(notices=(Notice("WaitingForDrain", problem, is_warning=False),), standing=DRAINING, again_s=left_s)
    going = Unclaim(name_of(claim), uid_of(claim), is_overdue=not is_drained)
    return Plan(actions=(going,), standing=GOING, again_s=_GOING_S)


def _is_drained(device: Object, now: datetime) -> bool:
    """Whether it has told, after it was asked to leave, that all is sent."""
    drained = drained_at(device)
    return drained is not None and drained >= _asked_at(device, now)


def _left_s(device: Object, now: datetime, grace: timedelta) -> float:
    """How long the device may still send."""
    return max(0.0, (_asked_at(device, now) + grace - now).total_seconds())


def _asked_at(device: Object, now: datetime) -> datetime:
    return moment(text(device, "metadata", "deletionTimestamp")) or now
