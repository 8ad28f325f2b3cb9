"""Multipart uploads through s3fs, step by step and in one go.

Owns: the dialog of an upload, and that a failed one leaves no parts behind. Never: the record of parts (the journal).
Source: S3 API, CreateMultipartUpload, UploadPart, CompleteMultipartUpload, AbortMultipartUpload.
"""

import base64
import contextlib
import hashlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import cached_property, partial

from replicator.errors import ObjectMissing, TransferError
from replicator.stores.s3.answers import Answer, etag_of, uploads_of
from replicator.stores.s3.base_bucket import Bucket, nothing
from replicator.stores.s3.proof import SENT, Proof, is_refused
from replicator.stores.s3.table import AnswerUnusable

_PARTS_HELD = 2
"""By `put_parts`: two on their way, or one while the next is read."""


class Uploads(Bucket):
    """The multipart half of the store."""

    streams = False

    def is_checking_uploads(self, key: str) -> bool:
        return self._proof.holds(key)

    @cached_property
    def _proof(self) -> Proof:
        return Proof(self._is_refusing_other_bytes)

    def _is_refusing_other_bytes(self, key: str) -> bool:
        """Whether the store looks at Content-MD5."""
        return is_refused(
            begin=lambda: self.create_upload(key, metadata={}),
            send=lambda upload_id, summed: self.put_part(key, upload_id, 1, SENT, md5=md5_of(summed)),
            end=lambda upload_id: self.abort_upload(key, upload_id),
        )

    def put_parts(
        self,
        key: str,
        parts: Iterator[bytes],
        *,
        part_size: int,  # noqa: ARG002  # the parts have it already
        metadata: Mapping[str, str],
    ) -> str:
        upload_id = self.create_upload(key, metadata=metadata)
        try:
            return self.complete_upload(key, upload_id, self._send(key, upload_id, parts))
        except BaseException:
            with contextlib.suppress(TransferError):
                self.abort_upload(key, upload_id)
            raise

    def _send(self, key: str, upload_id: str, parts: Iterator[bytes]) -> Sequence[str]:
        """The ETags of all parts."""
        etags: list[str] = []
        under_way: deque[Future[str]] = deque()
        try:
            for number, part in enumerate(_one_at_least(parts), start=1):
                under_way.append(self._submit_part(key, upload_id, number, part, md5_of(part)))
                if len(under_way) == _PARTS_HELD:
                    etags.append(self._loop.wait(under_way.popleft()))
            while under_way:
                etags.append(self._loop.wait(under_way.popleft()))
        finally:
            for future in under_way:
                future.cancel()
        return etags

    def create_upload(self, key: str, *, metadata: Mapping[str, str]) -> str:
        return self._call("create_multipart_upload", key, _upload_id, Metadata=lower(metadata))

    def put_part(self, key: str, upload_id: str, number: int, body: bytes, *, md5: bytes) -> str:
        return self._loop.wait(self._submit_part(key, upload_id, number, body, md5))

    def _submit_part(self, key: str, upload_id: str, number: int, body: bytes, md5: bytes) -> Future[str]:
        return self._submit(
            "upload_part", key, etag_of, UploadId=upload_id, PartNumber=number, Body=body, ContentMD5=base64_of(md5)
        )

    def complete_upload(self, key: str, upload_id: str, etags: Sequence[str]) -> str:
        parts = [{"PartNumber": number, "ETag": f'"{etag}"'} for number, etag in enumerate(etags, start=1)]
        return self._call(
            "complete_multipart_upload", key, etag_of, UploadId=upload_id, MultipartUpload={"Parts": parts}
        )

    def abort_upload(self, key: str, upload_id: str) -> None:
        with contextlib.suppress(ObjectMissing):
            self._call("abort_multipart_upload", key, nothing, UploadId=upload_id)

    def list_uploads(self, prefix: str) -> Sequence[tuple[str, str]]:
        found: dict[tuple[str, str], None] = {}
        markers: dict[str, str] = {}
        while True:
            page = self._call(
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


def lower(metadata: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in metadata.items()}


def base64_of(md5: bytes) -> str:
    return base64.b64encode(md5).decode("ascii")


def md5_of(part: bytes) -> bytes:
    return hashlib.md5(part, usedforsecurity=False).digest()


def _one_at_least(parts: Iterator[bytes]) -> Iterator[bytes]:
    """S3 completes no upload without a part: an empty object is one empty part."""
    yield next(parts, b"")
    yield from parts


def _upload_id(answer: Answer) -> str:
    upload_id: str = answer["UploadId"]
    return upload_id
