"""File -> object: bytes that one settled version of the file had, whole or not at all.

Owns: the close gate, reading with a running checksum, the second look at the file, and which way it goes: one PUT, a
stream of parts, or parts that a restart can resume (`resumable`). Never: retries, decisions, rows. A file of one part
is loaded whole before its request begins, so its object cannot be torn; a larger one becomes visible only after the
file was found unchanged.
"""

import contextlib
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from replicator.checksum import checksum_of, composite_etag, part_size_of, written
from replicator.errors import ObjectMissing, RemoteChanged, SourceChanged, Unavailable
from replicator.model import Fingerprint, Row, Upload
from replicator.stores.files.export import OpenFile
from replicator.transfer.content import Content, part_metadata, part_size_for, whole_metadata
from replicator.transfer.late import expect, unless_answered
from replicator.transfer.outcome import Parcel
from replicator.transfer.resumable import abandon, begun_upload, push_resumable

_STREAM_PARTS_HELD = 3
"""Parts of a stream that are in memory at a time: two on their way, one being read."""

_TRIAL_PARTS = 4
"""Parts after which a stream is not given up any more, however slow the link turns out to be."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """The new row; `moved_bytes` is None when the object held this content already and nothing was sent."""

    row: Row
    moved_bytes: int | None = None
    asked_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """One settled version of a file, in memory. `md5` is the digest of `body`."""

    body: bytes
    md5: bytes


class _TooSlow(Exception):
    """The link is slower than assumed: the upload deserves to survive a restart."""


def push(parcel: Parcel, *, known: Content | None, waited_s: float) -> Pushed:
    """Bring the file's present content to its key. Nothing is recorded but what a restart needs to go on.

    `known` is what the object is known to hold: equal content is adopted and nothing is sent.
    `waited_s` is how long the path has been waiting for its writer.
    Raises SourceChanged while the file is being written or when it moved during the read.
    """
    file, means = parcel.file, parcel.means
    _let_tick(file)
    _check_settled(parcel, waited_s)
    if known and _checksum_like(file, known.checksum) == known.checksum:
        return adopted(parcel, known)
    if parcel.size <= means.part_size_bytes:
        with means.budget.hold(parcel.size):
            return put(parcel, _read(parcel))
    part_size = part_size_for(parcel.size, means.part_size_bytes)
    begun = begun_upload(parcel, part_size=part_size)
    if parcel.lane.objects.streams and begun is None and not means.is_long(parcel.size):
        with contextlib.suppress(_TooSlow):
            return _push_stream(parcel, part_size=part_size)
        abandon(parcel.lane, parcel.file.relpath)  # what the stream was to abort itself
    row = push_resumable(parcel, begun=begun, part_size=part_size)
    return Pushed(row, moved_bytes=parcel.size)


def adopted(parcel: Parcel, known: Content) -> Pushed:
    """The object held this content already."""
    file = parcel.file
    return Pushed(Row(file.relpath, file.fingerprint, known.etag, known.checksum, known.is_verified))


def load(parcel: Parcel, *, waited_s: float) -> Loaded:
    """The whole content of a file of one part, of which `tick_left_s` is 0. Raises SourceChanged as `push` does."""
    _check_settled(parcel, waited_s)
    return _read(parcel)


def put(parcel: Parcel, loaded: Loaded) -> Pushed:
    """Send what was loaded in one request. The file may be closed by now, and may have changed: that is seen later."""
    means = parcel.means
    begun_upload(parcel, part_size=means.part_size_bytes)  # of a larger version: it is in the way
    means.let_pass(up=len(loaded.body))
    metadata = whole_metadata(parcel.file.fingerprint, loaded.md5)
    began_s = time.monotonic()
    with unless_answered(parcel.lane, parcel.file.relpath, written(loaded.md5.hex(), part_size_bytes=0)):
        etag = parcel.lane.objects.put(parcel.key, loaded.body, md5=loaded.md5, metadata=metadata)
    asked_s = time.monotonic() - began_s
    means.bandwidth.moved("up", len(loaded.body), asked_s)
    means.throughput.add("up", len(loaded.body), asked_s)
    parcel.moved(len(loaded.body))
    row = parcel.row(etag, loaded.md5.hex(), part_size=0)
    return Pushed(row, moved_bytes=len(loaded.body), asked_s=asked_s)


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
    if wait_s := quiet_left_s(file.fingerprint, means.quiet_s):
        raise SourceChanged("it was written a moment ago; it is sent once it is quiet", retry_after_s=wait_s)


def _let_tick(file: OpenFile) -> None:
    """Wait until a change after the read cannot look like the one before it. Raises SourceChanged if that is long."""
    if left_s := file.tick_left_s():
        time.sleep(left_s)
        if file.tick_left_s():
            raise SourceChanged("it was written this very moment; it is sent in the next", retry_after_s=left_s)


def quiet_left_s(version: Fingerprint, quiet_s: float) -> float:
    """Seconds until a file of this version has been quiet for `quiet_s`; 0.0 when it has, or is of the future."""
    age_s = time.time() - max(version.mtime_ns, version.ctime_ns) / 1e9
    return quiet_s - age_s if 0 <= age_s < quiet_s else 0.0


def _read(parcel: Parcel) -> Loaded:
    file = parcel.file
    body = file.read()
    if not file.is_unchanged():
        raise SourceChanged("it changed while it was read; it is read again")
    return Loaded(body, hashlib.md5(body, usedforsecurity=False).digest())


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
        on_record = lane.journal.sending.on_record(lane.number, file.relpath, "")
        with means.budget.hold(_STREAM_PARTS_HELD * part_size), on_record:
            metadata = part_metadata(file.fingerprint, part_size)
            etag = lane.objects.put_parts(parcel.key, parts(), part_size=part_size, metadata=metadata)
    except _TooSlow:
        parcel.moved(-len(digests) * part_size)
        raise
    except Unavailable:
        if len(digests) * part_size >= parcel.size:  # else nothing was to become visible yet
            expect(lane, file.relpath, written(composite_etag(digests), part_size_bytes=part_size))
        raise
    except ObjectMissing as exc:
        # What the store says when the library cleans up after a completion whose answer was lost.
        raise RemoteChanged("the upload is gone, perhaps because it is complete; the object is looked at") from exc
    took_s = time.monotonic() - began_s
    means.bandwidth.moved("up", parcel.size, took_s)
    means.throughput.add("up", parcel.size, took_s)
    row = parcel.row(etag, composite_etag(digests), part_size=part_size)
    return Pushed(row, moved_bytes=parcel.size)


def _checksum_like(file: OpenFile, known: str) -> str:
    """The file's checksum in the form of `known`; '' when the file moved meanwhile."""
    checksum = checksum_of(file.blocks(), part_size_bytes=part_size_of(known))
    return checksum if file.is_unchanged() else ""
