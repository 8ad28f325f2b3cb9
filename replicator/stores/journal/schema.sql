-- The journal: what both sides of every target held when they were last found in step.
-- Losing it costs comparing again, never a file. Times are ns since the epoch, sizes bytes. Text is BLOB throughout:
-- names and ETags need not be UTF-8, and a damaged byte must not make a row unreadable.

-- One line a target. Its rows are void once any part of its identity changes: then it gets another line.
CREATE TABLE targets (
    id         INTEGER PRIMARY KEY,
    identity   BLOB    NOT NULL UNIQUE,     -- Target.identity, file-system bytes
    row_count  INTEGER NOT NULL DEFAULT 0,  -- kept by the triggers below, so that totals need no scan
    byte_count INTEGER NOT NULL DEFAULT 0
) STRICT;

-- One line a path that is in step.
CREATE TABLE rows (
    target      INTEGER NOT NULL,
    relpath     BLOB    NOT NULL,  -- bytes as the file system has them: byte order, and names that are not UTF-8
    size        INTEGER NOT NULL,  -- size to ino: the local file's fingerprint
    mtime_ns    INTEGER NOT NULL,
    ctime_ns    INTEGER NOT NULL,  -- 0: not known when the row was written
    ino         INTEGER NOT NULL,  -- unsigned 64 bits in SQLite's signed ones
    etag        BLOB    NOT NULL,  -- the object's ETag, unquoted, as the store gave it
    checksum    BLOB    NOT NULL,  -- written form of the content's checksum, empty when not known
    is_verified INTEGER NOT NULL,  -- 1: both sides are known to hold these very bytes
    PRIMARY KEY (target, relpath)
) STRICT, WITHOUT ROWID;

-- One line a file that is about to be renamed into place. It outlives a crash in between, and then explains the
-- file that is found there without a row. Columns as in rows.
CREATE TABLE intents (
    target      INTEGER NOT NULL,
    relpath     BLOB    NOT NULL,
    size        INTEGER NOT NULL,
    mtime_ns    INTEGER NOT NULL,
    ctime_ns    INTEGER NOT NULL,
    ino         INTEGER NOT NULL,
    etag        BLOB    NOT NULL,
    checksum    BLOB    NOT NULL,
    is_verified INTEGER NOT NULL,
    PRIMARY KEY (target, relpath)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER rows_inserted AFTER INSERT ON rows BEGIN
    UPDATE targets SET row_count = row_count + 1, byte_count = byte_count + new.size WHERE id = new.target;
END;

CREATE TRIGGER rows_updated AFTER UPDATE OF size ON rows WHEN new.size <> old.size BEGIN
    UPDATE targets SET byte_count = byte_count + new.size - old.size WHERE id = new.target;
END;

CREATE TRIGGER rows_deleted AFTER DELETE ON rows BEGIN
    UPDATE targets SET row_count = row_count - 1, byte_count = byte_count - old.size WHERE id = old.target;
END;

PRAGMA user_version = 1;
