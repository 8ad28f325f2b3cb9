"""What a good answer says: parsed S3 answers -> our values, or AnswerUnusable. Pure.

A listing is trusted only when it proves itself: every key beneath the prefix, in strictly ascending byte order, an
end that says it is one. What is wrong is never mended: a listing cut short reads as objects that are gone.
Source: S3 API, ListObjectsV2 (UTF-8 binary order, EncodingType=url), GetObject (Content-Range), RFC 9110 14.4.
"""

import operator
import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus

from replicator.model import RemoteObject
from replicator.stores.s3.listing import Entry
from replicator.stores.s3.table import AnswerUnusable

Answer = Mapping[str, Any]

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing; `token` leads to the next one, '' after the last."""

    objects: tuple[RemoteObject, ...]
    token: str


@dataclass(frozen=True, slots=True)
class Uploads:
    """One page of unfinished uploads as (key, upload id); `markers` lead to the next one, empty after the last."""

    uploads: tuple[tuple[str, str], ...]
    markers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Body:
    """An object's bytes on their way: `skip` precede the offset asked for, then come the `take` that are wanted."""

    stream: Any
    etag: str
    metadata: dict[str, str]
    skip: int
    take: int


def etag_of(answer: Answer) -> str:
    """The unquoted ETag. Without one nothing proves that an S3 store answered."""
    etag: str = answer["ETag"].strip('"')
    if not etag:
        raise AnswerUnusable("the answer has no ETag")
    return etag


def object_of(answer: Answer, *, key: str) -> RemoteObject:
    return RemoteObject(
        key=key,
        size=answer["ContentLength"],
        etag=etag_of(answer),
        mtime_ns=_ns(answer["LastModified"]),
        metadata=dict(answer.get("Metadata", {})),
    )


def page_of(answer: Answer, *, prefix: str, after: str) -> Page:
    """`after` is the last key of the page before, '' on the first."""
    is_truncated = _is_truncated(answer)
    entries = answer["Entries"] if "Entries" in answer else list(map(_entry, answer.get("Contents", ())))
    keys = [entry[0] for entry in entries]
    if answer.get("EncodingType") == "url":
        keys = list(map(_decoded, keys))
    if not _is_ordered(after, keys) or not all(key.startswith(prefix) for key in keys[:1] + keys[-1:]):
        raise AnswerUnusable("the listing is not trustworthy: a key outside the prefix or out of order")
    objects = tuple(
        RemoteObject(key, size, etag, mtime_ns) for key, (_, size, etag, mtime_ns) in zip(keys, entries, strict=True)
    )
    if not all(entry.etag for entry in objects):
        raise AnswerUnusable("the listing is not trustworthy: an object without an ETag")
    token = answer.get("NextContinuationToken", "") if is_truncated else ""
    if is_truncated and not token:
        raise AnswerUnusable("the listing is not trustworthy: it was cut and does not say how to go on")
    return Page(objects, token)


def uploads_of(answer: Answer, *, prefix: str) -> Uploads:
    is_truncated = _is_truncated(answer)
    is_encoded = answer.get("EncodingType") == "url"
    uploads = tuple(
        (_decoded(entry["Key"]) if is_encoded else entry["Key"], entry["UploadId"])
        for entry in answer.get("Uploads", ())
    )
    if not all(key.startswith(prefix) for key, _ in uploads):
        raise AnswerUnusable("the listing is not trustworthy: an upload outside the prefix")
    markers: dict[str, str] = {}
    if is_truncated:
        marker = answer["NextKeyMarker"]
        markers = {"KeyMarker": _decoded(marker) if is_encoded else marker}
        if answer.get("NextUploadIdMarker"):
            markers["UploadIdMarker"] = answer["NextUploadIdMarker"]
    return Uploads(uploads, markers)


def body_of(answer: Answer, *, offset: int, size: int | None) -> Body:
    """The body of an object's range; a store may ignore what was asked for and send all of it."""
    try:
        first, length, total = _span(answer)
        take = total - offset if size is None else size
        if first > offset or offset + take > first + length:
            raise AnswerUnusable("the answer is not the range that was asked for")
        return Body(answer["Body"], etag_of(answer), dict(answer.get("Metadata", {})), offset - first, take)
    except BaseException:
        answer["Body"].close()
        raise


def _span(answer: Answer) -> tuple[int, int, int]:
    """(first byte, bytes that follow, bytes of the object) of an answer with an object's bytes."""
    length: int = answer["ContentLength"]
    text = answer.get("ContentRange")
    if text is None:
        return 0, length, length
    if not (span := _CONTENT_RANGE.fullmatch(text)):
        raise AnswerUnusable("the answer has no readable Content-Range")
    first, last, total = map(int, span.groups())
    if length != last - first + 1 or last >= total:
        raise AnswerUnusable("the answer is not the range that it says it is")
    return first, length, total


def primed(blocks: Generator[bytes]) -> Generator[bytes]:
    """`blocks` past its first, empty one: a generator that was never started would not clean up when it is closed."""
    next(blocks)
    return blocks


def _is_truncated(answer: Answer) -> bool:
    """An empty answer or a web page parses to nothing: only a listing says whether it goes on."""
    if not isinstance(answer.get("IsTruncated"), bool):
        raise AnswerUnusable("the answer is no listing")
    return bool(answer["IsTruncated"])


def _decoded(text: str) -> str:
    """Undo EncodingType=url; bytes that are not UTF-8 keep their place in the order as lone surrogates."""
    return unquote_plus(text, errors="surrogateescape") if "%" in text or "+" in text else text


def _entry(entry: Answer) -> Entry:
    return entry["Key"], entry["Size"], entry["ETag"].strip('"'), _ns(entry["LastModified"])


def _is_ordered(after: str, keys: Sequence[str]) -> bool:
    """Whether the keys, `after` before them, ascend in byte order. Then what the first and last begin with, all do."""
    texts = [after, *keys]
    if "".join(texts).isascii():
        return all(map(operator.lt, texts, keys))
    codes = [text.encode("utf-8", "surrogateescape") for text in texts]
    return all(map(operator.lt, codes, codes[1:]))


def _ns(moment: datetime) -> int:
    # The microseconds of a time before 2242 fit into a float.
    return round(moment.timestamp() * 1e6) * 1000
