"""Files that are in their place without a row, because a sync, a commit or the process failed in between.

Until such a file is recorded its intent says that ingress put it there: egress does not send it back, and no conflict
copy is made of it. Owns: when an intent becomes a row, and when it is dropped. Never: a download.
"""

import dataclasses
from collections.abc import Sequence

from replicator.errors import LeftOut, SourceChanged, TransferError
from replicator.model import Fingerprint, Row
from replicator.stores.lane import Lane


def resume(lane: Lane, relpaths: Sequence[str]) -> dict[str, TransferError]:
    """Record what earlier attempts left in these places; what still cannot be, and why. Raises JournalError."""
    failed = {}
    for intent in lane.journal.intents_of(lane.number, relpaths).values():
        try:
            finish(lane, intent)
        except TransferError as error:
            failed[intent.relpath] = error
    return failed


def finish(lane: Lane, intent: Row) -> None:
    """Make its file durable and record it; drop the intent of a file that is not there.

    Raises TransferError, and JournalError; the intent stays then.
    """
    if fingerprint := _durable(lane, intent):
        lane.journal.settle(lane.number, dataclasses.replace(intent, fingerprint=fingerprint))
    else:
        lane.journal.withdraw(lane.number, intent.relpath)


def retract(lane: Lane, intent: Row) -> None:
    """Drop the intent of a file that could not be put in its place; it stays where the file is there all the same."""
    if not _is_in_place(lane, intent):
        lane.journal.withdraw(lane.number, intent.relpath)


def _is_in_place(lane: Lane, intent: Row) -> bool:
    try:
        found = lane.export.stat(intent.relpath)
    except LeftOut:
        return False
    except TransferError:
        return True  # nobody can tell, and an intent without its file does no harm
    return found is not None and intent.fingerprint.matches(found.fingerprint)


def _durable(lane: Lane, intent: Row) -> Fingerprint | None:
    """The version of the file that is in its place, durable now; None where another one is, or none."""
    try:
        with lane.export.open(intent.relpath) as file:
            if not intent.fingerprint.matches(file.fingerprint):
                return None
            file.make_durable()
            return file.fingerprint
    except (LeftOut, SourceChanged):
        return None
