"""ObjectStore whose frequent requests go through obstore, at a tenth of the CPU; the rest goes through s3fs.

Owns: whole puts, streamed puts, gets and heads of plain keys, in the caller's thread (obstore's synchronous interface,
which releases the GIL). Never: retries; file-system layers or the asynchronous interface of obstore.
What obstore cannot do: send Content-MD5 (compare the ETag), tell Retry-After, bound a body's sending by its silence.
So a stalled upload ends by the time that it needs at the least rate; below it, it may end early. An error document is
read whole, however long. A redirect reaches no other host, but it may reach another port of the same, unsigned, yet
with the session token where there is one.
"""

import time
from collections.abc import Generator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import obstore

from replicator.errors import RemoteChanged, Unavailable
from replicator.model import RemoteObject
from replicator.stores.objects import Download
from replicator.stores.s3.answers import primed
from replicator.stores.s3.fast_bucket import FastBucket, Unfit
from replicator.stores.s3.fast_client import Clients
from replicator.stores.s3.fast_errors import FOREIGN, UNFIT, translate, word_for
from replicator.stores.s3.table import AnswerUnusable, say

if TYPE_CHECKING:
    from replicator.stores.s3.base import S3fsStore

BLOCK_BYTES = 2**18
"""Size of the blocks that `get` yields, about, but for the last. Larger ones cost memory and spare nothing."""
_AT_ONCE_BYTES = 2**16

_PARTS_IN_FLIGHT = 2

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Parts:
    """Parts on their way to obstore: how many it took, and what their iterator raised, which it may replace."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self.count = 0
        self.error: BaseException | None = None

    def __iter__(self) -> "_Parts":
        return self

    def __next__(self) -> bytes:
        try:
            part = next(self._parts)
        except StopIteration:
            raise
        except BaseException as exc:
            self.error = exc
            raise
        self.count += 1
        return part


class FastStore(FastBucket):
    """One bucket at one endpoint through obstore, and through s3fs where that cannot.

    A streamed put uses two connections.
    `on_request(operation, code, seconds)` hears of every request; of a streamed put's requests when it has ended.
    """

    def head(self, key: str) -> RemoteObject:
        def fast(client: Clients) -> RemoteObject:
            with self._request("head_object", key):
                found = obstore.get(client.small, key, options={"head": True})
                return _object(found, key)

        return self._either("head_object", key, fast, lambda store: store.head(key))

    def put(self, key: str, body: bytes, *, md5: bytes, metadata: Mapping[str, str]) -> str:
        def fast(client: Clients) -> str:
            pool = client.sending(len(body))
            with self._request("put_object", key):
                return _etag(obstore.put(pool, key, body, attributes=_lower(metadata), use_multipart=False)["e_tag"])

        return self._either("put_object", key, fast, lambda store: store.put(key, body, md5=md5, metadata=metadata))

    def put_parts(self, key: str, parts: Iterator[bytes], *, part_size: int, metadata: Mapping[str, str]) -> str:
        def fast(client: Clients) -> str:
            return self._put_parts(client, key, _Parts(parts), part_size=part_size, metadata=metadata)

        def slow(store: "S3fsStore") -> str:
            return store.put_parts(key, parts, part_size=part_size, metadata=metadata)

        return self._either("create_multipart_upload", key, fast, slow)

    def _put_parts(
        self, client: Clients, key: str, parts: _Parts, *, part_size: int, metadata: Mapping[str, str]
    ) -> str:
        begun = time.perf_counter()
        try:
            put = obstore.put(
                client.sending(part_size),
                key,
                parts,
                attributes=_lower(metadata),
                use_multipart=True,
                chunk_size=part_size,
                max_concurrency=_PARTS_IN_FLIGHT,
            )
            etag = _etag(put["e_tag"])
        except BaseException as exc:
            operation = "upload_part" if parts.count else "create_multipart_upload"
            if parts.error is not None:
                raise parts.error from None
            if not isinstance(exc, FOREIGN):
                raise
            word = word_for(exc)
            self._on_request(operation, word, time.perf_counter() - begun)
            if word in UNFIT and not parts.count:
                raise Unfit(word) from exc
            raise self._error(word, exc, operation=operation, key=key) from exc
        each_s = (time.perf_counter() - begun) / (parts.count + 2)
        for operation in ("create_multipart_upload", *["upload_part"] * parts.count, "complete_multipart_upload"):
            self._on_request(operation, "200", each_s)
        return etag

    def get(self, key: str, *, etag: str, offset: int = 0, size: int | None = None) -> Download:
        def fast(client: Clients) -> Download:
            return self._get(client, key, etag=etag, offset=offset, size=size)

        return self._either("get_object", key, fast, lambda store: store.get(key, etag=etag, offset=offset, size=size))

    def _get(self, client: Clients, key: str, *, etag: str, offset: int, size: int | None) -> Download:
        options: obstore.GetOptions = {"if_match": f'"{etag}"'}
        if size:
            options["range"] = (offset, offset + size)
        elif offset:
            options["range"] = {"offset": offset}
        with self._request("get_object", key, code="206" if "range" in options else "200"):
            found = obstore.get(client.stream, key, options=options)
            try:
                got, (first, end) = _etag(found.meta["e_tag"]), found.range
                metadata, take = _metadata(found), end - first if size is None else size
                stream: Iterator[bytes | obstore.Bytes]
                stream = self._at_once(found) if take <= _AT_ONCE_BYTES else found.stream(min_chunk_size=BLOCK_BYTES)
            finally:
                del found  # or whoever keeps the error keeps the connection
        if got != etag:  # a store that ignores If-Match
            del stream
            raise RemoteChanged(say("get_object", self._bucket, key, "the object has another version; look again"))
        return Download(metadata, primed(self._blocks(key, stream, take)))

    @staticmethod
    def _at_once(found: "obstore.GetResult") -> Iterator["bytes | obstore.Bytes"]:
        """The whole body by one call: each block of a stream is a wait of its own."""
        yield found.bytes()

    def _blocks(self, key: str, stream: Iterator["bytes | obstore.Bytes"], take: int) -> Generator[bytes]:
        """An empty block, then those of the body. The stream gives its connection up when nobody holds it."""
        yield b""
        left = take
        while left:
            try:
                block = next(stream, b"")
            except FOREIGN as exc:
                raise translate(exc, operation="get_object", bucket=self._bucket, key=key) from exc
            if not block:
                text = f"the body ended after {take - left} of {take} bytes; it is tried again"
                raise Unavailable(say("get_object", self._bucket, key, text))
            left -= len(block)
            yield bytes(block)


def _object(found: "obstore.GetResult", key: str) -> RemoteObject:
    meta = found.meta
    if meta["last_modified"] <= _EPOCH:  # what obstore makes of a missing header
        raise AnswerUnusable("the answer does not say when the object was stored")
    return RemoteObject(
        key=key,
        size=meta["size"],
        etag=_etag(meta["e_tag"]),
        mtime_ns=(meta["last_modified"] - _EPOCH) // timedelta(microseconds=1) * 1000,
        metadata=_metadata(found),
    )


def _metadata(found: "obstore.GetResult") -> dict[str, str]:
    """The object's own, whose names have no capitals here; headers of HTTP stand among it and have."""
    return {name: value for name, value in found.attributes.items() if name == name.lower()}


def _etag(quoted: str | None) -> str:
    """The unquoted ETag. Without one nothing proves that an S3 store answered."""
    etag = (quoted or "").strip('"')
    if not etag:
        raise AnswerUnusable("the answer has no ETag")
    return etag


def _lower(metadata: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in metadata.items()}
