"""What an object says of its bytes without being fetched: its ETag, and the metadata that we write beside it. Pure.

The names are those that rclone writes and reads where it has one, so that both tools agree on a bucket.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass

from replicator.checksum import part_sizes_of
from replicator.model import Fingerprint, RemoteObject

MTIME_KEY = "mtime"
"""The source's mtime, decimal seconds since the epoch (rclone's name and form)."""

MD5_KEY = "md5chksum"
"""Base64 of the content's MD5 (rclone's name and form)."""

PART_SIZE_KEY = "replicator-part-size"
"""Bytes of a part: with it anybody can recompute the composite ETag from the file."""

MAX_PARTS = 10_000
"""S3's limit of parts in one upload."""

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Content:
    """What an object is known to hold: its ETag, and the written checksum of its bytes."""

    etag: str
    checksum: str
    is_verified: bool = True
    """Whether the store, or we, have confirmed it."""


def own_part_size(remote: RemoteObject) -> int:
    """The part size that we wrote beside a composite ETag, 0 where there is none."""
    told = (remote.metadata or {}).get(PART_SIZE_KEY, "")
    return int(told) if "-" in remote.etag and told.isdecimal() else 0


def part_sizes(remote: RemoteObject) -> tuple[int, ...]:
    """The part sizes that may stand behind the ETag: (0,) for one PUT, () when it tells nothing."""
    own = own_part_size(remote)
    return (own,) if own else part_sizes_of(remote.etag, size=remote.size)


def part_size_for(size: int, wanted: int) -> int:
    """`wanted`, or the next whole MiB with which `size` fits into S3's 10,000 parts."""
    return max(wanted, -(-size // (MAX_PARTS * _MIB)) * _MIB)


def whole_metadata(fingerprint: Fingerprint, md5: bytes) -> dict[str, str]:
    """What is written beside an object that is one PUT."""
    return {MTIME_KEY: _seconds(fingerprint), MD5_KEY: base64.b64encode(md5).decode()}


def part_metadata(fingerprint: Fingerprint, part_size: int) -> dict[str, str]:
    """What is written beside a multipart object, whose MD5 is not known when it begins."""
    return {MTIME_KEY: _seconds(fingerprint), PART_SIZE_KEY: str(part_size)}


def mtime_ns_of(metadata: Mapping[str, str], default: int) -> int:
    """The source's mtime in ns as the metadata tell it, in our own form or any that rclone writes; else `default`."""
    told = _SECONDS.fullmatch(metadata.get(MTIME_KEY, ""))
    return int(told["s"]) * 10**9 + int((told["ns"] or "").ljust(9, "0")[:9]) if told else default


_SECONDS = re.compile(r"(?P<s>\d{1,10})(?:\.(?P<ns>\d{1,12}))?", re.ASCII)


def _seconds(fingerprint: Fingerprint) -> str:
    seconds, ns = divmod(abs(fingerprint.mtime_ns), 10**9)
    return f"{'-' if fingerprint.mtime_ns < 0 else ''}{seconds}.{ns:09d}"
