"""What a manifest says: the files that make one set, and the MD5 of those for which it tells one. Pure.

A line is a path beneath the prefix, or such a line as md5sum(1) writes. Names have to pass the rules of keys, because
whoever may write to the bucket wrote them. One bad line spoils the manifest: a set that is guessed at is no set.
"""

import re
from collections.abc import Iterator

from replicator.errors import KeyUnsafe, Refused
from replicator.model import Prefix
from replicator.reconcile.keys import relpath_of

MAX_BYTES = 16 * 2**20
"""Of a manifest: some hundred thousand files."""

_SUMMED = re.compile(r"(?P<md5>[0-9a-fA-F]{32}) [ *](?P<relpath>.+)")
_ESCAPED = re.compile(r"\\[0-9a-fA-F]{32} [ *]")
"""md5sum begins a line so when the name has a backslash or a line feed in it."""


def parse(text: bytes) -> dict[str, str]:
    """MD5 (32 hexadecimal digits, '' where none is told) by relpath. Raises Refused, with the line's number."""
    found: dict[str, str] = {}
    for number, line in _lines(text):
        if _ESCAPED.match(line):
            raise _bad(number, "an escaped name")
        summed = _SUMMED.fullmatch(line)
        relpath, md5 = (summed["relpath"], summed["md5"].lower()) if summed else (line, "")
        try:
            relpath_of(Prefix(""), relpath, subdir=".")
        except KeyUnsafe as error:
            raise _bad(number, f"{relpath!r}: {error}") from error
        if found.setdefault(relpath, md5) != md5:
            raise _bad(number, f"{relpath!r} for a second time, with another MD5")
    if not found:
        raise Refused("the manifest names no file. Write it again")
    return found


def _lines(text: bytes) -> Iterator[tuple[int, str]]:
    """Lines with their numbers from 1, without comments and empty ones."""
    for number, raw in enumerate(text.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            line = raw.removesuffix(b"\r").decode()
        except UnicodeDecodeError as exc:
            raise _bad(number, "bytes that are not UTF-8") from exc
        if line.strip() and not line.startswith("#"):
            yield number, line


def _bad(number: int, what: str) -> Refused:
    return Refused(f"line {number} of the manifest holds {what}. Write the manifest again")
