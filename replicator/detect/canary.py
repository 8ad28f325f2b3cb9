"""The canary: an event of our own making that has to come back, for a source can go deaf without a word.

Owns: how often, and how long silence may last. Never: what is done about it (`detect.watcher`).
"""

import asyncio
import contextlib

from replicator.stores.files.canary import CanaryFile

_INTERVAL_S = 30.0
"""Two looks a minute cost next to nothing; a deaf source hides behind the sweep for as long at most."""

_PATIENCE_S = 10.0
"""Seconds for an event to come back, twice: a large tree that has just appeared keeps a source busy."""

_TRIES = 2


class Canary:
    """Stirs its file as soon as `begin` was called, and from time to time; `heard` says that the event came back."""

    def __init__(self, file: CanaryFile, *, interval_s: float = _INTERVAL_S, patience_s: float = _PATIENCE_S) -> None:
        self._file = file
        self._interval_s = interval_s
        self._patience_s = patience_s
        self._begun = asyncio.Event()
        self._echo = asyncio.Event()

    def begin(self) -> None:
        """The source is ready to hear."""
        self._begun.set()

    def heard(self) -> None:
        """The event came back."""
        self._echo.set()

    async def falls_silent(self) -> None:
        """Return when the event did not come back. Where there can be no file, never."""
        await self._begun.wait()
        while await self._is_answered():  # noqa: ASYNC110  # an event has to be made, before it can be waited for
            await asyncio.sleep(self._interval_s)

    async def _is_answered(self) -> bool:
        for _ in range(_TRIES):
            self._echo.clear()
            if not await asyncio.to_thread(self._file.stir):
                return True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience_s):
                    await self._echo.wait()
                    return True
        return False
