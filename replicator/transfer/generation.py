"""One set of files becomes the generation that readers see, once all of it is on the device.

A set is the manifest (the target's marker) and the files that it names. Whole is: each is there in the very version of
its row, and of the MD5 that the manifest tells. Where it tells none, the bucket vouches: each has to be the version
that is listed, and none newer than the manifest, or it belongs to the next set.

The order is the promise: rows of the generation, names in it, directories synced, link. A crash anywhere in it leaves
the old generation in force or the new one, and the next attempt goes on. Decides which generations may go; what is in
them is looked at in `stores.files.generation`.
"""

import hashlib
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from replicator.checksum import checksum_of
from replicator.errors import Refused, RemoteChanged, SourceChanged, TransferError
from replicator.model import RemoteObject, Row
from replicator.observe import logs
from replicator.observe.words import count
from replicator.reconcile.fileset import MAX_BYTES, parse
from replicator.stores.files.generation import Group, InForce, Shelf
from replicator.stores.lane import Lane
from replicator.transfer.limits import Room

log = logs.get("transfer")


@dataclass(frozen=True, slots=True)
class Standing:
    """What readers of a target see, and what keeps them from something newer."""

    in_force: InForce | None = None
    waits: str = ""
    """What the set is not whole without, one sentence; '' when nothing is known to be newer."""
    error: TransferError | None = None
    """Why the last attempt failed; None when it did not."""


def publish(lane: Lane, room: Room, *, is_moving: Callable[[], bool]) -> Standing:
    """Bring the newest set in force if it is whole.

    `is_moving` tells whether a transfer of the lane runs: nothing is linked beside one, for links move the ctime by
    which it tells an edit. Raises TransferError: Permanent when a person has to act, else it is worth another attempt.
    """
    shelf = Shelf(lane.target.root, lane.target.subdir)
    now = shelf.in_force()
    name = lane.target.options.ingress_marker
    manifest = lane.row(name)
    if manifest is None:
        has_files = lane.journal.totals(lane.number)[0] > 0
        return Standing(now, f"the manifest {name!r} is not here yet" if has_files else "")
    md5s = {name: ""} | _read(lane, manifest)
    rows = lane.rows_of(list(md5s))
    if missing := [relpath for relpath in md5s if relpath not in rows]:
        return Standing(now, _sentence(missing, md5s, "not here yet"))
    id_ = _id(rows)
    if now is not None and now.id == id_:
        return Standing(now)
    if waits := _strange(lane, md5s, rows):
        return Standing(now, waits)
    if names_alone := [relpath for relpath, md5 in md5s.items() if not md5 and relpath != name]:
        _check_listed(lane, manifest, [rows[relpath] for relpath in names_alone])
    rows = _loosened(lane, rows)
    if is_moving():
        raise SourceChanged("files of the target are on their way. It is tried again")
    _build(lane, shelf, id_, rows, room)
    shelf.flip(id_)
    log.info("generation published", target=lane.target.id, published=id_, files=len(rows))
    _clear(lane, shelf, keep={id_, now.id if now else id_})
    return Standing(shelf.in_force())


def _read(lane: Lane, manifest: Row) -> dict[str, str]:
    with lane.export.open(manifest.relpath) as file:
        if not manifest.fingerprint.matches(file.fingerprint):
            raise Refused(f"{manifest.relpath!r} was changed on the device. Write the manifest in the bucket again")
        if file.fingerprint.size > MAX_BYTES:
            raise Refused(f"{manifest.relpath!r} has more than the {MAX_BYTES} bytes of a manifest. Split the set")
        return parse(file.read())


def _id(rows: Mapping[str, Row]) -> str:
    """The newest file's time, so that ids sort, and a digest of names and versions, so that a set has one id."""
    versions = sorted((relpath, row.etag, row.fingerprint.size) for relpath, row in rows.items())
    digest = hashlib.sha256(os.fsencode(repr(versions))).hexdigest()[:16]
    newest_s = max(row.fingerprint.mtime_ns for row in rows.values()) // 10**9
    return f"{datetime.fromtimestamp(max(0, newest_s), UTC):%Y%m%dT%H%M%SZ}-{digest}"


def _sentence(found: Sequence[str], md5s: Mapping[str, str], what: str) -> str:
    are = "is" if len(found) == 1 else "are"
    return f"of {count(len(md5s), 'file')} {len(found)} {are} {what}, the first {found[0]!r}"


def _strange(lane: Lane, md5s: Mapping[str, str], rows: Mapping[str, Row]) -> str:
    """What is not as rows and manifest have it; '' when nothing is."""
    found = {relpath: lane.export.stat(relpath) for relpath in md5s}
    if gone := [relpath for relpath, local in found.items() if local is None]:
        return _sentence(gone, md5s, "missing on the device")
    if edited := [
        relpath
        for relpath, local in found.items()
        if local and not rows[relpath].fingerprint.matches(local.fingerprint)
    ]:
        return _sentence(edited, md5s, "changed on the device")
    if wrong := [relpath for relpath, md5 in md5s.items() if md5 and md5 != _md5_of(lane, rows[relpath])]:
        return _sentence(wrong, md5s, "not of the MD5 that the manifest tells")
    return ""


def _md5_of(lane: Lane, row: Row) -> str:
    """MD5 of the whole file: its row tells it, unless the object came in parts."""
    scheme, _, md5 = row.checksum.partition(":")
    if scheme == "md5":
        return md5
    with lane.export.open(row.relpath) as file:
        return checksum_of(file.blocks()).removeprefix("md5:")


def _check_listed(lane: Lane, manifest: Row, rows: Sequence[Row]) -> None:
    """Raise RemoteChanged unless the bucket has these versions and the manifest was written after all of them."""
    prefix = lane.target.prefix.text
    wanted = {row.relpath: row for row in (manifest, *rows)}
    listed: dict[str, RemoteObject] = {}
    for page in lane.objects.list(prefix):
        for item in page:
            relpath = item.key.removeprefix(prefix)
            if relpath in wanted:
                listed[relpath] = item
    for relpath, row in wanted.items():
        if relpath not in listed or listed[relpath].etag != row.etag:
            raise RemoteChanged(f"{relpath!r} has another version in the bucket. It is looked at again")
        if listed[relpath].mtime_ns > listed[manifest.relpath].mtime_ns:
            raise RemoteChanged(f"{relpath!r} is newer than the manifest, which has to be written last")


def _loosened(lane: Lane, rows: Mapping[str, Row]) -> dict[str, Row]:
    """The rows without ctime, in the journal too, for every name that comes or goes moves it: that is no edit.

    Rows that have changed meanwhile stay as they are in the journal; the links tell.
    """
    if tight := [row for row in rows.values() if row.fingerprint.ctime_ns]:
        lane.journal.loosen(lane.number, tight)
    return {relpath: _loose(row) for relpath, row in rows.items()}


def _loose(row: Row) -> Row:
    return replace(row, fingerprint=replace(row.fingerprint, ctime_ns=0))


def _number(lane: Lane, id_: str) -> int:
    """The journal remembers a generation's files as it does a target's: only what it knows may go one day."""
    return lane.journal.target(_identity(lane) + id_)


def _identity(lane: Lane) -> str:
    return f"{lane.target.identity}\ngeneration\n"


def _build(lane: Lane, shelf: Shelf, id_: str, rows: Mapping[str, Row], room: Room) -> None:
    """Complete the generation, from wherever an earlier attempt left it."""
    number = _number(lane, id_)
    known = {row.relpath: row for row in lane.journal.rows(number)}
    for parent, group in itertools.groupby(sorted(rows.values(), key=_place), key=lambda row: _place(row)[0]):
        with shelf.group(id_, parent) as files:
            new = [row for row in group if not (row.relpath in known and _holds(files, known[row.relpath]))]
            if new:
                lane.journal.settle_all([(number, row) for row in new])
            for row in new:
                if not _holds(files, row) and not files.link(_place(row)[1], row.fingerprint):
                    _copy(lane, number, files, row, room)


def _place(row: Row) -> tuple[str, str]:
    """Directory and name."""
    parent, _, name = row.relpath.rpartition("/")
    return parent, name


def _holds(files: Group, row: Row) -> bool:
    return files.holds(_place(row)[1], row.fingerprint)


def _copy(lane: Lane, number: int, files: Group, row: Row, room: Room) -> None:
    """Where the file system gives a file no second name."""
    with (
        # The floor counts, the quota does not: it is about what lands.
        room.reserve(lane, row.fingerprint.size, replaced_bytes=row.fingerprint.size),
        lane.export.open(row.relpath) as file,
        lane.export.create_temp() as temp,
    ):
        for block in file.blocks():
            temp.write(block)
        copied = replace(row, fingerprint=temp.finish(row.fingerprint.mtime_ns))
        if not row.fingerprint.matches(file.fingerprint) or not file.is_unchanged():
            raise SourceChanged(f"{row.relpath!r} changed while its generation was built. It is looked at again")
        lane.journal.settle(number, copied)
        files.put(temp, _place(row)[1])


def _clear(lane: Lane, shelf: Shelf, *, keep: set[str]) -> None:
    """Remove generations that nobody is meant to read any more, but for those in which somebody had a hand."""
    begin = _identity(lane)
    numbers = {
        identity.removeprefix(begin): number
        for number, identity in lane.journal.targets()
        if identity.startswith(begin)
    }
    for id_ in sorted({*numbers, *shelf.ids()} - keep):
        known = lane.journal.rows(numbers[id_]) if id_ in numbers else ()
        try:
            shelf.remove(id_, {row.relpath: row.fingerprint for row in known})
        except TransferError as error:
            log.warning("old generation stays", target=lane.target.id, published=id_, error=error)
            continue
        if id_ in numbers:
            lane.journal.drop_target(numbers[id_])
