"""The stores that lanes share, each with the gate before it: opened, renewed, closed.

Owns: one store a bucket and its credentials, and the way from one set of credentials to the next while transfers run.
Never: lanes, jobs, or what a refusal means (the gate's).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from replicator.model import Storage
from replicator.observe import logs
from replicator.stores.objects import ObjectStore
from replicator.transfer.gate import Gate

_LINGER_S = 60.0
"""Seconds that a replaced store stays open at least: a listing under way ends as it began."""
_POLL_S = 1.0


@dataclass(slots=True)
class Endpoint:
    """A store that lanes share, the gate before it, and how many lanes use it."""

    store: ObjectStore
    gate: Gate
    lanes: int = 0


class Endpoints:
    """The endpoints in use, by their storage. For the event loop."""

    def __init__(self, open_store: Callable[[Storage], ObjectStore], new_gate: Callable[[], Gate]) -> None:
        self._open_store = open_store
        self._new_gate = new_gate
        self._in_use: dict[Storage, Endpoint] = {}
        self._replaced: dict[asyncio.Task[None], ObjectStore] = {}

    def __getitem__(self, storage: Storage) -> Endpoint:
        return self._in_use[storage]

    def __contains__(self, storage: Storage) -> bool:
        return storage in self._in_use

    def gates(self) -> list[Gate]:
        return [endpoint.gate for endpoint in self._in_use.values()]

    def of(self, storage: Storage) -> Endpoint:
        """The endpoint of `storage`, opened when nobody uses it yet."""
        if storage not in self._in_use:
            self._in_use[storage] = Endpoint(self._opened(storage), self._new_gate())
        return self._in_use[storage]

    def renew(self, old: Storage, new: Storage, *, is_idle: Callable[[], bool]) -> ObjectStore:
        """Put a store on `new` in the place of the one on `old`, which is closed once `is_idle`. Returns it.

        The gate stays, with what it knows of the endpoint; only a refusal is forgotten.
        """
        store = self._opened(new)
        endpoint = self._in_use[new] = self._in_use.pop(old)
        replaced, endpoint.store = endpoint.store, store
        endpoint.gate.renewed()
        task = asyncio.create_task(self._close_replaced(old, replaced, is_idle), name="replaced store")
        self._replaced[task] = replaced
        task.add_done_callback(lambda done: self._replaced.pop(done, None))
        return store

    async def leave(self, storage: Storage) -> None:
        """One lane less; the last one closes the store."""
        endpoint = self._in_use[storage]
        endpoint.lanes -= 1
        if not endpoint.lanes:
            del self._in_use[storage]
            await _close(storage, endpoint.store)

    async def close(self) -> None:
        """Close all stores, whatever goes on."""
        replaced = dict(self._replaced)
        for task in replaced:
            task.cancel()
        # What is hidden stays so: there may be a last word about the end.
        for store in (*replaced.values(), *(endpoint.store for endpoint in self._in_use.values())):
            await asyncio.to_thread(store.close)

    def _opened(self, storage: Storage) -> ObjectStore:
        for secret in storage.secrets:
            logs.hide(secret)
        return self._open_store(storage)

    async def _close_replaced(self, storage: Storage, store: ObjectStore, is_idle: Callable[[], bool]) -> None:
        await asyncio.sleep(_LINGER_S)
        while not is_idle():  # noqa: ASYNC110 - threads end jobs; waking the loop for each would cost more
            await asyncio.sleep(_POLL_S)
        await _close(storage, store)


async def _close(storage: Storage, store: ObjectStore) -> None:
    await asyncio.to_thread(store.close)
    for secret in storage.secrets:
        logs.reveal(secret)
