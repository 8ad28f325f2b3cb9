"""What a person may call a file."""

import pytest
from pydantic import SecretStr

from replicator.model import Direction, Prefix, Storage, Target, TargetOptions
from replicator.reconcile.naming import relpaths_named

STORAGE = Storage("https://s3.example", "bucket", "r", SecretStr("a"), SecretStr("s"))


def target(subdir: str = "out", prefix: str = "sent/", direction: Direction = Direction.EGRESS, **options) -> Target:
    return Target("w", direction, "/export", subdir, Prefix(prefix), STORAGE, TargetOptions(**options))


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ("/export/out/a/b", {"a/b": True}),
        ("/export//out/./a", {"a": True}),
        ("out/a/b", {"a/b": True, "out/a/b": False}),
        ("sent/a/b", {"a/b": True, "sent/a/b": False}),
        ("s3://bucket/sent/a", {"a": True}),
        ("a/b", {"a/b": False}),
        ("sent/a//b", {"a//b": True, "sent/a//b": False}),
        ("s3://other/sent/a", {}),
        ("s3://bucket/elsewhere/a", {}),
        ("/export/outer/a", {}),
        ("/export/out", {}),
        ("/export/out/../b", {}),
        ("/elsewhere/out/a", {}),
        ("/exporter/out/a", {}),
        ("", {}),
        ("sent/", {"sent/": False}),
        ("n\udcff", {"n\udcff": False}),
    ],
)
def test_every_name_of_a_file_is_known_by_its_place(asked, named):
    """Path, path beneath the export, key and URL name a target; a bare relpath may be meant for it."""
    assert relpaths_named(asked, target()) == named


def test_whole_export_and_whole_bucket_are_named_by_any_text():
    """Where nothing stands before the relpath, a relpath is a key and a path as well."""
    assert relpaths_named("a/b", target("", "")) == {"a/b": True}


def test_one_text_may_name_two_files_of_a_target():
    """As a path and as a key; which one is there is found out by looking."""
    assert relpaths_named("x/a", target("x", "")) == {"a": True, "x/a": True}


def test_file_of_a_generation_is_named_where_its_readers_find_it():
    """`current` leads to the set in force; files land in a directory beside it."""
    whole = target("in/.incoming", "set/", Direction.INGRESS, ingress_publish="generation")

    assert relpaths_named("/export/in/current/a", whole) == {"a": True}
    assert relpaths_named("/export/in/.incoming/a", whole) == {"a": True}
