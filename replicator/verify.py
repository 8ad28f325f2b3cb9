"""`replicator verify`: both sides of every target side by side, by size and by the version that the journal recorded.

Looks only. Sizes always count; where the journal knows a file, its fingerprint and the object's ETag count too. Objects
that have no file are no difference for egress: files removed on the device stay in the bucket.
"""

import asyncio
from dataclasses import dataclass, field

from replicator.config.settings import Settings
from replicator.engine import Engine
from replicator.errors import KeyUnsafe
from replicator.model import Direction, LocalFile, RemoteObject, Row, Target
from replicator.observe.metrics import Metrics
from replicator.reconcile.filters import is_included
from replicator.reconcile.keys import is_marker, key_of, relpath_of
from replicator.reconcile.march import march
from replicator.stores.lane import Lane


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


async def verify(settings: Settings, targets: tuple[Target, ...]) -> list[Comparison]:
    """Compare every target. Raises TransferError when a bucket cannot be listed."""
    async with Engine(settings, Metrics()) as engine:
        # All are open before the first is compared: egress knows the files of ingress by the lanes beside it.
        patrols = [await engine.open(target) for target in targets]
        return [await _compare(patrol.lane) for patrol in patrols]


async def _compare(lane: Lane) -> Comparison:
    found = Comparison(lane.target)
    remotes = await _remotes(lane)
    files = await asyncio.to_thread(_files, lane)
    for relpath, local, remote in march(sorted(files.items()), sorted(remotes.items())):
        problem = _problem(lane, local, remote, lane.row(relpath))
        if problem:
            found.differences.append(Difference(relpath, problem))
        else:
            found.equal += local is not None and remote is not None
    return found


async def _remotes(lane: Lane) -> dict[str, RemoteObject]:
    target, found = lane.target, {}
    async for page in lane.objects.list(target.prefix.text):
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
            except KeyUnsafe:
                continue
            if is_included(file.relpath, lane.target.options) and not (lane.is_egress and lane.is_echo(file)):
                found[file.relpath] = file
    return found


def _problem(lane: Lane, local: LocalFile | None, remote: RemoteObject | None, row: Row | None) -> str:
    is_egress = lane.target.direction is Direction.EGRESS
    if local is None:
        return "" if is_egress else "missing on the device"
    if remote is None:
        return "missing in the bucket" if is_egress else ""
    if local.fingerprint.size != remote.size:
        return f"{local.fingerprint.size} bytes on the device, {remote.size} in the bucket"
    if row is None:
        return "same size, but never confirmed by replicator; `replicator sync` compares the contents"
    if row.etag != remote.etag:
        return "the object was overwritten by somebody else" if is_egress else "a newer object waits in the bucket"
    if not row.fingerprint.matches(local.fingerprint):
        return "the file changed and is not sent yet" if is_egress else "the file was edited on the device"
    return ""
