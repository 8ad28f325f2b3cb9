"""Checksums that S3 itself can confirm: MD5, and MD5 of part MD5s for multipart objects.

A single PUT's ETag is the MD5 of the body, a multipart ETag the MD5 of the parts' digests with `-<parts>`
(S3 API, "Checking object integrity"; stores with KMS encryption differ, and then the ETag is opaque).
Written form, kept in the journal: `md5:<hex>` or `md5/<part_size_bytes>:<hex>-<parts>`.
MD5 finds accidents, not forgers: nothing here is a security decision.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence

_ETAG_MD5 = re.compile(r"[0-9a-f]{32}(-\d{1,5})?")


def is_md5_etag(etag: str) -> bool:
    """Whether an unquoted ETag has the form of a (composite) MD5; opaque ETags have not."""
    return _ETAG_MD5.fullmatch(etag) is not None


class Checksum:
    """A running checksum of one file, in the form its object's ETag will have.

    `part_size_bytes` 0 means one PUT. Feed bytes in order with `update`, in blocks of any size.
    """

    def __init__(self, part_size_bytes: int = 0) -> None:
        self._part_size_bytes = part_size_bytes
        self._part = hashlib.md5(usedforsecurity=False)
        self._part_filled = 0
        self._digests: list[bytes] = []

    def update(self, block: bytes | memoryview) -> None:
        view = memoryview(block)
        while self._part_size_bytes and len(view) > self._part_size_bytes - self._part_filled:
            head = self._part_size_bytes - self._part_filled
            self._part.update(view[:head])
            self._close_part()
            view = view[head:]
        self._part.update(view)
        self._part_filled += len(view)

    def _close_part(self) -> None:
        self._digests.append(self._part.digest())
        self._part = hashlib.md5(usedforsecurity=False)
        self._part_filled = 0

    def etag(self) -> str:
        """The ETag an S3 store gives an object with these bytes; call it once, at the end."""
        if not self._part_size_bytes:
            return self._part.hexdigest()
        if self._part_filled or not self._digests:
            self._close_part()
        return composite_etag(self._digests)

    def text(self) -> str:
        """The written form; call it instead of `etag`, once."""
        return written(self.etag(), part_size_bytes=self._part_size_bytes)


def written(etag: str, *, part_size_bytes: int) -> str:
    """The written form of an MD5 ETag whose parts have this size, 0 for a single PUT."""
    return f"md5/{part_size_bytes}:{etag}" if part_size_bytes else f"md5:{etag}"


def composite_etag(digests: Sequence[bytes]) -> str:
    """The ETag of a multipart object whose parts have these MD5 digests, in order."""
    whole = hashlib.md5(b"".join(digests), usedforsecurity=False).hexdigest()
    return f"{whole}-{len(digests)}"


def part_size_of(text: str) -> int:
    """The part size of a written checksum, 0 for a single PUT: what `Checksum` needs to recompute it."""
    scheme = text.partition(":")[0]
    return int(scheme.partition("/")[2] or 0)


def etag_of(text: str) -> str:
    """The ETag that a written checksum stands for."""
    return text.partition(":")[2]


def checksum_of(blocks: Iterable[bytes], *, part_size_bytes: int = 0) -> str:
    """The written checksum of all `blocks` together."""
    running = Checksum(part_size_bytes)
    for block in blocks:
        running.update(block)
    return running.text()


_USUAL_PART_SIZES = tuple(mib * 1024 * 1024 for mib in (8, 5, 16, 10, 15, 25, 32, 50, 64, 100, 128, 256, 512))


def part_sizes_of(etag: str, *, size: int) -> tuple[int, ...]:
    """The part sizes under which `size` bytes could have this ETag: (0,) for one PUT, () for an opaque ETag.

    A composite ETag tells only the number of parts; the sizes are those that common clients use.
    """
    if not is_md5_etag(etag):
        return ()
    count = int(etag.partition("-")[2] or 0)
    if not count:
        return (0,)
    return tuple(part for part in _USUAL_PART_SIZES if max(1, -(-size // part)) == count)
