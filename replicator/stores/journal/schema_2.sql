-- Version 2 adds what is under way between two requests, and an account of the network. A new journal gets the scripts
-- of all versions one after the other, an older one those that it lacks.

-- One line a multipart upload that is not complete. Its parts are good for one version of the file only.
CREATE TABLE uploads (
    target    INTEGER NOT NULL,
    relpath   BLOB    NOT NULL,  -- as in rows
    upload_id BLOB    NOT NULL,  -- the store's name for it
    part_size INTEGER NOT NULL,  -- of each part but the last
    size      INTEGER NOT NULL,  -- size to ino: the local file's fingerprint, as in rows
    mtime_ns  INTEGER NOT NULL,
    ctime_ns  INTEGER NOT NULL,
    ino       INTEGER NOT NULL,
    begun_s   INTEGER NOT NULL,  -- seconds since the epoch, by the device's clock
    PRIMARY KEY (target, relpath)
) STRICT, WITHOUT ROWID;

-- One line a part that the store has confirmed.
CREATE TABLE parts (
    target  INTEGER NOT NULL,
    relpath BLOB    NOT NULL,  -- its upload's
    number  INTEGER NOT NULL,  -- from 1; confirmed in any order, so there may be gaps
    etag    BLOB    NOT NULL,  -- what the store wants to hear when the upload is completed
    md5     BLOB    NOT NULL,  -- digest of its bytes, 16 of them
    PRIMARY KEY (target, relpath, number)
) STRICT, WITHOUT ROWID;

-- One line an hour in which anything moved, of all targets together.
CREATE TABLE usage (
    hour           INTEGER PRIMARY KEY,  -- whole hours since the epoch
    sent_bytes     INTEGER NOT NULL,
    received_bytes INTEGER NOT NULL
) STRICT;

PRAGMA user_version = 2;
