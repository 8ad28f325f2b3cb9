"""The bucket in memory passes the suite that every store passes; else nothing built on it would prove anything.

Left out is what is about a wire: requests of a scripted server, and counting them.
"""

import inspect

import pytest

from tests.conformance import test_object_store as suite
from tests.model.bucket import Bucket, MemoryStore

_WIRE = {"stub_s3", "on_request"}
_COUNTED = "test_streamed_put_is_counted_request_by_request"

globals().update(
    {
        name: test
        for name, test in vars(suite).items()
        if name.startswith("test_") and not _WIRE & set(inspect.signature(test).parameters) and name != _COUNTED
    }
)


@pytest.fixture
def memory():
    return Bucket()


@pytest.fixture
def storage(memory):
    return memory


@pytest.fixture
def s3_server():
    """Keys with a newline are no trouble here."""
    return type("Server", (), {"endpoint": "amazonaws"})


@pytest.fixture
def open_here(memory):
    return lambda *, page_keys=7: MemoryStore(memory, page_keys=page_keys)


@pytest.fixture
def open_any():
    """For a bucket of another name, which is not there."""

    def open_one(storage, *, page_keys=7, **_of_the_wire):
        storage.exists = storage.bucket == Bucket.bucket
        return MemoryStore(storage, page_keys=page_keys)

    return open_one


@pytest.fixture
def store(open_here):
    return open_here()


@pytest.fixture
def many(memory):
    keys = sorted((f"k{i % 50:02}/{i:04}" for i in range(2500)), key=str.encode)
    for key in keys:
        memory.store(key, b"")
    return memory, keys


class _Sight:
    def __init__(self, memory):
        self._memory = memory

    def keys(self):
        return list(self._memory.objects)

    def body(self, key):
        return self._memory.objects[key].body

    def put(self, key, body):
        self._memory.store(key, body)


@pytest.fixture
def sees(memory):
    return _Sight(memory)


def test_suite_is_not_empty():
    """What is run here is what the other stores pass, all but the wire."""
    ours = [name for name in globals() if name.startswith("test_")]

    assert len(ours) > 25
