"""A copy of all objects of one kind, kept current for as long as it runs.

Owns: list, watch and the way back from whatever ends a watch; what is believed when answers contradict each other.
Never: what an object means, writes. Nothing is polled but a list every ten minutes, which proves the watch.
Source: Kubernetes API concepts, "Efficient detection of changes": list, watch from there, list anew on 410.
"""

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Callable

from replicator.cluster.client import Cluster, Event, Listing
from replicator.cluster.kinds import Key, Kind, Object, is_older, key_of, uid_of, version_of
from replicator.errors import ClusterError, Gone
from replicator.observe import logs

RESYNC_S = 600.0
"""Between lists while a watch runs; up to a fifth more or less, so that a fleet does not list together."""

_DOUBT_S = 20.0
"""Until a list that cannot be believed is repeated: time for a server that lost its memory to be repaired."""
_BELIEVED_AFTER = 3
"""Lists in a row that say the same unbelievable thing."""
_STEADY_S = 5.0
"""A watch that lived as long has not failed: the next one begins at once."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
_REMEMBERED = 1024
"""Removed objects whose late events are recognised."""

_log = logs.get("cluster")

Change = Callable[[Key, Object | None, Object | None], None]
"""Called with the key, the object as it was (None: new) and as it is (None: gone)."""


def pause_s(failures: int) -> float:
    """How long to wait after so many failures in a row: exponential, with full jitter."""
    return random.uniform(0, min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(failures - 1, 16)))  # noqa: S311


class Mirror:
    """All objects of `kind` in `namespace` ("" = every one), or those of one name or with these labels.

    `objects` is for reading, and what is in it too: an object is replaced, never changed in place. It is current
    while `run` runs, and stays as it was while the API server is away. `problem` says why, '' while all is well.
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
        resync_s: float = RESYNC_S,
        doubt_s: float = _DOUBT_S,
        pause: Callable[[int], float] = pause_s,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.objects: dict[Key, Object] = {}
        self.on_change = on_change
        self.problem = ""
        self._cluster, self._kind, self._namespace = cluster, kind, namespace
        self._selection = {"name": name, "labels": labels}
        self._resync_s, self._doubt_s, self._pause, self._clock = resync_s, doubt_s, pause, clock
        self._heard = clock()
        self._version = ""
        self._doubts = 0
        self._removed: dict[str, str] = {}
        self._synced = asyncio.Event()

    @property
    def is_synced(self) -> bool:
        """Whether `objects` was complete at least once."""
        return self._synced.is_set()

    async def synced(self) -> None:
        """Return once `objects` was complete for the first time."""
        await self._synced.wait()

    def age_s(self) -> float:
        """Seconds since the API server was last heard here; while all is well it speaks about once a minute."""
        return self._clock() - self._heard

    async def run(self) -> None:
        """For ever. Ends by cancellation only."""
        failures, list_due = 0, -math.inf
        while True:
            began = self._clock()
            try:
                if began >= list_due:
                    is_believed = self._take_listing(
                        await self._cluster.list(self._kind, self._namespace, **self._selection)
                    )
                    list_due = self._clock() + (self._next_list_s() if is_believed else self._doubt_s)
                await self._watch(list_due)
                self._well()
            except Gone:
                list_due = -math.inf
            except ClusterError as exc:
                self._ill(exc)
            is_steady = self._clock() - began >= min(_STEADY_S, self._resync_s, self._doubt_s)
            failures = 0 if is_steady else failures + 1
            if failures or self.problem:
                await asyncio.sleep(self._pause(max(failures, 1)))

    async def _watch(self, until: float) -> None:
        """Take events until the server ends the watch, or a list is due."""
        selected = {"version": self._version, **self._selection}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, until - self._clock())):
                events = self._cluster.watch(self._kind, self._namespace, **selected)
                async with contextlib.aclosing(events):
                    async for event in events:
                        self._take_event(event)

    def _take_listing(self, listing: Listing) -> bool:
        """Bring `objects` in line with it; False when it is not believed, and then nothing is removed for it."""
        is_empty = bool(self.objects) and not listing.items
        is_past = is_older(listing.version, self._version)
        self._doubts = self._doubts + 1 if is_empty or is_past else 0
        self._well()
        if is_believed := self._doubts in {0, _BELIEVED_AFTER}:
            listed = {key_of(item) for item in listing.items}
            for key in [key for key in self.objects if key not in listed]:
                self._remove(key)
            self._version = listing.version
        else:
            _log.warning(
                "listing not believed",
                kind=self._kind.plural,
                reason="empty" if is_empty else "older",
                attempts=self._doubts,
                limit=_BELIEVED_AFTER,
            )
        if is_believed and is_past:  # the server went back to an older state for good, as from a backup
            self._removed.clear()
        for item in listing.items:
            self._take(item, is_final=is_believed and is_past)
        self._doubts = 0 if is_believed else self._doubts
        self._synced.set()
        return is_believed

    def _take_event(self, event: Event) -> None:
        self._well()
        key, version = key_of(event.object), version_of(event.object)
        if event.type == "DELETED":
            self._removed[uid_of(event.object)] = version
            if len(self._removed) > _REMEMBERED:
                del self._removed[next(iter(self._removed))]
            if key in self.objects and uid_of(self.objects[key]) == uid_of(event.object):
                self._remove(key)
        elif event.type in {"ADDED", "MODIFIED"}:
            self._take(event.object)
        if version and not is_older(version, self._version):
            self._version = version

    def _take(self, obj: Object, *, is_final: bool = False) -> None:
        """Have `obj` in place of what was there, unless that is as new; another uid is another object."""
        key, uid, version = key_of(obj), uid_of(obj), version_of(obj)
        old = self.objects.get(key)
        for known in (version_of(old) if old else "", self._removed.get(uid, "")):
            if known == version or (is_older(version, known) and not is_final):
                return
        if old and uid_of(old) != uid:
            self._remove(key)
            old = None
        obj.get("metadata", {}).pop("managedFields", None)  # half of an object's size, and nobody reads it here
        self.objects[key] = obj
        self._tell(key, old, obj)

    def _remove(self, key: Key) -> None:
        self._tell(key, self.objects.pop(key), None)

    def _tell(self, key: Key, old: Object | None, new: Object | None) -> None:
        if self.on_change:
            self.on_change(key, old, new)

    def _next_list_s(self) -> float:
        return self._resync_s * random.uniform(0.8, 1.2)  # noqa: S311 -- a spread, no secret

    def _well(self) -> None:
        self._heard = self._clock()
        if self.problem:
            _log.info("API server answers again", kind=self._kind.plural, namespace=self._namespace)
        self.problem = ""

    def _ill(self, exc: ClusterError) -> None:
        if not self.problem:
            _log.warning("API server does not answer", kind=self._kind.plural, namespace=self._namespace, error=exc)
        self.problem = str(exc)
