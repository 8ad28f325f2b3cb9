"""Lines and JSON on standard output: safe to print, whatever a file is called and whatever the output can carry."""

import io
import json
import sys

import pytest

from replicator.commands.options import choices_of
from replicator.commands.terminal import print_json, say
from replicator.config.settings import FLAGS

HOSTILE = ("two\nlines", "\x1b[2Jgone", "caf\udce9", "k\u00e4se", "\u202eback", "back\\slash", "[bold]no markup[/bold]")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_line_is_one_line_with_any_name(monkeypatch, encoding):
    """No name ends a line, drives the terminal or breaks the encoder."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, errors="strict"))

    for name in HOSTILE:
        say(f"a {name} b")
    sys.stdout.flush()

    lines = raw.getvalue().decode(encoding).split("\n")
    assert len(lines) == len(HOSTILE) + 1
    assert all(line.isprintable() for line in lines)


def test_json_is_ascii(capsys):
    """Whatever the terminal speaks."""
    print_json({"name": "käse\u2028"})

    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {"name": "käse\u2028"}


def test_closed_sets_are_known():
    """Settings with a closed set of values give them for completion and help; others give none."""
    closed = {flag.name for flag in FLAGS if choices_of(flag.name)}

    assert choices_of("log_level") == ["debug", "info", "warning", "error"]
    assert choices_of("restore_deleted") == ["true", "false"]
    assert choices_of("egress") == []
    assert {"source", "watcher", "order", "ingress_publish", "notifications"} < closed
