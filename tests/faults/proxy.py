"""A fault proxy: stands before a real S3 server, passes requests on, and does what a test told it to some of them.

    rule = proxy.on("put", lost(), key="sent/*", nth=2, times=1)

Faults are in `wire`. The server's answers are read whole before they are passed on.
"""

import contextlib
import fnmatch
import hashlib
import http.client
import random
import re
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.faults.wire import Answer, Call, Fate, Fault, passed, refused

_CHUNK = 64 * 1024


@dataclass
class Rule:
    """When a fault strikes. Counts from the moment that it was armed."""

    operations: Sequence[str]
    fault: Fault
    key: str
    nth: int
    times: int | None
    body_bytes: int | None = None
    where: Callable[[Call], bool] | None = None
    seen: int = 0
    hits: int = 0

    def strikes(self, call: Call) -> bool:
        """Whether it is this call's; counts it."""
        is_meant = (not self.operations or call.operation in self.operations) and fnmatch.fnmatchcase(
            call.key, self.key
        )
        if not is_meant or (self.where is not None and not self.where(call)):
            return False
        self.seen += 1
        if self.seen < self.nth or (self.times is not None and self.hits >= self.times):
            return False
        self.hits += 1
        return True


@dataclass
class Chaos:
    """Faults drawn at random, the same for the same seed and order of calls."""

    dice: random.Random
    share: float
    kinds: Mapping[str, Fault]
    hits: Counter[str] = field(default_factory=Counter)

    def draw(self) -> str:
        """A kind, or '' for no fault."""
        if self.dice.random() >= self.share:
            return ""
        kind = self.dice.choice(sorted(self.kinds))
        self.hits[kind] += 1
        return kind


class Proxy:
    """A running fault proxy. Everything may be called from any thread."""

    def __init__(self, upstream: str, *, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        """`port`: where it listens, such as where another one did that was stopped; by default anywhere."""
        parts = urlsplit(upstream)
        self.upstream = (parts.hostname or "", parts.port or 80)
        self.calls: list[Call] = []
        """Every request, in the order in which its last byte came; without bodies."""
        self.fates: list[Fate] = []
        """What became of each of them, in the same order."""
        self.bytes_s = 0.0
        """What the link carries in each direction; 0 is no limit."""
        self.delay_s = 0.0
        """Before each answer."""
        self.stopping = threading.Event()
        self._rules: list[Rule] = []
        self._chaos: Chaos | None = None
        self._lock = threading.Lock()
        self._link = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._server = _Server(("127.0.0.1", port), _handler(self))
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        scheme = "https" if tls else "http"
        self.endpoint = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="fault proxy")
        self._thread.start()

    def stop(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._thread.join()
        self.sever()
        self._server.server_close()

    def sever(self) -> None:
        """Reset every connection that is open."""
        with self._lock:
            for one in self._sockets:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def on(
        self,
        operations: str,
        fault: Fault,
        *,
        key: str = "*",
        nth: int = 1,
        times: int | None = 1,
        where: Callable[[Call], bool] | None = None,
    ) -> Rule:
        """Arm a fault for operations ("put part", "" is any) on keys that match a glob, from the nth, `times` often.

        Of several rules for a call the one that was armed first strikes.
        """
        return self._arm(Rule(operations.split(), fault, key, nth, times, where=where))

    def reset_upload(self, at: int, *, operations: str = "put part", key: str = "*", times: int | None = 1) -> Rule:
        """Reset the connection once `at` bytes of a request's body came."""
        return self._arm(Rule(operations.split(), refused(), key, 1, times, body_bytes=at))

    def chaos(self, seed: int, share: float, kinds: Mapping[str, Fault]) -> Chaos:
        """From now on a share of the calls that no rule struck suffers one of `kinds`."""
        self._chaos = Chaos(random.Random(seed), share, kinds)
        return self._chaos

    def calm(self) -> None:
        """No faults any more."""
        with self._lock:
            self._rules.clear()
            self._chaos = None
        self.bytes_s = self.delay_s = 0.0

    def seen(self, *operations: str, key: str = "*") -> list[Call]:
        """The requests so far, of these operations or of any."""
        with self._lock:
            calls = list(self.calls)
        return [
            call
            for call in calls
            if (not operations or call.operation in operations) and fnmatch.fnmatchcase(call.key, key)
        ]

    def _arm(self, rule: Rule) -> Rule:
        with self._lock:
            self._rules.append(rule)
        return rule

    def rule_for(self, call: Call) -> Rule | None:
        """The rule that strikes a call whose body has not come yet."""
        with self._lock:
            return next((rule for rule in self._rules if rule.strikes(call)), None)

    def record(self, call: Call, rule: Rule | None) -> tuple[Fate, Fault]:
        """Remember a call; its fate, and the fault that it meets: the rule's, or what chaos has for it."""
        with self._lock:
            fate = Fate(replace(call, body=b""), fault="rule" if rule else "")
            self.calls.append(fate.call)
            self.fates.append(fate)
            drawn = self._chaos.draw() if self._chaos else ""  # for each call, so that the order stays the seed's
            if rule or not (self._chaos and drawn):
                return fate, rule.fault if rule else passed()
            fate.fault = drawn
            return fate, self._chaos.kinds[drawn]

    def met(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets.add(connection)

    def left(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets.discard(connection)

    def carry(self, length: int) -> None:
        """Take the time that so many bytes need on the link."""
        if self.bytes_s:
            with self._link:
                self.stopping.wait(length / self.bytes_s)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are what this is about."""


class _Reset(Exception):
    """A way to end a connection."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: Proxy

    def setup(self) -> None:
        super().setup()
        self.proxy.met(self.connection)
        self._upstream = http.client.HTTPConnection(*self.proxy.upstream, timeout=60)

    def finish(self) -> None:
        self._upstream.close()
        self.proxy.left(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *_: object) -> None: ...

    def serve(self) -> None:
        try:
            self._exchange()
        except _Reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
        except OSError:
            self.close_connection = True

    def _exchange(self) -> None:
        call = _call(self.command, self.path, {name.lower(): text for name, text in self.headers.items()})
        rule = self.proxy.rule_for(call)
        body = self._body(int(call.headers.get("content-length", 0)), rule.body_bytes if rule else None)
        call = replace(call, body=body, length=len(body), digest=hashlib.md5(body).hexdigest(), at_s=time.monotonic())
        fate, fault = self.proxy.record(call, rule)
        if rule and rule.body_bytes is not None:
            fate.told = "reset"
            raise _Reset

        def forward() -> Answer:
            answer = self._forward(call)
            fate.done_s.append(time.monotonic())
            return answer

        answer = fault(call, forward)
        self.proxy.stopping.wait(self.proxy.delay_s)
        if answer is None:
            fate.told = "reset"
            raise _Reset
        self._tell(answer)
        fate.told = str(answer.status)

    def _body(self, length: int, at_most: int | None) -> bytes:
        wanted = length if at_most is None else min(length, at_most)
        body = bytearray()
        while len(body) < wanted:
            chunk = self.rfile.read(min(_CHUNK, wanted - len(body)))
            if not chunk:
                raise ConnectionResetError
            self.proxy.carry(len(chunk))
            body += chunk
        return bytes(body)

    def _forward(self, call: Call) -> Answer:
        for attempt in (1, 2):
            try:
                self._upstream.putrequest(call.method, call.target, skip_host=True, skip_accept_encoding=True)
                for name, text in self.headers.items():
                    if name.lower() not in {"connection", "expect"}:
                        self._upstream.putheader(name, text)
                self._upstream.endheaders(call.body or None)
                reply = self._upstream.getresponse()
                headers = {n: t for n, t in reply.getheaders() if n.lower() not in {"connection", "transfer-encoding"}}
                return Answer(reply.status, headers, reply.read())
            except (http.client.HTTPException, ConnectionError):
                self._upstream.close()
                if attempt == 2:
                    raise ConnectionResetError from None
        raise AssertionError

    def _tell(self, answer: Answer) -> None:
        is_head = self.command == "HEAD"
        given = {name.lower(): text for name, text in answer.headers.items()}
        length = given.get("content-length") if is_head else str(len(answer.body))
        lines = [f"HTTP/1.1 {answer.status} Proxied", f"Content-Length: {length or 0}"]
        lines += [f"{name}: {text}" for name, text in answer.headers.items() if name.lower() != "content-length"]
        self.wfile.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        body = b"" if is_head else answer.body
        if answer.cut_at is not None:
            self._send(body[: answer.cut_at], answer.drip_bytes_s)
            raise _Reset
        half = len(body) // 2 if answer.stall_s else len(body)
        self._send(body[:half], answer.drip_bytes_s)
        if answer.stall_s:
            self.proxy.stopping.wait(answer.stall_s)
            self._send(body[half:], answer.drip_bytes_s)

    def _send(self, content: bytes, drip_bytes_s: float) -> None:
        step = 1 if drip_bytes_s else _CHUNK
        for begin in range(0, len(content), step):
            if drip_bytes_s and self.proxy.stopping.wait(step / drip_bytes_s):
                raise _Reset
            self.proxy.carry(step)
            self.wfile.write(content[begin : begin + step])
            self.wfile.flush()


def _handler(proxy: Proxy) -> type[_Handler]:
    verbs = {f"do_{verb}": _Handler.serve for verb in ("GET", "PUT", "POST", "HEAD", "DELETE")}
    return type("Handler", (_Handler,), {"proxy": proxy, **verbs})


_BY_QUERY = (
    ("GET", "uploadId", "parts"),
    ("GET", "uploads", "uploads"),
    ("POST", "uploads", "create"),
    ("PUT", "partNumber", "part"),
    ("POST", "uploadId", "complete"),
    ("DELETE", "uploadId", "abort"),
)
_BY_METHOD = {"PUT": "put", "GET": "get", "HEAD": "head", "DELETE": "delete"}


def _call(method: str, target: str, headers: Mapping[str, str]) -> Call:
    path, _, text = target.partition("?")
    query = dict(parse_qsl(text, keep_blank_values=True))
    bucket, _, key = re.sub("^/", "", path).partition("/")
    named = next((name for verb, word, name in _BY_QUERY if verb == method and word in query), None)
    plain = _BY_METHOD.get(method, "other") if key else ("list" if method == "GET" else "other")
    return Call(named or plain, method, bucket, unquote(key), query, headers, target)
