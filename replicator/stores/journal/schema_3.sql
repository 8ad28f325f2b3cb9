-- Version 3 adds the requests that may come in late.

-- One line a path for which a request was sent that would have made it another version, and was never answered.
CREATE TABLE late_writes (
    target       INTEGER NOT NULL,
    relpath      BLOB    NOT NULL,  -- as in rows
    checksum     BLOB    NOT NULL,  -- of what it would write, as in rows; empty for several contents, or when not known
    since_s      INTEGER NOT NULL,  -- of the last such request: seconds since the epoch, by the device's clock
    is_looked_at INTEGER NOT NULL,  -- 1: the first look at the object is over
    PRIMARY KEY (target, relpath)
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 3;
