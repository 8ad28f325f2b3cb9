"""Egress jobs: look at the file, its row and, where it pays, its object; decide; send.

Source of every decision: `reconcile.classify`. A request is made only for what is new or changed.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from replicator.checksum import checksum_of, part_size_of, written
from replicator.errors import KeyUnsafe, LeftOut, ObjectMissing, TransferError
from replicator.model import UNSEEN, Action, LocalFile, RemoteObject, Row
from replicator.observe import logs
from replicator.reconcile.classify import classify_egress
from replicator.reconcile.filters import is_included
from replicator.reconcile.keys import MAX_OBJECT_BYTES, key_of
from replicator.stores.files.export import OpenFile
from replicator.stores.lane import Lane
from replicator.transfer.barrier import check_barrier, is_barrier
from replicator.transfer.content import Content, part_sizes
from replicator.transfer.job import Job
from replicator.transfer.late import endangers
from replicator.transfer.outcome import Done, Ending, Means, Outcome, Parcel, attempt
from replicator.transfer.push import Loaded, Pushed, adopted, load, push, put
from replicator.transfer.resumable import abandon, is_begun, recover_uploads
from replicator.transfer.turns import SMALL_BYTES

log = logs.get("egress")

_HEAD_FROM_BYTES = 64 * 1024
"""From this size on a file without a row is worth a HEAD: it may be in the bucket. Less costs as much to send."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """A file that is to be sent or freed, and what was known of it when it was looked at."""

    parcel: Parcel
    row: Row | None
    action: Action


def send(jobs: Sequence[Job], means: Means, go_on: Callable[[], bool]) -> Iterator[tuple[Job, Ending]]:
    """Bring the files' present versions into the bucket, one after the other; each job with how it ended.

    All are looked at, and the small ones read, before the first request. `go_on` is asked before each job's requests;
    where it says no, the job is not begun and not yielded. Raises JournalError.
    """
    began_s = time.time()
    for job, ending in _send(jobs, means, go_on):
        if isinstance(ending, Outcome):
            job.lane.journal.looked_at(job.lane.number, job.relpath, began_s=began_s)
        yield job, ending


def _send(jobs: Sequence[Job], means: Means, go_on: Callable[[], bool]) -> Iterator[tuple[Job, Ending]]:
    opened = []
    with means.budget.hold(len(jobs) * SMALL_BYTES):
        with means.turn:
            rows = jobs[0].lane.rows_of([job.relpath for job in jobs])
            begun = [(job, attempt(job, partial(_begin, job, rows.get(job.relpath), means))) for job in jobs]
        for job, step in begun:
            if isinstance(step, _Opened):
                opened.append((job, step))
            elif not callable(step):
                yield job, step
            elif go_on():
                yield job, attempt(job, step)
    for job, found in opened:
        with found.parcel.file:
            if go_on():
                yield job, attempt(job, partial(_finish, job, found))


def _begin(job: Job, row: Row | None, means: Means) -> Outcome | _Opened | Callable[[], Outcome]:
    """Look, decide and load; what takes a request or a commit is left to be done."""
    lane = job.lane
    try:
        key = key_of(lane.target.prefix, job.relpath)
        file = lane.export.open_if_there(job.relpath)
    except (LeftOut, KeyUnsafe):
        return _without_file(job, Action.LEAVE)  # no failure: the sweep lists what a rule leaves out
    if file is None:
        return _without_file(job, classify_egress(None, job.remote, row))
    with ExitStack() as open_files:
        open_files.enter_context(file)
        action = _decide(job, file, row)
        parcel = Parcel(lane, file, key, means, job.count_moved)
        if action in (Action.COPY, Action.CHECK):
            # Whatever has to be waited for, a tick of the file system's clock too, is not waited for in turn.
            is_asked = _is_asked_first(job, parcel.size, row)
            is_ready = not (is_asked or is_barrier(lane, job.relpath) or file.tick_left_s())
            if parcel.size <= SMALL_BYTES and is_ready:
                loaded = load(parcel, waited_s=time.monotonic() - job.changed_s)
                return partial(_deliver, job, parcel, row, loaded, is_check=action is Action.CHECK)
        elif not (action is Action.SKIP and row and _has_to_be_asked(lane, row)):
            return Outcome(Done.NOTHING, was_asked=False)
        open_files.pop_all()
        return _Opened(parcel, row, action)


def _has_to_be_asked(lane: Lane, row: Row) -> bool:
    """Whether a file in step is worth a request: to free the device of it, or because its object may be another."""
    if late := endangers(lane, row):
        return late.is_due(time.time())
    return row.is_verified and lane.target.options.delete_after_upload


def _decide(job: Job, file: OpenFile, row: Row | None) -> Action:
    lane = job.lane
    local = LocalFile(job.relpath, file.fingerprint)
    # A file that is filtered out, that no object can hold, or that ingress wrote, is none of egress's business.
    is_possible = file.fingerprint.size <= MAX_OBJECT_BYTES and is_included(job.relpath, lane.target.options)
    if not is_possible or lane.is_echo(local):
        return Action.LEAVE
    # The bucket is listed only while no row is known, so whatever a listing says is older than any row.
    action = classify_egress(local, job.remote if row is None else UNSEEN, row)
    if action is not Action.SKIP:
        job.observe(local)
    return action


def _without_file(job: Job, action: Action) -> Outcome | Callable[[], Outcome]:
    """There is no file, or none any more: its row goes, and so do the parts that were sent of it."""
    is_asked = is_begun(job.lane, job.relpath)
    if action is Action.FORGET or is_asked:
        return partial(_let_go, job, action, is_asked=is_asked)
    return Outcome(Done.NOTHING, was_asked=False)


def _let_go(job: Job, action: Action, *, is_asked: bool) -> Outcome:
    is_forgotten = action is Action.FORGET
    if is_forgotten:
        job.lane.journal.forget(job.lane.number, job.relpath)
    abandon(job.lane, job.relpath)
    return Outcome(Done.FORGOTTEN if is_forgotten else Done.NOTHING, was_asked=is_asked)


def recover(lane: Lane) -> None:
    """Finish what a crash left: files half removed, uploads that cannot go on."""
    with contextlib.suppress(TransferError):  # a read-only or missing export; the sweep says it
        lane.export.finish_removals(lane.journal.forget_version)
    recover_uploads(lane)


def _deliver(job: Job, parcel: Parcel, row: Row | None, loaded: Loaded, *, is_check: bool) -> Outcome:
    """Send what was loaded, unless the object is known to hold it."""
    known = _known(job, parcel, row, is_check=is_check)
    if known and checksum_of([loaded.body], part_size_bytes=part_size_of(known.checksum)) == known.checksum:
        return _concluded(parcel, row, adopted(parcel, known))
    return _concluded(parcel, row, put(parcel, loaded))


def _finish(job: Job, found: _Opened) -> Outcome:
    """Send, or free what was sent."""
    parcel, row, action = found.parcel, found.row, found.action
    is_endangered = row is not None and endangers(parcel.lane, row) is not None
    if is_endangered and action is Action.SKIP:
        action = classify_egress(LocalFile(job.relpath, parcel.file.fingerprint), _head(parcel), row)
        if action is Action.SKIP:
            return Outcome(Done.NOTHING)
        log.warning("overwritten by a late request, sent again", target=parcel.lane.target.id, relpath=job.relpath)
    if row is None or action in (Action.COPY, Action.CHECK):
        if is_barrier(parcel.lane, job.relpath):
            check_barrier(parcel.lane, job.relpath)
        known = _known(job, parcel, row, is_check=action is Action.CHECK)
        return _concluded(parcel, row, push(parcel, known=known, waited_s=time.monotonic() - job.changed_s))
    row = _looked_after(parcel, row)
    if not row.is_verified:
        return Outcome(Done.NOTHING, row=row)
    _free(parcel.lane, row)
    return Outcome(Done.FREED)


def _concluded(parcel: Parcel, row: Row | None, pushed: Pushed) -> Outcome:
    lane, new_row, was_sent = parcel.lane, pushed.row, pushed.moved_bytes is not None
    if not was_sent:
        with contextlib.suppress(TransferError):  # nothing hangs on it, and the next start tries again
            abandon(lane, new_row.relpath)
    is_to_go = lane.target.options.delete_after_upload and new_row.is_verified and not endangers(lane, new_row)
    if is_to_go and not was_sent:
        new_row = _looked_after(parcel, new_row)
    is_upload = was_sent and parcel.size > parcel.means.part_size_bytes
    if is_upload:
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
        row=None if is_to_go or is_upload else new_row,
    )


def _looked_after(parcel: Parcel, row: Row) -> Row:
    """The row, no longer verified when the store does not hold any more what it confirmed, perhaps long ago."""
    remote = _head(parcel)
    return dataclasses.replace(row, is_verified=remote is not None and remote.etag == row.etag)


def _head(parcel: Parcel) -> RemoteObject | None:
    """The object as it is now, None when there is none."""
    try:
        return parcel.lane.objects.head(parcel.key)
    except ObjectMissing:
        return None


def _free(lane: Lane, row: Row) -> None:
    """Remove the file whose very content the store has confirmed; one that moved meanwhile stays."""
    # The row goes with it, or an emptied directory would look like a lost one.
    forget = partial(lane.journal.forget, lane.number, row.relpath)
    lane.export.remove(row.relpath, expected=row.fingerprint, forget=forget)


def _freed_or_told(lane: Lane, row: Row) -> bool:
    """Free the file after its upload, which stays a success either way: the sweep asks for the removal again."""
    try:
        _free(lane, row)
    except TransferError as error:
        log.warning("file stays on the device", target=lane.target.id, relpath=row.relpath, error=error)
        return False
    return True


def _is_asked_first(job: Job, size: int, row: Row | None) -> bool:
    """Whether a HEAD is worth its while: it may tell that nothing has to be sent."""
    is_large = size >= _HEAD_FROM_BYTES
    # An attempt whose answer was lost may have arrived all the same.
    if row is not None and not (job.attempts and is_large):
        return False
    remote = UNSEEN if job.attempts else job.remote
    is_composite = isinstance(remote, RemoteObject) and "-" in remote.etag
    return (remote is UNSEEN and is_large) or is_composite


def _known(job: Job, parcel: Parcel, row: Row | None, *, is_check: bool) -> Content | None:
    """What the object is known to hold, where comparing may spare a transfer."""
    remote = UNSEEN if job.attempts else job.remote
    if _is_asked_first(job, parcel.size, row):
        remote = _head(parcel)
    elif row is not None:
        return Content(row.etag, row.checksum, row.is_verified) if is_check and row.checksum else None
    if not isinstance(remote, RemoteObject) or remote.size != parcel.size:
        return None
    return _content(remote)


def _content(remote: RemoteObject) -> Content | None:
    """The checksum behind an ETag, as far as the ETag and our own metadata tell."""
    sizes = part_sizes(remote)
    return Content(remote.etag, written(remote.etag, part_size_bytes=sizes[0])) if sizes else None
