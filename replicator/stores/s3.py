"""ObjectStore over fsspec/s3fs, on the caller's event loop.

Owns: the S3 dialog of one bucket, and the proof that a body is whole and of the version asked for.
Never: paths, retries, caches, the file-like half of s3fs (it tears downloads and publishes cut uploads).
Source: S3 API (ListObjectsV2, conditional requests, multipart upload). Each method is one request, or one a page.
"""

import base64
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from replicator.errors import KeyUnsafe, ObjectMissing, RemoteChanged, TransferError, Unavailable
from replicator.model import RemoteObject, Storage
from replicator.stores.s3_answers import Answer, Body, body_of, etag_of, object_of, page_of, uploads_of
from replicator.stores.s3_errors import FOREIGN, AnswerUnusable, say, translate, word_for
from replicator.stores.s3_session import file_system

BLOCK_BYTES = 256 * 2**10
"""Least size of the blocks that `get` yields, but for the last: each costs its reader a trip to the disk."""

_READ_BYTES = 2**20

T = TypeVar("T")


def ignore(operation: str, code: str, seconds: float) -> None:
    """The default of `on_request`: nobody counts."""


def nothing(answer: Answer) -> None:
    """For answers that say no more than that it was done."""


class _Bucket:
    """Sends requests about one bucket, tells `on_request` how each went, translates what went wrong."""

    def __init__(
        self,
        storage: Storage,
        *,
        connections: int,
        connect_timeout_s: float,
        read_timeout_s: float,
        on_request: Callable[[str, str, float], None] = ignore,
        page_keys: int = 1000,
    ) -> None:
        self._bucket = storage.bucket
        self._fs = file_system(
            storage, connections=connections, connect_timeout_s=connect_timeout_s, read_timeout_s=read_timeout_s
        )
        self._on_request = on_request
        self._page_keys = page_keys

    async def probe(self) -> None:
        """Prove endpoint, bucket and credentials with a listing, for answers to HEAD carry no error code."""
        await self._call("list_objects_v2", None, partial(page_of, prefix="", after=""), MaxKeys=1)

    async def close(self) -> None:
        client = await self._fs.get_s3()
        if client is not None:
            await client.close()

    async def _call(self, operation: str, key: str | None, read: Callable[[Answer], T], **arguments: Any) -> T:
        """One request, and what `read` makes of its answer.

        The seconds told to `on_request` end when the answer is there; an object's body comes later.
        """
        if key is not None:
            if not key:  # it would address the bucket itself, and DELETE remove it
                raise KeyUnsafe(say(operation, self._bucket, key, "the key is empty; name an object"))
            arguments["Key"] = key
        begun = time.perf_counter()
        try:
            answer = await self._fs._call_s3(operation, Bucket=self._bucket, **arguments)  # noqa: SLF001
            result = read(answer)
            word = str(answer["ResponseMetadata"]["HTTPStatusCode"])
        except FOREIGN as exc:
            self._on_request(operation, word_for(exc), time.perf_counter() - begun)
            raise self._error(operation, key, exc) from exc
        self._on_request(operation, word, time.perf_counter() - begun)
        return result

    def _error(self, operation: str, key: str | None, exc: Exception) -> TransferError:
        return translate(exc, operation=operation, bucket=self._bucket, key=key)


class S3fsStore(_Bucket):
    """One bucket at one endpoint through s3fs.

    `connections` bounds the open connections; `connect_timeout_s` covers TCP and TLS, `read_timeout_s` each silence
    of the server. `on_request(operation, code, seconds)` hears of every request: S3's name in snake case and the
    HTTP status, S3 error code or kind of failure. `page_keys` is the length of a listing's pages, 1,000 at most.
    """

    async def head(self, key: str) -> RemoteObject:
        return await self._call("head_object", key, partial(object_of, key=key))

    async def list(self, prefix: str) -> AsyncIterator[Sequence[RemoteObject]]:
        last, token = "", ""
        tokens: set[str] = set()
        while token not in tokens:
            tokens.add(token)
            more = {"ContinuationToken": token} if token else {}
            page = await self._call(
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

    async def list_uploads(self, prefix: str) -> Sequence[tuple[str, str]]:
        found: dict[tuple[str, str], None] = {}
        markers: dict[str, str] = {}
        while True:
            page = await self._call(
                "list_multipart_uploads",
                None,
                partial(uploads_of, prefix=prefix),
                Prefix=prefix,
                MaxUploads=self._page_keys,
                EncodingType="url",
                **markers,
            )
            known = len(found)
            found.update(dict.fromkeys(page.uploads))
            markers = page.markers
            if not markers:
                return tuple(found)
            if len(found) == known:
                unusable = AnswerUnusable("the listing is not trustworthy: it goes in circles")
                raise self._error("list_multipart_uploads", None, unusable)

    async def put(self, key: str, body: bytes, *, md5: bytes, metadata: Mapping[str, str]) -> str:
        return await self._call(
            "put_object", key, etag_of, Body=body, ContentMD5=_base64(md5), Metadata=_lower(metadata)
        )

    async def get(self, key: str, *, etag: str, offset: int = 0) -> AsyncIterator[bytes]:
        asked = {"Range": f"bytes={offset}-"} if offset else {}
        body = await self._call("get_object", key, partial(body_of, offset=offset), IfMatch=f'"{etag}"', **asked)
        try:
            if body.etag != etag:  # a store that ignores If-Match
                raise RemoteChanged(say("get_object", self._bucket, key, "the object has another version; look again"))
            async for block in self._blocks(key, body):
                yield block
        finally:
            body.stream.close()

    async def _blocks(self, key: str, body: Body) -> AsyncIterator[bytes]:
        """All bytes of `body` but those to skip, in blocks of at least BLOCK_BYTES; raises when some are missing."""
        received, pending, held = 0, [], 0
        while True:
            try:
                block: bytes = await body.stream.read(_READ_BYTES)
            except FOREIGN as exc:
                raise self._error("get_object", key, exc) from exc
            if not block:
                break
            fresh = block[max(0, body.skip - received) :]
            received += len(block)
            pending.append(fresh)
            held += len(fresh)
            if held >= BLOCK_BYTES:
                yield b"".join(pending)
                pending, held = [], 0
        if held:
            yield b"".join(pending)
        if received != body.length:
            text = f"the body ended after {received} of {body.length} bytes; it is tried again"
            raise Unavailable(say("get_object", self._bucket, key, text))

    async def delete(self, key: str) -> None:
        try:
            await self._call("delete_object", key, nothing)
        except ObjectMissing:
            return

    async def create_upload(self, key: str, *, metadata: Mapping[str, str]) -> str:
        return await self._call("create_multipart_upload", key, _upload_id, Metadata=_lower(metadata))

    async def put_part(self, key: str, upload_id: str, number: int, body: bytes, *, md5: bytes) -> str:
        return await self._call(
            "upload_part", key, etag_of, UploadId=upload_id, PartNumber=number, Body=body, ContentMD5=_base64(md5)
        )

    async def complete_upload(self, key: str, upload_id: str, etags: Sequence[str]) -> str:
        parts = [{"PartNumber": number, "ETag": f'"{etag}"'} for number, etag in enumerate(etags, start=1)]
        return await self._call(
            "complete_multipart_upload", key, etag_of, UploadId=upload_id, MultipartUpload={"Parts": parts}
        )

    async def abort_upload(self, key: str, upload_id: str) -> None:
        try:
            await self._call("abort_multipart_upload", key, nothing, UploadId=upload_id)
        except ObjectMissing:
            return


def _upload_id(answer: Answer) -> str:
    upload_id: str = answer["UploadId"]
    return upload_id


def _lower(metadata: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in metadata.items()}


def _base64(md5: bytes) -> str:
    return base64.b64encode(md5).decode("ascii")
