"""The decision table, row by row."""

import dataclasses

import pytest

from replicator.model import UNSEEN, Action, Fingerprint, LocalFile, RemoteObject, Row
from replicator.reconcile.classify import classify_egress, classify_ingress

FINGERPRINT = Fingerprint(size=3, mtime_ns=1, ctime_ns=1, ino=1)
ROW = Row("f", FINGERPRINT, etag="e1", checksum="md5:x")
SAME = LocalFile("f", FINGERPRINT)
TOUCHED = LocalFile("f", dataclasses.replace(FINGERPRINT, ctime_ns=2))
GROWN = LocalFile("f", dataclasses.replace(FINGERPRINT, size=4, ctime_ns=2))
OBJECT = RemoteObject("p/f", 3, "e1", 0)
OTHER = RemoteObject("p/f", 3, "e2", 0)
LONGER = RemoteObject("p/f", 4, "e3", 0)


@pytest.mark.parametrize(
    ("local", "remote", "row", "action"),
    [
        (SAME, UNSEEN, ROW, Action.SKIP),
        (SAME, OBJECT, ROW, Action.SKIP),
        (SAME, OTHER, ROW, Action.COPY),
        (SAME, None, ROW, Action.COPY),
        (TOUCHED, UNSEEN, ROW, Action.CHECK),
        (GROWN, UNSEEN, ROW, Action.COPY),
        (SAME, UNSEEN, None, Action.COPY),
        (SAME, None, None, Action.COPY),
        (SAME, OTHER, None, Action.CHECK),
        (SAME, LONGER, None, Action.COPY),
        (None, UNSEEN, ROW, Action.FORGET),
        (None, OBJECT, ROW, Action.FORGET),
        (None, OBJECT, None, Action.STRAY),
        (None, UNSEEN, None, Action.SKIP),
        (None, None, None, Action.SKIP),
    ],
)
def test_egress_follows_the_table(local, remote, row, action):
    """The file owns the truth; nothing is sent that the row or the content already covers."""
    assert classify_egress(local, remote, row) is action


@pytest.mark.parametrize(
    ("remote", "local", "row", "restore", "action"),
    [
        (OBJECT, SAME, ROW, True, Action.SKIP),
        (OBJECT, TOUCHED, ROW, True, Action.LEAVE),
        (OBJECT, GROWN, ROW, True, Action.LEAVE),
        (OBJECT, None, ROW, True, Action.COPY),
        (OBJECT, None, ROW, False, Action.LEAVE),
        (OTHER, None, ROW, False, Action.COPY),
        (OTHER, SAME, ROW, True, Action.COPY),
        (OTHER, GROWN, ROW, True, Action.CHECK),
        (OBJECT, SAME, None, True, Action.CHECK),
        (OBJECT, None, None, True, Action.COPY),
        (OBJECT, None, None, False, Action.COPY),
        (None, SAME, ROW, True, Action.FORGET),
        (None, None, ROW, True, Action.FORGET),
        (None, SAME, None, True, Action.STRAY),
        (None, None, None, True, Action.SKIP),
    ],
)
def test_ingress_follows_the_table(remote, local, row, restore, action):
    """The object owns the truth; a local edit stands until the object changes, and is then never simply replaced."""
    assert classify_ingress(remote, local, row, restore_deleted=restore) is action


def test_unknown_ctime_is_not_compared():
    """rename(2) moves ctime, so the fingerprint taken before it must still match the file after it."""
    before = dataclasses.replace(FINGERPRINT, ctime_ns=0)

    assert before.matches(FINGERPRINT)
    assert FINGERPRINT.matches(before)
    assert not before.matches(dataclasses.replace(FINGERPRINT, mtime_ns=2))
    assert not FINGERPRINT.matches(TOUCHED.fingerprint)
