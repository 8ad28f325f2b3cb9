"""Which engine is taken, and what it costs to have the other one at hand."""

import importlib.util
import json
import subprocess
import sys

import pytest

from replicator.errors import ConfigError
from replicator.stores.s3.engine import open_store
from replicator.stores.s3.network import Limits

LIMITS = Limits(connections=4, connect_timeout_s=2, read_timeout_s=5, min_rate_bytes_s=4096, part_size_bytes=8 * 2**20)

HEAVY = {"aiobotocore", "aiohttp", "botocore", "fsspec", "s3fs"}


@pytest.fixture
def without_obstore(monkeypatch):
    """An installation without the extra."""
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "obstore" else found(name))


@pytest.mark.parametrize(("engine", "kind"), [("auto", "FastStore"), ("obstore", "FastStore"), ("s3fs", "S3fsStore")])
def test_engine_is_the_one_that_was_asked_for(stub_s3, engine, kind):
    """auto is obstore where it is installed; every name has its own engine."""
    store = open_store(engine, stub_s3.storage(), LIMITS)
    store.close()

    assert type(store).__name__ == kind


def test_auto_does_without_obstore(stub_s3, without_obstore):
    """Without the extra, auto is s3fs."""
    store = open_store("auto", stub_s3.storage(), LIMITS)
    store.close()

    assert type(store).__name__ == "S3fsStore"


def test_missing_obstore_is_told_with_its_cure(stub_s3, without_obstore):
    """Who asks for obstore and has none learns how to get it."""
    with pytest.raises(ConfigError, match=r"pip install replicator\[fast\]"):
        open_store("obstore", stub_s3.storage(), LIMITS)


def modules_after(code: str, *arguments: str) -> set[str]:
    """The top names of all modules that a fresh interpreter has after `code`."""
    source = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    command = [sys.executable, "-c", source, *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in json.loads(answer.stdout.splitlines()[-1])}


def test_choosing_imports_no_engine():
    """The choice itself is cheap: no library of either engine, no event loop."""
    loaded = modules_after("import replicator.stores.s3.engine")

    assert not loaded & (HEAVY | {"obstore", "asyncio"})


@pytest.mark.slow
def test_frequent_requests_need_no_s3fs(storage):
    """An ordinary device puts, gets, lists and asks without ever importing s3fs; a strange key brings it in."""
    code = f"""
from pydantic import SecretStr
from replicator.model import Storage
from replicator.stores.s3.engine import open_store
from replicator.stores.s3.network import Limits
endpoint, bucket, region, key, secret = sys.argv[1:]
store = open_store("auto", Storage(endpoint, bucket, region, SecretStr(key), SecretStr(secret)), {LIMITS!r})
etag = store.put("a", b"12345", md5=b"", metadata={{"mtime": "1.5"}})
store.put_parts("b", iter([b"12345"]), part_size=5 * 2**20, metadata={{}})
assert b"".join(store.get("a", etag=etag).blocks) == b"12345"
assert store.head("a").size == 5
assert [entry.key for page in store.list("") for entry in page] == ["a", "b"]
store.probe()
store.is_checking_uploads("a")
if bucket == "":
    store.delete("a")
store.close()
"""
    words = (
        storage.endpoint,
        storage.bucket,
        storage.region,
        storage.access_key_id.get_secret_value(),
        storage.secret_access_key.get_secret_value(),
    )

    assert not modules_after(code, *words) & HEAVY
    assert modules_after(code.replace('if bucket == ""', "if bucket"), *words) >= HEAVY
