"""What happened to one file of the egress target: both sides, the journal's row, every request for its key."""

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime

from tests.faults.wire import Fate
from tests.soak.stand import Stand
from tests.soak.workload import digest


def history(stand: Stand, relpath: str) -> str:
    """A few lines for people. Times are of the monotonic clock, like those of the requests."""
    return "\n".join([f"  {relpath}", *(f"    {line}" for line in _lines(stand, relpath))])


def overtaken(fates: Sequence[Fate]) -> int:
    """How many bodies the server stored after one for the same key that came later, of another content."""
    puts: dict[str, list[Fate]] = {}
    for fate in fates:
        if fate.call.operation == "put" and fate.done_s:
            puts.setdefault(fate.call.key, []).append(fate)
    return sum(
        any(later.done_s[0] < early.done_s[-1] and later.call.digest != early.call.digest for later in told[number:])
        for told in puts.values()
        for number, early in enumerate(told, 1)
    )


def _lines(stand: Stand, relpath: str) -> Iterator[str]:
    yield f"device: {_file(stand, relpath)}"
    yield f"bucket: {_object(stand, f'sent/{relpath}')}"
    yield f"journal: {_row(stand, relpath)}"
    for fate in list(stand.proxy.fates):
        if fate.call.key == f"sent/{relpath}":
            yield str(fate)


def _file(stand: Stand, relpath: str) -> str:
    path = stand.outbox / relpath
    try:
        found, content = path.stat(), path.read_bytes()
    except OSError as error:
        return str(error)
    # Everything on one clock: that of the requests.
    changed_s = time.monotonic() - (time.time() - found.st_ctime_ns / 1e9)
    return (
        f"{digest(content)} {found.st_size} bytes, ctime_ns {found.st_ctime_ns} ({changed_s:.3f}), ino {found.st_ino}"
    )


def _object(stand: Stand, key: str) -> str:
    try:
        found = stand.client.get_object(Bucket=stand.bucket, Key=key)
    except stand.client.exceptions.NoSuchKey:
        return "no object"
    stored = found["LastModified"].replace(tzinfo=UTC) - datetime.now(UTC)
    at_s = time.monotonic() + stored.total_seconds()
    return f"{digest(found['Body'].read())} {found['ContentLength']} bytes, ETag {found['ETag']}, stored {at_s:.0f}"


def _row(stand: Stand, relpath: str) -> str:
    columns = "size, mtime_ns, ctime_ns, ino, etag, checksum, is_verified"
    with closing(sqlite3.connect(f"file:{stand.home / 'state/journal.db'}?mode=ro", uri=True)) as journal:
        rows = journal.execute(
            f"SELECT {columns} FROM rows WHERE relpath = ?",
            (os.fsencode(relpath),),
        ).fetchall()
    told = [
        ", ".join(f"{name} {value!r}" for name, value in zip(columns.split(", "), row, strict=True)) for row in rows
    ]
    return "; ".join(told) or "no row"
