"""A barrier file: it tells readers of the bucket that its directory is complete, so it is sent last.

Looks at the files in and beneath the directory and at their rows; remembers nothing.
"""

import dataclasses
from collections.abc import Iterator

from replicator.errors import HeldBack
from replicator.model import UNSEEN, Action, LocalFile
from replicator.reconcile.classify import classify_egress
from replicator.reconcile.filters import is_included
from replicator.stores.files.export import Export
from replicator.stores.lane import Lane


def is_barrier(lane: Lane, relpath: str) -> bool:
    """Whether this file waits for the others of its directory."""
    barrier = lane.target.options.egress_barrier
    return bool(barrier) and relpath.rpartition("/")[2] == barrier


def check_barrier(lane: Lane, relpath: str) -> None:
    """Raise HeldBack while anything else in or beneath the directory of `relpath` is not in the bucket as it is here.

    What rules leave out, and what ingress wrote, is not waited for. A file that is made after this look is missed:
    whoever writes the barrier writes it last.
    """
    waiting = [file.relpath for file in _late(lane, relpath.rpartition("/")[0]) if file.relpath != relpath]
    if waiting:
        others = f" and {len(waiting) - 1} more" if len(waiting) > 1 else ""
        raise HeldBack(f"it is sent last: {waiting[0]!r}{others} beside or beneath it is not in the bucket yet")


def _late(lane: Lane, directory: str) -> Iterator[LocalFile]:
    """The files in and beneath the directory that are still to be sent."""
    target, prefix = lane.target, f"{directory}/" if directory else ""
    subdir = "/".join(filter(None, (target.subdir, directory)))
    for piece in Export(target.root, subdir, hard_links=target.options.hard_links).walk():
        files = [dataclasses.replace(file, relpath=prefix + file.relpath) for file in piece.files]
        rows = lane.rows_of([file.relpath for file in files])
        for file in files:
            is_late = classify_egress(file, UNSEEN, rows.get(file.relpath)) is not Action.SKIP
            if is_late and is_included(file.relpath, target.options) and not lane.is_echo(file):
                yield file
