"""A large file -> object in parts that the journal knows: an interruption of any length costs the parts in flight.

Owns: which parts are still to be sent, and what becomes of uploads that cannot go on. Never: retries, rows. Parts are
good for exactly one version of the file; others than our own uploads are left alone.
Source: S3 multipart upload: parts live until the upload is completed or aborted, and cost money until then.
"""

import contextlib
import dataclasses
import hashlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from replicator.checksum import composite_etag, written
from replicator.errors import (
    IntegrityFailed,
    LeftOut,
    ObjectMissing,
    Permanent,
    Refused,
    RemoteChanged,
    SourceChanged,
    TransferError,
)
from replicator.model import Part, Row, Upload
from replicator.reconcile.keys import key_of
from replicator.stores.lane import Lane
from replicator.transfer.content import part_metadata
from replicator.transfer.late import unless_answered
from replicator.transfer.outcome import Parcel

PARTS_IN_FLIGHT = 4


def begun_upload(parcel: Parcel, *, part_size: int) -> Upload | None:
    """The upload of exactly this version that can go on; one of any other version is thrown away."""
    upload = parcel.lane.journal.upload(parcel.lane.number, parcel.file.relpath)
    if upload is None:
        return None
    if upload.upload_id and upload.fingerprint == parcel.file.fingerprint and upload.part_size == part_size:
        return upload
    _throw_away(parcel.lane, parcel.key, upload)
    return None


def push_resumable(parcel: Parcel, *, begun: Upload | None, part_size: int) -> Row:
    """Send the parts that are missing, publish when the file did not move meanwhile; the new row.

    What was confirmed stays in the journal when this raises, unless it can never be completed.
    """
    lane, file, key = parcel.lane, parcel.file, parcel.key
    if begun is None:
        begun = _begin(parcel, part_size)
    try:
        parts = _Sending(parcel, begun).run()
        if not file.is_unchanged():
            raise SourceChanged("it changed while it was sent; nothing was published, it is sent again")
        expected = composite_etag([part.md5 for part in parts])
        with unless_answered(lane, file.relpath, written(expected, part_size_bytes=part_size)):
            etag = _complete(lane, key, begun.upload_id, parts, expected)
    except ObjectMissing as exc:
        lane.journal.drop_upload(lane.number, file.relpath)
        raise RemoteChanged("the upload vanished from the store before it was complete; it is sent again") from exc
    except (SourceChanged, Refused, IntegrityFailed):
        _throw_away(lane, key, begun)
        raise
    return parcel.row(etag, expected, part_size=part_size)


def _begin(parcel: Parcel, part_size: int) -> Upload:
    """A new upload, in the journal before it is in the store: where its answer is lost, its key still finds it."""
    lane, file = parcel.lane, parcel.file
    unnamed = Upload(file.relpath, "", file.fingerprint, part_size)
    lane.journal.begin_upload(lane.number, unnamed)
    upload_id = lane.objects.create_upload(parcel.key, metadata=part_metadata(file.fingerprint, part_size))
    begun = dataclasses.replace(unnamed, upload_id=upload_id)
    lane.journal.begin_upload(lane.number, begun)
    return begun


def recover_uploads(lane: Lane) -> None:
    """Throw away own uploads whose file is gone or has moved on since. Those that can go on are left for their job."""
    for upload in lane.journal.uploads(lane.number):
        # The endpoint is away, or the file cannot be looked at: the next start looks again.
        with contextlib.suppress(TransferError):
            if not _can_go_on(lane, upload):
                _throw_away(lane, key_of(lane.target.prefix, upload.relpath), upload)


def _can_go_on(lane: Lane, upload: Upload) -> bool:
    if not upload.upload_id:
        return False
    try:
        local = lane.export.stat(upload.relpath)
    except LeftOut:  # a link or a directory has taken the file's place
        return False
    return local is not None and local.fingerprint == upload.fingerprint


def is_begun(lane: Lane, relpath: str) -> bool:
    """Whether an upload of the path is on record. Costs a read only where one is."""
    return lane.journal.upload(lane.number, relpath) is not None


def abandon(lane: Lane, relpath: str) -> None:
    """Throw away what was begun and is not to go on. Raises Retryable while the store cannot be asked.

    What the store refuses stays on record for the next start: nothing but parts depends on it.
    """
    upload = lane.journal.upload(lane.number, relpath)
    if upload is not None:
        with contextlib.suppress(Permanent):
            _throw_away(lane, key_of(lane.target.prefix, relpath), upload)


def _throw_away(lane: Lane, key: str, upload: Upload) -> None:
    """Abort an upload of ours and forget it. One without an id was cut off by a crash: it is found by its key."""
    ids = [upload.upload_id] if upload.upload_id else _ids_at(lane, key)
    for upload_id in ids:
        lane.objects.abort_upload(key, upload_id)
    lane.journal.drop_upload(lane.number, upload.relpath)


def _ids_at(lane: Lane, key: str) -> list[str]:
    return [upload_id for found, upload_id in lane.objects.list_uploads(key) if found == key]


def _complete(lane: Lane, key: str, upload_id: str, parts: list[Part], expected: str) -> str:
    """Publish; an earlier attempt whose answer was lost may have done it already. Raises ObjectMissing."""
    try:
        return lane.objects.complete_upload(key, upload_id, [part.etag for part in parts])
    except ObjectMissing:
        found = lane.objects.head(key)
        if found.etag != expected:
            raise
        return found.etag


class _Sending:
    """The parts of one upload that are still to be sent, a few at a time."""

    def __init__(self, parcel: Parcel, upload: Upload) -> None:
        self._parcel = parcel
        self._upload = upload
        self._parts = {part.number: part for part in upload.parts}
        self._lock = threading.Lock()
        self._error: TransferError | None = None

    def run(self) -> list[Part]:
        """Every part in order. Raises the first error; parts that were on their way then still arrive and count."""
        count = -(-self._parcel.size // self._upload.part_size)
        self._parcel.moved(sum(map(self._size_of, self._parts)))
        missing = iter([number for number in range(1, count + 1) if number not in self._parts])
        with ThreadPoolExecutor(PARTS_IN_FLIGHT, thread_name_prefix="part") as threads:
            for ended in [threads.submit(self._work, missing) for _ in range(PARTS_IN_FLIGHT)]:
                ended.result()
        if self._error:
            raise self._error
        return [self._parts[number] for number in range(1, count + 1)]

    def _work(self, missing: Iterator[int]) -> None:
        while self._error is None:
            with self._lock:
                number = next(missing, None)
            if number is None:
                return
            try:
                self._send(number)
            except TransferError as error:
                self._error = error

    def _send(self, number: int) -> None:
        lane, file, means = self._parcel.lane, self._parcel.file, self._parcel.means
        size = self._size_of(number)
        with means.budget.hold(size):
            means.let_pass(up=size)
            body = file.read_at((number - 1) * self._upload.part_size, size)
            md5 = hashlib.md5(body, usedforsecurity=False).digest()
            began_s = time.monotonic()
            etag = lane.objects.put_part(self._parcel.key, self._upload.upload_id, number, body, md5=md5)
        took_s = time.monotonic() - began_s
        means.bandwidth.moved("up", size, took_s)
        means.throughput.add("up", size, took_s)
        part = Part(number, etag, md5)
        lane.journal.add_part(lane.number, file.relpath, part)
        self._parts[number] = part
        self._parcel.moved(size)

    def _size_of(self, number: int) -> int:
        part_size = self._upload.part_size
        return min(part_size, self._parcel.size - (number - 1) * part_size)
