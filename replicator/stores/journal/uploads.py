"""The journal's multipart uploads that are not complete, and their parts that the store has confirmed.

Owns: the tables `uploads` and `parts`. Never: decides whether an upload is still worth going on with; its fingerprint
lets the caller tell. What is lost here costs sending parts again.
"""

import os
import time
from typing import Any

from replicator.model import Part, Row, Upload
from replicator.stores.journal.commit import Committer, Statement
from replicator.stores.journal.intents import settling
from replicator.stores.journal.rows import fingerprint_of, fingerprint_values
from replicator.stores.journal.tables import Reader, Tables

_COLUMNS = "relpath, upload_id, part_size, size, mtime_ns, ctime_ns, ino"
_UPLOAD = f"SELECT {_COLUMNS} FROM uploads WHERE target = ? AND relpath = ?"  # noqa: S608
_UPLOADS = f"SELECT {_COLUMNS} FROM uploads WHERE target = ? ORDER BY begun_s, relpath"  # noqa: S608
_BEGUN = "SELECT target, relpath FROM uploads"
_PARTS = "SELECT number, etag, md5 FROM parts WHERE target = ? AND relpath = ? ORDER BY number"
_BEGIN = f"INSERT INTO uploads (target, {_COLUMNS}, begun_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
_ADD_PART = (
    "INSERT INTO parts (target, relpath, number, etag, md5) SELECT target, relpath, ?, ?, ? FROM uploads "
    "WHERE target = ? AND relpath = ? ON CONFLICT DO UPDATE SET etag = excluded.etag, md5 = excluded.md5"
)
_DROP_PARTS = "DELETE FROM parts WHERE target = ? AND relpath = ?"
_DROP = "DELETE FROM uploads WHERE target = ? AND relpath = ?"


class Uploads(Tables):
    """At most one upload a path: what has to be sent again after a restart is what is not here."""

    def __init__(self, *, reader: Reader, committer: Committer) -> None:
        super().__init__(reader=reader, committer=committer)
        self._begun = {(int(target), bytes(relpath)) for target, relpath in reader.all(_BEGUN)}
        """Asked for every file that is sent, so answered without a read."""

    def upload(self, target: int, relpath: str) -> Upload | None:
        """The upload of one path with its confirmed parts, of one moment."""
        key = (target, os.fsencode(relpath))
        if key not in self._begun:
            return None
        with self._reader.snapshot() as cursor:
            found = cursor.execute(_UPLOAD, key).fetchone()
            if found is None:
                return None
            parts = cursor.execute(_PARTS, key).fetchall()
        return _upload(found, tuple(Part(number, os.fsdecode(etag), md5) for number, etag, md5 in parts))

    def uploads(self, target: int) -> list[Upload]:
        """Every upload of the target, the oldest first, without their parts."""
        return [_upload(found, ()) for found in self._reader.all(_UPLOADS, (target,))]

    def begin_upload(self, target: int, upload: Upload) -> None:
        """Record a new upload and the parts it has; that of the same path before it goes, with its parts."""
        relpath = os.fsencode(upload.relpath)
        version = fingerprint_values(upload.fingerprint)
        values = (target, relpath, os.fsencode(upload.upload_id), upload.part_size, *version, int(time.time()))
        parts = [_adding(target, relpath, part) for part in upload.parts]
        self._committer.commit(*_dropping(target, relpath), (_BEGIN, values), *parts)
        self._begun.add((target, relpath))

    def add_part(self, target: int, relpath: str, part: Part) -> None:
        """Record a confirmed part; of an upload that is not known (any more) nothing is recorded."""
        self._committer.commit(_adding(target, os.fsencode(relpath), part))

    def drop_upload(self, target: int, relpath: str) -> None:
        """Drop the upload of a path and its parts; none is fine."""
        self._committer.commit(*_dropping(target, os.fsencode(relpath)))
        self._begun.discard((target, os.fsencode(relpath)))

    def settle_upload(self, target: int, row: Row) -> None:
        """As `settle`, and the path's upload is done with, in the same transaction."""
        self._committer.commit(*settling(target, row), *_dropping(target, os.fsencode(row.relpath)))
        self._begun.discard((target, os.fsencode(row.relpath)))


def _adding(target: int, relpath: bytes, part: Part) -> Statement:
    return _ADD_PART, (part.number, os.fsencode(part.etag), part.md5, target, relpath)


def _dropping(target: int, relpath: bytes) -> tuple[Statement, ...]:
    return (_DROP_PARTS, (target, relpath)), (_DROP, (target, relpath))


def _upload(record: tuple[Any, ...], parts: tuple[Part, ...]) -> Upload:
    relpath, upload_id, part_size, *version = record
    return Upload(os.fsdecode(relpath), os.fsdecode(upload_id), fingerprint_of(*version), part_size, parts)
