"""One ingress job: look at the object, the file and its row; decide; fetch, keep what was edited, publish.

Source of every decision: `reconcile.classify`. The order is the promise: temporary file synced, intent recorded,
rename, directory synced, row. A crash anywhere in it leaves the old file or the new one, and a comparison to do.
"""

import asyncio
import contextlib
import dataclasses
from datetime import UTC, datetime

from replicator.checksum import checksum_of, part_size_of, written
from replicator.errors import ObjectMissing, TransferError
from replicator.model import Action, LocalFile, RemoteObject, Row, Unseen
from replicator.reconcile.classify import classify_ingress, is_edited
from replicator.reconcile.filters import is_included
from replicator.reconcile.keys import key_of
from replicator.stores.files import TempFile
from replicator.stores.lane import Lane
from replicator.transfer.content import part_sizes
from replicator.transfer.outcome import Done, Means, Outcome
from replicator.transfer.pull import Mismatch, pull
from replicator.transfer.queue import Job


async def fetch(job: Job, means: Means) -> Outcome:
    """Bring one object's present version onto the device. Raises TransferError."""
    lane, relpath = job.lane, job.relpath
    if not is_included(relpath, lane.target.options):
        return Outcome(Done.NOTHING, was_asked=False)
    remote = await _object(job)
    local, row = await asyncio.to_thread(_look, lane, relpath)
    action = classify_ingress(remote, local, row, restore_deleted=lane.target.options.restore_deleted)
    if action is Action.FORGET:
        await lane.journal.forget(lane.number, relpath)
        return Outcome(Done.FORGOTTEN)
    if remote is None or action not in (Action.COPY, Action.CHECK):
        return Outcome(Done.NOTHING)
    job.size = remote.size
    if action is Action.CHECK and local is not None and (checksum := await _same_content(job, remote, local)):
        await lane.journal.settle(lane.number, Row(relpath, local.fingerprint, remote.etag, checksum, is_verified=True))
        return Outcome(Done.ADOPTED, key=remote.key)
    replaced_bytes = local.fingerprint.size if local else 0
    with means.room.reserve(lane, remote.size, replaced_bytes=replaced_bytes):
        return await _replace(job, remote, row, means)


async def _object(job: Job) -> RemoteObject | None:
    """The object as it was listed, or as it is now; None when it is gone."""
    remote, job.remote = job.remote, Unseen()
    if isinstance(remote, RemoteObject) and ("-" not in remote.etag or remote.metadata is not None):
        return remote
    try:
        return await job.lane.objects.head(key_of(job.lane.target.prefix, job.relpath))
    except ObjectMissing:
        return None


def _look(lane: Lane, relpath: str) -> tuple[LocalFile | None, Row | None]:
    return lane.export.stat(relpath), lane.row(relpath)


async def recover(lane: Lane) -> None:
    """Finish or drop what a crash left between intent and row, and remove its temporary files."""
    with contextlib.suppress(TransferError):  # a read-only or missing export; the sweep says it
        await asyncio.to_thread(lane.export.clear_temps)
    for intent in lane.journal.intents(lane.number):
        try:
            local = await asyncio.to_thread(lane.export.stat, intent.relpath)
        except TransferError:
            local = None
        if local is not None and intent.fingerprint.matches(local.fingerprint):
            await lane.journal.settle(lane.number, dataclasses.replace(intent, fingerprint=local.fingerprint))
        else:
            await lane.journal.withdraw(lane.number, intent.relpath)


async def _same_content(job: Job, remote: RemoteObject, local: LocalFile) -> str:
    """The written checksum that file and object share; '' when they differ or the ETag tells nothing."""
    if local.fingerprint.size != remote.size:
        return ""
    wanted = {size: written(remote.etag, part_size_bytes=size) for size in part_sizes(remote)}
    return await asyncio.to_thread(_first_match, job.lane, local, wanted)


def _first_match(lane: Lane, local: LocalFile, wanted: dict[int, str]) -> str:
    with lane.export.open(local.relpath) as file:
        for part_size, text in wanted.items():
            if checksum_of(file.blocks(), part_size_bytes=part_size) == text and file.is_unchanged():
                return text
    return ""


async def _replace(job: Job, remote: RemoteObject, row: Row | None, means: Means) -> Outcome:
    lane = job.lane
    temp = await asyncio.to_thread(lane.export.create_temp)
    with temp:
        try:
            new_row = await pull(lane, job.relpath, remote, temp, distrusted=job.distrusted, means=means)
        except Mismatch as mismatch:
            job.distrusted = mismatch.checksum
            raise
        # Whatever happened to the file meanwhile: what is replaced is what is looked at now.
        local = await asyncio.to_thread(lane.export.stat, job.relpath)
        conflict_copy = ""
        if local is not None and is_edited(local, row):
            if await asyncio.to_thread(_first_match, lane, local, {part_size_of(new_row.checksum): new_row.checksum}):
                await lane.journal.settle(lane.number, dataclasses.replace(new_row, fingerprint=local.fingerprint))
                return Outcome(Done.ADOPTED, moved_bytes=remote.size, key=remote.key)
            stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
            conflict_copy = await asyncio.to_thread(lane.export.set_aside, job.relpath, stamp=stamp)
            local = await asyncio.to_thread(lane.export.stat, job.relpath)
        await _publish(lane, temp, new_row, local)
    return Outcome(Done.COPIED, moved_bytes=remote.size, conflict_copy=conflict_copy, key=remote.key)


async def _publish(lane: Lane, temp: TempFile, row: Row, local: LocalFile | None) -> None:
    """Intent, rename, row: egress and a restart can tell at any moment that the file is ours."""
    replacing = local.fingerprint if local else None
    await lane.journal.intend(lane.number, row)
    try:
        fingerprint = await asyncio.to_thread(lane.export.publish, temp, row.relpath, replacing=replacing)
    except BaseException:
        await asyncio.shield(lane.journal.withdraw(lane.number, row.relpath))
        raise
    await lane.journal.settle(lane.number, dataclasses.replace(row, fingerprint=fingerprint))
