"""Two sorted sequences in lockstep, so that a million entries are compared in constant memory.

Key order is the byte order of the whole key, as S3 lists it: `a.b` before `a/b`. For text without surrogates
Python's string order is that same order, so relpaths under one prefix march directly.
"""

from collections.abc import Iterable, Iterator
from typing import TypeVar

L = TypeVar("L")
R = TypeVar("R")


def march(left: Iterable[tuple[str, L]], right: Iterable[tuple[str, R]]) -> Iterator[tuple[str, L | None, R | None]]:
    """Every key of both with what each side holds for it. Both must be strictly ascending.

    Raises ValueError when one is not: a march over unsorted input would be silently wrong.
    """
    lefts, rights = _ascending(left), _ascending(right)
    one, other = next(lefts, None), next(rights, None)
    while one is not None or other is not None:
        if one is not None and (other is None or one[0] < other[0]):
            yield one[0], one[1], None
            one = next(lefts, None)
        elif other is not None and (one is None or other[0] < one[0]):
            yield other[0], None, other[1]
            other = next(rights, None)
        elif one is not None and other is not None:
            yield one[0], one[1], other[1]
            one, other = next(lefts, None), next(rights, None)


def _ascending(pairs: Iterable[tuple[str, L]]) -> Iterator[tuple[str, L]]:
    last = None
    for pair in pairs:
        if last is not None and pair[0] <= last:
            raise ValueError(f"not in key order: {pair[0]!r} after {last!r}")
        last = pair[0]
        yield pair
