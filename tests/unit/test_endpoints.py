"""Stores that lanes share: opened once, renewed while they are used, closed when nobody does."""

import asyncio
from typing import Any, cast

import pytest
from pydantic import SecretStr

from replicator import endpoints as endpoints_module
from replicator.endpoints import Endpoints
from replicator.model import Storage
from replicator.observe import logs


class Store:
    is_closed = False

    def close(self) -> None:
        self.is_closed = True


class Gate:
    renewals = 0

    def renewed(self) -> None:
        self.renewals += 1


def storage(secret: str) -> Storage:
    return Storage("http://s3", "b", "us-east-1", SecretStr("the-access-key"), SecretStr(secret))


OLD, NEW = storage("the-old-secret"), storage("the-new-secret")


@pytest.fixture
def endpoints(monkeypatch) -> Endpoints:
    monkeypatch.setattr(endpoints_module, "_LINGER_S", 0.0)
    monkeypatch.setattr(endpoints_module, "_POLL_S", 0.001)
    monkeypatch.setattr(logs, "_hidden", type(logs._hidden)())
    return Endpoints(lambda _: cast("Any", Store()), lambda: cast("Any", Gate()))


async def test_lanes_share_a_store_until_the_last_one_leaves(endpoints):
    """One store a storage; it is closed with its last lane, and its secrets are no longer looked for."""
    one, other = endpoints.of(OLD), endpoints.of(OLD)
    one.lanes = 2

    await endpoints.leave(OLD)
    assert one is other
    assert not one.store.is_closed
    assert logs._hidden

    await endpoints.leave(OLD)
    assert one.store.is_closed
    assert OLD not in endpoints
    assert not logs._hidden


@pytest.mark.fault("B18")
async def test_replaced_store_is_closed_once_nobody_uses_it(endpoints):
    """The new one is used at once, behind the same gate; the old one serves what it has begun."""
    endpoint = endpoints.of(OLD)
    replaced, gate, is_idle = endpoint.store, endpoint.gate, asyncio.Event()

    store = endpoints.renew(OLD, NEW, is_idle=is_idle.is_set)
    await asyncio.sleep(0.01)

    assert endpoints[NEW].store is store is not replaced
    assert endpoints[NEW].gate is gate
    assert gate.renewals == 1
    assert OLD not in endpoints
    assert not replaced.is_closed
    assert "the-old-secret" in logs._hidden

    is_idle.set()
    async with asyncio.timeout(5):
        while "the-old-secret" in logs._hidden:
            await asyncio.sleep(0.001)
    assert replaced.is_closed
    assert set(logs._hidden) == {"the-access-key", "the-new-secret"}


async def test_end_closes_what_is_replaced_and_what_is_in_use(endpoints):
    """Whatever goes on; secrets stay hidden, for there may be a last word."""
    replaced = endpoints.of(OLD).store
    store = endpoints.renew(OLD, NEW, is_idle=lambda: False)

    await endpoints.close()

    assert replaced.is_closed
    assert store.is_closed
    assert {"the-old-secret", "the-new-secret"} < set(logs._hidden)
