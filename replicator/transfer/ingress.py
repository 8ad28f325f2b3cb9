"""Ingress jobs: look at the object, the file and its row; decide; fetch, keep what was edited, publish.

Source of every decision: `reconcile.classify`. The order is the promise: temporary file synced, intent recorded,
rename, directory synced, row. A crash anywhere in it leaves the old file or the new one, and a comparison to do.
"""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial

from replicator.checksum import checksum_of, part_size_of, written
from replicator.errors import IntegrityFailed, ObjectMissing, RemoteChanged, TransferError
from replicator.model import Action, LocalFile, RemoteObject, Row, Unseen
from replicator.reconcile.classify import classify_ingress, is_edited
from replicator.reconcile.filters import is_included
from replicator.reconcile.keys import key_of
from replicator.stores.files.export import TempFile
from replicator.stores.lane import Lane
from replicator.transfer import intents
from replicator.transfer.content import part_sizes
from replicator.transfer.job import Job
from replicator.transfer.outcome import Done, Ending, Means, Outcome, attempt
from replicator.transfer.pull import RANGED_FROM_BYTES, Mismatch, pull
from replicator.transfer.together import Wanted, fetch_small
from replicator.transfer.turns import SMALL_BYTES


def fetch(jobs: Sequence[Job], means: Means, go_on: Callable[[], bool]) -> Iterator[tuple[Job, Ending]]:
    """Bring the objects' present versions onto the device; each job with how it ended.

    All are looked at before the first is fetched, and the small ones are published together. `go_on` is asked before
    each job's requests; where it says no, the job is not begun and not yielded. Raises JournalError.
    """
    stuck = intents.resume(jobs[0].lane, [job.relpath for job in jobs])
    found = [
        (job, stuck[job.relpath] if job.relpath in stuck else attempt(job, partial(_object, job)))
        for job in jobs
        if go_on()
    ]
    with means.turn:
        rows = jobs[0].lane.rows_of([job.relpath for job in jobs])
        begun = [
            (job, attempt(job, partial(_begin, job, remote, rows.get(job.relpath), means))) for job, remote in found
        ]
    small = []
    for job, step in begun:
        if isinstance(step, Wanted):
            small.append(step)
        elif not callable(step):
            yield job, step
        elif go_on():
            yield job, attempt(job, step)
    if small:
        yield from fetch_small(small, means, go_on)


def _object(job: Job) -> RemoteObject | None:
    """The object as it was listed, or as it is now; None when it is gone or of no interest."""
    remote, job.remote = job.remote, Unseen()
    if isinstance(remote, RemoteObject) and ("-" not in remote.etag or remote.metadata is not None):
        return remote
    if not is_included(job.relpath, job.lane.target.options):
        return None
    try:
        return job.lane.objects.head(key_of(job.lane.target.prefix, job.relpath))
    except ObjectMissing:
        return None


def _begin(
    job: Job, remote: RemoteObject | TransferError | None, row: Row | None, means: Means
) -> Outcome | Wanted | Callable[[], Outcome]:
    """Look and decide; what takes a request or a commit is left to be done. A small object is only wanted."""
    if isinstance(remote, TransferError):
        raise remote
    lane, relpath = job.lane, job.relpath
    if not is_included(relpath, lane.target.options):
        return Outcome(Done.NOTHING, was_asked=False)
    local = lane.export.stat(relpath, is_wanted=remote is not None)
    action = classify_ingress(remote, local, row, restore_deleted=lane.target.options.restore_deleted)
    if action is Action.FORGET:
        return partial(_forget, job)
    if remote is None or action not in (Action.COPY, Action.CHECK):
        return Outcome(Done.NOTHING)
    job.size = remote.size
    wanted = Wanted(job, remote, local, row)
    if action is Action.COPY and remote.size <= SMALL_BYTES:
        return wanted
    return partial(_fetch, wanted, means, is_check=action is Action.CHECK)


def _forget(job: Job) -> Outcome:
    job.lane.journal.forget(job.lane.number, job.relpath)
    return Outcome(Done.FORGOTTEN)


def _fetch(wanted: Wanted, means: Means, *, is_check: bool) -> Outcome:
    job, remote, local = wanted.job, wanted.remote, wanted.local
    lane = job.lane
    if is_check and local is not None and (checksum := _same_content(job, remote, local)):
        row = Row(job.relpath, local.fingerprint, remote.etag, checksum, is_verified=True)
        return Outcome(Done.ADOPTED, key=remote.key, row=row)
    with means.room.reserve(lane, remote.size, replaced_bytes=wanted.replaced_bytes):
        outcome = _replace(job, remote, local, wanted.row, means=means)
        if outcome.row is None or not lane.target.options.quota_bytes:
            return outcome
        lane.journal.settle(lane.number, outcome.row)  # what is reserved counts until the row does
        return dataclasses.replace(outcome, row=None)


def recover(lane: Lane) -> None:
    """Finish or drop what a crash left between intent and row, and remove its temporary files."""
    with contextlib.suppress(TransferError):  # a read-only or missing export; the sweep says it
        lane.export.clear_temps()
    for intent in lane.journal.intents(lane.number):
        with contextlib.suppress(TransferError):  # the next job of the path tries again
            intents.finish(lane, intent)


def _same_content(job: Job, remote: RemoteObject, local: LocalFile) -> str:
    """The written checksum that file and object share; '' when they differ or the ETag tells nothing."""
    if local.fingerprint.size != remote.size:
        return ""
    wanted = {size: written(remote.etag, part_size_bytes=size) for size in part_sizes(remote)}
    return _first_match(job.lane, local, wanted)


def _first_match(lane: Lane, local: LocalFile, wanted: dict[int, str]) -> str:
    with lane.export.open(local.relpath) as file:
        for part_size, text in wanted.items():
            if checksum_of(file.blocks(), part_size_bytes=part_size) == text and file.is_unchanged():
                file.make_durable()  # a row is to follow, and nobody else may have synced it
                return text
    return ""


def _replace(job: Job, remote: RemoteObject, local: LocalFile | None, row: Row | None, *, means: Means) -> Outcome:
    """Fetch, and put in the place of `local`. Where nothing was, nothing may be when it comes to that."""
    lane = job.lane
    with means.turn:
        temp = _temp(lane, job.relpath, remote)
    with temp:
        try:
            new_row, asked_s = pull(
                lane, job.relpath, remote, temp, distrusted=job.distrusted, means=means, moved=job.count_moved
            )
        except (RemoteChanged, IntegrityFailed, ObjectMissing) as error:
            temp.discard()
            if isinstance(error, Mismatch):
                job.distrusted = error.checksum
            raise
        if local is not None or remote.size >= RANGED_FROM_BYTES:
            # Whatever happened to the file meanwhile: what is replaced is what is looked at now.
            local = lane.export.stat(job.relpath)
        conflict_copy = ""
        if local is not None and is_edited(local, row):
            if _first_match(lane, local, {part_size_of(new_row.checksum): new_row.checksum}):
                temp.discard()
                new_row = dataclasses.replace(new_row, fingerprint=local.fingerprint)
                return Outcome(Done.ADOPTED, moved_bytes=remote.size, key=remote.key, row=new_row)
            stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
            conflict_copy = lane.export.set_aside(job.relpath, stamp=stamp)
            local = lane.export.stat(job.relpath)
        new_row = _published(lane, temp, new_row, local)
    return Outcome(
        Done.COPIED,
        moved_bytes=remote.size,
        asked_s=asked_s,
        conflict_copy=conflict_copy,
        key=remote.key,
        row=new_row,
    )


def _temp(lane: Lane, relpath: str, remote: RemoteObject) -> TempFile:
    """A temporary file; for a large object one that a later attempt, of a later process too, goes on with.

    Only where the ETag proves the content in the end: a power cut may have left anything in the file.
    """
    if remote.size < RANGED_FROM_BYTES or not part_sizes(remote):
        return lane.export.create_temp()
    version = "\n".join((lane.target.identity, relpath, remote.etag, str(remote.size)))
    return lane.export.resume_temp(hashlib.sha256(os.fsencode(version)).hexdigest()[:32])


def _published(lane: Lane, temp: TempFile, row: Row, local: LocalFile | None) -> Row:
    """The row of the file in its place. Until it is recorded the intent tells egress, and a restart, whose it is."""
    replacing = local.fingerprint if local else None
    lane.journal.intend(lane.number, [row])
    try:
        fingerprint = lane.export.publish(temp, row.relpath, replacing=replacing)
    except BaseException:
        intents.retract(lane, row)
        raise
    return dataclasses.replace(row, fingerprint=fingerprint)
