"""One egress job: look at the file, its row and, where it pays, its object; decide; send; write the row.

Source of every decision: `reconcile.classify`. A request is made only for what is new or changed.
"""

import asyncio
import time

from replicator.checksum import written
from replicator.errors import KeyUnsafe, LeftOut, ObjectMissing
from replicator.model import UNSEEN, Action, LocalFile, RemoteObject, Row
from replicator.reconcile.classify import classify_egress
from replicator.reconcile.filters import is_included
from replicator.reconcile.keys import key_of
from replicator.stores.lane import Lane
from replicator.transfer.content import Content, part_sizes
from replicator.transfer.outcome import Done, Means, Outcome
from replicator.transfer.push import push
from replicator.transfer.queue import Job

_HEAD_FROM_BYTES = 64 * 1024
"""From this size on a file without a row is worth a HEAD: it may be in the bucket. Less costs as much to send."""


async def send(job: Job, means: Means) -> Outcome:
    """Bring one file's present version into the bucket. Raises TransferError."""
    lane = job.lane
    try:
        local, row = await asyncio.to_thread(_look, lane, job.relpath)
        key = key_of(lane.target.prefix, job.relpath)
    except (LeftOut, KeyUnsafe):
        return Outcome(Done.NOTHING, was_asked=False)  # no failure: the sweep lists what a rule leaves out
    job.observe(local)
    action = classify_egress(local, job.remote, row)
    if action is Action.FORGET:
        await lane.journal.forget(lane.number, job.relpath)
        return Outcome(Done.FORGOTTEN, was_asked=False)
    if local is None or action not in (Action.COPY, Action.CHECK):
        return Outcome(Done.NOTHING, was_asked=False)
    known = await _known(job, key, local, row, action)
    waited_s = time.monotonic() - job.changed_s
    new_row, was_sent = await push(lane, job.relpath, key, known=known, waited_s=waited_s, means=means)
    await lane.journal.settle(lane.number, new_row)
    if was_sent:
        return Outcome(Done.COPIED, moved_bytes=new_row.fingerprint.size, key=key)
    return Outcome(Done.ADOPTED, was_asked=row is None, key=key)


def _look(lane: Lane, relpath: str) -> tuple[LocalFile | None, Row | None]:
    """The file and its row. A file that is filtered out, or that ingress wrote, is none of egress's business."""
    local, row = lane.export.stat(relpath), lane.row(relpath)
    if local is not None and (not is_included(relpath, lane.target.options) or lane.is_echo(local)):
        return None, None
    return local, row


async def _known(job: Job, key: str, local: LocalFile, row: Row | None, action: Action) -> Content | None:
    """What the object is known to hold, where comparing may spare a transfer."""
    is_large = local.fingerprint.size >= _HEAD_FROM_BYTES
    # An attempt whose answer was lost may have arrived all the same.
    if row is not None and not (job.attempts and is_large):
        return Content(row.etag, row.checksum) if action is Action.CHECK and row.checksum else None
    remote = UNSEEN if job.attempts else job.remote
    is_composite = isinstance(remote, RemoteObject) and "-" in remote.etag
    if (remote is UNSEEN and is_large) or is_composite:
        try:
            remote = await job.lane.objects.head(key)
        except ObjectMissing:
            return None
    if not isinstance(remote, RemoteObject) or remote.size != local.fingerprint.size:
        return None
    return _content(remote)


def _content(remote: RemoteObject) -> Content | None:
    """The checksum behind an ETag, as far as the ETag and our own metadata tell."""
    sizes = part_sizes(remote)
    return Content(remote.etag, written(remote.etag, part_size_bytes=sizes[0])) if sizes else None
