"""What a manifest may say, and that one bad line spoils it."""

import pytest

from replicator.errors import Refused
from replicator.reconcile.fileset import parse

MD5 = "0123456789abcdef0123456789abcdef"


def test_names_and_sums_are_read():
    """Plain names, both forms of md5sum, upper case, comments, empty lines, CRLF and a byte order mark."""
    text = f"\ufeff# a set\r\na\r\n\r\n{MD5}  sub/b c\n{MD5.upper()} *d\n  \nlast é"

    assert parse(text.encode()) == {"a": "", "sub/b c": MD5, "d": MD5, "last é": ""}


def test_name_may_be_told_twice_but_with_one_sum():
    """The same words again say nothing new; two sums contradict each other."""
    assert parse(f"{MD5}  a\n{MD5}  a\n".encode()) == {"a": MD5}
    with pytest.raises(Refused, match="line 2 of the manifest holds 'a' for a second time"):
        parse(f"{MD5}  a\na\n".encode())


@pytest.mark.parametrize("name", ["../a", "/a", "a//b", "./a", "a/..", "a\0b", "x" * 256, "a/"])
@pytest.mark.parametrize("form", ["{}", MD5 + "  {}"])
def test_unsafe_name_spoils_the_manifest_and_its_line_is_told(name, form):
    """Names pass the rules of keys: nothing leads outside, whoever wrote the manifest."""
    with pytest.raises(Refused, match="line 2 of the manifest"):
        parse(f"good\n{form.format(name)}\n".encode())


def test_what_is_not_text_spoils_the_manifest():
    """Bytes that are not UTF-8, and md5sum's escaped names."""
    with pytest.raises(Refused, match="line 1 of the manifest holds bytes that are not UTF-8"):
        parse(b"\xff\n")
    with pytest.raises(Refused, match="line 1 of the manifest holds an escaped name"):
        parse(f"\\{MD5}  a\\nb\n".encode())


@pytest.mark.parametrize("text", [b"", b"\n\n", b"# nothing\n"])
def test_empty_manifest_is_no_set(text):
    """A manifest that was cut to nothing must not publish nothing."""
    with pytest.raises(Refused, match="names no file"):
        parse(text)
