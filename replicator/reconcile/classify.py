"""The decision table: what both sides and the journal say becomes one action. The origin owns the truth.

Egress (origin is the file; the object is looked at only when a request for it pays):

    file        object            row     action
    as row      as row or unseen  yes     SKIP
    as row      gone or another   yes     COPY    a late request or somebody else wrote our key: seen at another look
    changed     any               yes     CHECK when the size is the row's (a touch sends nothing), else COPY
    present     unseen or absent  no      COPY
    present     present           no      CHECK when sizes agree, else COPY
    absent      any               yes     FORGET  the object stays: files removed on the device stay in the bucket
    absent      present           no      STRAY

Ingress (origin is the object):

    object      file              row     action
    as row      as row            yes     SKIP
    as row      edited            yes     LEAVE   the workload's edit stands until the object changes too
    as row      absent            yes     COPY, or LEAVE when deleted files are not to be restored
    changed     as row            yes     COPY
    changed     edited            yes     CHECK   equal contents are adopted, else the edit is kept as a conflict copy
    present     present           no      CHECK
    present     absent            any     COPY
    absent      any               yes     FORGET  the file stays
    absent      present           no      STRAY

CHECK compares contents and becomes ADOPT or COPY. No row of this table deletes anything.
"""

from replicator.model import Action, LocalFile, RemoteObject, Row, Unseen


def classify_egress(local: LocalFile | None, remote: RemoteObject | Unseen | None, row: Row | None) -> Action:
    """What to do about a file that is to be in the bucket."""
    if local is None:
        if row is not None:
            return Action.FORGET
        return Action.STRAY if isinstance(remote, RemoteObject) else Action.SKIP
    if row is None:
        is_candidate = isinstance(remote, RemoteObject) and remote.size == local.fingerprint.size
        return Action.CHECK if is_candidate else Action.COPY
    if not row.fingerprint.matches(local.fingerprint):
        return Action.CHECK if row.fingerprint.size == local.fingerprint.size else Action.COPY
    if isinstance(remote, Unseen) or (remote is not None and remote.etag == row.etag):
        return Action.SKIP
    return Action.COPY


def classify_ingress(
    remote: RemoteObject | None, local: LocalFile | None, row: Row | None, *, restore_deleted: bool
) -> Action:
    """What to do about an object that is to be a file on the device."""
    if remote is None:
        if row is not None:
            return Action.FORGET
        return Action.STRAY if local is not None else Action.SKIP
    is_changed = row is None or row.etag != remote.etag
    if local is None:
        return Action.COPY if is_changed or restore_deleted else Action.LEAVE
    if row is None:
        return Action.CHECK
    if is_edited(local, row):
        return Action.CHECK if is_changed else Action.LEAVE
    return Action.COPY if is_changed else Action.SKIP


def is_edited(local: LocalFile | None, row: Row | None) -> bool:
    """Whether the file on the device is not the one that ingress wrote, so that it must not be lost."""
    return local is not None and (row is None or not row.fingerprint.matches(local.fingerprint))
