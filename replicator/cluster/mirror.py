"""A copy of all objects of one kind, kept current for as long as it runs.

Owns: list, watch and the way back from whatever ends a watch. Never: what an object means, writes.
Nothing is polled but a list every ten minutes, which proves the watch.
Source: Kubernetes API concepts, "Efficient detection of changes": list, watch from there, list anew on 410.
"""

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from replicator.cluster.belief import BELIEVED_AFTER, Belief, Change
from replicator.cluster.client import Cluster
from replicator.cluster.kinds import Key, Kind, Object
from replicator.errors import ClusterError, Forbidden, Gone
from replicator.observe import logs

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0

_log = logs.get("cluster")


def pause_s(failures: int) -> float:
    """How long to wait after so many failures in a row: exponential, with full jitter."""
    longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(failures - 1, 16))
    return random.uniform(0, longest)  # noqa: S311 -- a spread, no secret


@dataclass(frozen=True, slots=True)
class Rhythm:
    """When a mirror does what, in seconds."""

    resync_s: float = 600.0
    """Between lists while a watch runs; up to a fifth more or less, so that a fleet does not list together."""
    doubt_s: float = 20.0
    """Until a list that is not believed is repeated: time for a server that lost its memory to be repaired."""
    steady_s: float = 5.0
    """A watch that lived as long has not failed: the next one begins at once."""
    pause_s: Callable[[int], float] = pause_s
    clock: Callable[[], float] = time.monotonic


class Mirror:
    """All objects of `kind` in `namespace` ("" = every one), or those of one name or with these labels.

    `objects` and all in it is for reading: an object is replaced, never changed. It is current while `run` runs, and
    stays as it was while the API server is away; `problem` says why that is, '' while all is well.
    """

    def __init__(
        self,
        cluster: Cluster,
        kind: Kind,
        namespace: str = "",
        *,
        name: str = "",
        labels: str = "",
        on_change: Change | None = None,
        rhythm: Rhythm | None = None,
    ) -> None:
        self.on_change = on_change
        self.problem = ""
        self.is_refused = False
        """Whether the problem is an answer: these credentials may not read it."""
        self._cluster, self._kind, self._namespace = cluster, kind, namespace
        self._selection = {"name": name, "labels": labels}
        self._rhythm = rhythm or Rhythm()
        self._belief = Belief(self._tell)
        self.ended = self._belief.ended
        self._heard = self._rhythm.clock()
        self._synced = asyncio.Event()

    @property
    def objects(self) -> dict[Key, Object]:
        return self._belief.objects

    @property
    def is_synced(self) -> bool:
        """Whether `objects` was complete at least once."""
        return self._synced.is_set()

    async def synced(self) -> None:
        """Return once `objects` was complete for the first time."""
        await self._synced.wait()

    def age_s(self) -> float:
        """Seconds since the API server was last heard here; while all is well it speaks about once a minute."""
        return self._rhythm.clock() - self._heard

    async def run(self) -> None:
        """For ever. Ends by cancellation only."""
        failures, list_due = 0, -math.inf
        while True:
            try:
                if self._rhythm.clock() >= list_due:
                    await self._list()
                    list_due = self._next_list()
                is_steady = await self._watch(list_due)
                failures = 0 if is_steady else failures + 1
            except ClusterError as exc:
                if not isinstance(exc, Gone):
                    self._ill(exc)
                failures += 1
                # Nobody knows what such a server remembers; but doubts take their time, whatever it does.
                list_due = list_due if self._belief.doubt else -math.inf
            if failures:
                await asyncio.sleep(self._rhythm.pause_s(failures))

    async def _list(self) -> None:
        listing = await self._cluster.list(self._kind, self._namespace, **self._selection)
        self._belief.take_listing(listing)
        self._well()
        self._synced.set()
        if self._belief.doubt:
            _log.warning(
                "listing not believed yet", kind=self._kind.plural, reason=self._belief.doubt, limit=BELIEVED_AFTER
            )

    def _next_list(self) -> float:
        spread = random.uniform(0.8, 1.2)  # noqa: S311 -- no secret
        return self._rhythm.clock() + (self._rhythm.doubt_s if self._belief.doubt else self._rhythm.resync_s * spread)

    async def _watch(self, until: float) -> bool:
        """Take events until a list is due or the server ends the watch; False when it did so at once."""
        selected = {"version": self._belief.version, **self._selection}
        began = self._rhythm.clock()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, until - began)):
                async with contextlib.aclosing(self._cluster.watch(self._kind, self._namespace, **selected)) as events:
                    async for event in events:
                        self._belief.take_event(event)
                        self._well()
                return self._rhythm.clock() >= began + self._rhythm.steady_s
        return True

    def _tell(self, key: Key, old: Object | None, new: Object | None) -> None:
        """One listener's fault must not end the mirror."""
        try:
            if self.on_change:
                self.on_change(key, old, new)
        except Exception as exc:  # noqa: BLE001
            namespace, name = key
            _log.error("change not taken", kind=self._kind.plural, namespace=namespace, name=name, error=exc)

    def _well(self) -> None:
        self._heard = self._rhythm.clock()
        if self.problem:
            _log.info("the API server answers again", kind=self._kind.plural, namespace=self._namespace)
        self.problem, self.is_refused = "", False

    def _ill(self, exc: ClusterError) -> None:
        if not self.problem:
            _log.warning("the API server does not answer", kind=self._kind.plural, namespace=self._namespace, error=exc)
        self.problem, self.is_refused = str(exc), isinstance(exc, Forbidden)
