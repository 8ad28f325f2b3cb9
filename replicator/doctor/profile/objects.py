"""Trials with single objects: whether they come back as they were sent, and what the store looks at on the way.

Source: S3 API, PutObject, GetObject (conditional requests, Range), "Checking object integrity".
"""

import base64
import hashlib

from replicator.doctor.findings import Answer, failed, ok, warning
from replicator.stores.s3.direct import Reply
from replicator.stores.s3.sandbox import Sandbox
from replicator.transfer.content import MD5_KEY, MTIME_KEY, PART_SIZE_KEY

NAME, BODY = "object", b"sent to see how this store answers"
_MD5 = hashlib.md5(BODY, usedforsecurity=False)
_OTHER = b"what its checksum is of"
_METADATA = {MTIME_KEY: "1700000000.123456789", MD5_KEY: base64.b64encode(_MD5.digest()).decode(), PART_SIZE_KEY: "1"}

_PROXY = "see whether something between here and the store changes its answers"


def said(reply: Reply) -> str:
    """An answer in one word: S3's own, else the status."""
    return reply.code or str(reply.status)


def etag_in(reply: Reply) -> str:
    return reply.headers.get("etag", "").strip('"')


def missing(box: Sandbox) -> Answer:
    """What is answered where nothing is: nothing but a 404 is read as that."""
    head, get = box.head("missing"), box.get("missing")
    if (head.status, get.status) == (404, 404):
        return ok(f"is answered with {said(get)}", effect="what is gone is told from what is refused")
    found = f"is answered with {head.status} to HEAD and {said(get)} to GET, not with 404"
    effect = "files that have to be compared with their objects fail"
    return failed(found, "allow s3:ListBucket on the bucket: without it stores hide what is missing", effect=effect)


def whole(box: Sandbox) -> Answer:
    """An object, there and back."""
    names = {f"x_amz_meta_{name.replace('-', '_')}": text for name, text in _METADATA.items()}
    put = box.put(NAME, BODY, **names)
    if put.status != 200 or not etag_in(put):
        found = f"cannot be written ({said(put)})" if put.status != 200 else "is stored without an ETag"
        return failed(found, "allow s3:PutObject beneath the prefix", effect="nothing is sent")
    head, get = box.head(NAME), box.get(NAME)
    if get.status == 403 or head.status == 403:
        fix = "allow s3:GetObject there, where files have to be compared with their objects"
        return failed("is written, but cannot be read", fix, effect="a lost journal, or a retry, makes files fail")
    length = head.headers.get("content-length", "")
    if (get.status, get.body, length) != (200, BODY, str(len(BODY))):
        return failed("does not come back as it was sent", _PROXY, effect="nothing can be trusted here")
    return ok("comes back as it was sent")


def etags(box: Sandbox) -> Answer:
    """Whether an ETag proves the content, and is the same everywhere."""
    put = box.put("etag", BODY)
    listed = [entry.etag for entry in box.page(box.list("etag"), name="etag").objects]
    told = {etag_in(put), etag_in(box.head("etag")), etag_in(box.get("etag")), *listed}
    if len(told) != 1 or not listed:
        effect = "each version looks like another one: nothing comes in step"
        return failed("differs between PUT, HEAD, GET and the listing", _PROXY, effect=effect)
    if told == {_MD5.hexdigest()}:
        return ok("is the MD5 of the object", effect="it proves uploads and downloads, and equal files are not sent")
    effect = "uploads are proven by the store's checksum only, downloads by their length"
    return ok("is no MD5 of the object", effect=effect)


def empty(box: Sandbox) -> Answer:
    """An object without a byte."""
    put, head, get = box.put("empty"), box.head("empty"), box.get("empty")
    if (put.status, get.status, get.body, head.headers.get("content-length")) == (200, 200, b"", "0"):
        return ok("is an object like any other")
    found = f"is answered with {said(put)} to PUT, {said(head)} to HEAD, {said(get)} to GET"
    return warning(found, "exclude such files, or use another store", effect="empty files are listed as failing")


def metadata(box: Sandbox) -> Answer:
    """Whether what is written beside an object stays there."""
    head = box.head(NAME)
    lost = [name for name, text in _METADATA.items() if head.headers.get(f"x-amz-meta-{name}") != text]
    if not lost:
        return ok("comes back as it was sent", effect="files get the time of their source")
    effect = "fetched files get the time when they were stored" if MTIME_KEY in lost else "less is known of contents"
    return warning(f"is lost or changed: {', '.join(lost)}", _PROXY, effect=effect)


def conditional_get(box: Sandbox) -> Answer:
    """Whether another version than the one asked for is refused."""
    right = box.get(NAME, if_match=f'"{etag_in(box.head(NAME))}"')
    if right.status != 200:
        effect = "nothing can be fetched"
        return failed(f"If-Match with the object's own ETag is answered with {said(right)}", _PROXY, effect=effect)
    other = box.get(NAME, if_match='"00000000000000000000000000000000"')
    if other.status == 412:
        return ok("another version is refused (412)", effect="no download mixes two versions")
    effect = "the ETag of each answer is compared: no download mixes versions, but a changed object costs a request"
    return ok(f"If-Match is ignored ({said(other)})", effect=effect)


def conditional_put(box: Sandbox) -> Answer:
    """Whether an object that is there can be protected from being overwritten."""
    new = box.put(NAME, BODY, if_none_match="*")
    other = box.put("etag", BODY, if_match='"00000000000000000000000000000000"')
    told = [
        f"{name} is {'refused with 412' if reply.status == 412 else f'no protection ({said(reply)})'}"
        for name, reply in (("If-None-Match", new), ("If-Match", other))
    ]
    return ok(", ".join(told), effect="not used: the device owns what it sends")


def ranges(box: Sandbox) -> Answer:
    """Whether a part of an object can be asked for."""
    if box.head(NAME).status != 200:
        box.put(NAME, BODY)
    some, beyond = box.get(NAME, range="bytes=2-5"), box.get(NAME, range=f"bytes={len(BODY)}-")
    if (some.status, some.body) == (200, BODY):
        effect = "each 8 MiB of an object of 16 MiB or more cost all that stands before them"
        return warning("are ignored: the whole object is sent", "use another store for large objects", effect=effect)
    span = some.headers.get("content-range")
    if (some.status, some.body, span) != (206, BODY[2:6], f"bytes 2-5/{len(BODY)}"):
        found = f"bytes 2-5 of {len(BODY)} are answered with {said(some)}, {len(some.body)} bytes, {span!r}"
        return failed(found, _PROXY, effect="objects of 16 MiB or more cannot be fetched")
    end = "" if beyond.status == 416 else f", {said(beyond)} instead of 416 past the end"
    return ok(f"are sent as asked for{end}", effect="large downloads come side by side, and go on where they were cut")


def checksums(box: Sandbox) -> Answer:
    """Whether bytes that do not fit the checksum they carry are refused, for each kind that the engines send."""
    other_md5 = base64.b64encode(hashlib.md5(_OTHER, usedforsecurity=False).digest()).decode()
    sha256 = box.put("sum", BODY, sha256=hashlib.sha256(_OTHER).hexdigest()).status == 400
    md5 = box.put("sum", BODY, content_md5=other_md5).status == 400
    found = f"the signed SHA-256 is {_checked(sha256)}, Content-MD5 is {_checked(md5)}"
    if sha256 and md5:
        return ok(found, effect="what is damaged on its way is refused")
    effect = "what is damaged on its way is found by its ETag alone" + (" with obstore" if md5 else "")
    return ok(found, effect=effect if not sha256 else "what is damaged on its way is refused, but not through s3fs")


def _checked(is_checked: bool) -> str:  # noqa: FBT001 - the one thing it is about
    return "checked" if is_checked else "not checked"


def trailing_checksum(box: Sandbox) -> Answer:
    """What becomes of a body whose checksum follows it, as newer libraries send it by default."""
    framed = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n"
    put = box.put(
        "trailing",
        framed,
        sha256="STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        content_encoding="aws-chunked",
        x_amz_decoded_content_length="5",
        x_amz_trailer="x-amz-checksum-crc32",
    )
    if put.status != 200:
        return ok(f"is refused ({said(put)})", effect="replicator sends none")
    if box.get("trailing").body == b"hello":
        return ok("is understood", effect="replicator sends none")
    return ok("is stored as part of the content", effect="replicator sends none; other clients must be told not to")


def deleted(box: Sandbox) -> Answer:
    """Whether what is removed is gone."""
    first, again, head = box.delete("etag"), box.delete("etag"), box.head("etag")
    if first.status == 403:
        effect = "replicator deletes no object; only this examination does"
        return warning("is not allowed", "allow s3:DeleteObject beneath the prefix for the examination", effect=effect)
    if first.status in (200, 204) and head.status == 404:
        return ok("is gone at once" + ("" if again.status in (200, 204) else f"; again: {said(again)}"))
    found = f"is answered with {said(first)}, and HEAD with {head.status} then"
    return warning(found, "see whether the bucket is locked, or lags behind")
