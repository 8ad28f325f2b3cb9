"""The watcher of one target: runs a source of events and guards what the source cannot tell.

Guards: a root that is missing, replaced or mounted over (its identity is compared twice a second), a source that ends
or fails (restarted with a growing pause). Whenever events may have been missed, one hint for the whole target is
emitted, which makes a sweep. Decides nothing, moves nothing; without any source the sweep alone finds every change.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from replicator.model import Hint
from replicator.observe import logs
from replicator.stores.files.export import Export

log = logs.get("watcher")

_IDENTITY_INTERVAL_S = 0.5
_MAX_PAUSE_S = 30.0
"""Longest pause between attempts to arm a source; the sweep covers the time between."""

Kind = Literal["auto", "watchfiles", "off"]


class Source(Protocol):
    """One way to learn of changes beneath a directory."""

    name: str

    async def run(self, emit: Callable[[Iterable[str]], None], armed: Callable[[], None]) -> None:
        """Emit batches of relpaths until cancelled; `armed` is called once when watching has begun."""
        ...


@dataclass(slots=True)
class Health:
    """Whether events are being delivered; `degraded` is '' or one sentence saying what is wrong."""

    source: str
    is_armed: bool = False
    degraded: str = ""
    restarts: int = 0


class Watcher:
    """Hints of one directory for as long as `run` runs."""

    def __init__(
        self,
        kind: Kind,
        *,
        root: str,
        subdir: str,
        emit: Callable[[Hint], None],
        on_restart: Callable[[str], None],
    ) -> None:
        self._kind = kind
        self._root = root
        self._subdir = subdir
        self._export = Export(root, subdir)
        self._emit = emit
        self._on_restart = on_restart
        self.health = Health(source="off" if kind == "off" else "watchfiles")

    async def run(self) -> None:
        """Watch until cancelled. Never raises for a fault of the file system or of the source."""
        if self._kind == "off":
            return
        pause_s = 0.1
        while True:
            identity = await asyncio.to_thread(self._export.identity)
            if identity is None:
                self.health.degraded = "the directory does not exist (yet)"
                await asyncio.sleep(_IDENTITY_INTERVAL_S)
                continue
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            cause = await self._watch_while(identity)
            self.health.is_armed = False
            self.health.restarts += 1
            self._on_restart(cause)
            self._emit(Hint(None))
            pause_s = 0.1 if loop.time() - began_s > _MAX_PAUSE_S else min(pause_s * 2, _MAX_PAUSE_S)
            if cause == "replaced":
                pause_s = 0.1
            await asyncio.sleep(pause_s)

    async def _watch_while(self, identity: tuple[int, int]) -> str:
        """Run the source until the directory is another one or the source stops; the cause in one word."""
        guard = asyncio.create_task(self._guard(identity), name=f"watch-guard {self._root}/{self._subdir}")
        source = asyncio.create_task(self._source().run(self._emit_all, self._armed), name=f"watch {self._root}")
        try:
            await asyncio.wait({guard, source}, return_when=asyncio.FIRST_COMPLETED)
            if guard.done():
                self.health.degraded = "the directory was replaced; watching it again"
                return "replaced"
            error = source.exception()
            self.health.degraded = _sentence(error)
            log.warning("watch source stopped", path=f"{self._root}/{self._subdir}", error=self.health.degraded)
            return "failed" if error else "ended"
        finally:
            guard.cancel()
            source.cancel()
            await asyncio.gather(guard, source, return_exceptions=True)

    async def _guard(self, identity: tuple[int, int]) -> None:
        # Polled, for no event tells that another directory took the name or was mounted over it.
        while await asyncio.to_thread(self._export.identity) == identity:  # noqa: ASYNC110
            await asyncio.sleep(_IDENTITY_INTERVAL_S)

    def _source(self) -> Source:
        # Imported when used: a process with events switched off does not pay for it.
        from replicator.detect.watchfiles import WatchfilesSource  # noqa: PLC0415

        return WatchfilesSource(self._root, self._subdir)

    def _armed(self) -> None:
        self.health.is_armed = True
        self.health.degraded = ""
        # What changed before the watches stood was announced by nobody.
        self._emit(Hint(None))

    def _emit_all(self, relpaths: Iterable[str]) -> None:
        for relpath in relpaths:
            self._emit(Hint(relpath))


def _sentence(error: BaseException | None) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if error is None:
        return "the event source ended; the sweep finds changes until it is back"
    if isinstance(error, OSError) and "limit" in str(error):
        return "the kernel's watch limit is reached, the sweep covers meanwhile; raise fs.inotify.max_user_watches"
    return f"the event source failed ({type(error).__name__}); the sweep finds changes until it is back"
