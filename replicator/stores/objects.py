"""The ObjectStore protocol: what the product needs of S3, and no more.

Keys are raw strings: no cleaning, no escaping, `a//b` and `a/./b` are themselves. Each method makes one attempt;
retries belong to `transfer.retry`. Every implementation passes `tests/conformance`.
Errors: only those of `replicator.errors` (ObjectMissing, BucketMissing, AccessDenied, Throttled, Unavailable,
RemoteChanged, IntegrityFailed, KeyUnsafe, Refused).
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from replicator.model import RemoteObject


class ObjectStore(Protocol):
    """One bucket at one endpoint. Safe for many tasks of one event loop at a time."""

    async def head(self, key: str) -> RemoteObject:
        """The object with its metadata (lower-case names). Raises ObjectMissing."""
        ...

    def list(self, prefix: str) -> AsyncIterator[Sequence[RemoteObject]]:
        """Pages of every object whose key starts with `prefix`, in byte order of the whole key."""
        ...

    async def put(self, key: str, body: bytes, *, md5: bytes, metadata: Mapping[str, str]) -> str:
        """Store `body` whole or not at all, overwriting. `md5` is its digest, sent for the store to check.

        Returns the new object's ETag. Idempotent. Raises IntegrityFailed when the store got other bytes.
        """
        ...

    def get(self, key: str, *, etag: str, offset: int = 0) -> AsyncIterator[bytes]:
        """The bytes from `offset` on, of exactly the version `etag`.

        Raises RemoteChanged when the object has another version, ObjectMissing when there is none,
        Unavailable when the body ends early.
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove the object; absent is fine (S3 answers 204)."""
        ...

    async def create_upload(self, key: str, *, metadata: Mapping[str, str]) -> str:
        """Begin a multipart upload; nothing is visible until `complete_upload`. Returns the upload id."""
        ...

    async def put_part(self, key: str, upload_id: str, number: int, body: bytes, *, md5: bytes) -> str:
        """Store part `number` (from 1; 5 MiB at least but for the last). Returns its ETag. Idempotent."""
        ...

    async def complete_upload(self, key: str, upload_id: str, etags: Sequence[str]) -> str:
        """Publish parts 1..n, whose ETags these are, as one object. Returns its ETag."""
        ...

    async def abort_upload(self, key: str, upload_id: str) -> None:
        """Throw the parts away; an unknown upload is fine."""
        ...

    async def list_uploads(self, prefix: str) -> Sequence[tuple[str, str]]:
        """(key, upload id) of every unfinished multipart upload under `prefix`."""
        ...

    async def probe(self) -> None:
        """Prove endpoint, bucket and credentials with one cheap request, or raise what is wrong."""
        ...

    async def close(self) -> None:
        """Release connections; the store is not used afterwards."""
        ...
