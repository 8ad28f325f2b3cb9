"""Trials with multipart uploads: what resuming depends on, and what the store refuses.

Source: S3 API, CreateMultipartUpload, UploadPart, ListParts, CompleteMultipartUpload, AbortMultipartUpload.
"""

import hashlib

from replicator.checksum import composite_etag
from replicator.doctor.findings import Answer, failed, ok, warning
from replicator.doctor.profile.objects import etag_in, said
from replicator.errors import Retryable
from replicator.stores.s3.sandbox import Sandbox, text_in

_NAME = "upload"
_BODIES = (b"one", b"two", b"three")


def parts(box: Sandbox) -> Answer:
    """Parts without an object: sent, listed page by page, thrown away, and unknown from then on."""
    upload_id = box.begin(_NAME)
    etags = [etag_in(box.part(_NAME, upload_id, number, body)) for number, body in enumerate(_BODIES, start=1)]
    first = box.parts(_NAME, upload_id, query={"max-parts": "2"})
    marker = text_in(first.body, "NextPartNumberMarker")
    is_paged = text_in(first.body, "IsTruncated") == "true" and marker == "2"
    second = box.parts(_NAME, upload_id, query={"part-number-marker": marker or "2"})
    aborted, again = box.abort(_NAME, upload_id), box.abort(_NAME, upload_id)
    late = _late(box, upload_id)
    if not all(etags):
        return failed("a part is stored without an ETag", "use another store", effect="no large file can be sent")
    if aborted.status not in (200, 204):
        fix = "allow s3:AbortMultipartUpload, and give the bucket a rule that removes incomplete uploads"
        return warning(f"cannot be thrown away ({said(aborted)})", fix, effect="parts of cut uploads stay and cost")
    if late != "404":
        found = f"a part of an upload that is no more is answered with {late}, not with 404"
        fix = "let no rule of the bucket remove uploads sooner than the longest outage lasts"
        return warning(found, fix, effect="a cut upload that the store has forgotten may never go on")
    listed = "listed in pages" if is_paged and text_in(second.body, "PartNumber") == "3" else "not listed in pages"
    twice = "" if again.status in (200, 204, 404) else f"; thrown away twice: {said(again)}"
    return ok(f"taken, {listed}, thrown away{twice}", effect="cut uploads go on after their last part, and leave none")


def _late(box: Sandbox, upload_id: str) -> str:
    """How a part is answered that comes after all was thrown away; a word of ours where the store fails."""
    try:
        return str(box.part(_NAME, upload_id, 1, _BODIES[0]).status)
    except Retryable:
        return "a failure of the store"


def completed(box: Sandbox) -> Answer:
    """An upload of one part, published: its ETag, and what a second publishing says after a lost answer."""
    upload_id = box.begin(_NAME)
    etag = etag_in(box.part(_NAME, upload_id, 1, _BODIES[0]))
    done = box.complete(_NAME, upload_id, [(1, etag)])
    told = text_in(done.body, "ETag").strip('"')
    again = box.complete(_NAME, upload_id, [(1, etag)])
    found = etag_in(box.head(_NAME))
    if done.status != 200 or done.code or not told:
        return failed(f"is refused ({said(done)})", "see the store's own log", effect="no large file can be sent")
    if found != told or box.get(_NAME).body != _BODIES[0]:
        effect = "each large file looks like another version: it does not come in step"
        return failed("becomes an object of another ETag or content", "use another store", effect=effect)
    if again.status not in (200, 404):
        twice = f"a second time is answered with {said(again)}"
        return warning(twice, "use another store", effect="a lost answer makes a large file be sent again")
    expected = composite_etag([hashlib.md5(_BODIES[0], usedforsecurity=False).digest()])
    if told == expected:
        effect = "it proves large uploads; a lost answer is settled by a look at the object"
        return ok("has the MD5 of its parts' digests as ETag", effect=effect)
    effect = "large uploads are proven by the store's checksums only; one whose answer is lost is sent again"
    return ok("has an ETag of the store's own", effect=effect)


def mistaken(box: Sandbox) -> Answer:
    """What is refused: the ETag of another part, parts in the wrong order, parts that are too small."""
    wrong = box.begin(_NAME)
    etag = etag_in(box.part(_NAME, wrong, 1, _BODIES[0]))
    other = box.complete(_NAME, wrong, [(1, hashlib.md5(b"other", usedforsecurity=False).hexdigest())])
    order = box.begin(_NAME)
    etags = [etag_in(box.part(_NAME, order, number, body)) for number, body in enumerate(_BODIES[:2], start=1)]
    turned = box.complete(_NAME, order, [(2, etags[1]), (1, etags[0])])
    small = box.begin(_NAME)
    etags = [etag_in(box.part(_NAME, small, number, body)) for number, body in enumerate(_BODIES[:2], start=1)]
    tiny = box.complete(_NAME, small, [(1, etags[0]), (2, etags[1])])
    told = [
        f"{what} {'taken' if reply.status == 200 and not reply.code else f'refused ({said(reply)})'}"
        for what, reply in (("another part's ETag is", other), ("wrong order is", turned), ("small parts are", tiny))
    ]
    is_careful = bool(etag) and (other.status != 200 or bool(other.code))
    effect = "a damaged upload is refused" if is_careful else "a damaged upload is found by its ETag alone"
    return ok(", ".join(told), effect=effect + "; parts have 5 MiB or more")
