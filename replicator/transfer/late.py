"""Requests that were sent and never answered: they may come in late, and put an older version over a newer one.

Owns: when one is to be expected, and what it endangers. Its path is looked at again after a minute, and once more when
nothing can come any more; what was overwritten is sent again, and no file is freed before. The same content harms
nothing, so a lost answer alone costs no request. Never: looking, sending (`egress`).
Source: S3's signatures are good for 15 minutes (API reference, "RequestTimeTooSkewed").
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator

from replicator.errors import Unavailable
from replicator.model import LateWrite, Row
from replicator.stores.lane import Lane


@contextlib.contextmanager
def unless_answered(lane: Lane, relpath: str, checksum: str) -> Iterator[None]:
    """Around a request that makes content of this checksum visible: without an answer, it is expected late."""
    try:
        yield
    except Unavailable:
        expect(lane, relpath, checksum)
        raise


def expect(lane: Lane, relpath: str, checksum: str) -> None:
    """A request with content of this checksum was not answered. The minutes of all others of the path begin anew."""
    before = lane.journal.late_write(lane.number, relpath)
    is_same = before is None or before.checksum == checksum
    lane.journal.expect_late(lane.number, LateWrite(relpath, checksum if is_same else "", math.ceil(time.time())))


def endangers(lane: Lane, row: Row) -> LateWrite | None:
    """What may still put another content in the place of the row's."""
    late = lane.journal.late_write(lane.number, row.relpath)
    return late if late and (not late.checksum or late.checksum != row.checksum) else None


def looked_at(lane: Lane, relpath: str, began_s: float) -> None:
    """A look at the path that began then, in seconds since the epoch, went well."""
    late = lane.journal.late_write(lane.number, relpath)
    if late is None or not late.is_due(began_s):
        return
    if late.is_looked_at:
        lane.journal.drop_late(lane.number, relpath)
    else:
        lane.journal.expect_late(lane.number, dataclasses.replace(late, is_looked_at=True))
