"""The listening sockets: TLS for devices, plain HTTP for probes and Prometheus.

Owns: connections, bounded in number; certificate files, read again when they change; the end that loses no request.
A new certificate means a new TLS context beside the old one on the same socket, so what was refused before cannot come
in by a resumed session, and nobody who is connected notices.
"""

import asyncio
import contextlib
import socket
import ssl
from asyncio import sslproto
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

from aiohttp import web

from replicator.config.documents import stamps
from replicator.controlplane.edge_api.tls import Files
from replicator.controlplane.settings import EdgeApiSettings
from replicator.errors import ConfigError
from replicator.observe import logs
from replicator.observe.edge_metrics import EdgeMetrics

_BACKLOG = 1024
_HANDSHAKE_S = 10.0
_FINISH_S = 10.0
"""For requests that are under way at the end."""
_TLS_BUFFER_BYTES = 32 * 1024
"""A connection's own, two records of TLS. asyncio takes 256 KiB, which is most of what an idle device would cost."""
LOOKED_AT_S = 5.0
"""Between looks at the certificate files."""

_log = logs.get("edge-api")


class Door:
    """The TLS socket."""

    def __init__(self, app: web.Application, settings: EdgeApiSettings, metrics: EdgeMetrics) -> None:
        self._settings, self._metrics = settings, metrics
        sslproto.SSLProtocol.max_size = _TLS_BUFFER_BYTES
        self._files = Files(settings.edge_cert, settings.edge_key, settings.edge_ca, settings.edge_min_tls)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            keepalive_timeout=settings.edge_keepalive_s,
            shutdown_timeout=_FINISH_S,
        )
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._mark: object = None

    async def open(self) -> int:
        """The port. Raises ConfigError for bad files, or an address that cannot be had."""
        mark = stamps(self._files.all)
        context = self._files.context()
        await self._runner.setup()
        self._socket = bound(self._settings.edge_listen)
        await self._listen(context, mark)
        return int(self._socket.getsockname()[1])

    async def watch_files(self, *, pause_s: float = LOOKED_AT_S) -> None:
        """For ever: a changed certificate is used for the next connection; a bad one is told, and the old one stays."""
        while True:
            await asyncio.sleep(pause_s)
            if (mark := stamps(self._files.all)) == self._mark:
                continue
            try:
                await self._listen(self._files.context(), mark)
                _log.info("certificate renewed", path=str(self._files.certificate))
            except ConfigError as exc:
                self._mark = mark
                _log.error("certificate not renewed", path=str(self._files.certificate), error=exc)

    async def close(self) -> None:
        """Take no more connections, finish what is under way, close the rest."""
        if self._server:
            self._server.close()
        if self._socket:
            self._socket.close()
        await self._runner.cleanup()

    async def _listen(self, context: ssl.SSLContext, mark: object) -> None:
        assert self._socket  # noqa: S101 - `open` has bound it
        old = self._server
        self._server = await asyncio.get_running_loop().create_server(
            self._protocol,
            sock=self._socket.dup(),
            ssl=context,
            backlog=_BACKLOG,
            ssl_handshake_timeout=_HANDSHAKE_S,
            ssl_shutdown_timeout=_FINISH_S,
        )
        self._mark = mark
        if old:
            old.close()

    def _protocol(self) -> asyncio.Protocol:
        server = cast("web.Server", self._runner.server)
        self._metrics.accepted.inc()
        if len(server.connections) >= self._settings.edge_connections:
            self._metrics.turned_away.inc()
            return _Full()
        return _Counted(server(), self._metrics)


class _Full(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).abort()


class _Counted(asyncio.Protocol):
    """Hands everything on; knows when TLS has let somebody in, and when he left."""

    def __init__(self, inner: web.RequestHandler, metrics: EdgeMetrics) -> None:
        self._inner, self._metrics = inner, metrics
        self.data_received = inner.data_received  # type: ignore[method-assign]
        self.eof_received = inner.eof_received  # type: ignore[method-assign]
        self.pause_writing = inner.pause_writing  # type: ignore[method-assign]
        self.resume_writing = inner.resume_writing  # type: ignore[method-assign]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._metrics.established.inc()
        self._metrics.connections.inc()
        self._inner.connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._metrics.connections.dec()
        self._inner.connection_lost(exc)


def bound(listen: str) -> socket.socket:
    """A listening socket at host:port. Raises ConfigError."""
    if not listen:
        raise ConfigError(where="edge_listen", problem="is empty", fix="Devices need an address: host:port")
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, int(port)), family=family, backlog=_BACKLOG)
    except OSError as exc:
        fix = "Choose an address of this machine and a port that is free"
        raise ConfigError(
            where=f"address {listen}", problem=f"cannot be listened on: {exc.strerror}", fix=fix
        ) from None


@contextlib.asynccontextmanager
async def observed(listen: str, *, is_ready: Callable[[], bool], render: Callable[[], bytes]) -> AsyncIterator[int]:
    """Answer probes and Prometheus meanwhile; the port. Nobody is answered where `listen` is empty."""
    if not listen:
        yield 0
        return

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ready\n") if is_ready() else web.Response(status=503, text="not ready\n")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=render(), headers={"Content-Type": EdgeMetrics.content_type})

    app = web.Application(client_max_size=1024)
    pages: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {
        "/healthz": healthz,
        "/readyz": readyz,
        "/metrics": metrics,
    }
    for path, page in pages.items():
        app.router.add_get(path, page)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, keepalive_timeout=60.0, shutdown_timeout=1.0)
    await runner.setup()
    sock = bound(listen)
    try:
        await web.SockSite(runner, sock).start()
        yield int(sock.getsockname()[1])
    finally:
        await runner.cleanup()
