"""The egress sweep: what is on disk against the journal.

Walks the directory and reads rows only where a directory's signature moved since it was last found in step; makes no
request at all, except one listing when the journal knows nothing: at first, and when there are files to compare; and
two after the bucket itself was gone, for then rows say what nobody holds any more.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

from replicator.detect.listing import Listing, Losses
from replicator.detect.sweep import Found, Report
from replicator.errors import KeyUnsafe, LeftOut, Refused
from replicator.model import UNSEEN, Action, Hint, Row
from replicator.reconcile.classify import classify_egress
from replicator.reconcile.filters import is_included
from replicator.reconcile.keys import check_size, key_of
from replicator.stores.files.export import Directory, Export
from replicator.stores.lane import Lane

_SLICE_S = 0.05
"""A walk hands its thread back this often, so that pushes are not kept waiting by a large tree."""

_RACY_NS = 50_000_000
"""Kernels before 6.13 stamp files with a coarse tick: a directory touched this recently is looked at again."""


@dataclass(slots=True)
class _Memory:
    """The directories in which nothing was to be hinted, by relpath: a few MB for a million files."""

    signatures: dict[str, int] = field(default_factory=dict)
    met: dict[str, int] = field(default_factory=dict)
    """How many of their files have a row."""
    large: set[str] = field(default_factory=set)
    """Those that came in pieces: which of their rows have no file is not known."""


@dataclass(slots=True)
class _Tally:
    """The rows that a walk came by: how many met their file, and the relpaths of those that did not."""

    met: int = 0
    unmet: list[str] = field(default_factory=list)


class EgressSweep:
    """Walk against rows, with one signature a directory instead of its rows."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._root = Export(lane.target.root)
        self._memory = _Memory()
        self._absent: frozenset[str] = frozenset()
        self._identity: tuple[int, int] | None = None
        self._has_answered = False
        """Whether the bucket did, so that a target without files need not ask again."""
        self._is_doubted = False
        self._losses = Losses(lane)

    def doubt(self) -> None:
        """The bucket was gone: let the next run list it, and send again what two such listings did not have."""
        self._is_doubted = True

    async def run(self, found: Found) -> Report:
        """Hint every file whose row is missing or of another version, and rows without a file, seen twice."""
        lane, report, tally = self._lane, Report(), _Tally()
        known_rows, _ = lane.journal.totals(lane.number)
        identity = await asyncio.to_thread(lane.export.identity)
        if identity is None:
            if known_rows or await asyncio.to_thread(self._root.identity) is None:
                path = f"{lane.target.root}/{lane.target.subdir}".rstrip("/")
                report.blocked = f"the source directory {path} is missing or a link; nothing is forgotten or deleted"
                report.fix = "Mount or recreate it with its files; replication resumes by itself."
            return report
        if identity != self._identity:
            self._absent = frozenset()  # seen in another directory
            self._identity = identity
        listing, is_doubted, self._is_doubted = Listing(lane), self._is_doubted, False
        if is_doubted or not (known_rows or self._has_answered):
            await asyncio.to_thread(listing.read)
        if is_doubted and listing.is_known:
            report.is_doubtful = await asyncio.to_thread(self._losses.look, listing)
            known_rows, self._memory = lane.journal.totals(lane.number)[0], _Memory()
        await _in_slices(self._walk(report, tally, None if known_rows else listing), report, found)
        if listing.error:
            raise listing.error
        self._has_answered |= listing.is_known
        if known_rows and not report.files and not report.skipped and await asyncio.to_thread(self._has_to_stay):
            report.blocked = f"the source directory is empty, but {known_rows} files were replicated from it"
            report.fix = "Nothing is forgotten or deleted; put files there and replication resumes by itself."
            return report
        await self._forget(tally, known_rows, report, found)
        return report

    def _has_to_stay(self) -> bool:
        """Whether any file of the rows has: where uploads free the device, an empty directory is what was asked for."""
        is_freeing = self._lane.target.options.delete_after_upload
        return not is_freeing or any(not row.is_verified for row in self._lane.rows())

    async def _forget(self, tally: _Tally, known_rows: int, report: Report, found: Found) -> None:
        """Hint the rows whose file this sweep and the last one did not see."""
        now_rows, _ = self._lane.journal.totals(self._lane.number)
        absent: set[str] = set()
        # Rows that came or went during the walk are no reason to look at all of them.
        if min(known_rows, now_rows) > tally.met + len(tally.unmet):
            await _in_slices(self._absentees(self._rows_elsewhere(), absent), report, found)
        elif tally.unmet:
            await _in_slices(self._absentees(tally.unmet, absent), report, found)
        proven = absent & self._absent
        self._absent = frozenset(absent)
        if proven:
            await found([Hint(relpath) for relpath in sorted(proven)])

    def _walk(self, report: Report, tally: _Tally, listing: Listing | None) -> Iterator[list[Hint]]:
        """The hints, directory by directory. What stays unremembered is compared again by the next sweep.

        `listing` stands for rows where there are none.
        """
        before, self._memory = self._memory, _Memory()
        for relpath, pieces in groupby(self._lane.export.walk(before.signatures), key=_relpath):
            report.directories += 1
            signature, met_before, is_in_step, is_large = 0, tally.met, True, relpath in before.large
            for piece in pieces:
                report.files += piece.count
                report.skipped.update((item.relpath, item.reason) for item in piece.skipped)
                signature ^= piece.signature
                hints: list[Hint] = []
                if piece.is_known:
                    tally.met += before.met[relpath]
                else:
                    is_large = not piece.is_whole
                    rows = {} if listing else self._rows_of(piece)
                    is_in_step &= self._meet(piece, rows, tally) and not _is_racy(piece) and piece.is_complete
                    named = len(report.skipped)
                    hints = self._compare(piece, rows, report, listing)
                    is_in_step &= len(report.skipped) == named  # who is not compared is not named again
                is_in_step &= not hints
                yield hints
            if is_in_step:
                self._memory.signatures[relpath], self._memory.met[relpath] = signature, tally.met - met_before
                if is_large:
                    self._memory.large.add(relpath)

    def _rows_of(self, piece: Directory) -> dict[str, Row]:
        lane = self._lane
        if piece.is_whole:
            return {row.relpath: row for row in lane.journal.rows_in(lane.number, piece.relpath)}
        return lane.rows_of([file.relpath for file in piece.files])

    @staticmethod
    def _meet(piece: Directory, rows: dict[str, Row], tally: _Tally) -> bool:
        """Count the rows that have their file; whether all have."""
        unmet = rows.keys() - {file.relpath for file in piece.files}
        tally.met += len(rows) - len(unmet)
        tally.unmet += unmet
        return not unmet

    def _compare(self, piece: Directory, rows: dict[str, Row], report: Report, listing: Listing | None) -> list[Hint]:
        lane, options, hints = self._lane, self._lane.target.options, []
        for file in piece.files:
            row = rows.get(file.relpath)
            if not is_included(file.relpath, options):
                continue
            is_in_step = classify_egress(file, UNSEEN, row) is Action.SKIP
            is_to_go = options.delete_after_upload and row is not None and row.is_verified
            if (is_in_step and not is_to_go) or lane.is_echo(file):
                continue
            try:
                key_of(lane.target.prefix, file.relpath)
                check_size(file.fingerprint.size)
            except (KeyUnsafe, LeftOut) as error:
                report.skipped[file.relpath] = error.reason
                continue
            hints.append(Hint(file.relpath, listing.of(file.relpath) if listing else UNSEEN, file))
        return hints

    def _rows_elsewhere(self) -> Iterator[str]:
        """The relpaths of all rows but those that are known to have met their file."""
        met = self._memory.signatures.keys() - self._memory.large
        for row in self._lane.rows():
            if row.relpath.rpartition("/")[0] not in met:
                yield row.relpath

    def _absentees(self, suspects: Iterable[str], absent: set[str]) -> Iterator[list[Hint]]:
        for relpath in suspects:
            try:
                if self._lane.export.stat(relpath) is None:
                    absent.add(relpath)
            except (Refused, KeyUnsafe):
                pass  # something is there: not absent
            yield []


async def _in_slices(steps: Iterator[list[Hint]], report: Report, found: Found) -> None:
    """Drive a walk in a thread, a slice at a time, passing its hints on in between."""
    is_over = False

    def work() -> list[Hint]:
        nonlocal is_over
        began_s, began_cpu_s = time.monotonic(), time.thread_time()
        hints: list[Hint] = []
        for more in steps:
            hints += more
            if time.monotonic() - began_s > _SLICE_S:
                break
        else:
            is_over = True
        report.busy_s += time.monotonic() - began_s
        report.cpu_s += time.thread_time() - began_cpu_s
        return hints

    while not is_over:
        hints = await asyncio.to_thread(work)
        if hints:
            await found(hints)


def _relpath(directory: Directory) -> str:
    return directory.relpath


def _is_racy(directory: Directory) -> bool:
    newest = max((file.fingerprint.ctime_ns for file in directory.files), default=0)
    return newest > time.time_ns() - _RACY_NS
