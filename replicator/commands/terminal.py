"""Where results go: lines for people, JSON for programs, both on standard output. Never: a log line, an error."""

import functools
import json
import sys
from typing import TYPE_CHECKING

from replicator.observe import words

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


def say(text: str) -> None:
    """Print a line for people; names in it are escaped here, and letters too that the output cannot carry."""
    encoding = sys.stdout.encoding or "ascii"
    print(words.escape(text, ascii_only=not encoding.lower().startswith("utf")))  # noqa: T201


def show(picture: "RenderableType") -> None:
    """Print what is more than a line. Names in it are escaped already."""
    _console().print(picture)


def print_json(value: object) -> None:
    print(json.dumps(value, indent=2))  # noqa: T201


@functools.cache
def _console() -> "Console":
    """Made when first drawn on: `run` never does, and the library takes 2 MiB."""
    from rich.console import Console

    return Console(soft_wrap=True, highlight=False)
