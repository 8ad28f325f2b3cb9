"""Checks of an endpoint and of the bucket on it: its name, connection and clock; what the credentials allow.

Leaves nothing behind: the only upload is aborted before it is an object. Never: the device, another target's files.
"""

import statistics
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from functools import partial

from replicator.config.settings import Settings
from replicator.doctor.findings import Answer, Check, failed, ok, warning
from replicator.doctor.profile import trials
from replicator.engine import limits_of
from replicator.errors import Permanent, TransferError, Unavailable
from replicator.model import Direction, Storage, Target
from replicator.observe import logs, words
from replicator.report import url_of
from replicator.stores.objects import ObjectStore
from replicator.stores.s3 import reach
from replicator.stores.s3.engine import open_store, why_not_obstore
from replicator.stores.s3.network import Limits

_KEY = ".replicator-doctor"
"""Beneath a target's prefix; nothing is ever stored there."""

_NOTED_S, _REFUSED_S = 60.0, 15 * 60.0
"""Stores refuse signatures that are 15 minutes off (S3 API, RequestTimeTooSkewed)."""

Opens = Callable[[], ObjectStore]
"""Gives the store, which is opened by whoever asks first."""

_TRIAL_REQUESTS = 6
"""So many requests of a trial may take as long as they may; most trials have fewer."""

_RENEWAL_S = 14 * 86400.0
_ROUNDS = 3


def checks(settings: Settings, targets: Sequence[Target], *, is_writing: bool = False) -> Generator[Check, None, None]:
    """Every check of every endpoint; those of its targets come after its own, and its trials last.

    `is_writing` allows trials that make objects, beneath the first egress target's prefix.
    """
    for storage in dict.fromkeys(target.storage for target in targets):
        here = [target for target in targets if target.storage == storage]
        yield from _of(settings, storage, here)
        yield from _tried(settings, storage, here, is_writing=is_writing)


def _tried(settings: Settings, storage: Storage, targets: Sequence[Target], *, is_writing: bool) -> Iterator[Check]:
    if reach.is_proxied(storage.endpoint):  # trials go by a plain connection
        return
    target = next((one for one in targets if one.direction is Direction.EGRESS), targets[0])
    limits = limits_of(settings)
    within_s = _TRIAL_REQUESTS * _once_s(limits)
    yield from trials.checks(target, limits, within_s=within_s, is_writing=is_writing)


def _of(settings: Settings, storage: Storage, targets: Sequence[Target]) -> Iterator[Check]:
    for secret in (storage.access_key_id, storage.secret_access_key, storage.session_token):
        logs.hide(secret)
    opened: list[ObjectStore] = []

    def store() -> ObjectStore:
        if not opened:
            opened.append(open_store(settings.s3_engine, storage, limits_of(settings)))
        return opened[0]

    try:
        yield from _reached(storage, limits_of(settings))
        why_not = partial(why_not_obstore, settings.s3_engine, storage)
        yield from _served(storage, targets, limits_of(settings), store=store, why_not=why_not)
    finally:
        for one in opened:
            one.close()


def _reached(storage: Storage, limits: Limits) -> Iterator[Check]:
    endpoint, once_s = storage.endpoint, _once_s(limits)
    if reach.is_proxied(endpoint):
        yield Check("proxy", endpoint, lambda: ok("is reached through the proxy of the environment"))
        return
    yield Check("name", endpoint, partial(name, storage), is_gate=True)
    yield Check("connection", endpoint, partial(connection, storage, limits), once_s, is_gate=True, needs=endpoint)
    yield Check("clock", endpoint, partial(clock, storage, limits), once_s, needs=endpoint)


def _served(
    storage: Storage, targets: Sequence[Target], limits: Limits, *, store: Opens, why_not: Callable[[], str]
) -> Iterator[Check]:
    endpoint, once_s = storage.endpoint, _once_s(limits)
    look = partial(latency, store, str(targets[0].prefix), why_not)
    yield Check("requests", endpoint, look, _ROUNDS * once_s, is_gate=True, needs=endpoint)
    for target in targets:
        url, look_at = url_of(target), partial(bucket, store, target)
        yield Check("bucket", url, look_at, 2 * once_s, is_gate=True, needs=endpoint)
        if target.direction is Direction.EGRESS:
            yield Check("uploads", url, partial(uploads, store, target), 6 * once_s, needs=endpoint)


def _once_s(limits: Limits) -> float:
    """One request at the most, and importing what sends it."""
    return limits.connect_timeout_s + limits.read_timeout_s + 5


def name(storage: Storage) -> Answer:
    """Whether the endpoint's name leads to an address."""
    found = reach.addresses(storage)
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return ok(f"is {found[0]}{more}")


def connection(storage: Storage, limits: Limits) -> Answer:
    """Whether it takes connections, with a certificate that is trusted, and not for a few days only."""
    contact = reach.connect(storage, limits)
    found = f"connected in {_ms(contact.seconds)}"
    if contact.certificate_left_s is None:
        return ok(f"{found}, without TLS")
    found += f", certificate trusted, ends in {words.age(contact.certificate_left_s)}"
    return warning(found, "renew it") if contact.certificate_left_s < _RENEWAL_S else ok(found)


def clock(storage: Storage, limits: Limits) -> Answer:
    """How far the device's clock is from the endpoint's."""
    try:
        ahead_s = reach.clock_ahead_s(storage, limits)
    except Unavailable:  # what is not signed may be cut off; signed requests follow
        ahead_s = None
    if ahead_s is None:
        return warning("the endpoint does not tell its time", "see to it that the device's clock is set (NTP)")
    off = f"the device's clock is {words.age(abs(ahead_s))} {'ahead' if ahead_s > 0 else 'behind'}"
    if abs(ahead_s) > _REFUSED_S:
        return failed(f"{off}: the store refuses such signatures", "set the clock (NTP)")
    if abs(ahead_s) > _NOTED_S:
        return warning(off, "set the clock (NTP), before the store refuses signatures at 15 min")
    return ok("the device's clock agrees" if abs(ahead_s) < 2 else off)


def latency(store: Opens, prefix: str, why_not: Callable[[], str]) -> Answer:
    """How long an answer takes, and through which library; whatever the answer is."""
    one = store()
    seconds = []
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        with suppress(Permanent):
            one.head(prefix + _KEY)
        seconds.append(time.perf_counter() - begun)
    serving = "obstore" if one.streams else "s3fs"
    why = "" if one.streams else f" ({why_not() or 'obstore cannot reach this endpoint'})"
    return ok(f"answered in {_ms(statistics.median(seconds))} (median of {_ROUNDS}), through {serving}{why}")


def bucket(store: Opens, target: Target) -> Answer:
    """Whether the bucket is there and the credentials may list the prefix, and read what ingress reads."""
    page = next(iter(store().list(str(target.prefix))), ())
    if page and target.direction is Direction.INGRESS:
        store().head(page[0].key)
        return ok("the credentials may list and read")
    return ok("the credentials may list" + ("" if page else "; nothing is there yet"))


def uploads(store: Opens, target: Target) -> Answer:
    """Whether the credentials may write, and abort what they began; and what proves an upload."""
    one, key = store(), f"{target.prefix}{_KEY}"
    upload_id = one.create_upload(key, metadata={})
    try:
        one.abort_upload(key, upload_id)
    except TransferError as error:
        fix = "allow s3:AbortMultipartUpload, and give the bucket a rule that removes incomplete uploads"
        return warning(f"the credentials may write, but an upload cannot be aborted: {error}", fix)
    if one.is_checking_uploads(key):
        return ok("the credentials may write; the store checks what it is sent")
    return ok("the credentials may write; the store checks no checksums, so ETags alone prove an upload")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
