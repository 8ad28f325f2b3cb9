"""The loop thread: calls from any thread, ended by their result, by an interruption or by `close`."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from replicator.errors import Unavailable
from replicator.stores.s3.loop import LoopThread


async def nothing() -> None:
    pass


@pytest.fixture
def loop():
    one = LoopThread("test-loop")
    yield one
    one.close(nothing())


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "test-loop"]


def test_result_and_error_come_through(loop):
    """What a coroutine returns or raises is what its caller gets."""

    async def fail():
        raise KeyError("mine")

    assert loop.run(asyncio.sleep(0, "result")) == "result"
    with pytest.raises(KeyError, match="mine"):
        loop.run(fail())


def test_thread_is_there_from_the_first_call_to_close(loop):
    """What is never used costs no thread; many callers share one; closing ends it, twice is fine."""
    assert threads() == []

    with ThreadPoolExecutor(8) as callers:
        assert list(callers.map(lambda n: loop.run(asyncio.sleep(0.001, n)), range(50))) == list(range(50))
    assert threads() == ["test-loop"]

    loop.close(nothing())
    loop.close(nothing())
    assert threads() == []


def test_close_ends_calls_under_way(loop):
    """A call that waits when the store is closed ends as Unavailable, and so does any later one."""
    begun = threading.Event()

    async def wait():
        begun.set()
        await asyncio.sleep(60)

    with ThreadPoolExecutor(1) as callers:
        call = callers.submit(lambda: loop.run(wait()))
        assert begun.wait(5)
        loop.close(nothing())
        with pytest.raises(Unavailable):
            call.result(timeout=5)

    with pytest.raises(Unavailable):
        loop.run(nothing())


def test_calls_while_closing_never_hang(loop):
    """Calls that race with `close` either work or are refused; none waits for ever."""

    def call(_):
        try:
            return loop.run(asyncio.sleep(0, "done"))
        except Unavailable:
            return "refused"

    with ThreadPoolExecutor(8) as callers:
        results = callers.map(call, range(2000), timeout=20)
        loop.close(nothing())
        assert set(results) <= {"done", "refused"}
