"""A bucket in memory: the model's truth of what the store holds, and a store of our protocol over it.

`test_memory_store` holds it to the conformance suite. Owns: versions, ETags, uploads and what was ever visible. Never:
faults, which `faults` wraps around it.
"""

import hashlib
import itertools
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from replicator.checksum import composite_etag
from replicator.errors import BucketMissing, IntegrityFailed, ObjectMissing, RemoteChanged
from replicator.model import RemoteObject
from replicator.stores.objects import Download

_BLOCK_BYTES = 256 * 1024


def md5(body: bytes) -> bytes:
    return hashlib.md5(body, usedforsecurity=False).digest()


@dataclass(frozen=True, slots=True)
class Version:
    """One object as anybody may see it. `writer` is '' for somebody else, or the name of our store."""

    key: str
    body: bytes
    etag: str
    mtime_ns: int
    metadata: Mapping[str, str]
    writer: str

    def told(self, *, with_metadata: bool) -> RemoteObject:
        metadata = dict(self.metadata) if with_metadata else None
        return RemoteObject(self.key, len(self.body), self.etag, self.mtime_ns, metadata)


@dataclass
class Bucket:
    """`opaque`: '' for ETags that are MD5, `look` for others that look like one, `other` for those that do not."""

    opaque: str = ""
    objects: dict[str, Version] = field(default_factory=dict)
    uploads: dict[str, tuple[str, Mapping[str, str], dict[int, tuple[str, bytes]]]] = field(default_factory=dict)
    written: list[Version] = field(default_factory=list)
    """Every version that ever became visible, in order."""
    removed: list[tuple[str, str]] = field(default_factory=list)
    """(key, writer) of every delete."""
    bucket: str = "here"
    exists: bool = True
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def store(
        self, key: str, body: bytes, *, etag: str = "", metadata: Mapping[str, str] | None = None, writer: str = ""
    ) -> Version:
        """Make a version visible, by whomever."""
        etag = self._etag(etag or md5(body).hex())
        lower = {name.lower(): value for name, value in (metadata or {}).items()}
        version = Version(key, body, etag, time.time_ns() // 10**9 * 10**9, lower, writer)
        self.objects[key] = version
        self.written.append(version)
        return version

    def remove(self, key: str, *, writer: str = "") -> None:
        self.objects.pop(key, None)
        self.removed.append((key, writer))

    def new_id(self) -> str:
        return f"upload-{next(self._numbers)}"

    def _etag(self, plain: str) -> str:
        if not self.opaque:
            return plain
        tail = plain.partition("-")
        number = next(self._numbers)
        if self.opaque == "look":
            return hashlib.md5(f"{plain}/{number}".encode(), usedforsecurity=False).hexdigest() + tail[1] + tail[2]
        return f"v{number}"


class MemoryStore:
    """The ObjectStore protocol over a bucket."""

    def __init__(
        self, bucket: Bucket, *, streams: bool = True, page_keys: int = 1000, is_checking: bool = True, name: str = "us"
    ) -> None:
        self.streams = streams
        self._bucket = bucket
        self._page_keys = page_keys
        self._is_checking = is_checking
        self._name = name

    def head(self, key: str) -> RemoteObject:
        return self._found(key).told(with_metadata=True)

    def list(self, prefix: str) -> Iterator[Sequence[RemoteObject]]:
        self._check()
        keys = sorted((key for key in self._bucket.objects if key.startswith(prefix)), key=str.encode)
        for begin in range(0, len(keys), self._page_keys):
            names = keys[begin : begin + self._page_keys]
            yield [self._bucket.objects[key].told(with_metadata=False) for key in names if key in self._bucket.objects]

    def put(self, key: str, body: bytes, *, md5: bytes, metadata: Mapping[str, str]) -> str:
        self._check()
        _check_sum(body, md5)
        return self._bucket.store(key, bytes(body), metadata=metadata, writer=self._name).etag

    def is_checking_uploads(self, key: str) -> bool:
        return self._is_checking

    def put_parts(self, key: str, parts: Iterator[bytes], *, part_size: int, metadata: Mapping[str, str]) -> str:
        self._check()
        upload_id = self.create_upload(key, metadata=metadata)
        try:
            etags = [self.put_part(key, upload_id, n, body, md5=md5(body)) for n, body in enumerate(parts, start=1)]
            if not etags:
                etags = [self.put_part(key, upload_id, 1, b"", md5=md5(b""))]
        except Exception:
            self.abort_upload(key, upload_id)
            raise
        return self.complete_upload(key, upload_id, etags)

    def get(self, key: str, *, etag: str, offset: int = 0, size: int | None = None) -> Download:
        found = self._found(key)
        if found.etag != etag or (offset and offset >= len(found.body)):
            raise RemoteChanged(f"{key!r} is another version than the one asked for. It is looked at again")
        end = len(found.body) if size is None else offset + size
        return Download(dict(found.metadata), _blocks(found.body[offset:end]))

    def delete(self, key: str) -> None:
        self._check()
        self._bucket.remove(key, writer=self._name)

    def create_upload(self, key: str, *, metadata: Mapping[str, str]) -> str:
        self._check()
        upload_id = self._bucket.new_id()
        self._bucket.uploads[upload_id] = (key, dict(metadata), {})
        return upload_id

    def put_part(self, key: str, upload_id: str, number: int, body: bytes, *, md5: bytes) -> str:
        _, _, parts = self._upload(key, upload_id)
        _check_sum(body, md5)
        parts[number] = (md5.hex(), bytes(body))
        return md5.hex()

    def complete_upload(self, key: str, upload_id: str, etags: Sequence[str]) -> str:
        _, metadata, parts = self._upload(key, upload_id)
        if [parts[number][0] for number in range(1, len(etags) + 1)] != list(etags):
            raise IntegrityFailed("the parts are not those that were sent. The file is sent again")
        del self._bucket.uploads[upload_id]
        bodies = [parts[number][1] for number in range(1, len(etags) + 1)]
        etag = composite_etag([md5(body) for body in bodies])
        whole = b"".join(bodies)
        return self._bucket.store(key, whole, etag=etag, metadata=metadata, writer=self._name).etag

    def abort_upload(self, key: str, upload_id: str) -> None:
        self._check()
        if upload_id in self._bucket.uploads and self._bucket.uploads[upload_id][0] == key:
            del self._bucket.uploads[upload_id]

    def list_uploads(self, prefix: str) -> Sequence[tuple[str, str]]:
        self._check()
        return tuple((key, uid) for uid, (key, _, _) in self._bucket.uploads.items() if key.startswith(prefix))

    def close(self) -> None:
        pass

    def probe(self) -> None:
        """What the stores over a network offer beside the protocol."""
        self._check()

    def _check(self) -> None:
        if not self._bucket.exists:
            raise BucketMissing("there is no such bucket. Create it")

    def _found(self, key: str) -> Version:
        self._check()
        if key not in self._bucket.objects:
            raise ObjectMissing(f"there is no object {key!r}")
        return self._bucket.objects[key]

    def _upload(self, key: str, upload_id: str) -> tuple[str, Mapping[str, str], dict[int, tuple[str, bytes]]]:
        self._check()
        upload = self._bucket.uploads.get(upload_id)
        if upload is None or upload[0] != key:
            raise ObjectMissing(f"the store does not know the upload of {key!r}")
        return upload


def _check_sum(body: bytes, expected: bytes) -> None:
    if md5(body) != expected:
        raise IntegrityFailed("the store got other bytes than were sent. They are sent again")


def _blocks(body: bytes) -> Generator[bytes]:
    for begin in range(0, len(body), _BLOCK_BYTES):
        yield body[begin : begin + _BLOCK_BYTES]
