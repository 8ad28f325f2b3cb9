"""relpath <-> key: nothing leads outside, nothing is repaired, two names never become one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.errors import KeyUnsafe
from replicator.model import Prefix
from replicator.reconcile.keys import is_marker, key_of, relpath_of

DATA = Prefix("remote/data/")
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=20)


@pytest.mark.parametrize(
    "tail",
    ["..", "../x", "a/../../x", "a/./b", "./a", "/abs", "a//b", "nul\0", "a/..", "x" * 256, "a/" * 2000 + "b"],
)
@pytest.mark.fault("F1")
def test_key_without_a_harmless_counterpart_is_unsafe(tail):
    """No key leads outside the target directory or to a name the kernel would read differently."""
    with pytest.raises(KeyUnsafe):
        relpath_of(DATA, DATA.text + tail, subdir="download")


@pytest.mark.parametrize(
    "tail",
    ["%2e%2e/x", "．．/x", "a\\..\\b", "...", "..a", "a..", " ", "new\nline", "-rf", "~", "COM1", "é", "e\u0301"],
)
@pytest.mark.fault("F1", "F2")
def test_odd_but_harmless_key_keeps_its_exact_name(tail):
    """What only looks dangerous is a name like any other: it is neither decoded, folded nor refused."""
    assert relpath_of(DATA, DATA.text + tail, subdir="download") == tail


@pytest.mark.fault("F1")
def test_key_of_a_neighbouring_prefix_is_unsafe():
    """`data` never takes objects of `data2`."""
    with pytest.raises(KeyUnsafe):
        relpath_of(Prefix("data/"), "data2/x", subdir="")


def test_own_directory_is_reserved_only_at_the_top_of_an_export():
    """A bucket cannot write into our own directory; deeper down the name is free."""
    with pytest.raises(KeyUnsafe):
        relpath_of(Prefix(""), ".replicator/tmp/x", subdir="")

    assert relpath_of(Prefix(""), "a/.replicator/x", subdir="") == "a/.replicator/x"
    assert relpath_of(Prefix(""), ".replicator/x", subdir="download") == ".replicator/x"


def test_file_name_that_is_not_utf8_has_no_key():
    """Such a file is listed as unsafe rather than sent under another name."""
    with pytest.raises(KeyUnsafe, match="UTF-8"):
        key_of(DATA, "bad\udcff")


@pytest.mark.fault("B24")
def test_key_may_have_1024_bytes_and_no_more():
    """S3 counts bytes of UTF-8, not characters."""
    prefix = Prefix("p/")

    assert len(key_of(prefix, "é" * 511).encode()) == 1024
    with pytest.raises(KeyUnsafe, match="1026"):
        key_of(prefix, "é" * 512)


@pytest.mark.fault("F2")
def test_directory_marker_is_recognised():
    """Consoles create `dir/` objects; they stand for no file."""
    assert is_marker("remote/data/")
    assert is_marker("remote/data/sub/")
    assert not is_marker("remote/data/sub")


@given(
    st.lists(NAMES.filter(lambda name: name not in (".", "..") and len(name.encode()) <= 255), min_size=1, max_size=5)
)
def test_every_safe_relpath_survives_the_round_trip(names):
    """key_of and relpath_of are each other's inverse."""
    relpath = "/".join(names)

    assert relpath_of(DATA, key_of(DATA, relpath), subdir="download") == relpath


@given(st.text(max_size=60))
@pytest.mark.fault("F1")
def test_no_key_ever_yields_a_path_with_a_special_segment(tail):
    """Whatever the bucket holds, a relpath that comes out has only plain segments."""
    try:
        relpath = relpath_of(DATA, DATA.text + tail, subdir="download")
    except KeyUnsafe:
        return

    assert all(name not in ("", ".", "..") and "\0" not in name for name in relpath.split("/"))
