"""The ingress sweep: one listing marched against the rows; only what differs is looked at beside its file.

An object whose row has its version needs no more than a file of its name: an edit of that file stands until the object
changes, so no fingerprint is compared. Where a marker says that nothing changed, nothing is listed.
"""

import asyncio
import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import closing

from replicator.detect.marker import Marker
from replicator.detect.sweep import Found, Report
from replicator.errors import KeyUnsafe, Refused
from replicator.model import Action, Hint, RemoteObject
from replicator.reconcile.classify import classify_ingress
from replicator.reconcile.filters import is_included
from replicator.reconcile.keys import is_marker, relpath_of
from replicator.reconcile.march import march
from replicator.stores.files.export import Export
from replicator.stores.files.presence import Presence
from replicator.stores.lane import Lane


class IngressSweep:
    """One LIST sequence marched against the rows, unless the marker is the one that the last sequence saw."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._root = Export(lane.target.root)
        self._marker = Marker(lane)
        self._absent: frozenset[str] = frozenset()
        self._last = Report()

    def doubt(self) -> None:
        """Let the next sweep list, whatever the marker says."""
        self._marker.doubt()

    async def run(self, found: Found) -> Report:
        """Hint every object whose file or row is missing or of another version, and rows without one, seen twice."""
        lane, report = self._lane, Report()
        if await asyncio.to_thread(self._root.identity) is None:
            self._marker.begin()
            report.blocked = f"the export directory {lane.target.root} is missing"
            report.fix = "Mount or create it; replication resumes by itself."
            return report
        # Looked at before the listing: what is written after this look makes another marker at the next one.
        sight = await asyncio.to_thread(self._marker.look)
        if self._marker.is_known(sight):
            return dataclasses.replace(self._last, busy_s=0.0)
        self._marker.begin()
        proven = await self._list(found, report)
        if proven:
            await found([Hint(relpath) for relpath in proven])
        self._marker.complete(sight)
        self._last = report
        return report

    async def _list(self, found: Found, report: Report) -> list[str]:
        """List and hint page by page; the paths whose objects were not listed, twice in a row."""
        rows = await asyncio.to_thread(_Stretches, self._lane.etags())
        absent: list[str] = []
        pages = self._lane.objects.list(self._lane.target.prefix.text)
        while page := await asyncio.to_thread(next, pages, None):
            began = time.monotonic()
            hints = await asyncio.to_thread(self._compare, page, rows, report, absent)
            report.busy_s += time.monotonic() - began
            if hints:
                await found(hints)
        absent += await asyncio.to_thread(rows.rest)
        proven = self._absent.intersection(absent)
        self._absent = frozenset(absent)
        return sorted(proven)

    def _compare(
        self, page: Sequence[RemoteObject], rows: "_Stretches", report: Report, absent: list[str]
    ) -> list[Hint]:
        """The hints of one page. Names are taken as they are: rows have safe ones only, and the others get a look."""
        target, hints = self._lane.target, []
        objects = [(item.key.removeprefix(target.prefix.text), item) for item in page if _is_text(item, report)]
        stretch = rows.up_to(objects[-1][0]) if objects else iter(())
        with closing(Presence(target.root, target.subdir)) as presence:
            for relpath, item, etag in march(objects, stretch):
                if item is None:
                    absent.append(relpath)
                elif item.etag == etag and (not target.options.restore_deleted or presence.has(relpath)):
                    report.files += 1
                elif self._differs(item, report, has_row=etag is not None):
                    hints.append(Hint(relpath, item))
        return hints

    def _differs(self, item: RemoteObject, report: Report, *, has_row: bool) -> bool:
        """Whether an object has to be fetched or compared; markers are nothing, what may not be is reported."""
        lane, target = self._lane, self._lane.target
        if is_marker(item.key):
            return False
        relpath = item.key
        try:
            relpath = relpath_of(target.prefix, item.key, subdir=target.subdir)
            report.files += 1
            if not is_included(relpath, target.options):
                return False
            local = lane.export.stat(relpath, is_wanted=True)
        except (Refused, KeyUnsafe) as error:
            report.skipped[relpath] = error.reason
            return False
        row = lane.row(relpath) if has_row else None
        action = classify_ingress(item, local, row, restore_deleted=target.options.restore_deleted)
        return action not in (Action.SKIP, Action.LEAVE, Action.STRAY)


def _is_text(item: RemoteObject, report: Report) -> bool:
    """Whether the key is valid Unicode; only then is Python's order that of the listing."""
    if item.key.isascii():
        return True
    try:
        item.key.encode()
    except UnicodeEncodeError:
        report.skipped[item.key] = KeyUnsafe.reason
        return False
    return True


class _Stretches:
    """Ascending (relpath, ETag) of rows, taken in stretches: everything up to a bound, then the rest."""

    def __init__(self, rows: Iterator[tuple[str, str]]) -> None:
        self._rows = rows
        self._next = next(rows, None)

    def up_to(self, bound: str) -> Iterator[tuple[str, str]]:
        while self._next is not None and self._next[0] <= bound:
            yield self._next
            self._next = next(self._rows, None)

    def rest(self) -> list[str]:
        """The relpaths that are left."""
        left = [] if self._next is None else [self._next, *self._rows]
        return [relpath for relpath, _ in left]
