"""Connections of all sorts, over real sockets: many, slow, silent, cut, and those that speak something else."""

import functools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from replicator.observe import listener as listener_module
from replicator.observe.listener import MAX_CONNECTIONS, Listener
from replicator.observe.request import Answer, Request
from tests.waiting import wait_until as until

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = bytes(20_000_000)
"""More than the kernel's buffers take."""
Respond = Callable[[Request], Answer]


def path_of(request: Request) -> Answer:
    return Answer(200, request.path.encode())


def body_of(request: Request) -> Answer:
    return Answer(200, request.body(at_most=100, within_s=5))


def posted(*headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join(["POST / HTTP/1.1", "Host: x", *headers, "", ""]).encode() + body


class Place:
    """A listener and how to reach it."""

    def __init__(self, respond: Respond, listening: socket.socket | None = None) -> None:
        listening = listening or socket.create_server(("127.0.0.1", 0))
        self.address = listening.getsockname()
        self.clients: list[socket.socket] = []
        self.listener = Listener([listening], respond)

    def connect(self, text: bytes = b"") -> socket.socket:
        client = socket.create_connection(self.address, timeout=10)
        self.clients.append(client)
        client.sendall(text)
        return client

    def ask(self, text: bytes) -> bytes:
        return whole(self.connect(text))

    def close(self) -> None:
        self.listener.close()
        for client in self.clients:
            client.close()


def whole(client: socket.socket) -> bytes:
    """All that comes until the server ends the connection."""
    answer = b""
    while chunk := client.recv(2**16):
        answer += chunk
    client.close()
    return answer


def status_in(answer: bytes) -> int:
    return int(answer.split(b" ")[1])


def is_cut(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("http")]


@pytest.fixture
def place() -> Iterator[Callable[..., Place]]:
    """Makes a listener that answers by the function it is given."""
    places: list[Place] = []

    def make(respond: Respond = path_of, listening: socket.socket | None = None) -> Place:
        places.append(Place(respond, listening))
        return places[-1]

    yield make
    for one in places:
        one.close()


class TestRequests:
    """What is read as a request, and what is not."""

    @pytest.mark.parametrize(
        ("line", "path"),
        [
            ("GET /a HTTP/1.1", "/a"),
            ("GET /a?b=/c HTTP/1.1", "/a"),
            ("GET http://elsewhere/a?b HTTP/1.1", "/a"),
            ("GET /%61 HTTP/1.1", "/%61"),
            ("GET http://[ HTTP/1.1", ""),
            ("GET /a", "/a"),
            ("STRANGE /a HTTP/1.0", "/a"),
        ],
    )
    def test_path_is_what_was_sent_without_the_query(self, place, line, path):
        """Also behind a proxy, which may send the whole URL."""
        answer = place().ask(f"{line}\r\nHost: x\r\n\r\n".encode())

        assert status_in(answer) == 200
        assert answer.partition(b"\r\n\r\n")[2] == path.encode()

    @pytest.mark.parametrize(
        ("text", "status"),
        [
            (b"\r\n", 400),
            (b"GET\r\n\r\n", 400),
            (b"POST /\r\n\r\n", 400),
            (b"GET / a HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/one\r\n\r\n", 400),
            (b"GET / HTTP/2.0\r\n\r\n", 505),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
            (b"\x16\x03\x01\x00\xf8\x01\x00\x00\xf4\x03\x03\r\n", 400),
            (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431),
            (b"GET / HTTP/1.1\r\na: " + b"b" * 40_000 + b"\r\n\r\n", 431),
            (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n\r\n", 431),
            (b"a" * 100_000, 431),
        ],
    )
    @pytest.mark.fault("F11")
    def test_what_is_no_fit_request_gets_a_line_and_nothing_of_its_own(self, place, text, status):
        """One plain line that repeats nothing of what was sent; the next request is served."""
        here = place()

        answer = here.ask(text)

        head, _, body = answer.partition(b"\r\n\r\n")
        phrase = f"{HTTPStatus(status).phrase}\n".encode()
        assert status_in(answer) == status
        assert body in {phrase, b"no request\n", b"the request is too large\n"}
        assert b"Cache-Control: no-store" in head
        assert b"text/plain" in head
        assert status_in(here.ask(GET)) == 200

    def test_answer_says_that_the_connection_ends(self, place):
        """One request a connection: an idle client holds nothing."""
        answer = place().ask(GET + GET)

        assert b"Connection: close\r\n" in answer
        assert answer.count(b"HTTP/1.1 ") == 1

    def test_whoever_connects_and_leaves_is_no_fault(self, place, caplog):
        """A port scan leaves no line in the log, and no connection open."""
        here = place()
        here.connect().close()
        here.connect(b"GET / HT").close()

        until(lambda: len(threads()) == 1)
        assert caplog.records == []

    def test_answer_arrives_though_its_client_still_sends(self, place):
        """A body that nobody wants is let pass, or its sender would see a reset instead of the answer."""
        here = place()
        client = here.connect(posted("Content-Length: 1500000"))
        until(lambda: client.recv(1, socket.MSG_PEEK))
        client.sendall(bytes(1_500_000))
        client.shutdown(socket.SHUT_WR)

        assert status_in(whole(client)) == 200

    @pytest.mark.parametrize("fault", [RuntimeError("no snapshot"), OSError("no disk")], ids=repr)
    def test_fault_of_ours_is_told_and_stops_nobody(self, place, caplog, fault):
        """500 without a word of the fault, which is in the log; the next request is served."""

        def respond(request: Request) -> Answer:
            if request.path == "/broken":
                raise fault
            return Answer(204)

        here = place(respond)

        answer = here.ask(b"GET /broken HTTP/1.1\r\n\r\n")

        assert status_in(answer) == 500
        assert str(fault).encode() not in answer
        assert [record.getMessage() for record in caplog.records] == ["request failed unexpectedly"]
        assert status_in(here.ask(GET)) == 204


class TestBodies:
    """A body is read when it is asked for, within bounds."""

    def test_body_is_read(self, place):
        """Whether it comes with the head or later."""
        here = place(body_of)
        late = here.connect(posted("Content-Length: 4"))

        assert here.ask(posted("Content-Length: 4", body=b"soon")).endswith(b"\r\n\r\nsoon")
        late.sendall(b"late")
        assert whole(late).endswith(b"\r\n\r\nlate")

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ([], 411),
            (["Transfer-Encoding: chunked"], 411),
            (["Transfer-Encoding: chunked", "Content-Length: 3"], 411),
            (["Content-Length: 3", "Content-Length: 4"], 400),
            (["Content-Length: -3"], 400),
            (["Content-Length: 3, 3"], 400),
            (["Content-Length: \u00b3"], 400),
            (["Content-Length:"], 400),
            (["Content-Length: 101"], 413),
            (["Content-Length: " + "9" * 9000], 413),
        ],
    )
    def test_length_has_to_be_told_and_clear(self, place, headers, status):
        """Nobody guesses where a body ends."""
        assert status_in(place(body_of).ask(posted(*headers, body=b"abc"))) == status

    def test_body_that_is_cut_is_refused(self, place):
        """Half of a body is none."""
        client = place(body_of).connect(posted("Content-Length: 4", body=b"ab"))
        client.shutdown(socket.SHUT_WR)

        assert status_in(whole(client)) == 400

    def test_permission_to_send_is_given_by_whoever_reads(self, place):
        """100 comes when the body is asked for, and never before an answer that does not want it."""
        head = posted("Content-Length: 2", "Expect: 100-continue")

        wanted = place(body_of).connect(head)
        assert wanted.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        wanted.sendall(b"ok")
        assert whole(wanted).endswith(b"\r\n\r\nok")
        assert status_in(place(lambda _: Answer(401)).ask(head)) == 401


class TestSlowClients:
    """Time is counted for the whole of a step, not from byte to byte."""

    def drip(self, client: socket.socket, text: bytes) -> bytes:
        """Send a byte now and then until an answer comes."""
        client.settimeout(0.01)
        for number in range(500):
            client.sendall(text[number : number + 1])
            try:
                return client.recv(1000)
            except TimeoutError:
                continue
        return b"never cut"

    @pytest.mark.fault("F11")
    def test_head_that_drips_is_cut(self, place, monkeypatch):
        """408, though there never was a pause."""
        monkeypatch.setattr("replicator.observe.request._HEAD_TIMEOUT_S", 0.2)

        assert status_in(self.drip(place().connect(b"GET / HTTP/1.1\r\nX-Slow: "), b"a" * 500)) == 408

    @pytest.mark.fault("F11")
    def test_body_that_drips_is_cut(self, place):
        """The same for a body, with the time that its reader gives."""
        here = place(lambda request: Answer(200, request.body(at_most=1000, within_s=0.2)))

        assert status_in(self.drip(here.connect(posted("Content-Length: 1000")), b"a" * 500)) == 408

    def test_silence_is_cut(self, place, monkeypatch):
        """A connection without a request is over after the time for a head."""
        monkeypatch.setattr("replicator.observe.request._HEAD_TIMEOUT_S", 0.05)

        assert status_in(place().ask(b"")) == 408

    def test_client_that_does_not_read_is_given_up(self, place, monkeypatch):
        """Its thread ends when the time to send is over."""
        monkeypatch.setattr("replicator.observe.request._SEND_TIMEOUT_S", 0.1)
        here = place(lambda _: Answer(200, LARGE))
        here.connect(GET)
        until(lambda: len(threads()) == 2)

        until(lambda: len(threads()) == 1)

    def test_client_that_does_not_close_is_given_up(self, place, monkeypatch):
        """The same after the answer, whether it is silent or sends for ever."""
        monkeypatch.setattr("replicator.observe.request._LINGER_TIMEOUT_S", 0.1)
        here = place()
        client = here.connect(GET)
        until(lambda: len(threads()) == 2)

        until(lambda: len(threads()) == 1)
        assert status_in(client.recv(1000)) == 200


class TestCrowds:
    """More connections than threads."""

    @pytest.mark.fault("F11")
    def test_the_slow_do_not_shut_out_a_probe(self, place, monkeypatch):
        """With all places taken by connections that say nothing, the oldest goes and the newest is served."""
        monkeypatch.setattr("replicator.observe.request._HEAD_TIMEOUT_S", 60)
        here = place()
        silent = [here.connect(b"GET") for _ in range(MAX_CONNECTIONS)]
        until(lambda: len(threads()) == 1 + MAX_CONNECTIONS)

        assert status_in(here.ask(GET)) == 200

        until(lambda: is_cut(silent[0]))
        assert [is_cut(one) for one in silent] == [True] + [False] * (MAX_CONNECTIONS - 1)

    @pytest.mark.fault("F11")
    def test_connections_beyond_the_bound_wait(self, place):
        """Never more threads than the bound, whatever they wait for; who waits is served in the end."""
        gate = threading.Event()
        most = 0

        def respond(_request: Request) -> Answer:
            nonlocal most
            most = max(most, len(threads()))
            gate.wait(10)
            return Answer(204)

        here = place(respond)
        clients = [here.connect(GET) for _ in range(3 * MAX_CONNECTIONS)]
        until(lambda: len(threads()) == 1 + MAX_CONNECTIONS)
        gate.set()

        assert status_in(whole(clients[-1])) == 204
        assert most == 1 + MAX_CONNECTIONS

    def test_burst_of_quick_ones_is_served_in_full(self, place):
        """A store may tell of many objects at the same moment, and each place is free again after its request."""
        here = place()
        clients = [here.connect(GET) for _ in range(5 * MAX_CONNECTIONS)]

        assert {status_in(whole(client)) for client in clients} == {200}

    def test_nobody_is_cut_who_takes_no_longer_than_usual(self, place, monkeypatch):
        """One connection too many waits a moment before the oldest is ended for it."""
        monkeypatch.setattr(listener_module, "_PATIENCE_S", 60)
        gate = threading.Event()

        def respond(_request: Request) -> Answer:
            gate.wait(10)
            return Answer(204)

        here = place(respond)
        clients = [here.connect(GET) for _ in range(MAX_CONNECTIONS + 1)]
        until(lambda: len(threads()) == 1 + MAX_CONNECTIONS)
        threading.Event().wait(0.1)  # for the one too many to be noticed
        gate.set()

        assert {status_in(whole(client)) for client in clients} == {204}

    def test_connection_that_cannot_be_taken_is_tried_again(self, place, monkeypatch):
        """No free descriptor for a moment: whoever waits is served later, and nobody spins until then."""

        class Short(socket.socket):
            refusals = 0

            def accept(self):
                if self.refusals < 3:
                    self.refusals += 1
                    raise OSError(24, "Too many open files")
                return super().accept()

        monkeypatch.setattr(listener_module, "_PAUSE_S", 0.05)
        listening = Short()
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        began_s = time.monotonic()

        assert status_in(place(path_of, listening).ask(GET)) == 200
        assert listening.refusals == 3
        assert time.monotonic() - began_s >= 0.15

    def test_machine_without_a_thread_to_spare_loses_the_connection_only(self, place, monkeypatch):
        """The next one is served, as often as it happens."""
        here = place()
        monkeypatch.setattr(listener_module, "_PAUSE_S", 0)
        start = threading.Thread.start

        def fail(_thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", fail)
        for _ in range(MAX_CONNECTIONS + 1):
            lost = here.connect()
            until(functools.partial(is_cut, lost))
        monkeypatch.setattr(threading.Thread, "start", start)

        assert status_in(here.ask(GET)) == 200

    def test_nothing_wakes_up_while_nobody_asks(self, place):
        """An idle gateway pays nothing for a door at which nobody knocks."""
        here = place()
        assert status_in(here.ask(GET)) == 200
        until(lambda: len(threads()) == 1)
        switches = Path(f"/proc/self/task/{threads()[0].native_id}/status")

        def count() -> int:
            lines = switches.read_text("utf-8").splitlines()
            return sum(int(line.split()[1]) for line in lines if "voluntary_ctxt" in line)

        def is_quiet() -> bool:
            before = count()
            threading.Event().wait(0.7)  # a server that polls does so twice a second
            return count() == before

        assert until(is_quiet)  # the answer's last steps may be in the first of these times, never in all of them


class TestEnd:
    """Closing."""

    def test_close_cuts_whoever_is_there(self, place):
        """Within a second: silent ones, those that do not read, and those that still wait for a place."""
        here = place(lambda _: Answer(200, LARGE))
        for text in [b"", b"GET", GET, GET] * MAX_CONNECTIONS:
            here.connect(text)
        until(lambda: len(threads()) == 1 + MAX_CONNECTIONS)
        began_s = time.monotonic()

        here.listener.close()

        assert time.monotonic() - began_s < 1
        assert threads() == []
        with pytest.raises(ConnectionRefusedError):
            here.connect()

    def test_close_does_not_wait_for_an_answer_that_never_comes(self, place):
        """A request of which our own part hangs is left behind."""
        gate = threading.Event()

        def respond(_request: Request) -> Answer:
            gate.wait(10)
            return Answer(204)

        here = place(respond)
        here.connect(GET)
        until(lambda: len(threads()) == 2)
        began_s = time.monotonic()

        here.listener.close()

        assert time.monotonic() - began_s < 1
        gate.set()
        until(lambda: not threads())
