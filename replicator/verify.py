"""`replicator verify`: both sides of every target side by side, by size and by the version that the journal recorded.

Looks only. Sizes always count; where the journal knows a file, its fingerprint and the object's ETag count too, or,
when asked to look deep, the contents whatever the journal says: the file is read and its checksum compared with the
one that the ETag is; an object whose ETag tells nothing is fetched. Objects that have no file are no difference for
egress: files removed on the device stay in the bucket.
"""

import asyncio
import functools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

from replicator.checksum import checksum_of, written
from replicator.config.settings import Settings
from replicator.engine import Engine
from replicator.errors import KeyUnsafe, LeftOut, ObjectMissing, Refused, RemoteChanged, SourceChanged
from replicator.model import LocalFile, RemoteObject, Row, Target
from replicator.observe.metrics import Metrics
from replicator.observe.tally import Tally
from replicator.reconcile.filters import is_included
from replicator.reconcile.keys import check_size, is_marker, key_of, relpath_of
from replicator.reconcile.march import march
from replicator.stores.lane import Lane
from replicator.transfer.content import part_sizes


@dataclass(frozen=True, slots=True)
class Difference:
    """One path that is not the same on both sides, and what is different."""

    relpath: str
    problem: str


@dataclass(slots=True)
class Comparison:
    """One target's two sides: how many files are equal, and what is not."""

    target: Target
    equal: int = 0
    differences: list[Difference] = field(default_factory=list)


async def verify(
    settings: Settings, targets: tuple[Target, ...], *, is_deep: bool = False, tally: Tally | None = None
) -> list[Comparison]:
    """Compare every target. Raises TransferError when a bucket cannot be listed, or, looking deep, be read.

    `tally` counts the files and bytes that were compared.
    """
    async with Engine(settings, Metrics()) as engine:
        # All are open before the first is compared: egress knows the files of ingress by the lanes beside it.
        patrols = [await engine.open(target) for target in targets]
        compare = functools.partial(_compare, is_deep=is_deep, tally=tally or Tally())
        return [await asyncio.to_thread(compare, patrol.lane) for patrol in patrols]


_DEEP_THREADS = 4
"""Files that are read at a time: reading and hashing leave the interpreter free."""


def _compare(lane: Lane, *, is_deep: bool, tally: Tally) -> Comparison:
    found = Comparison(lane.target)
    files, remotes = _files(lane), _remotes(lane)
    tally.expect(
        files=(tally.all_files or 0) + len(files),
        size_bytes=(tally.all_bytes or 0) + sum(file.fingerprint.size for file in files.values()),
    )
    pairs = march(sorted(files.items()), sorted(remotes.items()))
    for relpath, is_pair, problem in _looked_at(lane, pairs, is_deep=is_deep, tally=tally):
        if problem:
            found.differences.append(Difference(relpath, problem))
        else:
            found.equal += is_pair
    return found


_Pair = tuple[str, LocalFile | None, RemoteObject | None]


class _Reading:
    """Counts one file, and its bytes as they are read: once each, also those that nobody had to read."""

    def __init__(self, file: LocalFile, tally: Tally) -> None:
        self._left = file.fingerprint.size
        self._tally = tally

    def of(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        for block in blocks:
            step = min(len(block), self._left)
            self._left -= step
            self._tally.add(size_bytes=step)
            yield block

    def end(self) -> None:
        self._tally.add(files=1, size_bytes=self._left)


def _looked_at(lane: Lane, pairs: Iterator[_Pair], *, is_deep: bool, tally: Tally) -> Iterator[tuple[str, bool, str]]:
    """relpath, whether both sides have it, and what is different."""

    def look(pair: _Pair) -> tuple[str, bool, str]:
        relpath, local, remote = pair
        if local is None:
            return relpath, False, _difference(lane, local, remote)
        reading = _Reading(local, tally)
        problem = _difference(lane, local, remote)
        if not problem and remote is not None:
            problem = (
                _content_difference(lane, local, remote, reading)
                if is_deep
                else _version_difference(lane, local, remote, lane.row(relpath))
            )
        reading.end()
        return relpath, remote is not None, problem

    if not is_deep:
        yield from map(look, pairs)
        return
    with ThreadPoolExecutor(_DEEP_THREADS) as threads:
        yield from threads.map(look, pairs)


def _remotes(lane: Lane) -> dict[str, RemoteObject]:
    target, found = lane.target, {}
    for page in lane.objects.list(target.prefix.text):
        for item in page:
            try:
                relpath = relpath_of(target.prefix, item.key, subdir=target.subdir)
            except KeyUnsafe:
                continue
            if not is_marker(item.key) and is_included(relpath, target.options):
                found[relpath] = item
    return found


def _files(lane: Lane) -> dict[str, LocalFile]:
    found = {}
    for directory in lane.export.walk():
        for file in directory.files:
            try:
                key_of(lane.target.prefix, file.relpath)
                check_size(file.fingerprint.size if lane.is_egress else 0)
            except (KeyUnsafe, LeftOut):
                continue
            if is_included(file.relpath, lane.target.options) and not (lane.is_egress and lane.is_echo(file)):
                found[file.relpath] = file
    return found


def _difference(lane: Lane, local: LocalFile | None, remote: RemoteObject | None) -> str:
    """What can be told without the content."""
    if local is None:
        return "" if lane.is_egress else "missing on the device"
    if remote is None:
        return "missing in the bucket" if lane.is_egress else ""
    if local.fingerprint.size != remote.size:
        return f"{local.fingerprint.size} bytes on the device, {remote.size} in the bucket"
    return ""


def _version_difference(lane: Lane, local: LocalFile, remote: RemoteObject, row: Row | None) -> str:
    if row is None:
        return "same size, but never confirmed by replicator; `replicator sync` compares the contents"
    if row.etag != remote.etag:
        return "the object was overwritten by somebody else" if lane.is_egress else "a newer object waits in the bucket"
    if not row.fingerprint.matches(local.fingerprint):
        return "the file changed and is not sent yet" if lane.is_egress else "the file was edited on the device"
    return ""


def _content_difference(lane: Lane, local: LocalFile, remote: RemoteObject, reading: _Reading) -> str:
    try:
        if "-" in remote.etag:  # only HEAD tells how long its parts were
            remote = lane.objects.head(remote.key)
        with lane.export.open(local.relpath) as file:
            wanted = {written(remote.etag, part_size_bytes=size): size for size in part_sizes(remote)}
            if any(
                checksum_of(reading.of(file.blocks()), part_size_bytes=size) == text for text, size in wanted.items()
            ):
                return ""
            # An ETag that is no MD5 of the content, as with some encryption, proves nothing either way.
            with closing(lane.objects.get(remote.key, etag=remote.etag).blocks) as blocks:
                is_equal = checksum_of(blocks) == checksum_of(file.blocks())
    except (ObjectMissing, RemoteChanged, SourceChanged) as error:
        return f"moved while it was compared: {error}"
    except Refused as error:
        return f"cannot be compared: {error}"
    return "" if is_equal else "the contents differ"
