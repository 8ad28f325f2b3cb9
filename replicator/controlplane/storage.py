"""Which bucket a device has, and how it is told: API objects -> the bucket's words, or why there is none. Pure.

Owns: where the words stand (`places`), what counts as complete, the order in which faults are told, and their texts.
Never: reading an object, a fallback: a device whose claim is not whole has no bucket, whatever else is configured.
Source: Flotta's storage claimer and configuration assembler, tightened where they let words through that no client can
use; lib-bucket-provisioner: a claim is whole when it is Bound and names its ObjectBucket.
"""

import base64
import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from replicator.config.storage import NO_REGION, Words, storage_of
from replicator.errors import ConfigError

Object = Mapping[str, Any]
Key = tuple[str, str]
"""Namespace and name."""

MEMBER_OF = "flotta/member-of"

_MAX_PORT = 65535
_QUOTED = 32
"""Characters of a bad word that a person is shown."""


class Reason(enum.StrEnum):
    """Why a device has no bucket, as the condition StorageReady has it."""

    OBC_PENDING = "OBCPending"
    OBC_MISSING = "OBCMissing"
    OBC_FOREIGN = "OBCForeign"
    MISSING_FIELD = "MissingField"
    INVALID_FIELD = "InvalidField"
    INVALID_PORT = "InvalidPort"
    INVALID_HOST = "InvalidHost"
    EXTERNAL_NOT_FOUND = "ExternalNotFound"
    ROUTE_MISSING = "RouteMissing"
    CA_MISSING = "CAMissing"
    NO_STORAGE = "NoStorage"


@dataclass(frozen=True, slots=True)
class StorageFault:
    """No bucket: the word for machines, the sentence for people. Holds no word of a Secret."""

    reason: Reason
    text: str


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket's words as a device is told them. Those of Secrets are in base64, one layer, as Secrets hold them."""

    host: str
    port: int
    name: str
    region: str
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    ca_bundle: str = field(default="", repr=False)
    """Empty: the authorities that the device trusts anyway."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How this cluster's claims are reached from outside, and what vouches for them. The defaults are Flotta's."""

    endpoint: Literal["route", "claim", "fixed"] = "route"
    """Host of a Route, host and port of the claim's ConfigMap, or those below."""
    endpoint_host: str = ""
    endpoint_port: int = 443
    region: str = ""
    """For claims; empty: the claim's own where its endpoint is used, else none."""
    route_name: str = "s3"
    route_namespace: str = "openshift-storage"
    ca_secret: str = "router-ca"  # noqa: S105 - a name
    """The Secret with the authority of that endpoint; empty: none is told."""
    ca_namespace: str = "openshift-ingress-operator"
    ca_key: str = "tls.crt"


@dataclass(frozen=True, slots=True)
class Places:
    """Where the words of one device's bucket stand. None: nothing is read there."""

    is_claim: bool
    claim: Key | None = None
    config_map: Key | None = None
    secret: Key | None = None
    route: Key | None = None
    ca: Key | None = None


def set_of(device: Object) -> Key | None:
    """The EdgeDeviceSet whose member the device is."""
    name = _text(device, "metadata", "labels", MEMBER_OF)
    return (_text(device, "metadata", "namespace"), name) if name else None


def places(device: Object, device_set: Object | None, rules: Rules) -> Places | None:
    """Where to look; None for a device without storage. `device_set` is None for no member, or an unreadable set."""
    namespace = _text(device, "metadata", "namespace")
    if claim := _text(device, "status", "dataObc"):
        key = (namespace, claim)
        route = (rules.route_namespace, rules.route_name) if rules.endpoint == "route" else None
        ca = (rules.ca_namespace, rules.ca_secret) if rules.ca_secret else None
        return Places(is_claim=True, claim=key, config_map=key, secret=key, route=route, ca=ca)
    s3 = _spec_s3(device, device_set)
    config_map, secret = _text(s3, "configMapName"), _text(s3, "secretName")
    if not (config_map or secret):
        return None
    return Places(
        is_claim=False,
        config_map=(namespace, config_map) if config_map else None,
        secret=(namespace, secret) if secret else None,
    )


def bucket_of(
    device: Object,
    device_set: Object | None,
    *,
    claim: Object | None = None,
    config_map: Object | None = None,
    secret: Object | None = None,
    route: Object | None = None,
    ca: Object | None = None,
    rules: Rules,
) -> Bucket | StorageFault:
    """The bucket of a device, from the objects at its `places`; None is an object that is not there."""
    looked_at = places(device, device_set, rules)
    try:
        if looked_at is None:
            return StorageFault(Reason.NO_STORAGE, "storage cannot be missing")
        if not looked_at.is_claim:
            return _external(device, device_set, config_map, secret)
        _check_claim(device, claim)
        return _claimed(looked_at, config_map=config_map, secret=secret, route=route, ca=ca, rules=rules)
    except _NoBucket as exc:
        return exc.fault


class _NoBucket(Exception):
    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.fault = StorageFault(reason, text)


def _check_claim(device: Object, claim: Object | None) -> None:
    name = _text(device, "status", "dataObc")
    claim = _there(claim, "ObjectBucketClaim", name, Reason.OBC_MISSING)
    if not _is_own(device, claim):
        raise _NoBucket(Reason.OBC_FOREIGN, f'ObjectBucketClaim "{name}" is not of this device')
    if _text(claim, "metadata", "deletionTimestamp") and not _text(device, "metadata", "deletionTimestamp"):
        # What a new device of an old name would put there is about to be deleted.
        raise _NoBucket(Reason.OBC_PENDING, f'ObjectBucketClaim "{name}" is being deleted')
    phase = _text(claim, "status", "phase") or "Pending"
    if phase != "Bound":
        raise _NoBucket(Reason.OBC_PENDING, f'ObjectBucketClaim "{name}" is {_shown(phase)}, not Bound')
    if not _text(claim, "spec", "objectBucketName"):
        raise _NoBucket(Reason.OBC_PENDING, f'ObjectBucketClaim "{name}" names no ObjectBucket yet')


def _is_own(device: Object, claim: Object) -> bool:
    """Whether the claim has this device for its owner, or no owner and this device's name, as Flotta makes it.

    A status that names a neighbour's claim would hand out the neighbour's credentials.
    """
    owners = _at(claim, "metadata", "ownerReferences") or ()
    if owners:
        return _text(device, "metadata", "uid") in [_text(owner, "uid") for owner in owners]
    return _text(claim, "metadata", "name") == _text(device, "metadata", "name")


def _claimed(
    looked_at: Places,
    *,
    config_map: Object | None,
    secret: Object | None,
    route: Object | None,
    ca: Object | None,
    rules: Rules,
) -> Bucket:
    _, name = looked_at.config_map or ("", "")
    config_map = _there(config_map, "ConfigMap", name, Reason.OBC_MISSING)
    bucket = _word(config_map, "BUCKET_NAME")
    if not bucket:
        raise _missing_field(config_map, "BUCKET_NAME")
    host, port, region = _endpoint(config_map, route, rules)
    secret = _there(secret, "Secret", name, Reason.OBC_MISSING)
    for key, called in (
        ("AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID"),
        ("AWS_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY_ID"),
    ):
        if not _word(secret, key):
            raise _NoBucket(Reason.MISSING_FIELD, f"Cannot get {called}")
    bundle = ""
    if looked_at.ca:
        bundle = _word(_there(ca, "Secret", looked_at.ca[1], Reason.CA_MISSING), rules.ca_key)
    return _checked(host=host, port=port, region=rules.region or region, name=bucket, secret=secret, bundle=bundle)


def _endpoint(config_map: Object, route: Object | None, rules: Rules) -> tuple[str, int, str]:
    """Host, port and region of a claim's bucket, as seen by devices."""
    if rules.endpoint == "fixed":
        return rules.endpoint_host, rules.endpoint_port, NO_REGION
    if rules.endpoint == "route":
        host = _text(_there(route, "Route", rules.route_name, Reason.ROUTE_MISSING), "spec", "host")
        if not host:
            raise _NoBucket(Reason.ROUTE_MISSING, f'Route "{rules.route_name}" has no host')
        return host, 443, NO_REGION
    host = _word(config_map, "BUCKET_HOST")
    if not host:
        raise _missing_field(config_map, "BUCKET_HOST")
    return host, _port(_word(config_map, "BUCKET_PORT") or "443"), _word(config_map, "BUCKET_REGION") or NO_REGION


def _external(
    device: Object, device_set: Object | None, config_map: Object | None, secret: Object | None
) -> Bucket | StorageFault:
    s3 = _spec_s3(device, device_set)
    config_map = _there(config_map, "ConfigMap", _text(s3, "configMapName"), Reason.EXTERNAL_NOT_FOUND)
    secret = _there(secret, "Secret", _text(s3, "secretName"), Reason.EXTERNAL_NOT_FOUND)
    for key in ("BUCKET_NAME", "BUCKET_HOST", "BUCKET_PORT", "BUCKET_REGION"):
        # The others may be empty: a host and a port have faults of their own, a region need not be.
        if not isinstance(_at(config_map, "data", key), str) or (key == "BUCKET_NAME" and not _word(config_map, key)):
            raise _missing_field(config_map, key)
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        if not _word(secret, key):
            raise _missing_field(secret, key)
    return _checked(
        host=_word(config_map, "BUCKET_HOST"),
        port=_port(_word(config_map, "BUCKET_PORT")),
        region=_word(config_map, "BUCKET_REGION"),
        name=_word(config_map, "BUCKET_NAME"),
        secret=secret,
        bundle=_word(secret, "tls.crt"),
    )


def _checked(*, host: str, port: int, region: str, name: str, secret: Object, bundle: str) -> Bucket:
    """The bucket, once the rule that devices read it by finds nothing wrong."""
    key_id, key = _word(secret, "AWS_ACCESS_KEY_ID"), _word(secret, "AWS_SECRET_ACCESS_KEY")
    values = {
        "BUCKET_HOST": host,
        "BUCKET_NAME": name,
        "BUCKET_REGION": region,
        "AWS_ACCESS_KEY_ID": _decoded(key_id, "AWS_ACCESS_KEY_ID"),
        "AWS_SECRET_ACCESS_KEY": _decoded(key, "AWS_SECRET_ACCESS_KEY"),
        "tls.crt": _decoded(bundle, "tls.crt"),
    }
    try:
        storage = storage_of(Words(config="", secret="", values=values), role="bucket", scheme="https")
    except ConfigError as exc:
        reason = Reason.INVALID_HOST if exc.where == "BUCKET_HOST" else Reason.INVALID_FIELD
        raise _NoBucket(reason, str(exc)) from None
    if "PRIVATE KEY" in values["tls.crt"]:
        bundle = base64.b64encode(storage.ca_pem.encode()).decode()
    return Bucket(host.strip(), port, name.strip(), region.strip(), key_id, key, bundle)


def _port(text: str) -> int:
    """The number in the words of Go's strconv.ParseUint, which people search for."""
    if not text.isascii() or not text.isdigit():
        raise _NoBucket(Reason.INVALID_PORT, f"strconv.ParseUint: parsing {_shown(text)}: invalid syntax")
    digits = text.lstrip("0") or "0"
    if len(digits) > len(str(_MAX_PORT)) or int(digits) > _MAX_PORT:
        raise _NoBucket(Reason.INVALID_PORT, f"strconv.ParseUint: parsing {_shown(text)}: value out of range")
    if digits == "0":
        raise _NoBucket(Reason.INVALID_PORT, "0 is not a valid port number")
    return int(digits)


def _decoded(text: str, word: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode()
    except ValueError:
        raise _NoBucket(Reason.INVALID_FIELD, f"{word} is not base64 of text") from None


def _there(found: Object | None, kind: str, name: str, reason: Reason) -> Object:
    if found is None:
        raise _NoBucket(reason, f'{kind} "{name}" not found')
    return found


def _missing_field(found: Object, key: str) -> _NoBucket:
    place = f"{_text(found, 'metadata', 'namespace')}/{_text(found, 'metadata', 'name')}"
    return _NoBucket(Reason.MISSING_FIELD, f"Missing field {key} in resource {place}")


def _spec_s3(device: Object, device_set: Object | None) -> Object:
    """A set's storage takes the place of its members' own, also where the set has none."""
    s3 = _at(device if device_set is None else device_set, "spec", "storage", "s3")
    return s3 if isinstance(s3, Mapping) else {}


def _word(found: Object, key: str) -> str:
    return _text(found, "data", key).strip()


def _text(found: Object, *path: str) -> str:
    value = _at(found, *path)
    return value if isinstance(value, str) else ""


def _at(found: Object, *path: str) -> Any:
    value: Any = found
    for step in path:
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _shown(text: str) -> str:
    return json.dumps(text if len(text) <= _QUOTED else f"{text[:_QUOTED]}...")
