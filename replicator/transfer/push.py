"""File -> object: bytes that one settled version of the file had, whole or not at all.

Owns: the close gate, reading with a running checksum, the second look at the file, and which way it goes: one PUT, a
stream of parts, or parts that a restart can resume (`resumable`). Never: retries, decisions, rows. A small file is
read whole before the request begins, so its object cannot be torn; a large one becomes visible only after the file
was found unchanged.
"""

import contextlib
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from replicator.checksum import checksum_of, composite_etag, part_size_of
from replicator.errors import SourceChanged
from replicator.model import Row, Upload
from replicator.stores.files.export import OpenFile
from replicator.transfer.content import Content, part_metadata, part_size_for, row_of, whole_metadata
from replicator.transfer.outcome import Parcel
from replicator.transfer.resumable import begun_upload, push_resumable

_STREAM_PARTS_HELD = 3
"""Parts of a stream that are in memory at a time: two on their way, one being read."""

_SHORT_WORK_BYTES = 64 * 1024
"""Files above it are read and hashed for so long that several cores pay."""

_TRIAL_PARTS = 4
"""Parts after which a stream is not given up any more, however slow the link turns out to be."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """The new row; `moved_bytes` is None when the object held this content already and nothing was sent."""

    row: Row
    moved_bytes: int | None = None
    asked_s: float = 0.0


class _TooSlow(Exception):
    """The link is slower than assumed: the upload deserves to survive a restart."""


def push(parcel: Parcel, *, known: Content | None, waited_s: float) -> Pushed:
    """Bring the file's present content to its key. Nothing is recorded but what a restart needs to go on.

    `known` is what the object is known to hold: equal content is adopted and nothing is sent.
    `waited_s` is how long the path has been waiting for its writer.
    Raises SourceChanged while the file is being written or when it moved during the read.
    """
    file, means = parcel.file, parcel.means
    _check_settled(parcel, waited_s)
    if known and _checksum_like(file, known.checksum) == known.checksum:
        return Pushed(Row(file.relpath, file.fingerprint, known.etag, known.checksum, known.is_verified))
    part_size = part_size_for(parcel.size, means.part_size_bytes)
    begun = begun_upload(parcel, part_size=part_size)
    if parcel.size <= means.part_size_bytes:
        return _push_whole(parcel)
    if parcel.lane.objects.streams and begun is None and not means.is_long(parcel.size):
        with contextlib.suppress(_TooSlow):
            return _push_stream(parcel, part_size=part_size)
    row = push_resumable(parcel, begun=begun, part_size=part_size)
    return Pushed(row, moved_bytes=parcel.size)


def _check_settled(parcel: Parcel, waited_s: float) -> None:
    """The close gate: raises SourceChanged while somebody may still be writing the file."""
    file, means = parcel.file, parcel.means
    has_writer = file.has_writer()
    if has_writer is False:
        return
    is_snapshot = parcel.lane.target.options.open_files == "snapshot" and waited_s > means.open_file_ceiling_s
    if has_writer and not is_snapshot:
        raise SourceChanged("a program has it open for writing; it is sent once that closes it")
    if has_writer:
        return  # a file that never closes ships as it is, provided that it holds still while it is read
    # The kernel does not tell: the file must at least have been quiet.
    age_s = time.time() - max(file.fingerprint.mtime_ns, file.fingerprint.ctime_ns) / 1e9
    if 0 <= age_s < means.quiet_s:
        wait_s = means.quiet_s - age_s
        raise SourceChanged("it was written a moment ago; it is sent once it is quiet", retry_after_s=wait_s)


def _push_whole(parcel: Parcel) -> Pushed:
    file, means = parcel.file, parcel.means
    with means.budget.hold(parcel.size):
        means.let_pass(up=parcel.size)
        with means.turn if parcel.size <= _SHORT_WORK_BYTES else contextlib.nullcontext():
            body = file.read()
            if not file.is_unchanged():
                raise SourceChanged("it changed while it was read; it is read again")
            md5 = hashlib.md5(body, usedforsecurity=False)
        metadata = whole_metadata(file.fingerprint, md5.digest())
        began_s = time.monotonic()
        etag = parcel.lane.objects.put(parcel.key, body, md5=md5.digest(), metadata=metadata)
    asked_s = time.monotonic() - began_s
    means.bandwidth.moved("up", parcel.size, asked_s)
    parcel.moved(parcel.size)
    row = row_of(file.relpath, file.fingerprint, etag, md5.hexdigest(), part_size=0)
    return Pushed(row, moved_bytes=parcel.size, asked_s=asked_s)


def _push_stream(parcel: Parcel, *, part_size: int) -> Pushed:
    """Send parts one after the other; a link that turns out to be slow ends it early, with _TooSlow."""
    file, lane, means = parcel.file, parcel.lane, parcel.means
    # Without an id: a crash leaves parts at this key that only a listing can find.
    lane.journal.begin_upload(lane.number, Upload(file.relpath, "", file.fingerprint, part_size))
    digests: list[bytes] = []
    began_s = time.monotonic()

    def parts() -> Iterator[bytes]:
        for offset in range(0, parcel.size, part_size):
            body = file.read_at(offset, part_size)
            means.let_pass(up=len(body))
            arrived = len(digests) - _STREAM_PARTS_HELD + 1
            if 0 < arrived <= _TRIAL_PARTS:
                means.bandwidth.moved("up", arrived * part_size, time.monotonic() - began_s)
                if means.is_long(parcel.size):
                    raise _TooSlow
            digests.append(hashlib.md5(body, usedforsecurity=False).digest())
            parcel.moved(len(body))
            yield body
        if not file.is_unchanged():
            raise SourceChanged("it changed while it was sent; nothing was published, it is sent again")

    try:
        with means.budget.hold(_STREAM_PARTS_HELD * part_size):
            metadata = part_metadata(file.fingerprint, part_size)
            etag = lane.objects.put_parts(parcel.key, parts(), part_size=part_size, metadata=metadata)
    except _TooSlow:
        parcel.moved(-len(digests) * part_size)
        raise
    means.bandwidth.moved("up", parcel.size, time.monotonic() - began_s)
    row = row_of(file.relpath, file.fingerprint, etag, composite_etag(digests), part_size=part_size)
    return Pushed(row, moved_bytes=parcel.size)


def _checksum_like(file: OpenFile, known: str) -> str:
    """The file's checksum in the form of `known`; '' when the file moved meanwhile."""
    checksum = checksum_of(file.blocks(), part_size_bytes=part_size_of(known))
    return checksum if file.is_unchanged() else ""
