"""The ObjectStore protocol: what the product needs of S3, and no more.

Keys are raw strings: no cleaning, no escaping, `a//b` and `a/./b` are themselves. Calls block and are safe from any
thread. Each makes one attempt, bounded in time; retries belong to `transfer.retry`. Every implementation passes
`tests/conformance`. Errors: only those of `replicator.errors` (ObjectMissing, BucketMissing, AccessDenied, Throttled,
Unavailable, RemoteChanged, IntegrityFailed, KeyUnsafe, Refused).
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from replicator.model import RemoteObject


@dataclass(frozen=True, slots=True)
class Download:
    """An object's bytes on their way. Closing `blocks` (a generator) early gives the connection up."""

    metadata: Mapping[str, str]
    """The object's own metadata, names in lower case."""
    blocks: Generator[bytes]
    """Raises Unavailable when the body ends early."""


class Uploads(Protocol):
    """Multipart uploads, step by step."""

    def create_upload(self, key: str, *, metadata: Mapping[str, str]) -> str:
        """Begin a multipart upload; nothing is visible until `complete_upload`. Returns the upload id."""
        ...

    def put_part(self, key: str, upload_id: str, number: int, body: bytes, *, md5: bytes) -> str:
        """Store part `number` (from 1; 5 MiB at least but for the last). Returns its ETag. Idempotent.

        Raises ObjectMissing when the store does not know the upload.
        """
        ...

    def complete_upload(self, key: str, upload_id: str, etags: Sequence[str]) -> str:
        """Publish parts 1..n, whose ETags these are, as one object. Returns its ETag.

        Raises ObjectMissing when the upload is unknown, which it also is once it was completed.
        """
        ...

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Throw the parts away; an unknown upload is fine."""
        ...

    def list_uploads(self, prefix: str) -> Sequence[tuple[str, str]]:
        """(key, upload id) of every unfinished multipart upload under `prefix`."""
        ...


class ObjectStore(Uploads, Protocol):
    """One bucket at one endpoint."""

    streams: bool
    """Whether `put_parts` costs far less than the same parts by `put_part`."""

    def head(self, key: str) -> RemoteObject:
        """The object with its metadata (lower-case names). Raises ObjectMissing."""
        ...

    def list(self, prefix: str) -> Iterator[Sequence[RemoteObject]]:
        """Pages of every object whose key starts with `prefix`, in byte order of the whole key."""
        ...

    def put(self, key: str, body: bytes, *, md5: bytes, metadata: Mapping[str, str]) -> str:
        """Store `body` whole or not at all, overwriting. `md5` is its digest, for stores that check it.

        Returns the new object's ETag. Idempotent. Raises IntegrityFailed when the store got other bytes.
        """
        ...

    def is_checking_uploads(self, key: str) -> bool:
        """Whether a good answer to an upload proves it, though the ETag is not the one expected: an opaque one then.

        True where the store refuses bytes that do not fit the checksum that each upload carries. It is asked once, with
        a part of an upload of `key` that is thrown away, so ask only where an ETag says nothing. Raises nothing:
        what cannot be found out is False.
        """
        ...

    def put_parts(self, key: str, parts: Iterator[bytes], *, part_size: int, metadata: Mapping[str, str]) -> str:
        """Store the joined parts as one multipart object, whole or not at all; its ETag.

        Each part has `part_size` bytes (5 MiB at least) but the last. What the iterator raises is raised here, and
        then nothing becomes visible and the parts are thrown away; one still on its way may keep the upload alive,
        which `list_uploads` then tells. At most three parts are held at a time.
        """
        ...

    def get(self, key: str, *, etag: str, offset: int = 0, size: int | None = None) -> Download:
        """`size` bytes from `offset` on (all that follow when None), of exactly the version `etag`.

        Raises RemoteChanged when the object has another version or ends before `offset`, ObjectMissing when there
        is none. No range beyond the object's end is asked for.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove the object; absent is fine (S3 answers 204)."""
        ...

    def close(self) -> None:
        """Release connections; the store is not used afterwards. Calls still under way may fail."""
        ...
