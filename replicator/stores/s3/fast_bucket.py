"""One bucket through obstore, with s3fs beside it: who takes a request, and what an error of either means.

Owns: the choice, request by request, and the count of them. Never: what is asked for (`fast`).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from replicator.errors import TransferError
from replicator.model import RemoteObject, Storage
from replicator.stores.s3.direct import Direct
from replicator.stores.s3.fast_client import Clients, clients
from replicator.stores.s3.fast_errors import FOREIGN, UNFIT, translate, word_for
from replicator.stores.s3.fast_rest import Rest, is_plain
from replicator.stores.s3.lister import Lister
from replicator.stores.s3.network import Limits
from replicator.stores.s3.proof import Proof, is_refusing_other_bytes
from replicator.stores.s3.table import OnRequest, ignore, named

if TYPE_CHECKING:
    from replicator.stores.s3.base import S3fsStore

T = TypeVar("T")


class Unfit(Exception):
    """This request is for s3fs."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


class FastBucket(Rest):
    """Sends each request by the engine that can; `FastStore` explains the arguments."""

    def __init__(
        self,
        storage: Storage,
        limits: Limits,
        *,
        on_request: OnRequest = ignore,
        page_keys: int = 1000,
    ) -> None:
        def build() -> "S3fsStore":
            from replicator.stores.s3.base import S3fsStore  # noqa: PLC0415  # see Rest

            return S3fsStore(storage, limits, on_request=on_request, page_keys=page_keys)

        super().__init__(build)
        self._bucket = storage.bucket
        self._on_request = on_request
        self._clients: Clients | None = clients(storage, limits)
        self.streams = self._clients is not None
        direct = Direct(storage, limits, on_request)
        self._lister = Lister(direct, page_keys=page_keys)
        self._proof = Proof(partial(is_refusing_other_bytes, direct))

    def probe(self) -> None:
        (self._lister if self._clients else self.s3fs()).probe()

    def list(self, prefix: str) -> Iterator[Sequence[RemoteObject]]:
        return (self._lister if self._clients else self.s3fs()).list(prefix)

    def is_checking_uploads(self, key: str) -> bool:
        """By both, where both are in use: each sends a checksum of its own kind."""
        beside = self._store
        if self._clients is None:
            return beside is not None and beside.is_checking_uploads(key)
        return self._proof.holds(key) and (beside is None or beside.is_checking_uploads(key))

    def _either(self, operation: str, key: str, fast: Callable[[Clients], T], slow: "Callable[[S3fsStore], T]") -> T:
        """By obstore, or else by s3fs, which then keeps what obstore cannot reach."""
        named(operation, self._bucket, key)
        client = self._clients
        if client is None or not is_plain(key):
            return slow(self.s3fs())
        try:
            return fast(client)
        except Unfit as unfit:
            done = slow(self.s3fs())
            if unfit.word != "range":
                self._clients, self.streams = None, False
            return done

    @contextmanager
    def _request(self, operation: str, key: str, *, code: str = "200") -> Iterator[None]:
        """One request: told to `on_request`, and what it raises translated."""
        begun = time.perf_counter()
        try:
            yield
        except FOREIGN as exc:
            word = word_for(exc)
            self._on_request(operation, word, time.perf_counter() - begun)
            if word in UNFIT:
                raise Unfit(word) from exc
            raise self._error(word, exc, operation=operation, key=key) from exc
        self._on_request(operation, code, time.perf_counter() - begun)

    def _error(self, word: str, exc: Exception, *, operation: str, key: str) -> TransferError:
        if word == "unparsable":
            # obstore takes a redirect without a Location, which is S3's answer in another region, for a success.
            self._lister.probe()
        return translate(exc, operation=operation, bucket=self._bucket, key=key)

    def close(self) -> None:
        self._clients, self.streams = None, False
        super().close()
