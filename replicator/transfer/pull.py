"""Object -> file: a reader of the export sees the old version or the new one, never a mix, also after a power cut.

Owns: download into a temporary file of the same file system, verification, fsync. Never: retries, decisions, rows,
the rename. Large objects come in ranges, several at a time, each of exactly the version that was asked for; what a
cut leaves of them is gone on with. Sources: S3 conditional requests (If-Match), RFC 9110 14 (ranges).
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

from replicator.checksum import Checksum, checksum_of, etag_of, is_md5_etag
from replicator.errors import IntegrityFailed
from replicator.model import Fingerprint, RemoteObject, Row
from replicator.stores.files.export import TempFile
from replicator.stores.lane import Lane
from replicator.stores.objects import Download
from replicator.transfer.content import mtime_ns_of, own_part_size, part_sizes
from replicator.transfer.outcome import Means

RANGE_BYTES = 8 * 2**20
RANGES_IN_FLIGHT = 4

RANGED_FROM_BYTES = 2 * RANGE_BYTES
"""From this size on several connections pay, and so does going on where a cut left it."""

_BLOCK_BYTES = 2**20

_UNKNOWN = Fingerprint(size=0, mtime_ns=0, ctime_ns=0, ino=0)


class Mismatch(IntegrityFailed):
    """The bytes do not have the MD5 that the ETag seems to be; `checksum` is what they have."""

    def __init__(self, checksum: str) -> None:
        super().__init__("what arrived does not fit the object's ETag; it was discarded and is fetched again")
        self.checksum = checksum


def pull(
    lane: Lane,
    relpath: str,
    remote: RemoteObject,
    temp: TempFile,
    *,
    distrusted: str,
    means: Means,
    moved: Callable[[int], None],
) -> tuple[Row, float]:
    """Fetch exactly the version `remote` into `temp`, verified and synced; the row that it will be.

    Also the seconds until the last byte was there.

    What `temp` holds already is the object's beginning. `distrusted` is the checksum of an earlier download that did
    not fit the ETag: the same bytes twice are what the store holds, since ETags of encrypted objects look like an MD5
    and are none. Such a row is not verified.
    Raises RemoteChanged when the object moved, IntegrityFailed when length or checksum do not fit, Unavailable.
    """
    sums = [Checksum(size) for size in part_sizes(remote) or (0,)]
    received = temp.size
    for block in temp.blocks(_BLOCK_BYTES):
        _add(sums, block)
    moved(received)
    began_s, begun_at = time.monotonic(), received
    if received == remote.size and received:
        metadata: Mapping[str, str] = lane.objects.head(remote.key).metadata or {}
    else:
        is_ranged = remote.size >= RANGED_FROM_BYTES
        room = RANGES_IN_FLIGHT * RANGE_BYTES if is_ranged else min(2 * _BLOCK_BYTES, remote.size)
        with means.budget.hold(room):
            download = _ranges(lane, remote, received, means) if is_ranged else _whole(lane, remote, means)
            metadata = download.metadata
            with closing(download.blocks) as blocks:
                # Ranges are watched one by one, as they arrive.
                for block in blocks if is_ranged else means.in_time(blocks, remote.size):
                    temp.write(block)
                    _add(sums, block)
                    received += len(block)
                    moved(len(block))
                    means.throughput.add("down", len(block))
    asked_s = time.monotonic() - began_s
    means.bandwidth.moved("down", received - begun_at, asked_s)
    if received != remote.size:
        raise IntegrityFailed(f"{received} bytes arrived of an object of {remote.size}; they were discarded")
    fingerprint = temp.finish(mtime_ns_of(metadata, remote.mtime_ns))
    texts = [running.text() for running in sums]
    return _row(relpath, fingerprint, remote, texts, distrusted), asked_s


@dataclass(frozen=True, slots=True)
class Arrived:
    """A small object's content, verified. The fingerprint of `row` is still to be found out."""

    row: Row
    body: bytes
    mtime_ns: int
    asked_s: float


def pull_small(lane: Lane, relpath: str, remote: RemoteObject, *, distrusted: str, means: Means) -> Arrived:
    """Fetch exactly the version `remote` into memory. Errors and `distrusted` as in `pull`."""
    began_s = time.monotonic()
    download = _whole(lane, remote, means)
    with closing(download.blocks) as blocks:
        body = b"".join(means.in_time(blocks, remote.size))
    asked_s = time.monotonic() - began_s
    means.bandwidth.moved("down", len(body), asked_s)
    means.throughput.add("down", len(body), asked_s)
    if len(body) != remote.size:
        raise IntegrityFailed(f"{len(body)} bytes arrived of an object of {remote.size}; they were discarded")
    texts = [checksum_of([body], part_size_bytes=size) for size in part_sizes(remote) or (0,)]
    row = _row(relpath, _UNKNOWN, remote, texts, distrusted)
    return Arrived(row, body, mtime_ns_of(download.metadata, remote.mtime_ns), asked_s)


def _row(relpath: str, fingerprint: Fingerprint, remote: RemoteObject, texts: Sequence[str], distrusted: str) -> Row:
    """The row of content whose checksum is one of `texts`. Raises Mismatch when the ETag says otherwise."""
    for text in texts:
        if etag_of(text) == remote.etag:
            return Row(relpath, fingerprint, remote.etag, text, is_verified=True)
    is_conclusive = "-" not in remote.etag or own_part_size(remote)
    if is_md5_etag(remote.etag) and is_conclusive and texts[0] != distrusted:
        raise Mismatch(texts[0])
    return Row(relpath, fingerprint, remote.etag, texts[0])


def _add(sums: list[Checksum], block: bytes) -> None:
    for running in sums:
        running.update(block)


def _whole(lane: Lane, remote: RemoteObject, means: Means) -> Download:
    means.let_pass(down=remote.size)
    return lane.objects.get(remote.key, etag=remote.etag)


def _ranges(lane: Lane, remote: RemoteObject, begin: int, means: Means) -> Download:
    """The object from `begin` on, in order; ranges ahead of the reader are fetched meanwhile."""
    offsets = deque(range(begin, remote.size, RANGE_BYTES))

    def fetch(offset: int) -> tuple[Mapping[str, str], list[bytes]]:
        size = min(RANGE_BYTES, remote.size - offset)
        means.let_pass(down=size)
        download = lane.objects.get(remote.key, etag=remote.etag, offset=offset, size=size)
        with closing(download.blocks) as arriving:
            return download.metadata, list(means.in_time(arriving, size))

    first_metadata, first_blocks = fetch(offsets.popleft())

    def blocks() -> Generator[bytes]:
        ahead: deque[Future[tuple[Mapping[str, str], list[bytes]]]] = deque()
        with ThreadPoolExecutor(RANGES_IN_FLIGHT - 1, thread_name_prefix="range") as threads:
            try:
                while offsets and len(ahead) < RANGES_IN_FLIGHT - 1:
                    ahead.append(threads.submit(fetch, offsets.popleft()))
                yield from first_blocks
                first_blocks.clear()
                while ahead:
                    _, arrived = ahead.popleft().result()
                    if offsets:
                        ahead.append(threads.submit(fetch, offsets.popleft()))
                    yield from arrived
            finally:
                for one in ahead:
                    one.cancel()

    return Download(first_metadata, blocks())
