"""One target with its doors: what detection and transfer both need to work on it.

Owns nothing and decides nothing; it only spares every caller the journal's target number.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from replicator.model import Direction, LocalFile, Row, Target
from replicator.stores.files.export import Export
from replicator.stores.journal.journal import Journal
from replicator.stores.objects import ObjectStore


@dataclass(slots=True, eq=False)
class Lane:
    """A running target: its values, its directory, its bucket and its rows."""

    target: Target
    export: Export
    objects: ObjectStore
    journal: Journal
    number: int
    """The target's number in the journal."""
    ingress_beside: "Sequence[Lane]" = field(default=(), repr=False)
    """The ingress lanes of the same export, as they come and go: egress knows their files by them."""

    def renew(self, target: Target, objects: ObjectStore) -> None:
        """Go on with other credentials. What was asked for before ends at the store that it began with."""
        self.target, self.objects = target, objects

    @property
    def is_egress(self) -> bool:
        return self.target.direction is Direction.EGRESS

    def row(self, relpath: str) -> Row | None:
        return self.journal.row(self.number, relpath)

    def rows_of(self, relpaths: Sequence[str]) -> dict[str, Row]:
        return self.journal.rows_of(self.number, relpaths)

    def rows(self) -> Iterator[Row]:
        return self.journal.rows(self.number)

    def etags(self) -> Iterator[tuple[str, str]]:
        return self.journal.etags(self.number)

    def late_due(self, now_s: float) -> list[str]:
        """The paths whose objects are to be looked at again; `now_s` in seconds since the epoch."""
        return [late.relpath for late in self.journal.late_writes(self.number) if late.is_due(now_s)]

    def is_echo(self, local: LocalFile) -> bool:
        """Whether ingress wrote exactly this version of the file, so that sending it back would echo."""
        path = _join(self.target.subdir, local.relpath)
        for lane in self.ingress_beside:
            relpath = _beneath(lane.target.subdir, path)
            if relpath is None:
                continue
            known = [lane.row(relpath), lane.journal.intents_of(lane.number, [relpath]).get(relpath)]
            if any(row and row.fingerprint.matches(local.fingerprint) for row in known):
                return True
        return False


def _join(subdir: str, relpath: str) -> str:
    return f"{subdir}/{relpath}" if subdir else relpath


def _beneath(subdir: str, path: str) -> str | None:
    """`path` relative to `subdir`, or None when it lies elsewhere."""
    if not subdir:
        return path
    return path.removeprefix(subdir + "/") if path.startswith(subdir + "/") else None
