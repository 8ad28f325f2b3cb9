"""What obstore does not do, done by s3fs: deleting, uploads step by step, keys that obstore cannot name.

Owns: the s3fs store beside the fast one. It is imported and built when first needed, for it costs more memory than
everything else; most devices never need it.
"""

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from replicator.errors import Unavailable

if TYPE_CHECKING:
    from replicator.stores.s3.base import S3fsStore

_NO_SEGMENT = re.compile(r"[\x00-\x1f\x7f]")


def is_plain(key: str) -> bool:
    """Whether obstore sends `key` as it is: it refuses `a//b`, `..` and control characters, and takes `/a/` for `a`."""
    return bool(key) and not _NO_SEGMENT.search(key) and not {"", ".", ".."} & set(key.split("/"))


class Rest:
    """The half of the store that s3fs speaks. `build` makes its store."""

    def __init__(self, build: "Callable[[], S3fsStore]") -> None:
        self._build = build
        self._lock = threading.Lock()
        self._store: S3fsStore | None = None
        self._is_closed = False

    def s3fs(self) -> "S3fsStore":
        with self._lock:
            if self._is_closed:
                raise Unavailable("the store is closed; it is tried again")
            if self._store is None:
                self._store = self._build()
            return self._store

    def delete(self, key: str) -> None:
        self.s3fs().delete(key)

    def create_upload(self, key: str, *, metadata: Mapping[str, str]) -> str:
        return self.s3fs().create_upload(key, metadata=metadata)

    def put_part(self, key: str, upload_id: str, number: int, body: bytes, *, md5: bytes) -> str:
        return self.s3fs().put_part(key, upload_id, number, body, md5=md5)

    def complete_upload(self, key: str, upload_id: str, etags: Sequence[str]) -> str:
        return self.s3fs().complete_upload(key, upload_id, etags)

    def abort_upload(self, key: str, upload_id: str) -> None:
        self.s3fs().abort_upload(key, upload_id)

    def list_uploads(self, prefix: str) -> Sequence[tuple[str, str]]:
        return self.s3fs().list_uploads(prefix)

    def close(self) -> None:
        with self._lock:
            store, self._store, self._is_closed = self._store, None, True
        if store is not None:
            store.close()
