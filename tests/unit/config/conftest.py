"""What the tests of the config room share: the manifests, and words that make a bucket."""

import asyncio
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from replicator.config.settings import Settings
from replicator.errors import ConfigError
from tests.certificates import issue
from tests.edge_api import EdgeApi, server_context, write_identity

MANIFESTS = Path(__file__).parent / "manifests"

SECRET_TEXT = "s3cr3t-0f-the-t3st"

BUCKET = {
    "BUCKET_HOST": "play.min.io",
    "BUCKET_NAME": "device-bucket-6",
    "BUCKET_PORT": "443",
    "BUCKET_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "ydayagi1369",
    "AWS_SECRET_ACCESS_KEY": SECRET_TEXT,
}


@pytest.fixture
def bucket() -> dict[str, str]:
    """The words of a complete bucket, without a CA."""
    return dict(BUCKET)


@pytest.fixture
def secret_text() -> str:
    """A word that no message may hold."""
    return SECRET_TEXT


@pytest.fixture
def manifest() -> Callable[[str], str]:
    """The text of a manifest by its file name."""
    return lambda name: (MANIFESTS / name).read_text(encoding="utf-8")


@pytest.fixture
def ca_pem() -> str:
    """A real certificate, self-signed, whose key was thrown away."""
    return (MANIFESTS / "ca.pem").read_text(encoding="utf-8")


@pytest.fixture
def manifests_dir(tmp_path) -> Path:
    """A directory with a device, its external storage and the workload os-stats."""
    directory = tmp_path / "manifests"
    directory.mkdir()
    for name in ("edgedevice.yaml", "os-stats.yaml", "s3configmap.yaml", "s3secret.yaml", "pod.yaml"):
        shutil.copy(MANIFESTS / name, directory)
    return directory


@pytest.fixture
def make_settings() -> Callable[..., Settings]:
    """Settings by field name, checked as if they came from outside."""
    return lambda **given: Settings.model_validate(given)


@pytest.fixture
def refusal() -> Callable[..., ConfigError]:
    """Calls something and returns the ConfigError that it must raise."""

    def call(deed: Callable[..., object], *args: object, **kwargs: object) -> ConfigError:
        with pytest.raises(ConfigError) as caught:
            deed(*args, **kwargs)
        assert "\n" not in str(caught.value)
        assert SECRET_TEXT not in str(caught.value)
        return caught.value

    return call


@pytest.fixture
async def followed() -> AsyncIterator[Callable[..., AsyncIterator[object]]]:
    """A source's stream of snapshots, or any other, that is closed when the test ends."""
    streams: list[AsyncGenerator[object]] = []

    def open_stream(source: Any) -> AsyncIterator[object]:
        stream: AsyncGenerator[object] = source.changes() if hasattr(source, "changes") else source
        streams.append(stream)
        return stream

    yield open_stream
    for stream in streams:
        await stream.aclose()


@pytest.fixture
def next_of() -> Callable[..., Awaitable[object]]:
    """The next item of a stream, within a deadline."""

    async def wait(stream: AsyncIterator[object], deadline_s: float = 10) -> object:
        async with asyncio.timeout(deadline_s):
            return await anext(stream)

    return wait


@pytest.fixture(scope="module")
def authority():
    return issue("authority", is_authority=True)


@pytest.fixture
def identity(tmp_path, authority):
    """The device's certificate on disk, and the authority it trusts."""
    return write_identity(tmp_path / "pki", authority)


@pytest.fixture
def api(start_stub, authority, tmp_path, reply):
    """An Edge API that wants to see a certificate of the authority."""
    stub = start_stub(server_context(tmp_path, authority))
    stub.default = EdgeApi(reply)
    return stub
