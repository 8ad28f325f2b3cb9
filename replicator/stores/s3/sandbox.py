"""Objects and uploads of our own, made to see how a store answers, and removed again.

Owns: one place beneath one prefix, with a random name, so that nobody else's key can lie in it; what was made there.
Never: a key elsewhere, or a judgement. One request at a time, and none once it is cleared, whoever still asks.
Source: S3 API, PutObject, GetObject, ListObjectsV2, the multipart requests; versioned buckets keep what is deleted.
"""

import contextlib
import hashlib
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from replicator.errors import TransferError, Unavailable
from replicator.model import Prefix
from replicator.stores.s3.answers import Page, page_of
from replicator.stores.s3.direct import Asked, Direct, Reply
from replicator.stores.s3.listing import listing_of
from replicator.stores.s3.table import AnswerUnusable, failure

PLACE = ".replicator-doctor"
"""Beneath a target's prefix."""

_MAKING = frozenset({"put_object", "complete_multipart_upload"})

_DECIDED = frozenset({*range(200, 300), *range(400, 429), 501})
"""Statuses that tell how a store takes a request; any other is told as the failure that it is."""


_NONE: Mapping[str, str] = MappingProxyType({})


class _Ledger:
    """What was made, so that all of it can be removed."""

    def __init__(self, direct: Direct, prefix: Prefix, bucket: str) -> None:
        self.above = f"{prefix}{PLACE}/"
        self.prefix = f"{self.above}{secrets.token_hex(6)}/"
        self._bucket = bucket
        self._link = direct.link()
        self._lock = threading.Lock()
        self._is_closed = False
        self._stays: list[str] = []
        self._made: dict[tuple[str, str], None] = {}
        """(key, version) of what may exist; the version is '' where the bucket keeps none."""
        self._begun: dict[tuple[str, str], None] = {}
        """(key, upload id)."""

    @property
    def has_made(self) -> bool:
        """Whether anything was made, be it removed by now."""
        return bool(self._begun or self._made)

    def ask(self, asked: Asked) -> Reply:
        """One request. Raises TransferError where the answer tells nothing but a failure of the store."""
        with self._lock:
            if self._is_closed:
                raise Unavailable("the examination is over; nothing more is asked")
            known = dict(self._made)
            if asked.operation in _MAKING:
                self._made[asked.key or "", ""] = None  # also where no answer comes
            reply = self._link.reply(asked)
            if 300 <= reply.status < 500:
                self._made = known
            if asked.key is not None and (version := reply.headers.get("x-amz-version-id", "")) not in ("", "null"):
                self._made[asked.key, version] = None
        if reply.status not in _DECIDED:
            word = reply.code or str(reply.status)
            raise failure(word, operation=asked.operation, bucket=self._bucket, key=asked.key)
        return reply

    def page(self, reply: Reply, *, name: str = "", after: str = "") -> Page:
        """A listing's page, read as the engine reads it. Raises Unavailable for what the engine would not trust."""
        try:
            listing = listing_of(reply.body)
            if listing is None:
                raise AnswerUnusable("the answer is no listing")
            return page_of(listing, prefix=self.prefix + name, after=after)
        except (AnswerUnusable, LookupError, TypeError, ValueError) as exc:
            raise self._link.error(Asked("list_objects_v2"), exc) from exc

    def clear(self) -> list[str]:
        """Remove everything that was made; what could not be. Nothing is made afterwards. Raises nothing."""
        with self._lock:
            self._is_closed = True
            if self._begun or self._made:
                self._stays = sorted({*self._aborted(), *self._deleted()})
                self._begun.clear()
                self._made.clear()
            self._link.close()
        return self._stays

    def others(self) -> list[str]:
        """Keys beneath the doctor's place that are not of this run. Raises TransferError."""
        reply = self.ask(Asked("list_objects_v2", query={"list-type": "2", "prefix": self.above, "max-keys": "100"}))
        return [key for key in _texts_in(reply.body, "Key") if not key.startswith(self.prefix)]

    def _aborted(self) -> Iterator[str]:
        for key, upload_id in self._begun:
            try:
                reply = self._link.reply(Asked("abort_multipart_upload", "DELETE", key, {"uploadId": upload_id}))
            except TransferError:
                yield key
                continue
            if reply.status not in (200, 204, 404):
                yield key

    def _deleted(self) -> Iterator[str]:
        """Each version by its name; then what a listing still finds here, whoever changed its key."""
        for key, version in sorted(self._made, reverse=True):
            if not version and any(key == known and one for known, one in self._made):
                continue  # it would only add a marker to the versions
            if not self._is_deleted(key, {"versionId": version} if version else {}):
                yield key
        with contextlib.suppress(TransferError):
            query = {"list-type": "2", "prefix": self.prefix, "encoding-type": "url"}
            for entry in self.page(self._link.reply(Asked("list_objects_v2", query=query))).objects:
                if not self._is_deleted(entry.key, {}):
                    yield entry.key

    def _is_deleted(self, key: str, query: Mapping[str, str]) -> bool:
        try:
            return self._link.reply(Asked("delete_object", "DELETE", key, query)).status in (200, 204, 404)
        except TransferError:
            return False


class Sandbox(_Ledger):
    """A place for trials in a bucket. `name` is a key beneath it, which may be any text."""

    def put(self, name: str, body: bytes = b"", *, sha256: str = "", **headers: str) -> Reply:
        """An object. `sha256` is what is signed as the body's, its own by default; `headers` with _ for -."""
        summed = sha256 or hashlib.sha256(body).hexdigest()
        return self.ask(Asked("put_object", "PUT", self.prefix + name, {}, body, summed, _dashed(headers)))

    def get(self, name: str, **headers: str) -> Reply:
        return self.ask(Asked("get_object", "GET", self.prefix + name, headers=_dashed(headers)))

    def head(self, name: str) -> Reply:
        return self.ask(Asked("head_object", "HEAD", self.prefix + name))

    def delete(self, name: str) -> Reply:
        return self.ask(Asked("delete_object", "DELETE", self.prefix + name))

    def list(self, name: str = "", *, age_s: float = 0.0, query: Mapping[str, str] = _NONE) -> Reply:
        """A page of the keys that begin with `name`; keys are to come encoded."""
        more = {"list-type": "2", "prefix": self.prefix + name, "encoding-type": "url", **query}
        return self.ask(Asked("list_objects_v2", query=more, age_s=age_s))

    def begin(self, name: str) -> str:
        """A multipart upload's id. Raises TransferError where there is none."""
        key = self.prefix + name
        asked = Asked("create_multipart_upload", "POST", key, {"uploads": ""})
        upload_id = text_in(self.ask(asked).body, "UploadId")
        if not upload_id:
            raise self._link.error(asked, AnswerUnusable("the answer names no upload"))
        self._begun[key, upload_id] = None
        return upload_id

    def part(self, name: str, upload_id: str, number: int, body: bytes, *, sha256: str = "", **headers: str) -> Reply:
        query = {"partNumber": str(number), "uploadId": upload_id}
        summed = sha256 or hashlib.sha256(body).hexdigest()
        return self.ask(Asked("upload_part", "PUT", self.prefix + name, query, body, summed, _dashed(headers)))

    def parts(self, name: str, upload_id: str, *, query: Mapping[str, str] = _NONE) -> Reply:
        return self.ask(Asked("list_parts", "GET", self.prefix + name, {"uploadId": upload_id, **query}))

    def complete(self, name: str, upload_id: str, parts: Sequence[tuple[int, str]]) -> Reply:
        """`parts` are (number, unquoted ETag), in the order in which they are sent."""
        entries = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>&quot;{escape(etag)}&quot;</ETag></Part>"
            for number, etag in parts
        )
        body = f"<CompleteMultipartUpload>{entries}</CompleteMultipartUpload>".encode()
        summed, query = hashlib.sha256(body).hexdigest(), {"uploadId": upload_id}
        return self.ask(Asked("complete_multipart_upload", "POST", self.prefix + name, query, body, summed))

    def abort(self, name: str, upload_id: str) -> Reply:
        return self.ask(Asked("abort_multipart_upload", "DELETE", self.prefix + name, {"uploadId": upload_id}))


def text_in(body: bytes, name: str) -> str:
    """The first element of that name, '' where there is none."""
    return next(iter(_texts_in(body, name)), "")


def _texts_in(body: bytes, name: str) -> list[str]:
    try:
        # expat bounds what entities may grow to, and the length of the answer is bounded already.
        return [node.text or "" for node in ET.fromstring(body).iter() if node.tag.rpartition("}")[2] == name]  # noqa: S314
    except ET.ParseError:
        return []


def _dashed(words: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): text for name, text in words.items()}
