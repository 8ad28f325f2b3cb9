"""The egress sweep: what is on disk against the journal.

Walks the directory and reads rows only where a directory's signature moved since it was last found in step; makes no
request at all, except one listing when the journal knows nothing yet.
"""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from replicator.detect.sweep import Found, Report
from replicator.errors import KeyUnsafe, Refused, TransferError
from replicator.model import UNSEEN, Action, Hint, RemoteObject, Unseen
from replicator.reconcile.classify import classify_egress
from replicator.reconcile.filters import is_included
from replicator.reconcile.keys import key_of
from replicator.stores.files.export import Directory, Export
from replicator.stores.lane import Lane

_SLICE_S = 0.05
"""A walk hands its thread back this often, so that pushes are not kept waiting by a large tree."""

_RACY_NS = 50_000_000
"""Kernels before 6.13 stamp files with a coarse tick: a directory touched this recently is looked at again."""


@dataclass(frozen=True, slots=True)
class _InStep:
    """A directory in which nothing was to be hinted; `rows` of its files have a row."""

    signature: int
    rows: int


class EgressSweep:
    """Walk against rows, with one signature a directory (2 MB for a million files) instead of their rows."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._root = Export(lane.target.root)
        self._in_step: dict[str, _InStep] = {}
        self._absent: frozenset[str] = frozenset()
        self._identity: tuple[int, int] | None = None

    async def run(self, found: Found) -> Report:
        """Hint every file whose row is missing or of another version, and rows without a file, seen twice."""
        lane, report = self._lane, Report()
        known_rows, _ = lane.journal.totals(lane.number)
        identity = await asyncio.to_thread(lane.export.identity)
        if identity is None:
            if known_rows or await asyncio.to_thread(self._root.identity) is None:
                path = f"{lane.target.root}/{lane.target.subdir}".rstrip("/")
                report.blocked = f"the source directory {path} is missing or a link; nothing is forgotten or deleted"
                report.fix = "Mount or recreate it with its files; replication resumes by itself."
            return report
        if identity != self._identity:
            self._in_step.clear()
            self._absent = frozenset()
            self._identity = identity
        listed, error = await self._listed() if not known_rows else (None, None)
        matched = await _in_slices(self._walk(report, listed), report, found)
        if error:
            raise error
        if known_rows and not report.files and not report.skipped:
            report.blocked = f"the source directory is empty, but {known_rows} files were replicated from it"
            report.fix = "Nothing is forgotten or deleted; put files there and replication resumes by itself."
            return report
        known_rows, _ = lane.journal.totals(lane.number)
        absent: set[str] = set()
        if known_rows > matched:
            await _in_slices(self._absentees(absent), report, found)
        await self._hint_twice_absent(absent, found)
        return report

    async def _hint_twice_absent(self, absent: set[str], found: Found) -> None:
        proven = absent & self._absent
        self._absent = frozenset(absent)
        if proven:
            await found([Hint(relpath) for relpath in sorted(proven)])

    async def _listed(self) -> tuple[dict[str, RemoteObject] | None, TransferError | None]:
        """What the bucket holds already: with an empty journal, files that are there need not be sent again.

        An error does not keep the walk from finding what waits; it is raised after it.
        """
        prefix = self._lane.target.prefix.text
        try:
            pages = await asyncio.to_thread(list, self._lane.objects.list(prefix))
        except TransferError as error:
            return None, error
        return {item.key.removeprefix(prefix): item for item in chain.from_iterable(pages)}, None

    def _walk(self, report: Report, listed: dict[str, RemoteObject] | None) -> Iterator[tuple[list[Hint], int]]:
        """Directory by directory: the hints in it, and how many rows have met their file."""
        seen = set()
        for directory in self._lane.export.walk():
            seen.add(directory.relpath)
            report.directories += 1
            report.files += len(directory.files)
            report.skipped.update((item.relpath, item.reason) for item in directory.skipped)
            signature = _signature(directory)
            in_step = self._in_step.get(directory.relpath)
            if in_step and in_step.signature == signature:
                yield [], in_step.rows
                continue
            hints, rows = self._compare(directory, report, listed)
            if hints or _is_racy(directory):
                self._in_step.pop(directory.relpath, None)
            else:
                self._in_step[directory.relpath] = _InStep(signature, rows)
            yield hints, rows
        for gone in self._in_step.keys() - seen:
            del self._in_step[gone]

    def _compare(
        self, directory: Directory, report: Report, listed: dict[str, RemoteObject] | None
    ) -> tuple[list[Hint], int]:
        lane = self._lane
        rows = {row.relpath: row for row in lane.journal.rows_in(lane.number, directory.relpath)}
        hints, matched = [], 0
        for file in directory.files:
            row = rows.get(file.relpath)
            matched += row is not None
            if not is_included(file.relpath, lane.target.options):
                continue
            is_in_step = classify_egress(file, UNSEEN, row) is Action.SKIP
            is_to_go = lane.target.options.delete_after_upload and row is not None and row.is_verified
            if (is_in_step and not is_to_go) or lane.is_echo(file):
                continue
            try:
                key_of(lane.target.prefix, file.relpath)
            except KeyUnsafe as error:
                report.skipped[file.relpath] = error.reason
                continue
            hints.append(Hint(file.relpath, _seen(listed, file.relpath), file))
        return hints, matched

    def _absentees(self, absent: set[str]) -> Iterator[tuple[list[Hint], int]]:
        for row in self._lane.rows():
            try:
                if self._lane.export.stat(row.relpath) is None:
                    absent.add(row.relpath)
            except (Refused, KeyUnsafe):
                pass  # something is there: not absent
            yield [], 0


async def _in_slices(steps: Iterator[tuple[list[Hint], int]], report: Report, found: Found) -> int:
    """Drive a walk in a thread, a slice at a time, passing its hints on in between; the sum of its counts."""
    total, is_over = 0, False

    def work() -> list[Hint]:
        nonlocal total, is_over
        began = time.monotonic()
        hints: list[Hint] = []
        for more, count in steps:
            hints += more
            total += count
            if time.monotonic() - began > _SLICE_S:
                break
        else:
            is_over = True
        report.busy_s += time.monotonic() - began
        return hints

    while not is_over:
        hints = await asyncio.to_thread(work)
        if hints:
            await found(hints)
    return total


def _seen(listed: dict[str, RemoteObject] | None, relpath: str) -> RemoteObject | Unseen | None:
    return UNSEEN if listed is None else listed.get(relpath)


def _signature(directory: Directory) -> int:
    """One number for every file's identity and version in a directory; order does not matter."""
    signature = len(directory.files)
    for file in directory.files:
        signature ^= hash((file.relpath, file.fingerprint))
    return signature


def _is_racy(directory: Directory) -> bool:
    newest = max((file.fingerprint.ctime_ns for file in directory.files), default=0)
    return newest > time.time_ns() - _RACY_NS
