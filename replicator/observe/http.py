"""The HTTP door: where it listens, on whose thread its answers are made, and how a running replicator is asked.

What is answered is computed on the event loop, whose state it shows; threads of `listener` only read and write. So a
loop that is stuck is told as such to whoever asks for health. Never: a second way in, a proxy, a redirect.
Source: getaddrinfo(3); Kubernetes' liveness probes.
"""

import asyncio
import contextlib
import errno
import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote_from_bytes

from replicator.errors import ConfigError, Unavailable
from replicator.observe.explanation import QUERY_BYTES, Explanation
from replicator.observe.explanation import from_json as explanation_from
from replicator.observe.listener import BACKLOG, Listener, Respond
from replicator.observe.metrics import Metrics
from replicator.observe.pages import Ask, Explain, Inbox, Pages, check_reads
from replicator.observe.request import Answer, Refused, Request
from replicator.observe.status import Snapshot, from_json

_T = TypeVar("_T")

_LOOP_TIMEOUT_S = 5.0
"""The event loop answers within milliseconds; a probe should hear that it does not before it gives up."""
_FETCH_TIMEOUT_S = 5.0
_STATUS_BYTES = 64 * 2**20
_HIGHEST_PORT = 65535
_NOT_HERE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


class Server:
    """A running server; `serve` makes it."""

    def __init__(self, listener: Listener, address: str) -> None:
        self._listener = listener
        self.address = address
        """host:port as bound: the real port where 0 was asked for."""

    async def close(self) -> None:
        """Stop listening and cut what is still open, within a second."""
        await asyncio.to_thread(self._listener.close)  # the loop goes on: some may wait for its answer


async def serve(
    listen: str,
    *,
    snapshot: Callable[[], Snapshot],
    metrics: Metrics,
    complaints: Callable[[], Sequence[str]],
    inbox: Inbox | None = None,
    explain: Explain | None = None,
) -> Server:
    """Answer at `listen` (host:port) until closed. `complaints` says what in this process is not alive.

    All are called on this event loop only. Without `inbox` there is no /notify, without `explain` no /explain.
    Raises ConfigError when `listen` is malformed or cannot be bound.
    """

    def respond(ask: Ask) -> Respond:
        pages = Pages(ask=ask, snapshot=snapshot, metrics=metrics, complaints=complaints, inbox=inbox, explain=explain)
        return pages.respond

    return await _open(listen, respond)


async def serve_pages(listen: str, pages: Mapping[str, Callable[[], Answer]]) -> Server:
    """Answer at `listen` (host:port) with these pages by path, made on this event loop. Raises ConfigError."""

    def respond(ask: Ask) -> Respond:
        def answer(request: Request) -> Answer:
            if request.path not in pages:
                raise Refused(404, "there is no such page")
            check_reads(request)
            return ask(pages[request.path])

        return answer

    return await _open(listen, respond)


async def _open(listen: str, respond: Callable[[Ask], Respond]) -> Server:
    """Listen, and answer by what `respond` makes: it is given how to have something computed on this event loop."""
    host, port = _split(listen)
    loop = asyncio.get_running_loop()

    def ask(deed: Callable[[], _T]) -> _T:
        async def answer() -> _T:
            return deed()

        asked = asyncio.run_coroutine_threadsafe(answer(), loop)
        try:
            return asked.result(_LOOP_TIMEOUT_S)
        except TimeoutError:
            asked.cancel()
            raise Refused(503, f"the event loop has not answered for {_LOOP_TIMEOUT_S:g} s") from None

    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        sockets = _bind([(family, address) for family, _, _, _, address in found])
    except (OSError, UnicodeError) as exc:
        number = getattr(exc, "errno", None) or 0  # below 0: the resolver's, whose own words are good
        problem = os.strerror(number) if number > 0 else getattr(exc, "strerror", None) or type(exc).__name__
        raise _listen_error(f"cannot listen on {listen!r}: {problem}") from exc
    bound_host, bound_port = sockets[0].getsockname()[:2]
    address = f"[{bound_host}]:{bound_port}" if ":" in bound_host else f"{bound_host}:{bound_port}"
    return Server(Listener(sockets, respond(ask)), address)


def _bind(addresses: Sequence[tuple[socket.AddressFamily, tuple[Any, ...]]]) -> list[socket.socket]:
    """A socket for each address of a name, but for those that this machine does not have. Raises OSError."""
    with contextlib.ExitStack() as undo:
        sockets: list[socket.socket] = []
        absent: OSError | None = None
        for family, address in addresses:
            try:
                bound = socket.create_server(address, family=family, backlog=BACKLOG)
            except OSError as exc:
                if exc.errno not in _NOT_HERE:
                    raise
                absent = exc
            else:
                sockets.append(undo.enter_context(bound))
        if absent and not sockets:
            raise absent
        undo.pop_all()
        return sockets


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


async def fetch_status(listen: str) -> Snapshot:
    """Ask the replicator that serves at `listen` for its status. Raises Unavailable, or ConfigError for `listen`."""
    return await _fetch(listen, "/status", from_json, "a status")


async def fetch_explanation(listen: str, asked: str) -> Explanation:
    """Ask the replicator that serves at `listen` where `asked` stands.

    Raises Unavailable, or ConfigError for `listen` and for a question that is empty or too long.
    """
    query = f"path={quote_from_bytes(os.fsencode(asked))}"
    if not asked or len(query) > QUERY_BYTES:
        problem = "is empty" if not asked else f"is longer than {QUERY_BYTES} bytes as a query"
        raise ConfigError(where="PATH", problem=problem, fix="Give a path on the device or an object key")
    return await _fetch(listen, f"/explain?{query}", explanation_from, "an explanation")


async def _fetch(listen: str, page: str, read: Callable[[object], _T], noun: str) -> _T:
    if not listen:
        fix = "Set http_listen (REPLICATOR_HTTP_LISTEN) to the address of the running replicator; empty is no server"
        raise ConfigError(where="http_listen", problem="is empty, so there is nobody to ask", fix=fix)
    host, port = _split(listen)
    url = f"http://{listen}{page.partition('?')[0]}"
    try:
        async with asyncio.timeout(_FETCH_TIMEOUT_S):
            return read(json.loads(await _get(host, port, page.encode())))
    except (OSError, UnicodeError) as exc:  # a timeout is an OSError; a name may not be one
        raise _no_answer(url, f"gave no answer{_because(exc)}") from exc
    except ValueError as exc:
        raise _no_answer(url, f"answered something else than {noun} of this version") from exc


def _because(error: Exception) -> str:
    match error:
        case ConnectionRefusedError():
            return ", nobody listens there"
        case TimeoutError():
            return f" within {_FETCH_TIMEOUT_S:g} s"
        case socket.gaierror() | UnicodeError():
            return ", there is no such host"
    return ""


async def _get(host: str, port: int, path: bytes) -> bytes:
    """The body of a 200, from exactly this address. Raises OSError, ValueError for anything else than a 200."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        # HTTP/1.0: the body is not in chunks, and ends with the connection.
        writer.write(b"GET %s HTTP/1.0\r\n\r\n" % path)
        await reader.readexactly(_STATUS_BYTES)
    except asyncio.IncompleteReadError as whole:
        head, _, body = whole.partial.partition(b"\r\n\r\n")
        if head.split(b" ")[1:2] != [b"200"]:
            raise ValueError("not a 200") from None
        return body
    finally:
        writer.transport.abort()  # nothing of ours is left to send
    raise ValueError("too much")


def _no_answer(url: str, problem: str) -> Unavailable:
    return Unavailable(
        f"{url} {problem}: is replicator running? Start it with `replicator run`, or set http_listen to its address"
    )
