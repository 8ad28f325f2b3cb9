"""Fixtures that several rooms share: a real S3 server, a bucket in it, a witness that is not us, and a scripted stub.

`REPLICATOR_TEST_S3_ENDPOINT` (with _ACCESS_KEY, _SECRET_KEY and _REGION) runs the suite against another server.
Nothing starts before a test asks for it.
"""

import asyncio
import contextlib
import dataclasses
import os
import socket
import ssl
import struct
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import hypothesis
import pytest
from pydantic import SecretStr

from replicator.model import Storage
from tests import moto_server
from tests.waiting import eventually, wait_until

if TYPE_CHECKING:  # half a second that rooms without S3 need not pay
    from replicator.stores.objects import ObjectStore
    from replicator.stores.s3.base import S3fsStore
    from tests.device import Device
    from tests.faults.proxy import Proxy

pytest_plugins = ["tests.faults.record"]

# A machine with other work is slow without a fault of ours; pytest-timeout bounds each test.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def _direct_network(monkeypatch):
    """No proxy of the machine stands between a test and its loopback server."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@dataclass(frozen=True)
class S3Server:
    endpoint: str
    access_key: str
    secret_key: str
    region: str

    def storage(self, bucket: str) -> Storage:
        return Storage(
            endpoint=self.endpoint,
            bucket=bucket,
            region=self.region,
            access_key_id=SecretStr(self.access_key),
            secret_access_key=SecretStr(self.secret_key),
            origin="test",
        )


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A running S3 server: the one of the environment, else moto in a process of its own."""
    access_key = os.environ.get("REPLICATOR_TEST_S3_ACCESS_KEY", "testing")
    secret_key = os.environ.get("REPLICATOR_TEST_S3_SECRET_KEY", "testing")
    region = os.environ.get("REPLICATOR_TEST_S3_REGION", "us-east-1")
    if endpoint := os.environ.get("REPLICATOR_TEST_S3_ENDPOINT"):
        yield S3Server(endpoint, access_key, secret_key, region)
        return
    with moto_server.running() as endpoint:
        yield S3Server(endpoint, access_key, secret_key, region)


class Witness:
    """Sees the bucket through boto3, which shares no code of ours."""

    def __init__(self, server: S3Server, bucket: str) -> None:
        import boto3
        from botocore.config import Config

        self.bucket = bucket
        self.client = boto3.client(
            "s3",
            endpoint_url=server.endpoint,
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
            region_name=server.region,
            config=Config(
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                max_pool_connections=32,
            ),
        )

    async def put(self, key: str, body: bytes, **more) -> str:
        answer = await asyncio.to_thread(self.client.put_object, Bucket=self.bucket, Key=key, Body=body, **more)
        return str(answer["ETag"]).strip('"')

    async def get(self, key: str) -> bytes:
        answer = await asyncio.to_thread(self.client.get_object, Bucket=self.bucket, Key=key)
        return await asyncio.to_thread(answer["Body"].read)

    def body_of(self, key: str, version: str) -> bytes:
        """One version of a versioned object."""
        return self.client.get_object(Bucket=self.bucket, Key=key, VersionId=version)["Body"].read()

    async def head(self, key: str) -> dict:
        return await asyncio.to_thread(self.client.head_object, Bucket=self.bucket, Key=key)

    async def delete(self, key: str) -> None:
        await asyncio.to_thread(self.client.delete_object, Bucket=self.bucket, Key=key)

    async def keys(self, prefix: str = "") -> list[str]:
        return await asyncio.to_thread(self._keys, prefix)

    def _keys(self, prefix: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]


@contextlib.contextmanager
def new_bucket(server: S3Server) -> Iterator[Witness]:
    witness = Witness(server, f"test-{uuid.uuid4().hex[:12]}")
    witness.client.create_bucket(Bucket=witness.bucket)
    yield witness
    witness.client.close()


@pytest.fixture
def witness(s3_server) -> Iterator[Witness]:
    """The witness of a bucket that exists, is empty, and belongs to one test."""
    with new_bucket(s3_server) as one:
        yield one


@pytest.fixture
def bucket(witness) -> str:
    return str(witness.bucket)


@pytest.fixture(scope="module")
def shared_witness(s3_server) -> Iterator[Witness]:
    """The witness of a bucket for tests of one module that only look at what was put there once."""
    with new_bucket(s3_server) as one:
        yield one


@pytest.fixture
def storage(s3_server, bucket) -> Storage:
    return s3_server.storage(bucket)


@pytest.fixture
def s3(storage) -> Iterator["S3fsStore"]:
    """Our store, opened on the test's bucket."""
    store = _new_store("s3fs", storage, {"connections": 16, "read_timeout_s": 30})
    yield cast("S3fsStore", store)
    store.close()


@dataclass(frozen=True)
class Reply:
    """What the stub does with one request. `cut_at` sends that many bytes of the body and ends the connection."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay_s: float = 0
    cut_at: int | None = None
    is_reset: bool = False
    """RST instead of an answer, once the request was read."""


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    head: str
    """The request line and headers as they came."""


class StubS3:
    """An HTTP/1.1 server, on a thread of its own, that answers what the test says and remembers what it was asked.

    `replies` are used up in order, then `default` answers; a callable takes the Request and returns the Reply.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answered: list[Request] = []
        """Those that got the whole of their answer."""
        self.replies: deque[Reply | Callable[[Request], Reply]] = deque()
        self.default: Reply | Callable[[Request], Reply] = Reply()
        self.connections = 0
        self.is_deaf = False
        """Takes no body: whoever sends a large one is stuck."""
        self.pause_s = 0.0
        """Before each MiB of a body that it takes."""
        self._tasks: set[asyncio.Task] = set()
        self._scheme = "http"
        self._stop = asyncio.Event()
        self._started = threading.Event()

    def start(self, tls: ssl.SSLContext | None = None) -> "StubS3":
        self._scheme = "https" if tls else "http"
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(tls)), name="stub")
        self._thread.start()
        assert self._started.wait(10)
        return self

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _run(self, tls: ssl.SSLContext | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls, backlog=1024)
        self.port = int(self._server.sockets[0].getsockname()[1])
        self._started.set()
        await self._stop.wait()
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def wait_until_idle(self) -> None:
        """Until every connection is closed."""
        wait_until(lambda: not self._tasks)

    @property
    def endpoint(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def storage(self, **changes) -> Storage:
        """A storage that lies here: bucket `b`, credentials AKID and SECRET."""
        here = Storage(
            endpoint=self.endpoint,
            bucket="b",
            region="us-east-1",
            access_key_id=SecretStr("AKID"),
            secret_access_key=SecretStr("SECRET"),
        )
        return dataclasses.replace(here, **changes)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while await self._answer(reader, writer):
                    pass
        except asyncio.CancelledError:
            writer.transport.abort()  # it may hold an answer that nobody reads
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()
            self._tasks.discard(task)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        if "expect" in headers:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self.is_deaf:
            await asyncio.sleep(60)
        body = bytearray()
        while missing := int(headers.get("content-length", "0")) - len(body):
            await asyncio.sleep(self.pause_s)
            body += await reader.readexactly(min(missing, 2**20))
        request = Request(method, target, headers, bytes(body), head)
        self.requests.append(request)
        script = self.replies.popleft() if self.replies else self.default
        reply = script(request) if callable(script) else script
        await asyncio.sleep(reply.delay_s)
        if reply.is_reset:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return False
        fields = {"Content-Length": str(len(reply.body))} | reply.headers
        answer = [f"HTTP/1.1 {reply.status} Stub", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        content = b"" if method == "HEAD" else reply.body[: reply.cut_at]
        self.answered.append(request)  # before the client can know it
        writer.write("\r\n".join(answer).encode("latin-1") + content)
        await writer.drain()
        return reply.cut_at is None


@pytest.fixture
def until() -> Callable:
    """Waits for a condition while the event loop runs."""
    return eventually


@pytest.fixture
def start_stub() -> Iterator[Callable[..., StubS3]]:
    """Starts stubs, as many as a test wants: `start_stub(tls=context)`."""
    stubs: list[StubS3] = []

    def start(tls: ssl.SSLContext | None = None) -> StubS3:
        stubs.append(StubS3().start(tls))
        return stubs[-1]

    yield start
    for stub in stubs:
        stub.stop()


@pytest.fixture
def stub_s3(start_stub):
    return start_stub()


@pytest.fixture
def reply() -> type[Reply]:
    """The Reply class, for tests cannot import a conftest."""
    return Reply


ENGINES = ("s3fs", "obstore")


@pytest.fixture
def open_store() -> Iterator[Callable[..., "ObjectStore"]]:
    """Opens stores on any storage and closes them all: `open_store(stub_s3.storage(), read_timeout_s=0.3)`."""
    stores: list[ObjectStore] = []

    def open_one(storage: Storage, engine: str = "s3fs", **settings) -> "ObjectStore":
        stores.append(_new_store(engine, storage, settings))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


_LIMITS = {
    "connections": 8,
    "connect_timeout_s": 5,
    "read_timeout_s": 5,
    "min_rate_bytes_s": 4096,
    "part_size_bytes": 5 * 2**20,
}


def _new_store(engine: str, storage: Storage, settings: dict) -> "ObjectStore":
    """`settings` are fields of Limits, and what the stores take beside it."""
    from replicator.stores.s3.network import Limits

    limits = Limits(**{name: settings.get(name, default) for name, default in _LIMITS.items()})
    more = {name: value for name, value in settings.items() if name not in _LIMITS}
    if engine == "s3fs":
        from replicator.stores.s3.base import S3fsStore

        return S3fsStore(storage, limits, **more)
    from replicator.stores.s3.fast import FastStore

    return FastStore(storage, limits, **more)


# An s3fs client takes a third of a second to make, several hundred times over.
@pytest.fixture(params=[pytest.param(one, marks=pytest.mark.slow) if one == "s3fs" else one for one in ENGINES])
def engine(request) -> str:
    return str(request.param)


@pytest.fixture
def open_any(open_store, engine) -> Callable[..., "ObjectStore"]:
    """`open_store` with every engine in turn."""
    return lambda storage, **settings: open_store(storage, engine, **settings)


@pytest.fixture
def device(tmp_path, storage) -> "Device":
    """A device whose bucket is the test's."""
    from tests.device import Device

    return Device(tmp_path, storage)


@pytest.fixture
def proxy(s3_server) -> Iterator["Proxy"]:
    """A fault proxy before the S3 server."""
    from tests.faults.proxy import Proxy

    one = Proxy(s3_server.endpoint)
    yield one
    one.stop()


@pytest.fixture
def far_device(tmp_path, storage, proxy) -> "Device":
    """A device that reaches the test's bucket through the fault proxy."""
    from tests.device import Device

    return Device(tmp_path, dataclasses.replace(storage, endpoint=proxy.endpoint))


@pytest.fixture(scope="session")
def is_long() -> bool:
    """Whether sweeps are to be complete, whatever they cost."""
    return os.environ.get("REPLICATOR_TEST_LONG") == "1"
