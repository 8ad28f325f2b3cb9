"""The Edge API over HTTP: who asks, for what, and how much of it.

Owns: routes and status codes. A device gets its own configuration and no other; it is told to go only when the API
server itself says that there is no such device, or that it is being deleted. Registration stays with Flotta's Edge API.
Source: Flotta's swagger; RFC 9110 for conditional requests.
"""

import asyncio
import datetime as dt
import json
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from replicator.cluster.client import Cluster
from replicator.cluster.kinds import Key, Object, version_of
from replicator.controlplane.edge_api import messages
from replicator.controlplane.edge_api.cache import Renderings
from replicator.controlplane.edge_api.heartbeat import Heartbeat, Heartbeats
from replicator.controlplane.edge_api.rate import Rates
from replicator.controlplane.edge_api.sidecars import Rules as Sidecars
from replicator.controlplane.edge_api.tls import REGISTRANT, Peer
from replicator.controlplane.edge_api.world import World
from replicator.controlplane.settings import EdgeApiSettings
from replicator.errors import ClusterError, ConfigError
from replicator.observe.edge_metrics import EdgeMetrics

BASE = "/api/flotta-management/v1"
MAX_BODY_BYTES = 1024 * 1024
_WHOLE_S = 30.0
"""A request from its headers to its answer, its body too."""
_NOT_OURS = "registration and enrolment are served by Flotta's own Edge API"

_PEER = web.RequestKey("peer", Peer)
"""What a request knows of who asks."""

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class EdgeApi:
    """The four routes, behind `app`."""

    def __init__(self, cluster: Cluster, world: World, settings: EdgeApiSettings, metrics: EdgeMetrics) -> None:
        self._world, self._metrics, self._namespace = world, metrics, settings.namespace
        world.devices.on_change = self._device_changed
        sidecars = Sidecars(settings.sidecar, settings.sidecar_image, settings.sidecar_volumes_dir)
        self._renderings = Renderings(world, settings.rules, sidecars, metrics)
        self.heartbeats = Heartbeats(cluster, metrics)
        self._rates = Rates(settings.edge_rate, settings.edge_burst)
        self.app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._guard])
        routes = (
            ("GET", "data_in", f"{BASE}/data/{{device}}/in", self._data_in),
            ("POST", "data_out", f"{BASE}/data/{{device}}/out", self._data_out),
            ("GET", "control_in", f"{BASE}/control/{{device}}/in", self._control_in),
            ("POST", "control_out", f"{BASE}/control/{{device}}/out", self._control_out),
        )
        for method, name, path, handler in routes:
            self.app.router.add_route(method, path, handler, name=name)

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Every request: bounded in time, counted, and what goes wrong told in one line."""
        resource = request.match_info.route.resource
        route = (resource.name if resource else None) or "other"
        answer: web.StreamResponse
        try:
            request[_PEER] = self._peer(request)
            async with asyncio.timeout(_WHOLE_S):
                answer = await handler(request)
        except web.HTTPException as exc:
            answer = _plain(exc.status, exc.text or exc.reason)
            answer.headers.update(
                {name: value for name, value in exc.headers.items() if name in ("Allow", "Retry-After")}
            )
        except TimeoutError:
            answer = _plain(408, "the request did not arrive in time")
            answer.force_close()
        except ConfigError as exc:
            answer = _plain(500, str(exc))
        except ClusterError:
            answer = _plain(503, "the cluster cannot be asked", **{"Retry-After": "10"})
        self._metrics.requests.labels(route, str(answer.status)).inc()
        return answer

    async def _data_in(self, request: web.Request) -> web.StreamResponse:
        key = self._admitted(request)
        device = await self._device(key)
        if device is None:
            raise web.HTTPNotFound(text="no such device")
        rendering = await self._renderings.of(device)
        headers = {"ETag": rendering.etag, "Cache-Control": "no-store"}
        if _has_it(request, rendering.etag):
            return web.Response(status=304, headers=headers)
        body = rendering.message(version=version_of(device), message_id=str(uuid.uuid4()), sent=_now())
        return web.Response(body=body, content_type="application/json", headers=headers)

    async def _control_in(self, request: web.Request) -> web.StreamResponse:
        key = self._admitted(request)
        device = await self._device(key)
        if device is None or device["metadata"].get("deletionTimestamp"):
            body = messages.disconnect(message_id=str(uuid.uuid4()), sent=_now())
            return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-store"})
        return web.Response(headers={"Cache-Control": "no-store"})

    async def _data_out(self, request: web.Request) -> web.StreamResponse:
        if request[_PEER].name == REGISTRANT:
            raise web.HTTPBadRequest(text=_NOT_OURS)
        key = self._admitted(request)
        message = _message(await request.read())
        directive = message.get("directive")
        if directive in ("enrolment", "registration"):
            raise web.HTTPBadRequest(text=_NOT_OURS)
        if directive != "heartbeat":
            raise web.HTTPBadRequest(text="this directive is not known here")
        try:
            heartbeat = Heartbeat.of(message.get("content"))
        except ValueError as exc:
            self._metrics.heartbeats.labels("refused").inc()
            raise web.HTTPBadRequest(text=str(exc)) from None
        device = await self._device(key)
        if device is None and not heartbeat.is_drained:
            raise web.HTTPNotFound(text="no such device")
        # A device that is gone and has drained has told all, and nobody waits for it.
        if device is None or await self.heartbeats.take(device, heartbeat):
            return web.Response()
        return _plain(503, "the status cannot be written", **{"Retry-After": "10"})

    async def _control_out(self, request: web.Request) -> web.StreamResponse:
        self._admitted(request)
        await request.read()
        return web.Response()

    def _admitted(self, request: web.Request) -> Key:
        """The device that asks, if it asks for itself, and once we know enough to answer."""
        peer = request[_PEER]
        if request.match_info["device"].lower() != peer.name:
            raise web.HTTPForbidden(text="the certificate is another device's")
        if self._namespace not in ("", peer.namespace):
            raise web.HTTPForbidden(text="the certificate's namespace is not served here")
        if not self._world.is_complete:
            raise web.HTTPServiceUnavailable(text="the cluster is not known yet", headers={"Retry-After": "5"})
        return peer.namespace, peer.name

    def _peer(self, request: web.Request) -> Peer:
        """Whom the certificate names, if it still counts and he does not ask too often."""
        certificate = request.transport.get_extra_info("peercert") if request.transport else None
        peer = Peer.of(certificate) if certificate else None
        if peer is None:
            raise web.HTTPUnauthorized(text="the certificate names no device")
        if peer.expires_ts <= time.time():
            raise web.HTTPUnauthorized(text="the certificate has expired")
        wait_s = self._rates.take((peer.namespace, peer.name))
        if wait_s > 0:
            raise web.HTTPTooManyRequests(text="too many requests", headers={"Retry-After": str(int(wait_s) + 1)})
        return peer

    def _device_changed(self, key: Key, _: Object | None, new: Object | None) -> None:
        if new is None:
            self._renderings.forget(key)
            self.heartbeats.forget(key)

    async def _device(self, key: Key) -> Object | None:
        """None only when the API server was asked for this very device: a watch may be behind."""
        device = self._world.devices.objects.get(key)
        return device or await self._world.device(key)


def _has_it(request: web.Request, etag: str) -> bool:
    marks = [mark.strip().removeprefix("W/") for mark in request.headers.get("If-None-Match", "").split(",")]
    return etag in marks or "*" in marks


def _message(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise web.HTTPBadRequest(text="the body is not a message")
    return found


def _plain(status: int, text: str, **headers: str) -> web.Response:
    return web.Response(status=status, text=f"{text}\n", headers=headers)


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
