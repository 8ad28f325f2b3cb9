"""What goes wrong in the model, and where: one injector that the store, the journal and the kernel's calls ask.

A point is `<call>:before`, `:after` or `:mid`. At each an armed fault may strike: an error, a wrong answer, a meddler
who changes something at just that moment, or the end of the process, after which every further effect is refused.
"""

import errno
import os
import types
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from replicator.errors import (
    AccessDenied,
    BucketMissing,
    IntegrityFailed,
    JournalFull,
    ObjectMissing,
    Throttled,
    TransferError,
    Unavailable,
)
from replicator.model import RemoteObject
from replicator.stores.journal.journal import Journal
from replicator.stores.objects import Download
from tests.model.bucket import Bucket, MemoryStore


class Crash(BaseException):
    """The process ends here; whatever it still tries on its way out has no effect."""


_REQUESTS = ("head", "list", "put", "put_parts", "get", "create_upload", "put_part", "complete_upload", "abort_upload")
_WRITES = ("put", "put_parts", "create_upload", "put_part", "complete_upload", "abort_upload")
_RECORDS = ("intend", "settle_all", "settle", "settle_upload", "begin_upload", "add_part", "drop_upload", "forget")
_KERNEL = ("write", "fsync", "rename", "unlink", "link")


def _points(names: Sequence[str], when: str) -> tuple[str, ...]:
    return tuple(f"{name}:{when}" for name in names)


FAULTS: Mapping[str, tuple[str, ...]] = {
    "refused": _points((*_REQUESTS, "list_uploads"), "before"),
    "reply-lost": _points(_WRITES, "after"),
    "throttled": _points(_REQUESTS, "before"),
    "denied": _points(_REQUESTS, "before"),
    "no-bucket": _points(_REQUESTS, "before"),
    "bytes-refused": ("put:before", "put_part:before"),
    "upload-vanished": ("complete_upload:after", "put_part:before"),
    "stream-torn": ("put_parts:mid",),
    "wrong-etag": ("put:after", "complete_upload:after", "put_parts:after"),
    "body-cut": ("get:mid",),
    "body-short": ("get:mid",),
    "body-flipped": ("get:mid",),
    "body-slow": ("get:mid",),
    "list-cut": ("list:mid",),
    "list-short": ("list:mid",),
    "list-stale": ("list:mid",),
    "list-empty": ("list:mid",),
    "disk-full": ("write:before", "link:before"),
    "sync-failed": ("fsync:before",),
    "rename-failed": ("rename:before",),
    "read-failed": ("pread:before",),
    "journal-full": _points(_RECORDS, "before"),
}
"""Every kind of fault, and the points at which it may strike."""

CRASHES = (
    *_points(_WRITES, "after"),
    *("put:before", "complete_upload:before", "put_parts:mid", "get:mid", "list:mid", "head:after"),
    *_points(_RECORDS, "before"),
    *_points(_RECORDS, "after"),
    *_points(_KERNEL, "before"),
    *_points(_KERNEL, "after"),
)
"""Where the process may end."""

MEDDLING = (
    "head:after",
    "get:before",
    "get:mid",
    "put:after",
    "put_parts:mid",
    "put_part:before",
    "complete_upload:before",
)
"""Where the workload, or another writer of the bucket, may come in between."""

_RAISED: Mapping[str, Callable[[], TransferError]] = {
    "refused": lambda: Unavailable("connection refused"),
    "reply-lost": lambda: Unavailable("connection cut before the answer"),
    "throttled": lambda: Throttled("slow down", retry_after_s=2.0),
    "denied": lambda: AccessDenied("the store refuses these credentials"),
    "no-bucket": lambda: BucketMissing("there is no such bucket"),
    "bytes-refused": lambda: IntegrityFailed("the store got other bytes"),
    "upload-vanished": lambda: ObjectMissing("the store does not know this upload"),
    "stream-torn": lambda: Unavailable("connection cut in the middle of a part"),
    "body-cut": lambda: Unavailable("connection cut in the middle of a body"),
    "list-cut": lambda: Unavailable("the listing is cut"),
    "journal-full": lambda: JournalFull("the journal cannot be written. Free space"),
}

_ERRNO = {
    "disk-full": errno.ENOSPC,
    "sync-failed": errno.EIO,
    "rename-failed": errno.EXDEV,
    "read-failed": errno.EIO,
}


@dataclass
class _Armed:
    kind: str
    points: tuple[str, ...]
    skip: int
    """How many times the point is passed first."""
    deed: Callable[[str], None] | None = None


@dataclass
class Injector:
    """One a model run; a crash stays in force until `revive`."""

    hits: "Counter[str]"
    """Of everything that struck: `fault x`, `crash x`, `meddle x`."""
    is_dead: bool = False
    raised: int = 0
    """Errors of requests that a job must answer for."""
    armed: list[_Armed] = field(default_factory=list)

    def arm(
        self, kind: str, points: tuple[str, ...], *, skip: int = 0, deed: Callable[[str], None] | None = None
    ) -> None:
        self.armed.append(_Armed(kind, points, skip, deed))

    def calm(self) -> None:
        self.armed.clear()

    def revive(self) -> None:
        self.is_dead = False

    def reach(self, point: str, name: str = "") -> str:
        """What strikes here: errors are raised, kinds that are answers are returned, '' when nothing does."""
        if self.is_dead:
            raise Crash
        for one in self.armed:
            if point not in one.points:
                continue
            if one.skip:
                one.skip -= 1
                continue
            self.armed.remove(one)
            return self._strike(one, point, name)
        return ""

    def _strike(self, one: _Armed, point: str, name: str) -> str:
        if one.kind == "crash":
            self.hits[f"crash {point}"] += 1
            self.is_dead = True
            raise Crash
        if one.deed is not None:
            self.hits[f"meddle {point}"] += 1
            one.deed(name)
            return ""
        self.hits[f"fault {one.kind}"] += 1
        if one.kind in _ERRNO:
            raise OSError(_ERRNO[one.kind], os.strerror(_ERRNO[one.kind]))
        if one.kind in _RAISED:
            is_answered_for = one.kind not in ("upload-vanished", "journal-full")  # a HEAD may still find it complete
            self.raised += is_answered_for and point.partition(":")[0] not in ("abort_upload", "list_uploads", "list")
            error = _RAISED[one.kind]()
            raise error
        return one.kind


class FaultyStore:
    """Our protocol over a store that may fail before the effect, after it, or in what it answers."""

    def __init__(self, inner: MemoryStore, bucket: Bucket, injector: Injector, lose_time: Callable[[], None]) -> None:
        self.streams = inner.streams
        self.gets = 0
        self._inner = inner
        self._bucket = bucket
        self._injector = injector
        self._lose_time = lose_time
        self._stale: list[RemoteObject] = []
        self._flips = 0

    def head(self, key: str) -> RemoteObject:
        return self._ask("head", key, lambda: self._inner.head(key))

    def list(self, prefix: str) -> Iterator[Sequence[RemoteObject]]:
        self._injector.reach("list:before", prefix)
        entries = [entry for page in self._inner.list(prefix) for entry in page]
        before, self._stale = self._stale, entries
        kind = self._injector.reach("list:mid", prefix)
        if kind == "list-empty":
            return
        if kind == "list-stale":
            entries = [entry for entry in before if entry.key.startswith(prefix)]
        if kind == "list-short":
            entries = entries[::2]
        for begin in range(0, len(entries), 3):
            yield entries[begin : begin + 3]

    def put(self, key: str, body: bytes, *, md5: bytes, metadata: Mapping[str, str]) -> str:
        return self._etag("put", key, lambda: self._inner.put(key, body, md5=md5, metadata=metadata))

    def is_checking_uploads(self, key: str) -> bool:
        return self._inner.is_checking_uploads(key)

    def put_parts(self, key: str, parts: Iterator[bytes], *, part_size: int, metadata: Mapping[str, str]) -> str:
        def passing() -> Iterator[bytes]:
            for part in parts:
                try:
                    self._injector.reach("put_parts:mid", key)
                except Unavailable:
                    self._inner.create_upload(key, metadata=metadata)  # a part on its way kept the upload alive
                    raise
                yield part

        return self._etag(
            "put_parts", key, lambda: self._inner.put_parts(key, passing(), part_size=part_size, metadata=metadata)
        )

    def get(self, key: str, *, etag: str, offset: int = 0, size: int | None = None) -> Download:
        self._injector.reach("get:before", key)
        self.gets += 1
        download = self._inner.get(key, etag=etag, offset=offset, size=size)
        return Download(download.metadata, self._body(key, b"".join(download.blocks)))

    def _body(self, key: str, body: bytes) -> Generator[bytes]:
        half = len(body) // 2
        yield body[:half]
        match self._injector.reach("get:mid", key):
            case "body-short":
                return
            case "body-flipped" if half < len(body):
                self._flips += 1  # chance does not strike twice in one way
                yield bytes([body[half] ^ (self._flips % 255 + 1)]) + body[half + 1 :]
                return
            case "body-slow":
                self._lose_time()
        yield body[half:]

    def create_upload(self, key: str, *, metadata: Mapping[str, str]) -> str:
        return self._ask("create_upload", key, lambda: self._inner.create_upload(key, metadata=metadata))

    def put_part(self, key: str, upload_id: str, number: int, body: bytes, *, md5: bytes) -> str:
        try:
            return self._ask("put_part", key, lambda: self._inner.put_part(key, upload_id, number, body, md5=md5))
        except ObjectMissing:
            self._bucket.uploads.pop(upload_id, None)  # a rule of the bucket threw it away
            raise

    def complete_upload(self, key: str, upload_id: str, etags: Sequence[str]) -> str:
        return self._etag("complete_upload", key, lambda: self._inner.complete_upload(key, upload_id, etags))

    def abort_upload(self, key: str, upload_id: str) -> None:
        self._ask("abort_upload", key, lambda: self._inner.abort_upload(key, upload_id))

    def list_uploads(self, prefix: str) -> Sequence[tuple[str, str]]:
        return self._ask("list_uploads", prefix, lambda: self._inner.list_uploads(prefix))

    def delete(self, key: str) -> None:
        self._inner.delete(key)

    def close(self) -> None:
        pass

    def _ask(self, call: str, key: str, work: Callable[[], Any]) -> Any:
        self._injector.reach(f"{call}:before", key)
        answer = work()
        self._injector.reach(f"{call}:after", key)
        return answer

    def _etag(self, call: str, key: str, work: Callable[[], str]) -> str:
        self._injector.reach(f"{call}:before", key)
        etag = work()
        return "another-etag" if self._injector.reach(f"{call}:after", key) == "wrong-etag" else etag


class FaultyOs:
    """The os module as `stores.files` sees it: calls that change something may fail, or be the last."""

    def __init__(self, current: Callable[[], Injector | None]) -> None:
        self._current = current
        for name in (*_KERNEL, "pread", "fchmod"):
            setattr(self, name, self._watched(name, getattr(os, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _watched(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            injector = self._current()
            if injector is None:
                return original(*args, **kwargs)
            injector.reach(f"{name}:before")
            answer = original(*args, **kwargs)
            injector.reach(f"{name}:after")
            return answer

        return call


def watch_journal(journal: Journal, injector: Injector) -> None:
    """Let every record of this journal be a point, and none be made by the dead."""

    def watched(name: str) -> Callable[..., Any]:
        original = getattr(journal, name)

        def call(_: Journal, *args: Any) -> Any:
            injector.reach(f"{name}:before")
            answer = original(*args)
            injector.reach(f"{name}:after")
            return answer

        return call

    for name in (*_RECORDS, "withdraw", "target"):
        setattr(journal, name, types.MethodType(watched(name), journal))
