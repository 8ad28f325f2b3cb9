"""What notifications tell becomes hints: the bucket and prefix say whose.

Owns: whom a change concerns, and when there are too many of them to look at one by one. Never: belief. A key that no
target has is ignored, and so is one that cannot be a file: the sweep names it.
"""

from collections.abc import Iterable

from replicator.detect.patrol import Patrol
from replicator.errors import KeyUnsafe
from replicator.model import Target
from replicator.observe.metrics import Metrics
from replicator.observe.notifications import Change, Notice
from replicator.reconcile.keys import relpath_of

FULL_JOBS = 10_000
"""Above this many jobs the next listing finds what is told: no sender can make the queue, or the bill, grow."""


def announce(notice: Notice, patrols: Iterable[Patrol], *, waiting_jobs: int, metrics: Metrics) -> None:
    """Hint what `notice` tells to the ingress patrols that it concerns. Call on the event loop."""
    fetching = [patrol for patrol in patrols if not patrol.lane.is_egress]
    if notice.is_flood or waiting_jobs > FULL_JOBS:
        for patrol in fetching:
            patrol.doubt()
        metrics.notifications.labels("flooded").inc(max(1, len(notice.changes)))
        return
    metrics.notifications.labels("ignored").inc(notice.ignored)
    for change in notice.changes:
        concerned = [(patrol, relpath) for patrol in fetching if (relpath := _relpath(change, patrol.lane.target))]
        for patrol, relpath in concerned:
            patrol.hint(relpath)
        metrics.notifications.labels("hinted" if concerned else "ignored").inc()


def _relpath(change: Change, target: Target) -> str:
    """The file that a change is about; '' where it is about none of this target, or can be none."""
    if change.bucket != target.storage.bucket:
        return ""
    try:
        return relpath_of(target.prefix, change.key, subdir=target.subdir)
    except KeyUnsafe:
        return ""
