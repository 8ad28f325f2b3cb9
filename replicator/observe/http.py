"""The HTTP door: /metrics, /healthz, /readyz, /status and a page with the verdict. Read-only.

Never: a debug handler, a file, a script, an access log. The health check answers for this process alone: a remote
fault never fails it, or an orchestrator would restart a replicator that only has to wait.
Source: Kubernetes' liveness and readiness probes; OWASP's list of HTTP security headers.
"""

import html
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence

import aiohttp
from aiohttp import web

from replicator.errors import ConfigError, Unavailable
from replicator.observe import words
from replicator.observe.metrics import Metrics
from replicator.observe.status import Snapshot, from_json, to_json, verdict

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "replicator",
    "X-Content-Type-Options": "nosniff",
}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>replicator</title></head><body>
<h1>replicator {version}</h1>
<p><strong>{verdict}</strong></p>
<ul>{links}</ul>
</body></html>
"""
_FETCH_TIMEOUT_S = 5.0
_SHUTDOWN_TIMEOUT_S = 1.0
"""Requests are answered within milliseconds; a client that reads slowly must not hold up the end."""
_HIGHEST_PORT = 65535


class Server:
    """A running server; `serve` makes it."""

    def __init__(self, runner: web.AppRunner) -> None:
        self._runner = runner
        host, port = runner.addresses[0][:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        """host:port as bound: the real port where 0 was asked for."""

    async def close(self) -> None:
        """Stop listening and cut what is still open."""
        await self._runner.cleanup()


async def serve(
    listen: str, *, snapshot: Callable[[], Snapshot], metrics: Metrics, complaints: Callable[[], Sequence[str]]
) -> Server:
    """Answer at `listen` (host:port) until closed. `complaints` says what in this process is not alive.

    Raises ConfigError when `listen` is malformed or cannot be bound.
    """
    host, port = _split(listen)
    app = web.Application()
    app.on_response_prepare.append(_set_headers)
    app.add_routes(_routes(snapshot, metrics, complaints))
    runner = web.AppRunner(
        app, access_log=None, handle_signals=False, keepalive_timeout=15, shutdown_timeout=_SHUTDOWN_TIMEOUT_S
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as exc:
        await runner.cleanup()
        raise _listen_error(f"cannot listen on {listen!r} ({exc.strerror or type(exc).__name__})") from exc
    return Server(runner)


def _split(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if is_bracketed else host
    if not bare or (":" in bare) != is_bracketed or not bare.isprintable() or set(bare) & set("/@?# "):
        raise _listen_error(f"{listen!r} is not host:port")
    if not (port.isascii() and port.isdecimal() and int(port) <= _HIGHEST_PORT):
        raise _listen_error(f"{listen!r} has no port from 0 to {_HIGHEST_PORT}")
    return bare, int(port)


def _listen_error(problem: str) -> ConfigError:
    fix = "Give an address of this machine and a free port, such as 127.0.0.1:9477 or [::1]:9477; empty for no server"
    return ConfigError(where="http_listen", problem=problem, fix=fix)


async def _set_headers(_request: web.BaseRequest, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


def _routes(
    snapshot: Callable[[], Snapshot], metrics: Metrics, complaints: Callable[[], Sequence[str]]
) -> Iterable[web.RouteDef]:
    async def show_metrics(_request: web.Request) -> web.Response:
        metrics.publish(snapshot())
        return web.Response(body=metrics.render(), headers={"Content-Type": metrics.content_type})

    async def show_health(_request: web.Request) -> web.Response:
        return _answer("alive", complaints())

    async def show_readiness(_request: web.Request) -> web.Response:
        now = snapshot()
        return _answer("ready", () if now.is_ready else now.not_ready or ("not ready",))

    async def show_status(_request: web.Request) -> web.Response:
        return web.json_response(to_json(snapshot()))

    pages: dict[str, Callable[[web.Request], Awaitable[web.Response]]] = {
        "/status": show_status,
        "/readyz": show_readiness,
        "/healthz": show_health,
        "/metrics": show_metrics,
    }

    async def show_page(_request: web.Request) -> web.Response:
        now = snapshot()
        links = "".join(f'<li><a href="{path}">{path}</a></li>' for path in pages)
        page = _PAGE.format(version=html.escape(now.version), verdict=html.escape(verdict(now)), links=links)
        return web.Response(text=page, content_type="text/html")

    return [web.get("/", show_page), *(web.get(path, handler) for path, handler in pages.items())]


def _answer(good: str, problems: Sequence[str]) -> web.Response:
    lines = [words.escape(problem) for problem in problems] or [good]
    return web.Response(text="\n".join(lines) + "\n", status=503 if problems else 200)


async def fetch_status(listen: str) -> Snapshot:
    """Ask the replicator that serves at `listen` for its status. Raises Unavailable, or ConfigError for `listen`."""
    _split(listen)
    url = f"http://{listen}/status"
    try:
        timeout = aiohttp.ClientTimeout(total=_FETCH_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url, allow_redirects=False) as reply:
            reply.raise_for_status()
            return from_json(json.loads(await reply.read()))
    except (aiohttp.ClientError, OSError) as exc:  # a timeout is an OSError
        raise _no_status(url, "gave no answer") from exc
    except ValueError as exc:
        raise _no_status(url, "answered something else than a status of this version") from exc


def _no_status(url: str, problem: str) -> Unavailable:
    return Unavailable(
        f"{url} {problem}: is replicator running? Start it with `replicator run`, or set http_listen to its address"
    )
