"""Include and exclude globs."""

import pytest

from replicator.model import TargetOptions
from replicator.reconcile.filters import is_included


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("*.tmp", ["a.tmp", "d/a.tmp", ".tmp"], ["a.tmp2", "a.tmp/b"]),
        ("cache/**", ["cache/a", "cache/a/b"], ["cache", "x/cache/a"]),
        ("**/cache/*", ["cache/a", "x/y/cache/a"], ["cache/a/b"]),
        ("a/*/c", ["a/b/c"], ["a/c", "a/b/d/c"]),
        ("x[0-9]?", ["x1a"], ["xaa", "x1"]),
        ("x[!0-9]", ["xa"], ["x1"]),
        ("x[z-a]", ["x[z-a]"], ["xz", "xa"]),
        ("/top.txt", ["top.txt"], ["d/top.txt"]),
        ("a+b(c).txt", ["a+b(c).txt"], ["aab(c).txt", "a+bc.txt"]),
        ("new\nline", ["new\nline"], ["newline"]),
    ],
)
def test_pattern_matches_what_it_says(pattern, matching, others):
    """`*` and `?` stay within one name, `**` crosses '/', and everything else stands for itself."""
    options = TargetOptions(exclude=(pattern,))

    assert [path for path in matching if is_included(path, options)] == []
    assert [path for path in others if not is_included(path, options)] == []


def test_exclude_wins_over_include():
    """A path that both name stays out; an empty include list takes everything."""
    options = TargetOptions(include=("*.log",), exclude=("debug*",))

    assert is_included("a.log", options)
    assert not is_included("debug.log", options)
    assert not is_included("a.txt", options)
    assert is_included("a.txt", TargetOptions())
