"""The screen of `status --watch`, apart from the process."""

import asyncio
import io
import signal

import pytest
from rich.console import Console

from replicator.commands import watch
from replicator.commands.watch import Screen, Word
from replicator.observe.status import ConfigView, Snapshot


@pytest.fixture
def snapshot() -> Snapshot:
    return Snapshot(
        version="1.2.3",
        now_ts=1000.0,
        started_ts=0.0,
        is_draining=False,
        is_ready=True,
        not_ready=(),
        config=ConfigView(source="env", generation=1, valid=True, applied_ts=1.0),
        transfers_in_flight=0,
        transfers_limit=1,
        queue_jobs=0,
        watch_limit=None,
        targets=(),
    )


async def test_another_size_is_drawn_at_once(until):
    """A window that was resized need not wait for the next status."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, height=10)
    with Screen(console, "127.0.0.1:9477").drawn() as screen:
        screen.take(Word(None, "nobody listens"))
        before = out.getvalue().count("nobody listens")

        signal.raise_signal(signal.SIGWINCH)

        await until(lambda: out.getvalue().count("nobody listens") > before)


async def test_silence_makes_the_picture_older(snapshot):
    """While a question is open nothing new is heard: what is shown gets older all the same."""
    now_s = 100.0
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, height=20)
    with Screen(console, "127.0.0.1:9477", clock=lambda: now_s).drawn() as screen:
        screen.take(Word(snapshot))
        now_s = 102.0
        screen.take(None)
        assert "as of 2 s ago" in out.getvalue()
        assert "DOES NOT ANSWER" not in out.getvalue()

        now_s = 104.0
        screen.take(None)

        assert "DOES NOT ANSWER; what stands below is of 4 s ago" in out.getvalue()


async def test_dear_status_is_asked_for_less_often(monkeypatch, snapshot):
    """Who watches a large queue does not slow it down: the pause follows from what an answer took."""

    async def take_long(_listen):
        await asyncio.sleep(0.2)
        return snapshot

    monkeypatch.setattr(watch, "fetch_status", take_long)

    word = await anext(watch.statuses("127.0.0.1:9477"))

    assert word.snapshot == snapshot
    assert word.pause_s > 9 * 0.19
