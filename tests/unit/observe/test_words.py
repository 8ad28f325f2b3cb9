"""Names, sizes and ages as people read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.observe import words

ANY_TEXT = st.text(st.characters(codec=None))


@given(ANY_TEXT)
def test_escaped_text_reads_back_exactly(text):
    """Nothing is lost: the escaped form of any string names exactly that string."""
    assert words.unescape(words.escape(text)) == text


@given(ANY_TEXT)
@pytest.mark.fault("F10")
def test_escaped_text_is_one_printable_encodable_line(text):
    """Whatever goes in, what comes out breaks neither a line, a terminal nor an encoder."""
    escaped = words.escape(text)

    assert escaped.isprintable()
    assert len(escaped.splitlines()) <= 1
    escaped.encode("utf-8")


@given(ANY_TEXT)
def test_ascii_only_escape_is_ascii_and_reads_back(text):
    """For outputs that are not UTF, letters are escaped too, and nothing is lost either."""
    escaped = words.escape(text, ascii_only=True)

    assert escaped.isascii()
    assert words.unescape(escaped) == text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain name.txt", "plain name.txt"),
        ("caf\u00e9", "caf\u00e9"),
        ("a\nb", "a\\x0ab"),
        ("a\\b", "a\\\\b"),
        ("\udcff", "\\xff"),
        ("\u0085", "\\u0085"),
        ("\u202e", "\\u202e"),
        ("\ud800", "\\ud800"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_escape_writes_bytes_as_x_and_other_characters_as_u(text, escaped):
    """An undecodable byte shows as the byte on the disk, an unprintable character as its code point."""
    assert words.escape(text) == escaped


@pytest.mark.parametrize("text", ["\\q", "\\x4", "\\U99999999", "end\\"])
def test_backslash_that_begins_no_escape_stays(text):
    """Text that was never escaped is not damaged, and never fails."""
    assert words.unescape(text) == text


@pytest.mark.parametrize(
    ("number_bytes", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (10 * 1024 + 600, "11 KiB"),
        (1024**2 - 1, "1 MiB"),
        (12 * 1024**2, "12 MiB"),
        (5 * 1024**4, "5 TiB"),
        (5000 * 1024**4, "5000 TiB"),
    ],
)
def test_sizes_are_short(number_bytes, text):
    """Binary units, and one digit behind the point only where it says something."""
    assert words.size(number_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "under 1 s"),
        (0.4, "under 1 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (86400, "1 d"),
        (90000, "1 d 1 h"),
    ],
)
def test_ages_are_short(seconds, text):
    """Two units at most; a clock that was set back does not make a negative age."""
    assert words.age(seconds) == text


def test_one_is_singular():
    """1 file, 0 files, 2 files."""
    assert [words.count(number, "file") for number in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
