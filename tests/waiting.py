"""Waiting for what has to come: until it is there, and at most for a while. Nothing sleeps for luck."""

import inspect
import time
from asyncio import sleep
from collections.abc import Callable
from typing import Any

DEADLINE_S = 30.0
"""Far above what anything here takes on an idle machine; only a test that fails waits for so long."""
_PAUSE_S = 0.005


async def eventually(condition: Callable[..., Any], within_s: float = DEADLINE_S) -> Any:
    """What `condition` gives once that is true, while the event loop runs; it may be a coroutine function."""
    deadline = time.monotonic() + within_s
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {within_s} s"
        await sleep(_PAUSE_S)


def wait_until(condition: Callable[..., Any], within_s: float = DEADLINE_S) -> Any:
    """The same for a test without an event loop."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(_PAUSE_S)
    return value
