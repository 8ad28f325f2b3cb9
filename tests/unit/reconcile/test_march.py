"""Lockstep over sorted sequences, and the order they must have."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.reconcile.march import march


def test_key_order_is_the_byte_order_of_the_whole_key():
    """S3 lists `a.b` before `a/b` and an upper-case letter before a lower-case one; Python's order is the same."""
    listed = ["B", "a", "a b", "a-b", "a.b", "a/b", "a0b", "ab", "é", "～", "😀"]

    assert sorted(listed) == listed
    assert sorted(listed, key=str.encode) == listed


def test_march_pairs_equal_keys_and_keeps_the_others():
    """Every key of both sides comes out once, in order."""
    left = [("a", 1), ("b", 2), ("d", 3)]
    right = [("b", 20), ("c", 30), ("d", 40), ("e", 50)]

    assert list(march(left, right)) == [
        ("a", 1, None),
        ("b", 2, 20),
        ("c", None, 30),
        ("d", 3, 40),
        ("e", None, 50),
    ]


@pytest.mark.parametrize("keys", [["b", "a"], ["a", "a"]])
def test_unsorted_input_is_an_error_and_not_a_wrong_answer(keys):
    """A march over unsorted input would call files missing that are there."""
    with pytest.raises(ValueError, match="order"):
        list(march([(key, 1) for key in keys], []))


@given(st.sets(st.text(max_size=5)), st.sets(st.text(max_size=5)))
def test_march_agrees_with_dictionaries(left, right):
    """The lockstep gives what a comparison with everything in memory would give."""
    pairs = march(((key, key) for key in sorted(left)), ((key, key) for key in sorted(right)))

    assert list(pairs) == [
        (key, key if key in left else None, key if key in right else None) for key in sorted(left | right)
    ]
