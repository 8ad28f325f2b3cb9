"""A source's snapshots over time, by looking at stamps of files now and then.

Owns: the rhythm, the settling of half-written states, and that equal snapshots are not repeated.
Looking beats kernel events here: it sees links swapped by Kubernetes, directories that appear later and network file
systems alike, needs no watch and no thread while idle, and nobody waits for a configuration to the millisecond.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable

from replicator.errors import ConfigError
from replicator.model import Target

POLL_S = 2.0
"""Seconds between looks. A kubelet brings a changed ConfigMap within a minute."""
SETTLE_S = 0.3
"""Seconds that stamps must stay equal, so that a writer of several files can finish."""
_ROUNDS = 20
"""Then words that never stand still are taken as they are: a wrong one is refused, and looked at again."""

Snapshot = tuple[Target, ...] | ConfigError


async def follow(
    read: Callable[[], tuple[Target, ...]],
    stamp: Callable[[], Hashable],
    *,
    poll_s: float = POLL_S,
    settle_s: float = SETTLE_S,
) -> AsyncIterator[Snapshot]:
    """The first snapshot at once, then one each time `stamp` moved and `read` tells something new."""
    snapshot, mark = await _settled(read, stamp, settle_s=settle_s, is_first=True)
    yield snapshot
    while True:
        await asyncio.sleep(poll_s)
        # In a thread, because a mount that hangs must not stop the transfers.
        if await asyncio.to_thread(stamp) == mark:
            continue
        newer, mark = await _settled(read, stamp, settle_s=settle_s, is_first=False)
        if not is_same(newer, snapshot):
            snapshot = newer
            yield snapshot


async def _settled(
    read: Callable[[], tuple[Target, ...]], stamp: Callable[[], Hashable], *, settle_s: float, is_first: bool
) -> tuple[Snapshot, Hashable]:
    """A snapshot during whose reading nothing moved, and the stamps it belongs to."""
    rounds = 0
    while True:
        mark = await asyncio.to_thread(stamp)
        if rounds or not is_first:
            await asyncio.sleep(settle_s)
        snapshot = await asyncio.to_thread(_attempt, read)
        rounds += 1
        if rounds == _ROUNDS or await asyncio.to_thread(stamp) == mark:
            return snapshot, mark


def _attempt(read: Callable[[], tuple[Target, ...]]) -> Snapshot:
    try:
        return read()
    except ConfigError as exc:
        return exc


def is_same(one: Snapshot, other: Snapshot) -> bool:
    if isinstance(one, ConfigError) or isinstance(other, ConfigError):
        return type(one) is type(other) and str(one) == str(other)
    return one == other
