"""Which relpaths a target takes: include and exclude globs.

A pattern without '/' is matched against the last name, one with '/' against the whole relpath. `*` and `?` stay
within one name, `**` crosses '/'. Exclude wins; an empty include list takes everything.
"""

import functools
import re
from collections.abc import Sequence

from replicator.model import TargetOptions

_TOKENS = re.compile(r"\*\*/|\*\*|\*|\?|\[!?[^\]]+\]|.", re.DOTALL)
_REGEX = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def is_included(relpath: str, options: TargetOptions) -> bool:
    """Whether `options` let this path take part in replication."""
    if options.exclude and any(_matches(pattern, relpath) for pattern in options.exclude):
        return False
    return not options.include or any(_matches(pattern, relpath) for pattern in options.include)


def leaving_out(relpath: str, options: TargetOptions) -> str:
    """The rule that leaves this path out, in words; '' when `is_included`."""
    if is_included(relpath, options):
        return ""
    place = first_match(relpath, options.exclude)
    if place < len(options.exclude):
        return f"exclude {options.exclude[place]}"
    return f"no match in include {', '.join(options.include)}"


def first_match(relpath: str, patterns: Sequence[str]) -> int:
    """The place of the first pattern that matches, or how many there are when none does."""
    return next((place for place, pattern in enumerate(patterns) if _matches(pattern, relpath)), len(patterns))


def _matches(pattern: str, relpath: str) -> bool:
    subject = relpath if "/" in pattern else relpath.rpartition("/")[2]
    return _compiled(pattern).fullmatch(subject) is not None


@functools.lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = []
    for token in _TOKENS.findall(pattern.removeprefix("/")):
        if len(token) > 1 and token[0] == "[":
            parts.append(_class(token))
        else:
            parts.append(_REGEX.get(token, re.escape(token)))
    return re.compile("".join(parts), re.DOTALL)


def _class(token: str) -> str:
    """`[a-z]` or `[!a-z]` as a regular expression; a range that runs backwards stands for itself."""
    members = re.escape(token[1:-1].removeprefix("!")).replace(r"\-", "-")
    regex = f"[{'^' if token[1] == '!' else ''}{members}]"
    try:
        re.compile(regex)
    except re.error:
        return re.escape(token)
    return regex
