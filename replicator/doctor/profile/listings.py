"""Trials with listings: whether what they say can be followed, and how old a signature may be.

Source: S3 API, ListObjectsV2 (UTF-8 binary order, EncodingType, ContinuationToken); RequestTimeTooSkewed.
"""

from collections.abc import Iterator

from replicator.doctor.findings import Answer, failed, ok, warning
from replicator.doctor.profile.objects import said
from replicator.errors import TransferError
from replicator.stores.s3.answers import Page
from replicator.stores.s3.direct import Reply
from replicator.stores.s3.sandbox import Sandbox, text_in

_BESIDE = "list2"
_PLACE = "list/"
_NAMES = tuple(_PLACE + name for name in ("Z", "a b+%41", "a-", "a/b", "\ufffd", "\U0001f600"))
"""In byte order; the last two stand the other way round where a store sorts by UTF-16."""

_AGE_S = 20 * 60.0
_PAGE_KEYS = 2


def pages(box: Sandbox) -> Answer:
    """A listing page by page, as ingress reads it."""
    stored = [name for name in _NAMES if box.put(name).status == 200]
    box.put(_BESIDE)
    try:
        found = [[entry.key.removeprefix(box.prefix) for entry in page.objects] for page in _pages(box)]
    except TransferError as error:
        fix = "use a bucket that lists in byte order (no directory bucket), and no proxy that changes listings"
        return failed(str(error).partition(" (")[0], fix, effect="ingress reads no such listing: nothing is fetched")
    if [name for page in found for name in page] != stored:
        effect = "what is not listed is not fetched; nothing is deleted for it"
        text = f"of {len(stored)} objects {sum(map(len, found))} are listed, or under other names"
        return failed(text, "see whether the store lists at once what it has stored", effect=effect)
    first = box.list(_PLACE, query={"start-after": box.prefix + stored[0]})
    notes = "" if max(map(len, found)) <= _PAGE_KEYS else "; the size of a page is not as asked for"
    notes += "" if stored[0] not in _keys(box, first) else "; start-after is ignored, which is not used"
    if text_in(first.body, "EncodingType") != "url":
        effect = "one key with a control character makes the listing unreadable, and its target stands still"
        return warning(f"keys are not encoded as asked for{notes}", "allow no such keys in the bucket", effect=effect)
    return ok(f"complete, page by page, in byte order, keys encoded{notes}", effect="every object is found")


def _pages(box: Sandbox) -> Iterator[Page]:
    """Each page, trusted as far as the engine trusts it. Raises Unavailable."""
    after, token = "", ""
    for _ in range(len(_NAMES) + 1):
        query = {"max-keys": str(_PAGE_KEYS)} | ({"continuation-token": token} if token else {})
        page = box.page(box.list(_PLACE, query=query), name=_PLACE, after=after)
        yield page
        after, token = (page.objects[-1].key if page.objects else after), page.token
        if not token:
            return


def _keys(box: Sandbox, reply: Reply) -> list[str]:
    try:
        return [entry.key.removeprefix(box.prefix) for entry in box.page(reply, name=_PLACE).objects]
    except TransferError:
        return []


def old_signature(box: Sandbox) -> Answer:
    """Whether the store looks at the clock of who signs."""
    reply = box.list("none", age_s=_AGE_S, query={"max-keys": "1"})
    if reply.status == 200:
        return ok("one of 20 min ago is taken", effect="a device's clock may be off here")
    return ok(f"one of 20 min ago is refused ({said(reply)})", effect="the device's clock must be right")
