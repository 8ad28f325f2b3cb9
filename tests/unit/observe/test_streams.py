"""Answers without an end, over real sockets: who may have one, who loses it, and that they are in nobody's way."""

import asyncio
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from replicator.observe import http
from replicator.observe.listener import MAX_CONNECTIONS, MAX_STREAMS, Listener
from replicator.observe.metrics import Metrics
from replicator.observe.request import Answer, Refused, Request, Stream

TYPE = "text/event-stream"


def until(condition: Callable[[], object], within_s: float = 5) -> None:
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.005)


class Place:
    """A listener that answers /health at once and anything else by a stream of what `pieces` gives."""

    def __init__(self, pieces: Callable[[], Iterator[bytes]]) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        self.address = listening.getsockname()
        self.clients: list[socket.socket] = []

        def respond(request: Request) -> Answer | Stream:
            return Answer(200, b"alive\n") if request.path == "/health" else Stream(pieces(), TYPE)

        self.listener = Listener([listening], respond)

    def connect(self, text: bytes = b"") -> socket.socket:
        client = socket.create_connection(self.address, timeout=10)
        self.clients.append(client)
        client.sendall(text)
        return client

    def stream(self) -> socket.socket:
        """A stream whose first piece has come."""
        client = self.connect(b"GET /events HTTP/1.1\r\n\r\n")
        read_to(client, b"\r\n\r\n")
        read_to(client, b"\n")
        return client

    def ask(self, text: bytes = b"GET /health HTTP/1.1\r\n\r\n") -> bytes:
        client = self.connect(text)
        return b"".join(iter(lambda: client.recv(1000), b""))

    def streams(self) -> int:
        return len(self.listener._streams)

    def close(self) -> None:
        self.listener.close()
        for client in self.clients:
            client.close()


def read_to(client: socket.socket, end: bytes) -> bytes:
    text = b""
    while not text.endswith(end):
        piece = client.recv(1)
        assert piece, text
        text += piece
    return text


def counted() -> Iterator[bytes]:
    return (b"%d\n" % number for number in itertools.count())


def is_cut(client: socket.socket) -> bool:
    """Whether the server has ended it, whatever else it has sent."""
    client.setblocking(False)
    try:
        while client.recv(2**16):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        pass
    return True


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("replicator.observe.request._STREAM_PAUSE_S", 0.02)


@pytest.fixture
def place() -> Iterator[Callable[..., Place]]:
    places: list[Place] = []

    def make(pieces: Callable[[], Iterator[bytes]] = counted) -> Place:
        places.append(Place(pieces))
        return places[-1]

    yield make
    for one in places:
        one.close()


class TestReading:
    """What a reader gets."""

    def test_pieces_come_as_they_are_made(self, place):
        """A head without a length, then piece after piece; an empty one is nothing."""
        here = place(lambda: itertools.chain([b"a\n", b"", b"", b"b\n"], itertools.repeat(b"")))
        client = here.connect(b"GET /events HTTP/1.1\r\n\r\n")

        head = read_to(client, b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"Content-Type: text/event-stream\r\n" in head
        assert b"Cache-Control: no-store\r\n" in head
        assert b"Content-Length" not in head
        assert [read_to(client, b"\n") for _ in range(2)] == [b"a\n", b"b\n"]

    def test_head_is_answered_without_a_stream(self, place):
        """Whoever asks with HEAD gets its end, and nothing is made for it."""
        made = []

        def pieces() -> Iterator[bytes]:
            made.append(1)
            yield b"a\n"

        answer = place(pieces).ask(b"HEAD /events HTTP/1.1\r\n\r\n")

        assert made == []
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\n")

    @pytest.mark.parametrize("fault", [RuntimeError("no snapshot"), Refused(503, "the loop is stuck")], ids=repr)
    def test_fault_ends_its_stream_only(self, place, caplog, fault):
        """Ours is in the log; a refusal is nobody's fault. The reader asks again by itself."""

        def pieces() -> Iterator[bytes]:
            yield b"a\n"
            raise fault

        here = place(pieces)
        client = here.stream()
        until(lambda: is_cut(client))

        assert len(caplog.records) == isinstance(fault, RuntimeError)
        assert here.ask().endswith(b"alive\n")


class TestCrowds:
    """Streams beside everything else."""

    def test_probes_are_answered_while_every_stream_is_open(self, place):
        """Streams have places of their own, and a crowd of other connections does not end them."""
        here = place()
        streams = [here.stream() for _ in range(MAX_STREAMS)]
        for _ in range(2 * MAX_CONNECTIONS):
            assert here.ask().endswith(b"alive\n")
        silent = [here.connect(b"GET") for _ in range(MAX_CONNECTIONS)]
        until(lambda: len(here.listener._open) == MAX_CONNECTIONS)

        assert here.ask().endswith(b"alive\n")

        assert not any(is_cut(one) for one in streams)
        assert sum(is_cut(one) for one in silent) == 1

    def test_one_stream_too_many_gets_a_piece_and_its_end(self, place):
        """Its reader has the present, and asks again; those who have a stream keep it."""
        here = place()
        streams = [here.stream() for _ in range(MAX_STREAMS)]

        answer = here.ask(b"GET /events HTTP/1.1\r\n\r\n")

        assert b"Content-Length: 2\r\n" in answer
        assert answer.endswith(b"\r\n\r\n0\n")
        assert here.streams() == MAX_STREAMS
        assert not any(is_cut(one) for one in streams)

    def test_place_of_a_reader_that_left_is_free(self, place):
        """Closing a page gives its stream to the next one at once."""
        here = place()
        for _ in range(3 * MAX_STREAMS):
            here.stream().close()
            until(lambda: here.streams() == 0)

        assert here.stream().recv(1)

    def test_reader_that_drips_is_dropped(self, place, monkeypatch):
        """A piece has to be taken within its time, however much of it moves meanwhile."""
        monkeypatch.setattr("replicator.observe.request._STREAM_TIMEOUT_S", 0.2)
        here = place(lambda: itertools.repeat(bytes(20_000_000)))
        client = here.connect(b"GET /events HTTP/1.1\r\n\r\n")
        until(lambda: here.streams() == 1)

        until(lambda: client.recv(2**16) and here.streams() == 0)

    def test_reader_whose_machine_confirms_nothing_is_dropped(self, place, monkeypatch):
        """Small pieces never fill our own buffers: a machine that is gone is noticed by what it does not confirm."""
        monkeypatch.setattr("replicator.observe.request._STREAM_TIMEOUT_S", 0.2)
        here = place(lambda: itertools.repeat(bytes(4096)))
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # full at once, as good as gone
            client.connect(here.address)
            client.sendall(b"GET /events HTTP/1.1\r\n\r\n")
            until(lambda: here.streams() == 1)

            until(lambda: here.streams() == 0)

    def test_reader_that_speaks_is_dropped(self, place):
        """A second request on a stream is no reader's, and must not keep a thread busy."""
        here = place()
        client = here.stream()
        client.sendall(b"GET /events HTTP/1.1\r\n\r\n")

        until(lambda: is_cut(client))

    def test_close_ends_every_stream(self, place):
        """The end of the process waits for no reader."""
        here = place()
        streams = [here.stream() for _ in range(MAX_STREAMS)]
        began_s = time.monotonic()

        here.listener.close()

        assert time.monotonic() - began_s < 1
        assert [is_cut(one) for one in streams] == [True] * MAX_STREAMS
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("http")]


class TestEvents:
    """The stream of a replicator."""

    @pytest.fixture
    async def server(self, snapshot, view):
        self.looks = 0

        def look():
            self.looks += 1
            return snapshot(view())

        running = await http.serve("127.0.0.1:0", snapshot=look, metrics=Metrics(), complaints=list)
        yield running
        await running.close()

    async def test_status_is_told_and_metrics_still_answer(self, server):
        """With every stream taken, an event each, and every probe gets its answer."""
        host, port = server.address.split(":")
        opened = [await asyncio.open_connection(host, port) for _ in range(MAX_STREAMS)]
        for reader, writer in opened:
            writer.write(b"GET /events HTTP/1.1\r\n\r\n")
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            assert b"text/event-stream" in head
            assert (await asyncio.wait_for(reader.readuntil(b"\n\n"), 5)).startswith(b'data: {"mood":"good"')
        for path in (b"/healthz", b"/metrics", b"/readyz"):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"GET %s HTTP/1.0\r\n\r\n" % path)
            assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 200 ")
            writer.close()
        for _, writer in opened:
            writer.close()

        assert self.looks >= 3

    async def test_stuck_event_loop_ends_the_stream(self, server, monkeypatch):
        """The page says that it is not connected, which is true; no traceback, no thread that waits for ever."""
        monkeypatch.setattr(http, "_LOOP_TIMEOUT_S", 0.1)
        host, port = server.address.split(":")
        ended = []

        def read() -> None:
            with socket.create_connection((host, int(port)), timeout=5) as client:
                client.sendall(b"GET /events HTTP/1.1\r\n\r\n")
                ended.append(client.recv(1000))

        reader = threading.Thread(target=read)
        reader.start()
        reader.join()  # on the event loop

        assert ended == [b""]
