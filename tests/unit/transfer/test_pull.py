"""What is published of a download: only the announced length, and bytes that fit the ETag or came twice."""

import asyncio
import hashlib
from types import SimpleNamespace
from typing import Any

import pytest

from replicator.checksum import composite_etag
from replicator.errors import IntegrityFailed, Unavailable
from replicator.model import RemoteObject
from replicator.stores.files import Export
from replicator.transfer.content import PART_SIZE_KEY
from replicator.transfer.limits import ByteBudget, Room
from replicator.transfer.outcome import Means
from replicator.transfer.pull import Mismatch, pull

BODY = b"some bytes of an object"
MD5 = hashlib.md5(BODY).hexdigest()


class Store:
    """Gives these blocks, whatever is asked."""

    def __init__(self, *blocks: bytes, delay_s: float = 0.0) -> None:
        self._blocks = blocks
        self._delay_s = delay_s

    async def get(self, key, *, etag, offset=0):
        for block in self._blocks:
            await asyncio.sleep(self._delay_s)
            yield block


@pytest.fixture
def fetch(tmp_path):
    """Pulls an object with this ETag, whose store gives these blocks; the row."""
    export = Export(str(tmp_path))

    async def run(etag, *blocks, distrusted="", metadata=None, store=None, min_rate=0):
        means = Means(
            part_size_bytes=8 * 2**20,
            min_rate_bytes_s=min_rate,
            quiet_s=0.5,
            open_file_ceiling_s=60,
            budget=ByteBudget(8 * 2**20),
            room=Room(floor_bytes=0),
        )
        lane: Any = SimpleNamespace(objects=store or Store(*blocks))
        remote = RemoteObject("p/f", len(BODY), etag, 10**18, metadata)
        with export.create_temp() as temp:
            return await pull(lane, "f", remote, temp, distrusted=distrusted, means=means)

    return run


async def test_bytes_that_fit_the_etag_are_verified(fetch):
    """The MD5 of what arrived is the ETag: both sides hold the same bytes."""
    row = await fetch(MD5, BODY[:5], BODY[5:])

    assert (row.is_verified, row.checksum, row.etag) == (True, f"md5:{MD5}", MD5)
    assert row.fingerprint.size == len(BODY)


@pytest.mark.parametrize("blocks", [(BODY[:-1],), (BODY, b"x"), ()])
@pytest.mark.parametrize("etag", [MD5, "opaque"])
async def test_other_length_than_announced_is_discarded(fetch, etag, blocks):
    """Too short or too long is never published, also where the ETag says nothing about the bytes."""
    with pytest.raises(IntegrityFailed):
        await fetch(etag, *blocks)


async def test_opaque_etag_leaves_the_row_unverified(fetch):
    """Nothing but the length vouches for such bytes, and the row says so."""
    row = await fetch("opaque", BODY)

    assert not row.is_verified
    assert row.checksum == f"md5:{MD5}"


async def test_bytes_that_do_not_fit_are_refused_until_they_come_twice(fetch):
    """Flipped bytes are fetched again; the same bytes a second time are what the store holds."""
    flipped = BODY[:-1] + b"X"
    with pytest.raises(Mismatch) as refusal:
        await fetch(MD5, flipped)

    row = await fetch(MD5, flipped, distrusted=refusal.value.checksum)
    assert not row.is_verified
    with pytest.raises(Mismatch):
        await fetch(MD5, b"Y" + BODY[1:], distrusted=refusal.value.checksum)


async def test_our_own_part_size_makes_a_composite_etag_conclusive(fetch):
    """With the part size beside the object, a composite ETag vouches for the bytes as an MD5 does."""
    parts = [BODY[:10], BODY[10:20], BODY[20:]]
    etag = composite_etag([hashlib.md5(part).digest() for part in parts])
    metadata = {PART_SIZE_KEY: "10"}

    assert (await fetch(etag, BODY, metadata=metadata)).is_verified
    with pytest.raises(Mismatch):
        await fetch(etag, BODY[:-1] + b"X", metadata=metadata)


async def test_drip_below_the_minimum_rate_is_cut(fetch, monkeypatch):
    """A connection that gives a byte now and then does not hold a worker for ever."""
    monkeypatch.setattr("replicator.transfer.outcome._GRACE_S", 0.05)
    drip = Store(*(bytes([byte]) for byte in BODY), delay_s=0.05)

    with pytest.raises(Unavailable, match="slower"):
        await fetch(MD5, store=drip, min_rate=10**9)
