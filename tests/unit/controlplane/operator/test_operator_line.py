"""Keys in line: each once, two never work on one, and what comes in meanwhile comes again."""

import asyncio

import pytest

from replicator.controlplane.operator.line import Line

A, B = ("fleet", "a"), ("fleet", "b")


async def test_key_is_in_line_once():
    """However often a key is put in, it is looked at once."""
    line = Line()
    for key in (A, B, A, A):
        line.put(key)

    assert [await line.take(), await line.take()] == [A, B]
    assert len(line) == 0


async def test_key_that_changes_during_its_look_comes_again_afterwards():
    """The key waits while somebody works on it, and is not lost."""
    line = Line()
    line.put(A)
    await line.take()
    line.put(A)
    line.put(B)

    assert await line.take() == B
    line.done(A)
    assert await line.take() == A


async def test_earliest_moment_counts():
    """A later moment neither delays nor doubles an earlier one; an earlier one brings it forward."""
    line = Line()
    line.put(A, after_s=3600)
    line.put(A)
    line.put(A, after_s=3600)

    assert await line.take() == A
    assert len(line) == 0


async def test_key_that_comes_in_wakes_who_waits():
    """Whoever waits for a later key gets one that is due at once."""
    line = Line()
    line.put(B, after_s=3600)
    waiting = asyncio.create_task(line.take())
    await asyncio.sleep(0)
    line.put(A)

    assert await waiting == A


async def test_later_moment_comes():
    """A key that was put off is looked at when its time has come, without anybody's doing."""
    line = Line()
    line.put(A, after_s=0.02)

    assert await line.take() == A


async def test_several_who_wait_share_the_line():
    """Each key goes to one of them."""
    line = Line()
    waiting = [asyncio.create_task(line.take()) for _ in range(3)]
    await asyncio.sleep(0)
    for number in range(3):
        line.put(("fleet", str(number)))

    assert sorted(await asyncio.gather(*waiting)) == [("fleet", "0"), ("fleet", "1"), ("fleet", "2")]


async def test_nobody_is_given_what_is_not_there():
    """An empty line waits."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(Line().take(), 0.01)
