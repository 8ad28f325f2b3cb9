"""Connections: accepted, bounded in number, one request each; what answers it is someone else's.

One thread waits for connections, and each connection has a thread while it lasts: while nobody asks, nothing wakes up.
A stream lasts, so it gives its place back and takes one of those for streams: whoever reads one is in nobody's way.
Daemons all, so none keeps the process from ending. Never: what a request or an answer says, the event loop.
"""

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable

from replicator.observe import logs
from replicator.observe.request import Answer, Refused, Request, Stream, send, send_stream

log = logs.get("http")

MAX_CONNECTIONS = 16
MAX_STREAMS = 8
"""Beside the connections. One stream too many gets its first piece only, and its reader asks again."""
_PATIENCE_S = 0.25
"""Requests take milliseconds: one connection too many ends the oldest of this age, so that the slow shut nobody out."""
BACKLOG = 64
_CLOSE_TIMEOUT_S = 0.5
_PAUSE_S = 0.1
"""After a connection that could not be taken, such as without a free descriptor: it would be tried without a break."""


Respond = Callable[[Request], Answer | Stream]


class Listener:
    """Answers what comes in on `sockets`, which it owns from now on, by `respond`: called from any of its threads."""

    def __init__(self, sockets: Iterable[socket.socket], respond: Respond) -> None:
        self._sockets = tuple(sockets)
        self._respond = respond
        self._open: dict[socket.socket, tuple[threading.Thread, float]] = {}
        """Each with its thread and since when, from the oldest on."""
        self._streams: dict[socket.socket, threading.Thread] = {}
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
            if stream := _answer(connection, self._respond):
                self._pour(connection, stream)
        except (OSError, Refused):  # the client went away, or reads too slowly; a stream that is refused ends
            pass
        except Exception as error:  # noqa: BLE001 -- one stream must not stop the others
            log.error("request failed unexpectedly", error=error)
        finally:
            self._forget(connection)

    def _pour(self, connection: socket.socket, stream: Stream) -> None:
        with self._lock:
            has_place = len(self._streams) < MAX_STREAMS and not self._is_closing.is_set()
            if has_place:
                self._streams[connection], _ = self._open.pop(connection)
                self._slots.release()
        if has_place:
            send_stream(connection, stream)
        else:
            send(connection, Answer(200, next(stream.pieces), stream.content_type), has_body=True)

    def _forget(self, connection: socket.socket) -> None:
        with self._lock:  # nobody cuts what is closed: its descriptor may be another's by then
            if self._streams.pop(connection, None) is None:
                del self._open[connection]
                self._slots.release()
            connection.close()

    def _cut(self, number: int | None = None) -> list[threading.Thread]:
        """End the oldest connections, by default all and every stream; gives their threads, which last a little yet."""
        with self._lock:
            ending = {one: thread for one, (thread, _) in list(self._open.items())[:number]}
            if number is None:
                ending |= self._streams
            for connection in ending:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        return [thread for thread in ending.values() if thread.ident]


def _answer(connection: socket.socket, respond: Respond) -> Stream | None:
    """Read one request, answer it, let the client read; or give the stream that it is to be answered with.

    Raises OSError when the client is gone or too slow.
    """
    has_body = True
    try:
        request = Request(connection)
        has_body = request.method != "HEAD"
        answer = _answer_to(request, respond)
    except Refused as refusal:
        answer = refusal.answer
    if isinstance(answer, Stream):
        if has_body:
            return answer
        answer = Answer(200, content_type=answer.content_type)
    send(connection, answer, has_body=has_body)
    return None


def _answer_to(request: Request, respond: Respond) -> Answer | Stream:
    try:
        return respond(request)
    except Refused:
        raise
    except Exception as error:  # noqa: BLE001 -- one request must not stop the others
        log.error("request failed unexpectedly", error=error)
        return Answer(500, b"an unexpected error, which the log tells\n")
