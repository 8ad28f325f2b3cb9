"""Files are read with bounds and parsed without trust."""

import contextlib
import importlib.util
import os
from pathlib import Path

import pytest
import yaml

from replicator.config import documents
from replicator.config.documents import MAX_FILE_BYTES, read_text, stamps, visible_names


def test_text_is_read_without_byte_order_mark(tmp_path):
    """A file saved by an editor that writes a BOM means the same."""
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbfname: caf\xc3\xa9\n")

    assert read_text(tmp_path / "x") == "name: café\n"


def test_file_of_exactly_the_limit_is_read(tmp_path):
    """The limit itself is allowed."""
    (tmp_path / "x").write_bytes(b"a" * MAX_FILE_BYTES)

    assert len(read_text(tmp_path / "x")) == MAX_FILE_BYTES


@pytest.mark.fault("D1", "F12")
def test_large_file_is_refused_before_it_is_read(tmp_path, refusal, monkeypatch):
    """50 MB are refused by their size alone: not a byte is read."""
    with (tmp_path / "x").open("wb") as file:
        file.truncate(50_000_000)

    monkeypatch.setattr(os, "fdopen", None)

    error = refusal(read_text, tmp_path / "x")

    assert (error.where, error.problem) == (str(tmp_path / "x"), "is larger than 1048576 bytes")


def test_file_that_grows_after_its_size_was_asked_is_refused(tmp_path, refusal, monkeypatch):
    """The bound also holds while reading, for a file that is larger than the kernel said."""
    (tmp_path / "x").write_bytes(b"a" * (MAX_FILE_BYTES + 1))
    real = os.fstat
    monkeypatch.setattr(os, "fstat", lambda descriptor: os.stat_result([real(descriptor).st_mode, *[0] * 9]))

    assert refusal(read_text, tmp_path / "x").problem == "is larger than 1048576 bytes"


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: None, "cannot be read: No such file or directory"),
        (lambda path: path.mkdir(), "is not a regular file"),
        (os.mkfifo, "is not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "is not a regular file"),
        (lambda path: path.symlink_to(path), "cannot be read: Too many levels of symbolic links"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "is not UTF-8 text"),
    ],
    ids=["absent", "directory", "fifo", "device", "link-loop", "not-utf-8"],
)
def test_unreadable_file_is_named(make, problem, tmp_path, refusal):
    """Whatever stands in the file's place, the error names it, and nothing blocks."""
    path = tmp_path / "x"
    make(path)

    error = refusal(read_text, path)

    assert (error.where, error.problem) == (str(path), problem)


def test_illegal_file_name_is_refused(refusal, tmp_path):
    """A NUL in a path is a configuration error, not a ValueError."""
    assert "not a legal file name" in refusal(read_text, tmp_path / "a\0b").problem


def test_what_another_user_owns_is_named(tmp_path, refusal):
    """A file or directory without permission is a configuration error that says so."""
    file, directory = tmp_path / "x", tmp_path / "d"
    file.touch(0)
    directory.mkdir(0)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            if os.getuid() == 0:
                os.setuid(65534)
            found = refusal(read_text, file), refusal(visible_names, directory)
            os.write(writing, "|".join(error.problem for error in found).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)

    with os.fdopen(reading, "rb") as answer:
        assert answer.read() == b"cannot be read: Permission denied|cannot be listed: Permission denied"


# YAML


@pytest.fixture(params=["with libyaml", "without libyaml"])
def parse_yaml(request, monkeypatch):
    """The function, in a copy of the module that was imported with or without PyYAML's C parser."""
    if request.param == "without libyaml":
        monkeypatch.delattr(yaml, "CSafeLoader")
    spec = importlib.util.spec_from_file_location("documents_copy", documents.__file__)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert issubclass(module._Loader, yaml.SafeLoader) == (request.param == "without libyaml")
    return module.parse_yaml


def test_documents_are_separate(parse_yaml):
    """Every document counts, an empty one is None."""
    assert parse_yaml("a: 1\n---\n---\n[b]\n", where="f") == [{"a": 1}, None, ["b"]]


@pytest.mark.fault("D1")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\n- [\n}", "f: line 3: not valid YAML, "),
        ("a:\n\t- b", "f: line 2: not valid YAML, "),
        ("\0", "f: not valid YAML, "),
        ("a: 1\nb: 2\na: 3", "f: line 3: not valid YAML, the key 'a' is there twice"),
        ("a: {b: 1, b: 2}", "the key 'b' is there twice"),
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("? [a]\n: b", "found unhashable key"),
        ("&x [1, *x]", "f: holds the YAML alias *x, and aliases are not accepted"),
        ("a: &a [1]\nb: *a", "holds the YAML alias *a"),
        ("!!timestamp x", "holds a number, date or tagged value that cannot be read"),
        ("!!int ''", "holds a number, date or tagged value that cannot be read"),
        ("!!bool x", "holds a number, date or tagged value that cannot be read"),
        ("2021-13-45", "holds a number, date or tagged value that cannot be read"),
        ("1" * 5000, "holds a number, date or tagged value that cannot be read"),
    ],
)
def test_what_yaml_must_not_hold_is_refused(text, message, parse_yaml, refusal):
    """Malformed, ambiguous and hostile YAML is one ConfigError."""
    assert message in str(refusal(parse_yaml, text, where="f"))


@pytest.mark.fault("D1", "F12")
def test_alias_bomb_is_refused_at_once(parse_yaml, refusal):
    """A few lines that stand for a billion items never get to be built."""
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]

    assert "holds the YAML alias *a0" in str(refusal(parse_yaml, "\n".join(rows), where="f"))


@pytest.mark.fault("D1")
@pytest.mark.parametrize("text", ["[" * 500_000, "- " * 500_000, "{a: " * 200_000])
def test_deep_nesting_is_refused_at_once(text, parse_yaml, refusal):
    """A megabyte of open brackets neither recurses nor takes long."""
    assert "is nested deeper than 64 levels" in str(refusal(parse_yaml, text, where="f"))


def test_message_quotes_nothing_of_the_document(parse_yaml, refusal, secret_text):
    """A broken Secret is not printed into logs: the refusal fixture looks for the text."""
    error = refusal(parse_yaml, f"data:\n  key: {secret_text}\n  other: [{secret_text}\n", where="f")

    assert error.__cause__ is None
    assert error.__suppress_context__


# Directories


def test_hidden_names_are_not_ours(tmp_path):
    """Kubernetes' own entries of a mounted ConfigMap, and editors' files, are not words."""
    for name in ("..data", ".x.yaml.swp", "b.yaml", "a.yaml"):
        (tmp_path / name).touch()

    assert visible_names(tmp_path) == ["a.yaml", "b.yaml"]


def test_absent_directory_has_no_names(tmp_path):
    """A directory that is not there is told from an empty one."""
    (tmp_path / "file").touch()

    assert visible_names(tmp_path / "absent") is None
    assert visible_names(tmp_path / "file") is None
    assert visible_names(tmp_path) == ["file"]


def _swap_link(directory):
    (directory / "new").symlink_to("other")
    (directory / "new").rename(directory / "link")


@pytest.mark.parametrize(
    "change",
    [
        lambda directory: (directory / "added").touch(),
        lambda directory: (directory / "file").unlink(),
        lambda directory: (directory / "file").write_text("longer"),
        lambda directory: os.utime(directory / "file", ns=(1, 1)),
        lambda directory: (directory / "file").rename(directory / "renamed"),
        _swap_link,
        lambda directory: directory.rename(directory.parent / "gone"),
    ],
    ids=["added", "removed", "written", "touched", "renamed", "link-swapped", "directory-gone"],
)
def test_every_change_moves_the_stamps(change, tmp_path):
    """Whatever happens to a file of a directory shows, and nothing shows when nothing happens."""
    directory = tmp_path / "d"
    directory.mkdir()
    (directory / "file").write_text("same")
    (directory / "other").write_text("same")
    (directory / "link").symlink_to("file")
    before = stamps([directory])
    assert stamps([directory]) == before

    change(directory)

    assert stamps([directory]) != before


@pytest.mark.fault("D2")
def test_swap_within_one_tick_of_the_clock_moves_the_stamps(tmp_path):
    """Two files of one size and one time are still two files."""
    for _ in range(1000):
        for name in ("file", "other"):
            (tmp_path / name).unlink(missing_ok=True)
        (tmp_path / "file").touch()
        (tmp_path / "other").touch()
        one, two = (tmp_path / "file").stat(), (tmp_path / "other").stat()
        if (one.st_mtime_ns, one.st_ctime_ns) == (two.st_mtime_ns, two.st_ctime_ns):
            break
    else:
        pytest.skip("the clock of this file system is too fine to show it")
    (tmp_path / "link").symlink_to("file")
    before = stamps([tmp_path / "link"])

    _swap_link(tmp_path)

    assert stamps([tmp_path / "link"]) != before


def test_stamps_of_impossible_paths_are_stamps(tmp_path):
    """An absent or illegal path is a state like any other."""
    assert stamps([tmp_path / "absent", Path("a\0b")]) == ((str(tmp_path / "absent"),), ("a\0b",))
