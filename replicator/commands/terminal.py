"""Where results go: lines for people, JSON for programs, both on standard output. Never: a log line, an error."""

import contextlib
import functools
import json
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from replicator.errors import ReplicatorError
from replicator.observe import words

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_PIPE_CHARS = 10_000


def say(text: str, *, first_word: str = "") -> None:
    """Print a line for people; names in it are escaped here, and letters too that the output cannot carry.

    `first_word` is the style of that, where there are colours.
    """
    encoding = sys.stdout.encoding or "ascii"
    line = words.escape(text, ascii_only=not encoding.lower().startswith("utf"))
    with _writing():
        if first_word and sys.stdout.isatty():
            word, space, rest = line.partition(" ")
            _console().print(f"[{first_word}]{word}[/]", end=space)
            _console().print(rest, markup=False)
        else:
            print(line)  # noqa: T201


def show(picture: "RenderableType") -> None:
    """Print what is more than a line. Names in it are escaped already."""
    with _writing():
        _console().print(picture)


def print_json(value: object, *, indent: int | None = 2) -> None:
    """Print JSON, in ASCII; without `indent` on one line."""
    with _writing():
        print(json.dumps(value, indent=indent))  # noqa: T201


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """What cannot be printed is told. A reader who has enough, as `head` has, is no fault: the end is silent then."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise lost(error) from error


def lost(error: OSError) -> ReplicatorError:
    """The answer was found, and could not be told."""
    fix = "Make room where it goes, or send it elsewhere"
    return ReplicatorError(f"standard output cannot be written: {error.strerror}. {fix}")


@functools.cache
def _console() -> "Console":
    """Made when first drawn on: `run` never does, and the library takes 2 MiB."""
    from rich.console import Console

    # A pipe has no width: nothing is folded there that somebody may search.
    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else _PIPE_CHARS
    return Console(soft_wrap=True, highlight=False, width=width)
