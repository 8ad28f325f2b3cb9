"""One egress job: look at the file, its row and, where it pays, its object; decide; send; write the row.

Source of every decision: `reconcile.classify`. A request is made only for what is new or changed.
"""

import contextlib
import dataclasses
import time

from replicator.checksum import written
from replicator.errors import KeyUnsafe, LeftOut, ObjectMissing, TransferError
from replicator.model import UNSEEN, Action, LocalFile, RemoteObject, Row
from replicator.observe import logs
from replicator.reconcile.classify import classify_egress
from replicator.reconcile.filters import is_included
from replicator.reconcile.keys import key_of
from replicator.stores.files.export import OpenFile
from replicator.stores.lane import Lane
from replicator.transfer.content import Content, part_sizes
from replicator.transfer.job import Job
from replicator.transfer.outcome import Done, Means, Outcome, Parcel
from replicator.transfer.push import push
from replicator.transfer.resumable import recover_uploads

log = logs.get("egress")

_HEAD_FROM_BYTES = 64 * 1024
"""From this size on a file without a row is worth a HEAD: it may be in the bucket. Less costs as much to send."""


def send(job: Job, means: Means) -> Outcome:
    """Bring one file's present version into the bucket. Raises TransferError."""
    lane = job.lane
    try:
        key = key_of(lane.target.prefix, job.relpath)
        with means.turn:
            file, row, action = _look(job)
    except (LeftOut, KeyUnsafe):
        return Outcome(Done.NOTHING, was_asked=False)  # no failure: the sweep lists what a rule leaves out
    if file is None:
        if action is not Action.FORGET:
            return Outcome(Done.NOTHING, was_asked=False)
        lane.journal.forget(lane.number, job.relpath)
        return Outcome(Done.FORGOTTEN, was_asked=False)
    with file:
        if action in (Action.COPY, Action.CHECK):
            parcel = Parcel(lane, file, key, means, job.count_moved)
            return _send(job, parcel, row, is_check=action is Action.CHECK)
        if action is Action.SKIP and row and row.is_verified and lane.target.options.delete_after_upload:
            row = _looked_after(lane, key, row)
            if not row.is_verified:
                return Outcome(Done.NOTHING, row=row)
            _free(lane, row)
            return Outcome(Done.FREED)
        return Outcome(Done.NOTHING, was_asked=False)


def _look(job: Job) -> tuple[OpenFile | None, Row | None, Action]:
    """The file, open when there is one, its row, and what is to be done."""
    lane = job.lane
    file = lane.export.open_if_there(job.relpath)
    try:
        local = LocalFile(job.relpath, file.fingerprint) if file else None
        # A file that is filtered out, or that ingress wrote, is none of egress's business.
        if local is not None and (not is_included(job.relpath, lane.target.options) or lane.is_echo(local)):
            return file, None, Action.LEAVE
        row = lane.row(job.relpath)
        job.observe(local)
        return file, row, classify_egress(local, job.remote, row)
    except BaseException:
        if file:
            file.close()
        raise


def recover(lane: Lane) -> None:
    """Finish what a crash left: files half removed, uploads that cannot go on."""
    with contextlib.suppress(TransferError):  # a read-only or missing export; the sweep says it
        lane.export.finish_removals()
    recover_uploads(lane)


def _send(job: Job, parcel: Parcel, row: Row | None, *, is_check: bool) -> Outcome:
    lane = parcel.lane
    known = _known(job, parcel, row, is_check=is_check)
    pushed = push(parcel, known=known, waited_s=time.monotonic() - job.changed_s)
    new_row, was_sent = pushed.row, pushed.moved_bytes is not None
    is_to_go = lane.target.options.delete_after_upload and new_row.is_verified
    if is_to_go and not was_sent:
        new_row = _looked_after(lane, parcel.key, new_row)
    if was_sent and parcel.size > parcel.means.part_size_bytes:
        lane.journal.settle_upload(lane.number, new_row)
    elif is_to_go:
        lane.journal.settle(lane.number, new_row)  # what is recorded nowhere is not deleted
    return Outcome(
        Done.COPIED if was_sent else Done.ADOPTED,
        moved_bytes=pushed.moved_bytes or 0,
        was_asked=was_sent or row is None,
        asked_s=pushed.asked_s,
        key=parcel.key,
        is_freed=is_to_go and new_row.is_verified and _freed_or_told(lane, new_row),
        row=None if is_to_go or (was_sent and parcel.size > parcel.means.part_size_bytes) else new_row,
    )


def _looked_after(lane: Lane, key: str, row: Row) -> Row:
    """The row, no longer verified when the store does not hold any more what it confirmed, perhaps long ago."""
    try:
        is_there = lane.objects.head(key).etag == row.etag
    except ObjectMissing:
        is_there = False
    return dataclasses.replace(row, is_verified=is_there)


def _free(lane: Lane, row: Row) -> None:
    """Remove the file whose very content the store has confirmed; one that moved meanwhile stays."""
    lane.export.remove(row.relpath, expected=row.fingerprint)
    # At once, or an emptied directory would look like a lost one.
    lane.journal.forget(lane.number, row.relpath)


def _freed_or_told(lane: Lane, row: Row) -> bool:
    """Free the file after its upload, which stays a success either way: the sweep asks for the removal again."""
    try:
        _free(lane, row)
    except TransferError as error:
        log.warning("file stays on the device", target=lane.target.id, relpath=row.relpath, error=error)
        return False
    return True


def _known(job: Job, parcel: Parcel, row: Row | None, *, is_check: bool) -> Content | None:
    """What the object is known to hold, where comparing may spare a transfer."""
    size = parcel.size
    is_large = size >= _HEAD_FROM_BYTES
    # An attempt whose answer was lost may have arrived all the same.
    if row is not None and not (job.attempts and is_large):
        return Content(row.etag, row.checksum, row.is_verified) if is_check and row.checksum else None
    remote = UNSEEN if job.attempts else job.remote
    is_composite = isinstance(remote, RemoteObject) and "-" in remote.etag
    if (remote is UNSEEN and is_large) or is_composite:
        try:
            remote = parcel.lane.objects.head(parcel.key)
        except ObjectMissing:
            return None
    if not isinstance(remote, RemoteObject) or remote.size != size:
        return None
    return _content(remote)


def _content(remote: RemoteObject) -> Content | None:
    """The checksum behind an ETag, as far as the ETag and our own metadata tell."""
    sizes = part_sizes(remote)
    return Content(remote.etag, written(remote.etag, part_size_bytes=sizes[0])) if sizes else None
