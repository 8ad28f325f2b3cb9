"""The watcher of one target: runs a source of events and guards what the source cannot tell.

Guards: a root that is missing, replaced or mounted over (`detect.guard`), a source that ends or fails (restarted with a
growing pause) or goes deaf without a word (`detect.canary`), a file system of which others than this machine change the
content. Whenever events may have been missed, one hint for the whole target is emitted, which makes a sweep. Decides
nothing, moves nothing; without any source the sweep alone finds every change.
"""

import asyncio
import errno
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import Any, Literal

from replicator.detect.canary import Canary
from replicator.detect.guard import Identity, RootGuard
from replicator.detect.source import Health, Source
from replicator.model import Hint
from replicator.observe import logs
from replicator.stores import inotify, kernel
from replicator.stores.files.canary import CanaryFile
from replicator.stores.files.export import Export

log = logs.get("watcher")

_MAX_PAUSE_S = 30.0
"""Longest pause between attempts to arm a source; the sweep covers the time between."""

Kind = Literal["auto", "inotify", "watchfiles", "off"]


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
        on_overflow: Callable[[], None] = lambda: None,
    ) -> None:
        self._path = f"{root}/{subdir}" if subdir else root
        self._export = Export(root, subdir)
        self._canary_file = CanaryFile(root, subdir)
        self._emit = emit
        self._on_restart = on_restart
        self._on_overflow = on_overflow
        self._source: Source | None = None
        self._canary: Canary | None = None
        if kind == "auto":
            kind = "inotify" if inotify.is_available() else "watchfiles"
        self.health = Health(source=kind)

    async def run(self) -> None:
        """Watch until cancelled. Never raises for a fault of the file system or of the source."""
        if self.health.source == "off":
            return
        loop = asyncio.get_running_loop()
        pause_s = 0.1
        try:
            with RootGuard(self._export) as guard:
                while True:
                    identity = await guard.identity()
                    if identity is None:
                        self.health.faults.clear()
                        self.health.note("root", "the directory does not exist (yet)")
                        await guard.appears()
                        continue
                    began_s = loop.time()
                    cause = await self._watch_while(guard, identity)
                    self.health.restarts += 1
                    self._on_restart(cause)
                    self._emit(Hint(None))
                    is_fresh = cause == "replaced" or loop.time() - began_s > _MAX_PAUSE_S
                    pause_s = 0.1 if is_fresh else min(pause_s * 2, _MAX_PAUSE_S)
                    await asyncio.sleep(pause_s)
        finally:
            self._canary_file.remove()

    def swept(self, directories: int) -> None:
        """A sweep met this many directories: the watches are compared with it."""
        if self._source is not None and self.health.is_armed:
            self._source.recheck(directories)

    def promote(self, relpaths: Collection[str]) -> None:
        """A sweep found changes of these files that no event announced: where watches are short, they move there."""
        if self._source is not None and relpaths:
            self._source.promote({relpath.rpartition("/")[0] for relpath in relpaths})

    async def _watch_while(self, guard: RootGuard, identity: Identity) -> str:
        """Run the source until the directory is another one, or the source stops or is deaf; the cause in a word."""
        source = self._source = self._make_source()
        canary = self._canary = Canary(self._canary_file)
        kind = await asyncio.to_thread(kernel.file_system, identity[0])
        self.health.note("file system", _blindness(kind))
        running = _task("watch", source.run(self), self._path)
        leaving = _task("watch-guard", guard.leaves(identity), self._path)
        silence = _task("watch-canary", canary.falls_silent(), self._path)
        tasks = (running, leaving, silence)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            error = running.exception() if running.done() else None
            if leaving.done() or (running.done() and not error and await guard.identity() != identity):
                self.health.note("source", "the directory was replaced; watching it again")
                return "replaced"
            if silence.done() and not running.done():
                self.health.note("canary", "events do not arrive; the source is started anew, sweeps find changes")
                log.warning("watch source is deaf", path=self._path, source=self.health.source)
                return "silent"
            fault = _sentence(error)
            self.health.note("source", fault)
            log.warning("watch source stopped", path=self._path, error=fault)
            return "failed" if error else "ended"
        finally:
            self.health.is_armed = self.health.is_proven = False
            self._source = self._canary = None
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _make_source(self) -> Source:
        # Imported when used: a process with events switched off does not pay for them, nor for the other source.
        if self.health.source == "inotify":
            from replicator.detect.inotify import InotifySource  # noqa: PLC0415

            return InotifySource(self._export, self._canary_file, self.health)
        from replicator.detect.watchfiles import WatchfilesSource  # noqa: PLC0415

        return WatchfilesSource(self._export, self._canary_file, self.health)

    # What the source tells: `detect.source.Listener`.

    def armed(self, *, can_hear: bool) -> None:
        """Watches stand; where the canary has none, its silence proves nothing."""
        self.health.is_armed = True
        self.health.note("root", "")
        self.health.note("source", "")
        if self._canary is not None and can_hear:
            self._canary.begin()
        # What changed before the watches stood was announced by nobody.
        self._emit(Hint(None))

    def changed(self, relpaths: Iterable[str]) -> None:
        """Something may have happened to these files."""
        for relpath in relpaths:
            self._emit(Hint(relpath))

    def lost(self) -> None:
        """Something may have happened anywhere."""
        self._emit(Hint(None))

    def overflowed(self) -> None:
        """The kernel threw events away."""
        self._on_overflow()

    def heard(self) -> None:
        """The canary's event came back."""
        self.health.is_proven = True
        self.health.note("canary", "")
        if self._canary is not None:
            self._canary.heard()


def _task(word: str, work: Coroutine[Any, Any, None], path: str) -> asyncio.Task[None]:
    return asyncio.create_task(work, name=f"{word} {path}")


def _blindness(file_system: str) -> str:
    if not kernel.is_remote(file_system):
        return ""
    return f"on {file_system} no event tells of what other machines change; sweeps find changes"


def _sentence(error: BaseException | None) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if error is None:
        return "the event source ended; the sweep finds changes until it is back"
    if isinstance(error, inotify.OutOfWatches) or (isinstance(error, OSError) and "limit" in str(error)):
        name, limit = kernel.tightest_watch_limit()
        return f"the kernel's watch limit is reached, the sweep covers meanwhile; raise {name} (now {limit})"
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        return "the kernel has no further event queue, sweeps find changes; raise fs.inotify.max_user_instances"
    return f"the event source failed ({type(error).__name__}); the sweep finds changes until it is back"
