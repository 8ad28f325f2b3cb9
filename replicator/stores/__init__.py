"""The only doors to the outside: objects in S3, files under an export, rows in the journal.

Each translates foreign errors into `replicator.errors` and decides nothing. Nothing outside this
package may open, stat or rename a path under an export, or import s3fs or sqlite3.
"""
