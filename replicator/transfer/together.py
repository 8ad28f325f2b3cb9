"""Small objects -> files, a run at a time: fetched one after the other, made durable and published together.

The order is that of a single file, and the promise with it: temporary files synced, intents recorded, renames,
directories synced, rows. Owns: that order for many. Never: decisions, files that were edited on the device.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from replicator.errors import TransferError
from replicator.model import Fingerprint, LocalFile, RemoteObject, Row
from replicator.stores.files.export import Publication, TempFile
from replicator.stores.lane import Lane
from replicator.transfer import intents
from replicator.transfer.job import Job
from replicator.transfer.outcome import Done, Ending, Means, Outcome, attempt
from replicator.transfer.pull import Mismatch, pull_small


@dataclass(frozen=True, slots=True)
class Wanted:
    """An object to be fetched, and what it will replace."""

    job: Job
    remote: RemoteObject
    local: LocalFile | None
    row: Row | None

    @property
    def replaced_bytes(self) -> int:
        return self.local.fingerprint.size if self.local else 0


@dataclass(slots=True)
class _Arrived:
    """An object in memory on its way to its place; `row` as far as it is known by now."""

    wanted: Wanted
    body: bytes
    mtime_ns: int
    asked_s: float
    row: Row
    error: TransferError | None = None


def fetch_small(wanted: Sequence[Wanted], means: Means, go_on: Callable[[], bool]) -> Iterator[tuple[Job, Ending]]:
    """Bring these objects of one target onto the device; each job with how it ended. Raises JournalError.

    What each replaces must not have been edited here, and is looked at again before its rename.
    """
    arrived: list[_Arrived] = []
    with means.budget.hold(sum(one.remote.size for one in wanted)), ExitStack() as reserved:
        for one in wanted:
            if not go_on():
                break
            item = attempt(one.job, partial(_receive, one, means, reserved))
            if isinstance(item, TransferError):
                yield one.job, item
            else:
                arrived.append(item)
        if arrived:
            lane = arrived[0].wanted.job.lane
            publishing = _Publishing(lane, arrived)
            publishing.run(means)
            if lane.target.options.quota_bytes:  # what is reserved counts until the row does
                publishing.record()
    for item in arrived:
        yield item.wanted.job, item.error or _outcome(item)


def _receive(wanted: Wanted, means: Means, reserved: ExitStack) -> _Arrived:
    job, remote = wanted.job, wanted.remote
    room = means.room.reserve(job.lane, remote.size, replaced_bytes=wanted.replaced_bytes)
    reserved.enter_context(room)
    try:
        content = pull_small(job.lane, job.relpath, remote, distrusted=job.distrusted, means=means)
    except Mismatch as error:
        job.distrusted = error.checksum
        raise
    job.count_moved(remote.size)
    return _Arrived(wanted, content.body, content.mtime_ns, content.asked_s, content.row)


class _Publishing:
    """Objects of one lane on their way to their places; what stops one of them is told in its `error`."""

    def __init__(self, lane: Lane, items: Sequence[_Arrived]) -> None:
        self._lane = lane
        self._items = items
        self._temps: list[tuple[_Arrived, TempFile]] = []

    def run(self, means: Means) -> None:
        """Put the files in their places; nothing remains of those that cannot be."""
        with ExitStack() as temps, self._lane.export.publication() as publication:
            with means.turn:
                for item in self._items:
                    _try(item, partial(self._fill, item, temps))
            for item, temp in self._temps:
                _try(item, temp.sync)
            announced = [(item, temp) for item, temp in self._temps if item.error is None]
            self._once(partial(self._lane.journal.intend, self._lane.number))
            with means.turn:
                for item, temp in announced:
                    _try(item, partial(_place, item, temp, publication))
            placed = publication.settle()
        for item, _ in announced:
            self._conclude(item, placed.get(item.row.relpath))

    def record(self) -> None:
        """Commit the rows of what is in its place."""
        self._once(lambda rows: self._lane.journal.settle_all([(self._lane.number, row) for row in rows]))

    def _fill(self, item: _Arrived, temps: ExitStack) -> None:
        temp = temps.enter_context(self._temps[0][1].sibling() if self._temps else self._lane.export.create_temp())
        temp.write(item.body)
        item.row = dataclasses.replace(item.row, fingerprint=temp.dress(item.mtime_ns))
        self._temps.append((item, temp))

    def _conclude(self, item: _Arrived, placed: Fingerprint | TransferError | None) -> None:
        if isinstance(placed, Fingerprint):
            item.row = dataclasses.replace(item.row, fingerprint=placed)
            return
        item.error = item.error or placed
        attempt(item.wanted.job, partial(intents.retract, self._lane, item.row))

    def _once(self, commit: Callable[[list[Row]], None]) -> None:
        """One commit for all that are well so far."""
        items = [item for item in self._items if item.error is None]
        if not items:
            return
        result = attempt(items[0].wanted.job, partial(commit, [item.row for item in items]))
        if isinstance(result, TransferError):
            for item in items:
                item.error = result


def _try(item: _Arrived, work: Callable[[], object]) -> None:
    """Do it, if all went well with the item so far."""
    if item.error is None:
        result = attempt(item.wanted.job, work)
        item.error = result if isinstance(result, TransferError) else None


def _place(item: _Arrived, temp: TempFile, publication: Publication) -> None:
    local = item.wanted.local
    publication.place(temp, item.row.relpath, replacing=local.fingerprint if local else None)


def _outcome(item: _Arrived) -> Outcome:
    is_recorded = bool(item.wanted.job.lane.target.options.quota_bytes)
    return Outcome(
        Done.COPIED,
        moved_bytes=item.wanted.remote.size,
        asked_s=item.asked_s,
        key=item.wanted.remote.key,
        row=None if is_recorded else item.row,
    )
