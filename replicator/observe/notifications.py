"""Event notifications of S3 stores: the body of a request -> names of objects that may have changed. Pure.

Reads what AWS sends (alone, or in SNS' envelope), MinIO and Ceph RGW. Never believes it: a name only leads to a look at
the bucket. Only creations and removals count, for a look of our own may be an event too.
Source: Amazon S3 User Guide, "Event message structure"; Amazon SNS Developer Guide, "HTTP/HTTPS notification JSON
format". MinIO encodes '/' in keys too; Ceph RGW sends keys as they are.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

MAX_CHANGES = 1000
"""A body that tells of more is worth a listing, which has as many keys a page."""

_TELLING = ("ObjectCreated:", "ObjectRemoved:", "LifecycleExpiration:", "ObjectLifecycle:Expiration:", "ObjectSynced:")
_AS_IT_IS = "ceph:"
"""What the event source of a store begins with that may not encode keys."""
_MAX_URL_CHARS = 2048


@dataclass(frozen=True, slots=True)
class Change:
    """An object that may have come, changed or gone."""

    bucket: str
    key: str


@dataclass(frozen=True, slots=True)
class Notice:
    """What one body says. `ignored` counts records that tell of no such change."""

    changes: tuple[Change, ...] = ()
    ignored: int = 0
    is_flood: bool = False
    """More than MAX_CHANGES records, of which none was read."""
    is_subscription: bool = False
    """SNS asks whether we want its notifications: somebody has to open `confirm_url` once."""
    confirm_url: str = ""


def notice_of(body: bytes) -> Notice:
    """What `body` says. Raises ValueError, with one sentence, when it is no notification of an S3 store."""
    said = _mapping(body)
    match said.get("Type"):
        case "SubscriptionConfirmation":
            return Notice(is_subscription=True, confirm_url=_url(said.get("SubscribeURL")))
        case "UnsubscribeConfirmation":
            return Notice()
        case "Notification":
            said = _mapping(said.get("Message"))
    if said.get("Event") == "s3:TestEvent":
        return Notice()
    records = said.get("Records")
    if not isinstance(records, list):
        raise ValueError("the body has no list of Records")  # noqa: TRY004 -- the caller knows one kind of complaint
    if len(records) > MAX_CHANGES:
        return Notice(is_flood=True)
    found = [tuple(_changes(record)) for record in records]
    return Notice(tuple(change for changes in found for change in changes), ignored=found.count(()))


def _mapping(text: Any) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        raise ValueError("the body is not JSON") from None
    if not isinstance(said, dict):
        raise ValueError("the body is no JSON object")  # noqa: TRY004 -- the same
    return said


def _changes(record: Any) -> Iterator[Change]:
    """The object of one record; in both spellings where it is not known which one was sent."""
    match record:
        case {"eventName": str(event), "s3": {"bucket": {"name": str(bucket)}, "object": {"key": str(key)}}}:
            if not event.removeprefix("s3:").startswith(_TELLING):
                return
            try:
                decoded = unquote_plus(key, errors="strict")
            except UnicodeDecodeError:
                decoded = key
            yield Change(bucket, decoded)
            if decoded != key and str(record.get("eventSource")).startswith(_AS_IT_IS):
                yield Change(bucket, key)


def _url(given: Any) -> str:
    """A URL that may be shown to a person; '' for anything else."""
    is_fit = isinstance(given, str) and given.startswith("https://") and given.isprintable()
    return given if is_fit and len(given) <= _MAX_URL_CHARS else ""
