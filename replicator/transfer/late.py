"""Requests that were sent and never answered: they may come in late, and put an older version over a newer one.

Owns: when one is to be expected, and what it endangers. Its path is looked at again after a minute, and once more when
nothing can come any more; what was overwritten is sent again, and no file is freed before. The same content harms
nothing, so a lost answer alone costs no request. Never: looking, sending (`egress`).
Source: S3's signatures are good for 15 minutes (API reference, "RequestTimeTooSkewed").
"""

import contextlib
import time
from collections.abc import Iterator

from replicator.errors import Unavailable
from replicator.model import LateWrite, Row
from replicator.stores.lane import Lane


@contextlib.contextmanager
def unless_answered(lane: Lane, relpath: str, checksum: str) -> Iterator[None]:
    """Around a request that makes content of this checksum visible: without an answer, it is expected late."""
    with lane.journal.sending.on_record(lane.number, relpath, checksum):
        try:
            yield
        except Unavailable:
            expect(lane, relpath, checksum)
            raise


def expect(lane: Lane, relpath: str, checksum: str) -> None:
    """A request with content of this checksum was not answered."""
    lane.journal.expect_late(lane.number, relpath, checksum, now_s=time.time())


def endangers(lane: Lane, row: Row) -> LateWrite | None:
    """What may still put another content in the place of the row's."""
    late = lane.journal.late_write(lane.number, row.relpath)
    return late if late and (not late.checksum or late.checksum != row.checksum) else None
