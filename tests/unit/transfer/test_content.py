"""What an object tells of its bytes, and how large its parts have to be."""

import pytest

from replicator.model import RemoteObject
from replicator.transfer.content import MAX_PARTS, PART_SIZE_KEY, part_size_for, part_sizes

MIB = 1024 * 1024
PLAIN = "5d41402abc4b2a76b9719d911017c592"


def remote(etag, size=20 * MIB, **metadata):
    return RemoteObject("k", size, etag, 0, metadata)


@pytest.mark.fault("A20", "B23")
@pytest.mark.parametrize("size", [0, 1, 8 * MIB, 8 * MIB * MAX_PARTS, 8 * MIB * MAX_PARTS + 1, 5 * 2**40])
def test_every_size_fits_into_the_parts_that_s3_allows(size):
    """Up to the 5 TiB that an object may have, no upload needs more than 10,000 parts, and none has smaller ones."""
    part_size = part_size_for(size, 8 * MIB)

    assert -(-size // part_size) <= MAX_PARTS
    assert part_size >= 8 * MIB
    assert part_size % MIB == 0


def test_our_own_part_size_is_believed_before_any_guess():
    """Where we wrote the part size beside the object, nothing else is tried."""
    assert part_sizes(remote(PLAIN + "-3", **{PART_SIZE_KEY: str(7 * MIB)})) == (7 * MIB,)
    assert 8 * MIB in part_sizes(remote(PLAIN + "-3"))


@pytest.mark.parametrize("told", ["", "0x10", "-5", "many"])
def test_foreign_nonsense_in_the_metadata_is_no_part_size(told):
    """Anybody may write metadata; what is no number is ignored."""
    assert 8 * MIB in part_sizes(remote(PLAIN + "-3", **{PART_SIZE_KEY: told}))


def test_part_size_says_nothing_about_a_single_put():
    """An object that was stored again in one PUT keeps no parts, whatever its metadata says."""
    assert part_sizes(remote(PLAIN, **{PART_SIZE_KEY: str(8 * MIB)})) == (0,)
    assert part_sizes(remote("opaque")) == ()
