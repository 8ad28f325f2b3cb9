"""`status --watch`: follows a running replicator, over its restarts, until somebody ends it.

On a terminal one picture that is drawn anew; in a pipe, and where the cursor cannot move, a line for each change; as
JSON a status a line. The only way to the replicator is `statuses`, so that another one needs only another generator.
"""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.live import Live

from replicator.commands.terminal import print_json, say
from replicator.errors import Unavailable
from replicator.observe import words
from replicator.observe.http import fetch_status
from replicator.observe.paces import Paces
from replicator.observe.render_watch import Picture, changes
from replicator.observe.status import Snapshot, to_json, verdict

_EVERY_S = 1.0
_COST_SHARE = 9
"""A status that takes long is followed by a pause so many times as long: watching must not slow down a large queue."""
_LATE_S = 2.0
"""What a status may take beyond its time before the one that is shown counts as old."""


@dataclass(frozen=True, slots=True)
class Word:
    """What came of one question: a status, or why there is none; and after how long the next one is asked."""

    snapshot: Snapshot | None
    trouble: str = ""
    pause_s: float = _EVERY_S


async def statuses(listen: str) -> AsyncIterator[Word]:
    """A word a second or so from the replicator at `listen`, whichever runs there by then. Raises ConfigError."""
    while True:
        began_s, pause_s = time.monotonic(), _EVERY_S
        try:
            snapshot = await fetch_status(listen)
            pause_s = max(_EVERY_S, _COST_SHARE * (time.monotonic() - began_s))
            yield Word(snapshot, pause_s=pause_s)
        except Unavailable as error:
            yield Word(None, str(error))
        await asyncio.sleep(pause_s)


class Display(Protocol):
    """Where words go."""

    def take(self, word: Word | None) -> None:
        """Show it. None: nothing was heard for a second."""


async def watch(listen: str, *, as_json: bool) -> Snapshot | None:
    """Show what is told until SIGINT or SIGTERM; the last status, None when there was none."""
    console = Console(highlight=False)
    is_still = as_json or not console.is_terminal or console.is_dumb_terminal
    last = None
    with contextlib.ExitStack() as stack:
        display: Display = Lines(as_json=as_json) if is_still else stack.enter_context(Screen(console, listen).drawn())
        async for word in _until_signal(statuses(listen)):
            display.take(word)
            last = (word.snapshot if word else None) or last
    if last and not is_still:
        say(f"last seen: {words.unescape(verdict(last))}")
    return last


async def _until_signal(told: AsyncIterator[Word]) -> AsyncIterator[Word | None]:
    """What is told as it comes, and None for each second without one."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    stopping = asyncio.create_task(stopped.wait(), name="signal")
    asking: asyncio.Task[Word] | None = None
    while not stopped.is_set():
        asking = asking or asyncio.ensure_future(anext(told))
        await asyncio.wait({asking, stopping}, timeout=_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
        if asking.done():
            yield asking.result()
            asking = None
        elif not stopped.is_set():
            yield None
    if asking:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


class Lines:
    """Words as they come, for a pipe."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._before: Snapshot | None = None
        self._trouble = ""

    def take(self, word: Word | None) -> None:
        """Print what is new; each line at once, for somebody may wait for it."""
        if word is None:
            return
        if word.trouble != self._trouble:
            self._trouble = word.trouble
            news = words.escape(word.trouble) or "it answers again"
            print(f"replicator: {news}", file=sys.stderr, flush=True)  # noqa: T201
        if word.snapshot is None:
            return
        if self._as_json:
            print_json(to_json(word.snapshot), indent=None)
        else:
            for line in changes(self._before, word.snapshot):
                say(line)
        sys.stdout.flush()
        self._before = word.snapshot


class Screen:
    """One picture over the whole terminal, which is given back as it was."""

    def __init__(self, console: Console, address: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._address = address
        self._clock = clock
        self._seen_s = clock()
        self._word = Word(None, "")
        self._last: Snapshot | None = None
        self._paces = Paces()
        self._live = Live(console=console, screen=True, auto_refresh=False, transient=True)

    @contextlib.contextmanager
    def drawn(self) -> Iterator["Screen"]:
        """Draw within; also at once when the terminal gets another size."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGWINCH, self._draw)
        with self._live:
            yield self
        loop.remove_signal_handler(signal.SIGWINCH)

    def take(self, word: Word | None) -> None:
        """Draw what is new; where nobody answers, how old the rest is."""
        self._word = word or self._word
        if word and word.snapshot:
            self._last, self._seen_s = word.snapshot, self._clock()
            self._paces.take(word.snapshot)
        self._draw()

    def _draw(self) -> None:
        age_s, word = self._clock() - self._seen_s, self._word
        is_late = bool(word.trouble) or age_s > word.pause_s + _LATE_S
        picture = Picture(self._address, self._last, self._paces, age_s, is_late, word.trouble)
        self._live.update(picture, refresh=True)
