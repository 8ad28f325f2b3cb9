"""An Edge API server on a real TLS socket, with a fake cluster behind it."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from replicator.controlplane.edge_api.main import Serving, served
from replicator.controlplane.settings import EdgeApiSettings
from tests.apiserver.server import ApiServer
from tests.edge import Device, Pki, config_map, device, secret, workload
from tests.waiting import eventually


@pytest.fixture
def cluster() -> Iterator[ApiServer]:
    """A device with external storage and one workload."""
    with ApiServer() as server:
        for one in (device(), workload(), config_map(), secret()):
            server.put(one)
        yield server


@pytest.fixture
def pki(tmp_path) -> Pki:
    return Pki.at(tmp_path / "pki")


class Edge:
    """The server as tests see it."""

    def __init__(self, serving: Serving, pki: Pki) -> None:
        self.serving, self._pki = serving, pki
        self._devices: list[Device] = []

    def device(self, *args, **words) -> Device:
        one = self._pki.device(*args, **words)
        one.port = self.serving.port
        self._devices.append(one)
        return one

    def hang_up(self) -> None:
        for one in self._devices:
            one.hang_up()

    def metric(self, line: str) -> float:
        """The value of one series."""
        text = self.serving.render().decode()
        return next((float(one.rpartition(" ")[2]) for one in text.splitlines() if one.startswith(f"{line} ")), 0.0)


Start = Callable[..., Awaitable[Edge]]


@pytest.fixture
async def start(cluster, pki) -> AsyncIterator[Start]:
    """Start a server with these settings; it is complete when this returns, unless told not to wait."""
    async with contextlib.AsyncExitStack() as stack:

        async def begin(*, waits=True, **settings) -> Edge:
            words = {
                "edge_listen": "127.0.0.1:0",
                "http_listen": "127.0.0.1:0",
                "edge_rate": 1e6,
                "edge_reread_s": 0.05,
                "ca_secret": "",
                "sidecar_image": "replicator:1",
                **pki.settings(),
            }
            made = EdgeApiSettings.model_validate(words | settings)
            serving = await stack.enter_async_context(served(made, cluster.access(), files_pause_s=0.02))
            edge = Edge(serving, pki)
            stack.callback(edge.hang_up)
            if waits:
                await eventually(lambda: serving.is_ready)
            return edge

        yield begin


@pytest.fixture
async def edge(start) -> Edge:
    return await start()
