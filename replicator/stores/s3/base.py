"""ObjectStore over fsspec/s3fs, which runs on an event loop in a thread of the store's own.

Owns: the S3 dialog of one bucket, and the proof that a body is whole and of the version asked for.
Never: paths, retries, caches, the file-like half of s3fs (it tears downloads and publishes cut uploads).
Source: S3 API (ListObjectsV2, conditional requests, multipart upload). Each method is one request, or one a page or
part. A call ends by itself: the connection by `connect_timeout_s`, any silence, also of a server that takes no more
bytes, by `read_timeout_s`.
"""

import contextlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import partial

from replicator.errors import ObjectMissing, RemoteChanged, Unavailable
from replicator.model import RemoteObject
from replicator.stores.objects import Download
from replicator.stores.s3.answers import Body, body_of, etag_of, object_of, page_of, primed
from replicator.stores.s3.base_bucket import nothing
from replicator.stores.s3.base_uploads import Uploads, base64_of, lower
from replicator.stores.s3.errors import FOREIGN
from replicator.stores.s3.table import AnswerUnusable, say

BLOCK_BYTES = 256 * 2**10
"""Least size of the blocks that `get` yields, but for the last: each costs its reader a trip to the disk."""

_READ_BYTES = 2**20


class S3fsStore(Uploads):
    """One bucket at one endpoint through s3fs.

    `on_request(operation, code, seconds)` hears of every request, in a thread of the store's own.
    `page_keys` is the length of a listing's pages, 1,000 at most.
    """

    def head(self, key: str) -> RemoteObject:
        return self._call("head_object", key, partial(object_of, key=key))

    def list(self, prefix: str) -> Iterator[Sequence[RemoteObject]]:
        last, token = "", ""
        tokens: set[str] = set()
        while token not in tokens:
            tokens.add(token)
            more = {"ContinuationToken": token} if token else {}
            page = self._call(
                "list_objects_v2",
                None,
                partial(page_of, prefix=prefix, after=last),
                Prefix=prefix,
                MaxKeys=self._page_keys,
                EncodingType="url",
                **more,
            )
            if page.objects:
                last = page.objects[-1].key
                yield page.objects
            token = page.token
            if not token:
                return
        raise self._error("list_objects_v2", None, AnswerUnusable("the listing is not trustworthy: it goes in circles"))

    def put(self, key: str, body: bytes, *, md5: bytes, metadata: Mapping[str, str]) -> str:
        return self._call("put_object", key, etag_of, Body=body, ContentMD5=base64_of(md5), Metadata=lower(metadata))

    def get(self, key: str, *, etag: str, offset: int = 0, size: int | None = None) -> Download:
        last = offset + size - 1 if size else ""
        asked = {"Range": f"bytes={offset}-{last}"} if offset or size else {}
        read = partial(body_of, offset=offset, size=size)
        body = self._call("get_object", key, read, IfMatch=f'"{etag}"', **asked)
        blocks = primed(self._blocks(key, body))
        if body.etag != etag:  # a store that ignores If-Match
            blocks.close()
            raise RemoteChanged(say("get_object", self._bucket, key, "the object has another version; look again"))
        return Download(body.metadata, blocks)

    def _blocks(self, key: str, body: Body) -> Generator[bytes]:
        """An empty block, then the bytes that are wanted, in blocks of at least BLOCK_BYTES; raises when some miss."""
        skip, length = body.skip, body.skip + body.take
        received = 0
        try:
            yield b""
            while received < length:
                block = self._loop.run(self._read(key, body, length - received))
                if not block:
                    text = f"the body ended after {received} of {length} bytes; it is tried again"
                    raise Unavailable(say("get_object", self._bucket, key, text))
                received += len(block)
                if fresh := block[skip:]:
                    yield fresh
                skip = max(0, skip - len(block))
        finally:
            with contextlib.suppress(Unavailable):  # a closed store has closed it
                self._loop.run(_close(body))

    async def _read(self, key: str, body: Body, most: int) -> bytes:
        """On the loop: the next block, empty at the end of the body. One trip between threads a block, not a read."""
        blocks: list[bytes] = []
        held = 0
        try:
            while held < min(BLOCK_BYTES, most) and (block := await body.stream.read(min(_READ_BYTES, most - held))):
                blocks.append(block)
                held += len(block)
        except FOREIGN as exc:
            raise self._error("get_object", key, exc) from exc
        return b"".join(blocks)

    def delete(self, key: str) -> None:
        with contextlib.suppress(ObjectMissing):
            self._call("delete_object", key, nothing)


async def _close(body: Body) -> None:
    """On the loop: cuts what was not read to its end; a whole body has given its connection back."""
    body.stream.close()
