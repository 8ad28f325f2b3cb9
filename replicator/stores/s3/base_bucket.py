"""One bucket through s3fs: its thread, its requests one by one, and the translation of what goes wrong.

Owns: the loop thread and the file system on it, which are made at the first request. Never: what is asked for (`s3`,
`s3_uploads`), retries. Only the request call of s3fs is used, never its paths, caches or files.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

import s3fs

from replicator.errors import TransferError
from replicator.model import Storage
from replicator.stores.s3.answers import Answer, page_of
from replicator.stores.s3.errors import FOREIGN, translate, word_for
from replicator.stores.s3.loop import LoopThread
from replicator.stores.s3.network import Limits
from replicator.stores.s3.session import file_system
from replicator.stores.s3.table import OnRequest, ignore, named

T = TypeVar("T")


def nothing(answer: Answer) -> None:
    """For answers that say no more than that it was done."""


class Bucket:
    """Sends requests about one bucket, tells `on_request` how each went, translates what went wrong."""

    def __init__(
        self,
        storage: Storage,
        limits: Limits,
        *,
        on_request: OnRequest = ignore,
        page_keys: int = 1000,
    ) -> None:
        self._bucket = storage.bucket
        self._open = partial(file_system, storage, limits)
        self._fs: s3fs.S3FileSystem | None = None
        self._loop = LoopThread("s3fs")
        self._on_request = on_request
        self._page_keys = page_keys

    def probe(self) -> None:
        """Prove endpoint, bucket and credentials with a listing, for answers to HEAD carry no error code."""
        self._call("list_objects_v2", None, partial(page_of, prefix="", after=""), MaxKeys=1)

    def close(self) -> None:
        self._loop.close(self._disconnect())

    async def _disconnect(self) -> None:
        if self._fs is not None and (client := await self._fs.get_s3()) is not None:
            await client.close()

    def _call(self, operation: str, key: str | None, read: Callable[[Answer], T], **arguments: Any) -> T:
        """One request, and what `read` makes of its answer."""
        return self._loop.wait(self._submit(operation, key, read, **arguments))

    def _submit(self, operation: str, key: str | None, read: Callable[[Answer], T], **arguments: Any) -> Future[T]:
        if key is not None:
            arguments["Key"] = named(operation, self._bucket, key)
        return self._loop.submit(self._ask(operation, key, read, arguments))

    async def _ask(self, operation: str, key: str | None, read: Callable[[Answer], T], arguments: dict[str, Any]) -> T:
        """On the loop. The seconds told to `on_request` end when the answer is there; an object's body comes later."""
        begun = time.perf_counter()
        try:
            if self._fs is None:
                self._fs = self._open()
            answer = await self._fs._call_s3(operation, Bucket=self._bucket, **arguments)  # noqa: SLF001
            result = read(answer)
            word = str(answer["ResponseMetadata"]["HTTPStatusCode"])
        except FOREIGN as exc:
            self._on_request(operation, word_for(exc), time.perf_counter() - begun)
            raise self._error(operation, key, exc) from exc
        self._on_request(operation, word, time.perf_counter() - begun)
        return result

    def _error(self, operation: str, key: str | None, exc: Exception) -> TransferError:
        return translate(exc, operation=operation, bucket=self._bucket, key=key)
