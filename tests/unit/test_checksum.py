"""Checksums in the form of S3's ETags."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from replicator.checksum import Checksum, checksum_of, composite_etag, etag_of, is_md5_etag, part_size_of, part_sizes_of

MIB = 1024 * 1024


@given(st.lists(st.binary(max_size=20), max_size=8), st.integers(1, 9))
def test_composite_does_not_depend_on_how_the_bytes_come(blocks, part_size):
    """The ETag is that of the parts, whatever the blocks in which a file is read."""
    whole = b"".join(blocks)
    parts = [whole[at : at + part_size] for at in range(0, len(whole), part_size)] or [b""]
    digests = [hashlib.md5(part).digest() for part in parts]

    text = checksum_of(blocks, part_size_bytes=part_size)

    assert etag_of(text) == composite_etag(digests)
    assert part_size_of(text) == part_size


def test_single_put_is_the_plain_md5():
    """S3 gives an object of one PUT the MD5 of its body, also an empty one."""
    running = Checksum()
    running.update(b"hello")

    assert running.text() == "md5:5d41402abc4b2a76b9719d911017c592"
    assert checksum_of([]) == "md5:d41d8cd98f00b204e9800998ecf8427e"
    assert part_size_of("md5:d41d8cd98f00b204e9800998ecf8427e") == 0


def test_opaque_etags_are_not_taken_for_checksums():
    """Stores may give any token; only the form of an MD5 says anything about the bytes."""
    assert is_md5_etag("5d41402abc4b2a76b9719d911017c592")
    assert is_md5_etag("5d41402abc4b2a76b9719d911017c592-12")
    assert not is_md5_etag("5D41402ABC4B2A76B9719D911017C592")
    assert not is_md5_etag("0x8D9F0A1B2C3D4E5")
    assert part_sizes_of("opaque", size=5) == ()


def test_part_sizes_are_those_that_fit_the_number_of_parts():
    """A composite ETag tells how many parts there were; common part sizes that fit are tried."""
    assert part_sizes_of("5d41402abc4b2a76b9719d911017c592", size=99) == (0,)
    assert 8 * MIB in part_sizes_of("5d41402abc4b2a76b9719d911017c592-3", size=20 * MIB)
    assert 5 * MIB not in part_sizes_of("5d41402abc4b2a76b9719d911017c592-3", size=20 * MIB)
