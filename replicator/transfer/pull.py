"""Object -> file: a reader of the export sees the old version or the new one, never a mix, also after a power cut.

Owns: download into a temporary file of the same file system, verification, fsync, and the publishing rename. Never:
retries, decisions, rows. The caller records the intent before `publish`, so that a crash in between leaves a trace.
Sources: S3 conditional requests (If-Match); rename(2) is atomic within one file system.
"""

import asyncio

from replicator.checksum import Checksum, etag_of, is_md5_etag
from replicator.errors import IntegrityFailed, Unavailable
from replicator.model import Fingerprint, RemoteObject, Row
from replicator.stores.files import TempFile
from replicator.stores.lane import Lane
from replicator.transfer.content import own_part_size, part_sizes
from replicator.transfer.outcome import Means

_BLOCK_BYTES = 1024 * 1024
"""Blocks smaller than this are collected, so that each trip to the disk's thread is worth it."""


class Mismatch(IntegrityFailed):
    """The bytes do not have the MD5 that the ETag seems to be; `checksum` is what they have."""

    def __init__(self, checksum: str) -> None:
        super().__init__("what arrived does not fit the object's ETag; it was discarded and is fetched again")
        self.checksum = checksum


async def pull(lane: Lane, relpath: str, remote: RemoteObject, temp: TempFile, *, distrusted: str, means: Means) -> Row:
    """Fetch exactly the version `remote` into `temp`, verified and synced; the row that it will be.

    `distrusted` is the checksum of an earlier download that did not fit the ETag: the same bytes twice are what the
    store holds, since ETags of encrypted objects look like an MD5 and are none. Such a row is not verified.
    Raises RemoteChanged when the object moved, IntegrityFailed when length or checksum do not fit, Unavailable.
    """
    sums = [Checksum(size) for size in part_sizes(remote) or (0,)]
    received = 0
    pending = bytearray()
    try:
        async with asyncio.timeout(means.deadline_s(remote.size)), means.budget.hold(2 * _BLOCK_BYTES):
            async for block in lane.objects.get(remote.key, etag=remote.etag):
                received += len(block)
                pending += block
                if len(pending) >= _BLOCK_BYTES:
                    await asyncio.to_thread(_take, temp, bytes(pending), sums)
                    pending.clear()
            if received != remote.size:
                raise IntegrityFailed(f"{received} bytes arrived of an object of {remote.size}; they were discarded")
            fingerprint = await asyncio.to_thread(_finish, temp, bytes(pending), sums, remote.mtime_ns)
    except TimeoutError as exc:
        raise Unavailable(f"fetching {remote.key!r} was slower than {means.min_rate_bytes_s} bytes/s") from exc
    texts = [running.text() for running in sums]
    for text in texts:
        if etag_of(text) == remote.etag:
            return Row(relpath, fingerprint, remote.etag, text, is_verified=True)
    is_conclusive = "-" not in remote.etag or own_part_size(remote)
    if is_md5_etag(remote.etag) and is_conclusive and texts[0] != distrusted:
        raise Mismatch(texts[0])
    return Row(relpath, fingerprint, remote.etag, texts[0])


def _take(temp: TempFile, block: bytes, sums: list[Checksum]) -> None:
    temp.write(block)
    for running in sums:
        running.update(block)


def _finish(temp: TempFile, block: bytes, sums: list[Checksum], mtime_ns: int) -> Fingerprint:
    _take(temp, block, sums)
    return temp.finish(mtime_ns)
