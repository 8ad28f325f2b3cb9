"""The ingress sweep: one listing marched against the rows; files are only looked at beside their object."""

import asyncio
import time
from collections.abc import Iterator, Sequence

from replicator.detect.sweep import Found, Report
from replicator.errors import KeyUnsafe, Refused
from replicator.model import Action, Hint, RemoteObject, Row
from replicator.reconcile.classify import classify_ingress
from replicator.reconcile.filters import is_included
from replicator.reconcile.keys import is_marker, relpath_of
from replicator.reconcile.march import march
from replicator.stores.files.export import Export
from replicator.stores.lane import Lane


class IngressSweep:
    """One LIST sequence marched against the rows; files are only looked at beside their object."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._root = Export(lane.target.root)
        self._absent: frozenset[str] = frozenset()

    async def run(self, found: Found) -> Report:
        """Hint every object whose file or row is missing or of another version, and rows without one, seen twice."""
        lane, report = self._lane, Report()
        if await asyncio.to_thread(self._root.identity) is None:
            report.blocked = f"the export directory {lane.target.root} is missing"
            report.fix = "Mount or create it; replication resumes by itself."
            return report
        rows = _Stretches(lane.rows())
        absent: list[str] = []
        try:
            pages = lane.objects.list(lane.target.prefix.text)
            while page := await asyncio.to_thread(next, pages, None):
                objects = self._mapped(page, report)
                bound = objects[-1][0] if objects else ""
                began = time.monotonic()
                hints = await asyncio.to_thread(self._compare, objects, rows.up_to(bound), report, absent)
                report.busy_s += time.monotonic() - began
                if hints:
                    await found(hints)
            absent.extend(row.relpath for row in rows.rest())
        finally:
            rows.close()
        proven = self._absent.intersection(absent)
        self._absent = frozenset(absent)
        if proven:
            await found([Hint(relpath) for relpath in sorted(proven)])
        return report

    def _mapped(self, page: Sequence[RemoteObject], report: Report) -> list[tuple[str, RemoteObject]]:
        """The page's objects under their relpaths; markers are nothing, unsafe keys are reported and left alone."""
        target, mapped = self._lane.target, []
        for item in page:
            if is_marker(item.key):
                continue
            try:
                relpath = relpath_of(target.prefix, item.key, subdir=target.subdir)
            except KeyUnsafe as error:
                report.skipped[item.key] = error.reason
                continue
            report.files += 1
            if is_included(relpath, target.options):
                mapped.append((relpath, item))
        return mapped

    def _compare(
        self, objects: list[tuple[str, RemoteObject]], rows: Iterator[Row], report: Report, absent: list[str]
    ) -> list[Hint]:
        options, hints = self._lane.target.options, []
        for relpath, item, row in march(objects, ((row.relpath, row) for row in rows)):
            if item is None:
                absent.append(relpath)
                continue
            try:
                local = self._lane.export.stat(relpath)
            except (Refused, KeyUnsafe) as error:
                report.skipped[relpath] = error.reason
                continue
            action = classify_ingress(item, local, row, restore_deleted=options.restore_deleted)
            if action not in (Action.SKIP, Action.LEAVE, Action.STRAY):
                hints.append(Hint(relpath, item))
        return hints


class _Stretches:
    """An ascending sequence of rows that is taken in stretches: everything up to a bound, then the rest."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self._rows = rows
        self._next = next(rows, None)

    def up_to(self, bound: str) -> Iterator[Row]:
        while self._next is not None and self._next.relpath <= bound:
            yield self._next
            self._next = next(self._rows, None)

    def rest(self) -> Iterator[Row]:
        while self._next is not None:
            yield self._next
            self._next = next(self._rows, None)

    def close(self) -> None:
        close = getattr(self._rows, "close", None)
        if close is not None:
            close()
