"""Connections: accepted, bounded in number, one request each; what answers it is someone else's.

One thread waits for connections, and each connection has a thread while it lasts: while nobody asks, nothing wakes up.
Daemons all, so none keeps the process from ending. Never: what a request or an answer says, the event loop.
"""

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable

from replicator.observe import logs
from replicator.observe.request import Answer, Refused, Request, send

log = logs.get("http")

MAX_CONNECTIONS = 16
_PATIENCE_S = 0.25
"""Requests take milliseconds: one connection too many ends the oldest of this age, so that the slow shut nobody out."""
BACKLOG = 64
_CLOSE_TIMEOUT_S = 0.5
_PAUSE_S = 0.1
"""After a connection that could not be taken, such as without a free descriptor: it would be tried without a break."""


class Listener:
    """Answers what comes in on `sockets`, which it owns from now on, by `respond`: called from any of its threads."""

    def __init__(self, sockets: Iterable[socket.socket], respond: Callable[[Request], Answer]) -> None:
        self._sockets = tuple(sockets)
        self._respond = respond
        self._open: dict[socket.socket, tuple[threading.Thread, float]] = {}
        """Each with its thread and since when, from the oldest on."""
        self._lock = threading.Lock()
        self._slots = threading.Semaphore(MAX_CONNECTIONS)
        self._is_closing = threading.Event()
        self._alarm, self._bell = socket.socketpair()
        self._acceptor = threading.Thread(target=self._accept, name="http", daemon=True)
        self._acceptor.start()

    def close(self) -> None:
        """Stop listening and cut what is still open, within a second."""
        deadline_s = time.monotonic() + _CLOSE_TIMEOUT_S
        self._is_closing.set()
        self._bell.close()
        self._cut()  # whoever waits for a slot gets one
        self._acceptor.join(_CLOSE_TIMEOUT_S)
        for thread in self._cut():
            thread.join(max(0.0, deadline_s - time.monotonic()))
        for one in (*self._sockets, self._alarm):
            one.close()

    def _accept(self) -> None:
        with selectors.DefaultSelector() as events:
            for one in (*self._sockets, self._alarm):
                one.settimeout(0)
                events.register(one, selectors.EVENT_READ)
            while not self._is_closing.is_set():
                for key, _ in events.select():
                    if key.fileobj is not self._alarm and isinstance(key.fileobj, socket.socket):
                        self._admit(key.fileobj)

    def _admit(self, listening: socket.socket) -> None:
        if not self._slots.acquire(blocking=False):
            self._make_room()
        try:
            connection, _ = listening.accept()
        except OSError:
            self._slots.release()
            self._is_closing.wait(_PAUSE_S)
            return
        thread = threading.Thread(target=self._serve, args=(connection,), name="http request", daemon=True)
        with self._lock:
            self._open[connection] = thread, time.monotonic()
        try:
            thread.start()
        except RuntimeError:  # this machine has no thread to spare
            self._forget(connection)
            self._is_closing.wait(_PAUSE_S)

    def _make_room(self) -> None:
        with self._lock:
            since_s = next((since_s for _, since_s in self._open.values()), 0.0)
        left_s = since_s + _PATIENCE_S - time.monotonic()
        if left_s <= 0 or not self._slots.acquire(timeout=left_s):
            self._cut(1)
            self._slots.acquire()

    def _serve(self, connection: socket.socket) -> None:
        try:
            _answer(connection, self._respond)
        except OSError:  # the client went away, or reads too slowly
            pass
        finally:
            self._forget(connection)

    def _forget(self, connection: socket.socket) -> None:
        with self._lock:  # nobody cuts what is closed: its descriptor may be another's by then
            del self._open[connection]
            connection.close()
        self._slots.release()

    def _cut(self, number: int | None = None) -> list[threading.Thread]:
        """End the oldest connections, by default all; gives their threads, which may last a little longer."""
        with self._lock:
            oldest = list(self._open.items())[:number]
            for connection, _ in oldest:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        return [thread for _, (thread, _) in oldest if thread.ident]


def _answer(connection: socket.socket, respond: Callable[[Request], Answer]) -> None:
    """Read one request, answer it, let the client read. Raises OSError when it is gone or too slow."""
    has_body = True
    try:
        request = Request(connection)
        has_body = request.method != "HEAD"
        answer = _answer_to(request, respond)
    except Refused as refusal:
        answer = refusal.answer
    send(connection, answer, has_body=has_body)


def _answer_to(request: Request, respond: Callable[[Request], Answer]) -> Answer:
    try:
        return respond(request)
    except Refused:
        raise
    except Exception as error:  # noqa: BLE001 -- one request must not stop the others
        log.error("request failed unexpectedly", error=error)
        return Answer(500, b"an unexpected error, which the log tells\n")
