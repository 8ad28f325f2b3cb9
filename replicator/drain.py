"""The end of targets: what has settled is sent, what could not be is named, and what came of it is told.

Owns: the last look at egress targets, the wait for their jobs, and the proof: a target counts as drained only when a
whole sweep that began afterwards found its directory, and nothing of it waits. A device that leaves goes on until then.
Never: what else ends it (the supervisor's).
"""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from replicator.detect.patrol import Patrol
from replicator.engine import Engine
from replicator.observe import logs
from replicator.observe.standing import Stand, Standing, of_target
from replicator.report import target_view

log = logs.get("supervisor")

_POLL_S = 0.02
"""Between looks at whether all is sent."""
_LOOK_S = 15.0
"""The same for a device that leaves and has much to send: each look is a sweep."""


async def end_intake(engine: Engine, patrols: Iterable[Patrol], end: Callable[[str], Awaitable[None]]) -> None:
    """End all patrols, and the jobs of ingress. `end` ends a patrol, by the id of its target."""
    for patrol in patrols:
        await end(patrol.lane.target.id)
        if not patrol.lane.is_egress:
            # Its jobs go, but not the lane: egress still has to know which files are from ingress.
            engine.queue.remove_lane(patrol.lane)


async def send_the_rest(engine: Engine, patrols: Iterable[Patrol], end: Callable[[str], Awaitable[None]]) -> None:
    """Look once more at the egress targets of these, and wait until nothing of theirs waits.

    `end` ends a patrol, by the id of its target: nothing new is taken up meanwhile.
    """
    sending = [patrol for patrol in patrols if patrol.lane.is_egress]
    for patrol in sending:
        await end(patrol.lane.target.id)
    await asyncio.gather(*(patrol.sweep() for patrol in sending))
    engine.queue.hurry()
    while any(engine.queue.jobs(patrol.lane) for patrol in sending):  # noqa: ASYNC110 - threads end jobs
        await asyncio.sleep(_POLL_S)


async def part(engine: Engine, patrols: Sequence[Patrol], end: Callable[[str], Awaitable[None]]) -> dict[str, Standing]:
    """Send the rest of these within the drain time; where each stands then."""
    began_s = time.monotonic()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(engine.settings.drain_timeout_s):
            await send_the_rest(engine, patrols, end)
    return what_is_left(engine, patrols, since_s=began_s)


async def send_all(
    engine: Engine, patrols: Sequence[Patrol], end: Callable[[str], Awaitable[None]]
) -> dict[str, Standing]:
    """Look again and again until all of these is proven to be in the bucket, however long that takes."""
    await end_intake(engine, patrols, end)
    while True:
        began_s = time.monotonic()
        await asyncio.gather(*(patrol.sweep() for patrol in patrols if patrol.lane.is_egress))
        left = what_is_left(engine, patrols, since_s=began_s)
        if is_sent(left):
            return left
        await asyncio.sleep(min(engine.settings.sweep_interval_s, _LOOK_S))


def is_sent(left: Mapping[str, Standing]) -> bool:
    return all(standing.state is Stand.SYNCED for standing in left.values())


def tell_left(engine: Engine, patrols: Iterable[Patrol]) -> None:
    """Name what could not be sent in time; the next start finds it."""
    for patrol in patrols:
        if left := engine.queue.jobs(patrol.lane):
            log.warning(
                "left for the next start",
                target=patrol.lane.target.id,
                pending_files=len(left),
                pending_bytes=sum(job.size for job in left),
                relpath=left[0].relpath,
            )


def what_is_left(engine: Engine, patrols: Iterable[Patrol], *, since_s: float) -> dict[str, Standing]:
    """Where the egress targets of these stand, by id. Synced are those of which all is proven to be in the bucket.

    A look from before `since_s`, by the monotonic clock, proves nothing, nor does one that could not see all.
    """
    return {
        patrol.lane.target.id: _proven(engine, patrol, since_s=since_s) for patrol in patrols if patrol.lane.is_egress
    }


def _proven(engine: Engine, patrol: Patrol, *, since_s: float) -> Standing:
    view = target_view(engine, patrol)
    standing = of_target(view)
    if standing.state is not Stand.SYNCED:
        return standing
    if patrol.swept_s is None or patrol.swept_s < since_s:
        return dataclasses.replace(standing, state=Stand.LAGGING, reason="starting")
    if unread := view.skipped_by_reason.get("unreadable"):
        return dataclasses.replace(standing, state=Stand.BLOCKED, reason="unreadable", pending_files=unread)
    if view.late_writes:  # an older version may still come over what is confirmed, and nobody would look again
        return dataclasses.replace(standing, state=Stand.LAGGING, reason="late-writes", pending_files=view.late_writes)
    return standing
