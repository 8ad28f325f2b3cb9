"""Lines and JSON on standard output: safe to print, whatever a file is called and whatever the output can carry."""

import io
import json
import sys

import pytest

from replicator.commands import terminal
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


@pytest.mark.parametrize("is_terminal", [True, False])
def test_first_word_has_a_colour_on_a_terminal_only(monkeypatch, is_terminal):
    """A pipe gets the line as it is; on a terminal nothing but the word is styled, whatever follows looks like."""

    class Output(io.StringIO):
        encoding = "utf-8"

        def isatty(self):
            return is_terminal

    for name, value in (("TERM", "xterm"), ("NO_COLOR", ""), ("COLUMNS", "80")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", Output())
    monkeypatch.setattr(terminal, "_console", terminal._console.__wrapped__)

    say("failed   name [bold]x[/bold]: gone", first_word="red")

    shown = "\x1b[31mfailed\x1b[0m" if is_terminal else "failed"
    assert sys.stdout.getvalue() == f"{shown}   name [bold]x[/bold]: gone\n"


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
