"""An event loop on a thread of its own, for calls that come from any thread and block.

Owns: the thread, from the first call to `close`. Never: what the calls do, or how long they may take.
"""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from replicator.errors import Unavailable

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for other threads. Safe from any of them, but its own."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._is_closed = False

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What `coroutine` returns or raises. A caller that is interrupted leaves nothing running."""
        return self.wait(self.submit(coroutine))

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        # Under the lock, for what is submitted after the last callback of a loop would never end.
        with self._lock:
            if self._is_closed:
                coroutine.close()
                raise Unavailable("the store is closed; it is tried again")
            if self._loop is None:
                self._loop = self._start()
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def wait(self, future: Future[T]) -> T:
        """The result of a `submit`."""
        try:
            return future.result()
        except CancelledError:
            raise Unavailable("the store was closed meanwhile; it is tried again") from None
        finally:
            future.cancel()

    def close(self, last: Coroutine[Any, Any, None]) -> None:
        """Run `last`, cancel what is under way, and end the thread. Closing twice is fine."""
        with self._lock:
            is_late, self._is_closed = self._is_closed or self._loop is None, True
        if is_late or self._loop is None or self._thread is None:
            last.close()
            return
        asyncio.run_coroutine_threadsafe(last, self._loop).result()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _start(self) -> asyncio.AbstractEventLoop:
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)), name=self._name, daemon=True)
        self._thread.start()
        return started.result()

    async def _serve(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        """Until `close`; asyncio.run then cancels what is left and closes the loop."""
        started.set_result(asyncio.get_running_loop())
        await self._stop.wait()
