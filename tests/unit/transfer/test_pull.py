"""What is published of a download: only the announced length, and bytes that fit the ETag or came twice."""

import dataclasses
import hashlib
import random
from types import SimpleNamespace
from typing import Any

import pytest

from replicator.checksum import composite_etag
from replicator.errors import IntegrityFailed, Unavailable
from replicator.model import Fingerprint, RemoteObject
from replicator.stores.objects import Download
from replicator.transfer.content import PART_SIZE_KEY
from replicator.transfer.pull import RANGE_BYTES, Mismatch, pull

BODY = b"some bytes of an object"
MD5 = hashlib.md5(BODY).hexdigest()
SIZE = len(BODY)


class Store:
    """Gives these blocks for a whole object, and true ranges of BODY for a part of one."""

    def __init__(self, *blocks: bytes, body: bytes = b"", metadata=None) -> None:
        self._blocks = blocks
        self._body = body
        self._metadata = metadata or {}
        self.ranges: list[tuple[int, int]] = []
        self.piece = RANGE_BYTES
        self.fails_from = float("inf")

    def get(self, key, *, etag, offset=0, size=None):
        if size is not None:
            if offset >= self.fails_from:
                raise Unavailable("cut")
            self.ranges.append((offset, size))
        pieces = range(offset, offset + (size or 0), self.piece)
        ranged = (self._body[at : min(at + self.piece, offset + (size or 0))] for at in pieces)
        blocks = self._blocks if size is None else ranged
        return Download(self._metadata, (block for block in blocks))


class Temp:
    """Where the bytes go, in memory."""

    def __init__(self, begun: bytes = b"") -> None:
        self.content = bytearray(begun)
        self.mtime_ns = 0

    @property
    def size(self):
        return len(self.content)

    def blocks(self, block_bytes):
        yield from [bytes(self.content)] if self.content else []

    def write(self, block):
        self.content += block

    def finish(self, mtime_ns):
        self.mtime_ns = mtime_ns
        return Fingerprint(len(self.content), mtime_ns, 0, 1)


@pytest.fixture
def fetch(means):
    """Pulls an object with this ETag, whose store gives these blocks; the row."""

    def run(etag, *blocks, distrusted="", metadata=None, store=None, temp=None, size=SIZE, means=means):
        lane: Any = SimpleNamespace(objects=store or Store(*blocks))
        remote = RemoteObject("p/f", size, etag, 10**18, metadata)
        temp = temp or Temp()
        row, _ = pull(lane, "f", remote, temp, distrusted=distrusted, means=means, moved=lambda size: None)
        return row

    return run


def test_bytes_that_fit_the_etag_are_verified(fetch):
    """The MD5 of what arrived is the ETag: both sides hold the same bytes."""
    row = fetch(MD5, BODY[:5], BODY[5:])

    assert (row.is_verified, row.checksum, row.etag) == (True, f"md5:{MD5}", MD5)
    assert row.fingerprint.size == len(BODY)


@pytest.mark.parametrize("blocks", [(BODY[:-1],), (BODY, b"x"), ()])
@pytest.mark.parametrize("etag", [MD5, "opaque"])
def test_other_length_than_announced_is_discarded(fetch, etag, blocks):
    """Too short or too long is never published, also where the ETag says nothing about the bytes."""
    with pytest.raises(IntegrityFailed):
        fetch(etag, *blocks)


@pytest.mark.fault("B10")
def test_opaque_etag_leaves_the_row_unverified(fetch):
    """Nothing but the length vouches for such bytes, and the row says so."""
    row = fetch("opaque", BODY)

    assert not row.is_verified
    assert row.checksum == f"md5:{MD5}"


@pytest.mark.fault("B11")
def test_bytes_that_do_not_fit_are_refused_until_they_come_twice(fetch):
    """Flipped bytes are fetched again; the same bytes a second time are what the store holds."""
    flipped = BODY[:-1] + b"X"
    with pytest.raises(Mismatch) as refusal:
        fetch(MD5, flipped)

    row = fetch(MD5, flipped, distrusted=refusal.value.checksum)
    assert not row.is_verified
    with pytest.raises(Mismatch):
        fetch(MD5, b"Y" + BODY[1:], distrusted=refusal.value.checksum)


def test_our_own_part_size_makes_a_composite_etag_conclusive(fetch):
    """With the part size beside the object, a composite ETag vouches for the bytes as an MD5 does."""
    parts = [BODY[:10], BODY[10:20], BODY[20:]]
    etag = composite_etag([hashlib.md5(part).digest() for part in parts])
    metadata = {PART_SIZE_KEY: "10"}

    assert (fetch(etag, BODY, metadata=metadata)).is_verified
    with pytest.raises(Mismatch):
        fetch(etag, BODY[:-1] + b"X", metadata=metadata)


@pytest.mark.fault("B4")
@pytest.mark.parametrize("is_large", [False, True])
def test_drip_below_the_minimum_rate_is_cut(fetch, means, monkeypatch, is_large):
    """A connection that gives a byte now and then does not hold a worker for ever."""
    now_s = iter(range(0, 10_000, 30))
    monkeypatch.setattr("replicator.transfer.outcome.time.monotonic", lambda: next(now_s))
    slow = dataclasses.replace(means, min_rate_bytes_s=10**9)
    drip = Store(*(bytes([byte]) for byte in BODY), body=LARGE)
    drip.piece = 1000

    with pytest.raises(Unavailable, match="slower"):
        fetch(MD5, store=drip, size=len(LARGE) if is_large else SIZE, means=slow)


LARGE = random.Random(1).randbytes(3 * RANGE_BYTES + 5)
LARGE_MD5 = hashlib.md5(LARGE).hexdigest()


def test_large_object_comes_in_ranges_and_in_order(fetch):
    """Several connections share the work, each byte is asked for once, and the file is the object."""
    store, temp = Store(body=LARGE), Temp()

    row = fetch(LARGE_MD5, store=store, temp=temp, size=len(LARGE))

    assert row.is_verified
    assert temp.content == LARGE
    assert sorted(store.ranges) == [(n * RANGE_BYTES, RANGE_BYTES) for n in range(3)] + [(3 * RANGE_BYTES, 5)]


@pytest.mark.fault("B3")
def test_cut_download_keeps_what_arrived_and_goes_on_there(fetch):
    """A cut costs what was on its way, not what had arrived; the whole is verified all the same."""
    store, temp = Store(body=LARGE), Temp()
    store.fails_from = 2 * RANGE_BYTES
    with pytest.raises(Unavailable):
        fetch(LARGE_MD5, store=store, temp=temp, size=len(LARGE))
    assert temp.content == LARGE[: 2 * RANGE_BYTES]
    store.fails_from, store.ranges = float("inf"), []

    row = fetch(LARGE_MD5, store=store, temp=temp, size=len(LARGE))

    assert row.is_verified
    assert temp.content == LARGE
    assert sorted(store.ranges) == [(2 * RANGE_BYTES, RANGE_BYTES), (3 * RANGE_BYTES, 5)]


def test_beginning_that_a_power_cut_spoilt_is_noticed(fetch):
    """What lay in the temporary file is not believed: the checksum is over everything."""
    temp = Temp(bytes(RANGE_BYTES))

    with pytest.raises(Mismatch):
        fetch(LARGE_MD5, store=Store(body=LARGE), temp=temp, size=len(LARGE))


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("1700000000.123456789", 1700000000123456789),
        ("1700000000.5", 1700000000500000000),
        ("1700000000", 1700000000000000000),
        ("yesterday", 10**18),
        ("-5", 10**18),
    ],
)
def test_file_has_the_time_of_its_source(fetch, told, expected):
    """The mtime that we, or rclone, wrote beside the object; that of the object where there is none to read."""
    temp = Temp()

    fetch(MD5, store=Store(BODY, metadata={"mtime": told}), temp=temp)

    assert temp.mtime_ns == expected
