"""Snapshots over time: at once, settled, never twice the same."""

import asyncio

import pytest

from replicator.config.sources.follow import follow
from replicator.errors import ConfigError

BROKEN = ConfigError(where="f", problem="broken", fix="mend")


class Words:
    """A source's words in memory: each change moves the stamp."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.number = 0
        self.stamps = 0
        self.reads = 0

    def stamp(self):
        self.stamps += 1
        return self.number

    def read(self):
        self.reads += 1
        answer = self.answers[self.number]
        if isinstance(answer, ConfigError):
            raise answer
        return answer


@pytest.fixture
def changes_of(followed):
    def follow_(words, poll_s=0.005, settle_s=0.005):
        return followed(follow(words.read, words.stamp, poll_s=poll_s, settle_s=settle_s))

    return follow_


async def test_first_snapshot_comes_at_once(changes_of, next_of):
    """Nothing is waited for at the start."""
    changes = changes_of(Words(("a",)), poll_s=60, settle_s=60)

    assert await next_of(changes, deadline_s=5) == ("a",)


async def test_equal_snapshots_are_not_repeated(changes_of, next_of):
    """A change that changes nothing is not told; the next real one is."""
    words = Words(("a",), ("a",), ("b",))
    changes = changes_of(words)
    assert await next_of(changes) == ("a",)

    words.number = 1
    waiting = asyncio.ensure_future(next_of(changes))
    async with asyncio.timeout(10):
        while words.reads < 2:
            await asyncio.sleep(0.001)
    words.number = 2

    assert await waiting == ("b",)


async def test_error_is_told_once_and_recovery_too(changes_of, next_of):
    """A broken state is one error, however often it is read; then the old good state is news again."""
    again = ConfigError(where="f", problem="broken", fix="mend")
    other = ConfigError(where="f", problem="otherwise broken", fix="mend")
    words = Words(("a",), BROKEN, again, other, ("a",))
    changes = changes_of(words)
    assert await next_of(changes) == ("a",)

    words.number = 1
    assert await next_of(changes) is BROKEN
    words.number = 2
    waiting = asyncio.ensure_future(next_of(changes))
    async with asyncio.timeout(10):
        while words.reads < 3:
            await asyncio.sleep(0.001)
    words.number = 3
    assert await waiting is other
    words.number = 4

    assert await next_of(changes) == ("a",)


async def test_broken_start_is_an_error_too(changes_of, next_of):
    """The first answer may be an error; the stream goes on."""
    words = Words(BROKEN, ("a",))
    changes = changes_of(words)

    assert await next_of(changes) is BROKEN
    words.number = 1
    assert await next_of(changes) == ("a",)


@pytest.mark.fault("B18", "D2")
async def test_half_written_words_settle(changes_of, next_of):
    """A state that moves on before it stood still for a moment is never told, as here a broken one."""
    words = Words(("a",), BROKEN, ("whole",))
    changes = changes_of(words, settle_s=0.3)
    await next_of(changes)

    words.number = 1
    looked = words.stamps
    waiting = asyncio.ensure_future(next_of(changes))
    async with asyncio.timeout(10):
        while words.stamps < looked + 2:
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.1)  # a writer at work, well within the time to settle
    words.number = 2

    assert await waiting == ("whole",)


class WrittenWhileRead(Words):
    """Words that are written anew just as state 1 is read."""

    def read(self):
        answer = super().read()
        self.number = 2 if self.number == 1 else self.number
        return answer


@pytest.mark.fault("B18")
async def test_words_that_move_while_they_are_read_are_read_again(changes_of, next_of):
    """A snapshot of half the old and half the new state is thrown away."""
    words = WrittenWhileRead(("a",), ("half",), ("whole",))
    changes = changes_of(words)
    await next_of(changes)

    words.number = 1

    assert await next_of(changes) == ("whole",)


async def test_words_that_never_stand_still_are_taken_in_the_end(followed, next_of):
    """A file that is written for ever does not hide all changes for ever."""
    words = Words(*[("a",)] * 10_000)

    def move():
        words.number += 1
        return words.number

    changes = followed(follow(words.read, move, poll_s=0.001, settle_s=0.001))

    assert await next_of(changes) == ("a",)


async def test_nothing_is_read_while_nothing_moves(changes_of, next_of):
    """Idle means a look at the stamps, no reading."""
    words = Words(("a",))
    changes = changes_of(words)
    await next_of(changes)
    waiting = asyncio.ensure_future(next_of(changes))
    looked = words.stamps

    async with asyncio.timeout(10):
        while words.stamps < looked + 10:
            await asyncio.sleep(0.001)

    assert words.reads == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
