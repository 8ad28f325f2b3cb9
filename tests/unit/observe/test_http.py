"""The HTTP door over a real socket."""

import asyncio
import base64
import contextlib
import dataclasses
import gzip
import io
import json
import logging
import socket
import subprocess
import sys
import threading

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from replicator.errors import ConfigError, Unavailable
from replicator.observe.explanation import QUERY_BYTES, Explanation
from replicator.observe.http import fetch_explanation, fetch_status, serve
from replicator.observe.metrics import Metrics
from replicator.observe.notifications import Change, Notice
from replicator.observe.pages import Inbox
from replicator.observe.status import MovingFile, State, from_json, to_json, verdict

PATHS = ("/", "/healthz", "/icon.svg", "/metrics", "/page.js", "/readyz", "/status")


class World:
    """What the server is told; a test changes it between requests."""

    def __init__(self, snapshot) -> None:
        self.snapshot = snapshot
        self.complaints: list[str] = []


@pytest.fixture
def world(snapshot, view):
    return World(snapshot(view()))


@pytest.fixture
async def server(world):
    running = await serve(
        "127.0.0.1:0", snapshot=lambda: world.snapshot, metrics=Metrics(), complaints=lambda: world.complaints
    )
    yield running
    await running.close()


@pytest.fixture
async def ask(server):
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:

        async def request(path, method="GET"):
            async with session.request(method, f"http://{server.address}{path}", allow_redirects=False) as reply:
                return reply.status, reply.headers, await reply.text()

        yield request


async def speak(address: str, text: bytes) -> bytes:
    """Send raw bytes, read until the server closes."""
    host, port = address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(text)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await writer.wait_closed()
    return answer


def get(address: tuple[str, int]) -> bytes:
    """The whole answer to GET /healthz. Blocks."""
    with socket.create_connection(address, timeout=10) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        return b"".join(iter(lambda: client.recv(1000), b""))


@contextlib.asynccontextmanager
async def connected(address: str):
    """A connection for those who do not speak proper HTTP."""
    host, port = address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def status_of(reader: asyncio.StreamReader) -> bytes:
    return (await asyncio.wait_for(reader.readline(), 5)).split()[1]


async def test_metrics_are_published_at_each_scrape(ask, world):
    """A scrape shows the moment it is made, in the text format."""
    world.snapshot = dataclasses.replace(world.snapshot, queue_jobs=42)

    status, headers, body = await ask("/metrics")

    families = {family.name: family for family in text_string_to_metric_families(body)}
    assert (status, headers["Content-Type"]) == (200, Metrics.content_type)
    assert families["replicator_queue_jobs"].samples[0].value == 42


async def test_health_is_about_this_process_only(ask, world, snapshot, view):
    """Nothing remote, and nothing a target suffers from, makes an orchestrator restart us."""
    world.snapshot = snapshot(
        view(state=State.BLOCKED, reason="bucket missing"), is_ready=False, not_ready=("blocked",), is_draining=True
    )

    assert (await ask("/healthz"))[::2] == (200, "alive\n")


async def test_health_lists_complaints(ask, world):
    """A dead task is told by name, a line each, also when its message has two lines."""
    world.complaints = ["task sweep ended", "task\npush ended"]

    assert (await ask("/healthz"))[::2] == (503, "task sweep ended\ntask\\x0apush ended\n")


async def test_health_needs_no_snapshot():
    """A fault in what /status gathers is not a reason to be restarted."""

    def broken():
        raise RuntimeError("no snapshot")

    server = await serve("127.0.0.1:0", snapshot=broken, metrics=Metrics(), complaints=list)
    try:
        answer = await speak(server.address, b"GET /healthz HTTP/1.0\r\n\r\n")
    finally:
        await server.close()

    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.fault("C8")
async def test_stuck_event_loop_is_told_by_health(server, monkeypatch):
    """A loop that does not answer is what a liveness probe is for: 503 and the reason, though nothing else works."""
    monkeypatch.setattr("replicator.observe.http._LOOP_TIMEOUT_S", 0.1)
    answers = []

    host, port = server.address.rsplit(":", 1)

    def probe():
        answers.append(get((host, int(port))))

    prober = threading.Thread(target=probe)
    prober.start()
    prober.join()  # on the event loop

    assert answers[0].startswith(b"HTTP/1.1 503 ")
    assert answers[0].endswith(b"\r\n\r\nthe event loop has not answered for 0.1 s\n")
    await asyncio.to_thread(probe)
    assert answers[1].startswith(b"HTTP/1.1 200 ")


async def test_answers_are_made_on_the_event_loop(world):
    """What is shown belongs to the loop: no other thread looks at it while it changes."""
    seen = set()

    def tell(what):
        seen.add(threading.current_thread())
        return what

    server = await serve(
        "127.0.0.1:0",
        snapshot=lambda: tell(world.snapshot),
        metrics=Metrics(),
        complaints=lambda: tell([]),
        inbox=Inbox(SecretStr(TOKEN), tell),
    )
    body = json.dumps(EVENT).encode()
    post = f"POST /notify HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    try:
        for text in [*(f"GET {path} HTTP/1.1\r\n\r\n".encode() for path in PATHS), post + body]:
            assert (await speak(server.address, text)).split(b" ")[1].startswith(b"20")
    finally:
        await server.close()

    assert seen == {threading.current_thread()}


async def test_ready(ask):
    """200 and one word."""
    assert (await ask("/readyz"))[::2] == (200, "ready\n")


async def test_not_ready_says_why(ask, world, snapshot):
    """503 and a line for each reason, whatever it holds."""
    world.snapshot = snapshot(is_ready=False, not_ready=("a: first sweep\nnot done", "b: \udcff"))

    assert (await ask("/readyz"))[::2] == (503, "a: first sweep\\x0anot done\nb: \\xff\n")


async def test_not_ready_without_a_reason_is_still_not_ready(ask, world, snapshot):
    """The answer follows the flag."""
    world.snapshot = snapshot(is_ready=False)

    assert (await ask("/readyz"))[::2] == (503, "not ready\n")


async def test_status_is_the_snapshot(ask, world, snapshot, view, hostile_names):
    """The JSON reads back as what the server knows, hostile names included."""
    world.snapshot = snapshot(view(in_flight=tuple(map(MovingFile, hostile_names))))

    status, headers, body = await ask("/status")

    assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    assert from_json(json.loads(body)) == world.snapshot


@pytest.mark.fault("F10")
async def test_page_shows_the_verdict_escaped(ask, world, snapshot, view):
    """A file name in a reason cannot become markup, and no script is in the page itself."""
    world.snapshot = snapshot(
        view("<script>alert(1)</script>&\"'", state=State.BLOCKED, reason="<img src=x>"), version="<b>"
    )

    status, headers, body = await ask("/")

    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;&#x27;" in body
    assert not any(tag in body for tag in ("<script>", "<img", "<b>"))
    assert "<strong>No</strong>" in body
    assert verdict(world.snapshot).startswith("not safe")
    assert all(f'="{path[1:]}"' in body for path in PATHS[1:])


@pytest.mark.parametrize("path", [*PATHS, "/nowhere", "/../etc/passwd", "/debug/pprof", "/static/x", "/%00"])
@pytest.mark.fault("F11")
async def test_every_answer_has_the_protective_headers(ask, path):
    """Not kept by a cache, not sniffed, not framed, no version of the server; errors too."""
    status, headers, _ = await ask(path)

    assert status == (200 if path in PATHS else 404)
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Server"] == "replicator"


@pytest.mark.parametrize("path", PATHS)
async def test_head_is_get_without_a_body(ask, path):
    """A probe may ask with HEAD and gets the same status."""
    get_status, get_headers, _ = await ask(path)

    status, headers, body = await ask(path, "HEAD")

    assert (status, body) == (get_status, "")
    assert headers["Content-Type"] == get_headers["Content-Type"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.fault("F11")
async def test_other_methods_are_refused(ask, path, method):
    """Read-only: 405, and it says what is allowed."""
    status, headers, _ = await ask(path, method)

    assert status == 405
    assert headers["Allow"] == "GET,HEAD"


async def test_requests_leave_no_access_log(ask, caplog, capfd):
    """A probe every few seconds must not fill the log."""
    with caplog.at_level(0):
        await ask("/healthz")
        await ask("/nowhere")

    assert not [record for record in caplog.records if record.name != "asyncio"]
    assert capfd.readouterr() == ("", "")


def test_running_process_loads_no_library_that_it_does_not_need():
    """A gateway's memory is for files: a second HTTP library and the drawing of tables take 12 MiB of it."""
    code = "import sys, replicator.cli, replicator.supervisor; print({'aiohttp', 'rich'} & set(sys.modules))"

    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert told.stdout == "set()\n"


@pytest.mark.fault("F11")
async def test_garbage_does_not_stop_the_server(server, ask):
    """What is no HTTP gets an error, and the next request is served."""
    answer = await speak(server.address, b"\x16\x03\x01\x00\xff GARBAGE\r\n\r\n")

    assert answer.split(b" ")[1:2] == [b"400"]
    assert (await ask("/healthz"))[0] == 200


async def test_close_frees_the_port_though_a_client_hangs(world):
    """Stopping waits for nobody: an open connection without a request is cut."""
    server = await serve("127.0.0.1:0", snapshot=lambda: world.snapshot, metrics=Metrics(), complaints=list)
    host, port = server.address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /status HT")
    await writer.drain()

    await asyncio.wait_for(server.close(), 5)

    with contextlib.suppress(ConnectionResetError):  # what it gets when it was not heard at all by then
        assert await asyncio.wait_for(reader.read(), 5) == b""
    with pytest.raises(OSError, match=r"refused|Connect"):
        await asyncio.open_connection(host, int(port))
    writer.close()


async def test_close_does_not_wait_for_a_client_that_reads_nothing(world, snapshot, view):
    """A status that nobody fetches does not hold up the end of the process."""
    world.snapshot = snapshot(view(in_flight=(MovingFile("x" * 1000),) * 8_000))
    asked = asyncio.Event()

    def tell():
        asked.set()
        return world.snapshot

    server = await serve("127.0.0.1:0", snapshot=tell, metrics=Metrics(), complaints=list)
    host, port = server.address.rsplit(":", 1)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((host, int(port)))
        client.sendall(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(asked.wait(), 10)

        await asyncio.wait_for(server.close(), 5)


class TestListenAddress:
    """What can be listened on, and what the error says when it cannot."""

    @pytest.fixture
    def start(self, world):
        async def begin(listen):
            return await serve(listen, snapshot=lambda: world.snapshot, metrics=Metrics(), complaints=list)

        return begin

    @pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0", "localhost:0"])
    async def test_port_zero_gives_the_real_address(self, start, listen):
        """The address that is told can be asked."""
        server = await start(listen)
        try:
            assert not server.address.endswith(":0")
            assert (await fetch_status(server.address)).version == "1.2.3"
        finally:
            await server.close()

    @pytest.mark.parametrize(
        "listen",
        ["", "9477", ":9477", "127.0.0.1", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:65536", "127.0.0.1:-1",
         "::1:9477", "[::1]", "[]:1", "http://127.0.0.1:9477", "user@host:1", "a b:1", "a\nb:1", "127.0.0.1:\u0661",
         "a..b:1"],
    )  # fmt: skip
    async def test_malformed_address_is_a_configuration_error(self, start, listen):
        """Field, problem and an example; never a guess such as all interfaces."""
        with pytest.raises(ConfigError) as refused:
            await start(listen)

        assert refused.value.where == "http_listen"
        assert "127.0.0.1:9477" in refused.value.fix
        assert "\n" not in str(refused.value)

    async def test_address_in_use_is_a_configuration_error(self, start):
        """Two replicators on one host: the second says which address is taken."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            listen = f"127.0.0.1:{taken.getsockname()[1]}"

            with pytest.raises(ConfigError, match="in use") as refused:
                await start(listen)

        assert listen in refused.value.problem

    async def test_address_of_another_machine_is_a_configuration_error(self, start):
        """An address that is not ours cannot be bound (192.0.2.0/24 is for documentation)."""
        with pytest.raises(ConfigError, match=r"192\.0\.2\.1:9477"):
            await start("192.0.2.1:9477")

    @pytest.fixture
    def resolves_to(self, monkeypatch):
        """Let every name have these addresses."""

        def pretend(*addresses):
            async def found(*_, **__):
                return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found)

        return pretend

    async def test_every_address_of_a_name_is_listened_on(self, start, resolves_to):
        """Whoever asks localhost by one of its addresses is answered."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        resolves_to(("127.0.0.1", port), ("127.0.0.2", port))
        server = await start(f"a-name:{port}")
        try:
            for host in ("127.0.0.1", "127.0.0.2"):
                answer = await asyncio.to_thread(get, (host, port))
                assert answer.startswith(b"HTTP/1.1 200 ")
        finally:
            await server.close()

    async def test_address_that_this_machine_lacks_is_passed_over(self, start, resolves_to):
        """A container without IPv6 may still call itself localhost in both."""
        resolves_to(("192.0.2.1", 0), ("127.0.0.1", 0))
        server = await start("a-name:0")
        await server.close()

        assert server.address.startswith("127.0.0.1:")

    async def test_address_in_use_is_never_passed_over(self, start, resolves_to):
        """Half a name would be somebody else's answers."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            resolves_to(("127.0.0.2", 0), taken.getsockname())

            with pytest.raises(ConfigError, match="in use"):
                await start("a-name:0")


class TestFetchStatus:
    """How the command line asks a running replicator."""

    async def test_gives_the_snapshot(self, server, world):
        """Exactly what the server knows."""
        assert await fetch_status(server.address) == world.snapshot

    async def test_nobody_answers(self):
        """The message asks the right question and names the next step."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            listen = f"127.0.0.1:{free.getsockname()[1]}"

        with pytest.raises(Unavailable, match="is replicator running") as told:
            await fetch_status(listen)

        assert listen in str(told.value)

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\xff\xfe\xfd",
            b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\ncut",
            b"SSH-2.0-OpenSSH_9\r\n",
            b"",
        ],
    )
    async def test_something_else_answers(self, answer):
        """Another program on that port is told apart from a status, and never a crash."""

        async def reply(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        async with await asyncio.start_server(reply, "127.0.0.1", 0) as other:
            port = other.sockets[0].getsockname()[1]
            with pytest.raises(Unavailable, match="is replicator running"):
                await fetch_status(f"127.0.0.1:{port}")

    async def test_status_with_another_code_is_none(self, world):
        """What a gateway in between keeps for bad times is not what runs now."""
        body = json.dumps(to_json(world.snapshot)).encode()

        async def reply(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 503 No\r\n\r\n" + body)
            writer.close()

        async with await asyncio.start_server(reply, "127.0.0.1", 0) as other:
            port = other.sockets[0].getsockname()[1]
            with pytest.raises(Unavailable, match="something else"):
                await fetch_status(f"127.0.0.1:{port}")

    @pytest.mark.fault("B19")
    async def test_redirect_is_not_followed(self, server):
        """What is asked is the address that was given, and no other that it names."""

        async def reply(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            there = f"http://{server.address}/status".encode()
            writer.write(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + there + b"\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(reply, "127.0.0.1", 0) as other:
            port = other.sockets[0].getsockname()[1]
            with pytest.raises(Unavailable):
                await fetch_status(f"127.0.0.1:{port}")

    async def test_silence_is_cut_short(self, monkeypatch):
        """A port that accepts and says nothing does not hang the command."""
        monkeypatch.setattr("replicator.observe.http._FETCH_TIMEOUT_S", 0.1)
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()

            with pytest.raises(Unavailable, match="gave no answer"):
                await fetch_status(f"127.0.0.1:{silent.getsockname()[1]}")

    async def test_dripping_answer_is_cut_short(self, monkeypatch):
        """The time is for the whole answer, not from byte to byte."""
        monkeypatch.setattr("replicator.observe.http._FETCH_TIMEOUT_S", 0.2)

        has_ended = asyncio.Event()

        async def drip(reader, writer):
            with contextlib.suppress(OSError):
                while True:
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.01)
            writer.close()
            has_ended.set()

        async with await asyncio.start_server(drip, "127.0.0.1", 0) as other:
            with pytest.raises(Unavailable, match="gave no answer"):
                await fetch_status(f"127.0.0.1:{other.sockets[0].getsockname()[1]}")
            await asyncio.wait_for(has_ended.wait(), 5)

    @pytest.mark.fault("F12")
    async def test_endless_answer_has_a_bound(self, server, monkeypatch):
        """Whoever sits at that port does not fill the memory."""
        monkeypatch.setattr("replicator.observe.http._STATUS_BYTES", 1000)

        with pytest.raises(Unavailable, match="something else"):
            await fetch_status(server.address)

    @pytest.mark.fault("F13")
    async def test_proxy_of_the_environment_is_not_asked(self, server, world, monkeypatch):
        """The address that is asked is this machine's."""
        monkeypatch.setenv("HTTP_PROXY", "http://192.0.2.1:1")

        assert await fetch_status(server.address) == world.snapshot

    async def test_name_that_is_none_gives_no_answer(self):
        """What no resolver takes is told like what no resolver knows."""
        with pytest.raises(Unavailable, match="gave no answer"):
            await fetch_status("a..b:1")

    async def test_malformed_address_is_a_configuration_error(self):
        """An empty setting means that there is no server to ask."""
        with pytest.raises(ConfigError, match="http_listen"):
            await fetch_status("")


class TestExplain:
    """How one path is asked about."""

    @pytest.fixture
    def asked(self):
        return []

    @pytest.fixture
    async def explaining(self, world, asked):
        """Keeps what it was asked, and on which threads it was told to look where and looked."""

        def explain(path):
            told_on = threading.current_thread()

            def look():
                asked.append((path, told_on, threading.current_thread()))
                return Explanation(path, 1.0)

            return look

        running = await serve(
            "127.0.0.1:0", snapshot=lambda: world.snapshot, metrics=Metrics(), complaints=list, explain=explain
        )
        yield running
        await running.close()

    async def test_any_name_arrives_as_it_was_asked(self, explaining, asked, hostile_names):
        """Spaces, signs and bytes that are not UTF-8; a lone surrogate is no name and no crash."""
        names = [name for name in hostile_names if "\ud800" not in name]
        for name in [*names, "a+b&path=c%41#x?y", "/" * 9]:
            assert (await fetch_explanation(explaining.address, name)).asked == name

    async def test_disk_is_looked_at_beside_the_event_loop(self, explaining, asked):
        """Where to look is told on the loop; looking, which may last, is done on the request's thread."""
        await fetch_explanation(explaining.address, "a")

        ((_, told_on, looked_on),) = asked
        assert told_on is threading.current_thread()
        assert looked_on is not told_on

    @pytest.mark.parametrize(
        "query",
        [
            "",
            "?",
            "?path",
            "?path=",
            "?path=a&path=b",
            "?path=a&x=1",
            "?other=a",
            "?path=\u00e9",
            f"?path={'a' * QUERY_BYTES}",
        ],
        ids=lambda query: query[:20],
    )
    async def test_bad_question_is_refused_with_one_sentence(self, explaining, asked, query):
        """400, and nothing is looked at."""
        answer = await speak(explaining.address, f"GET /explain{query} HTTP/1.0\r\n\r\n".encode())

        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.endswith(b"\n")
        assert asked == []

    async def test_question_has_a_bound(self, explaining):
        """Up to 4 KiB; what is longer, or nothing at all, is told before anybody is asked."""
        fits = "a" * (QUERY_BYTES - len("path="))

        assert (await fetch_explanation(explaining.address, fits)).asked == fits
        for wrong in (fits + "a", ""):
            with pytest.raises(ConfigError, match="PATH"):
                await fetch_explanation(explaining.address, wrong)

    @pytest.mark.parametrize("method", ["POST", "DELETE"])
    async def test_it_can_be_read_only(self, explaining, asked, method):
        """405 for anything else."""
        answer = await speak(explaining.address, f"{method} /explain?path=a HTTP/1.0\r\n\r\n".encode())

        assert answer.startswith(b"HTTP/1.1 405 ")
        assert asked == []

    async def test_server_that_cannot_explain_is_told_apart(self, server):
        """An older replicator at that address is no crash."""
        with pytest.raises(Unavailable, match="something else than an explanation"):
            await fetch_explanation(server.address, "a")


TOKEN = "token-of-a-test-0123"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
EVENT = {
    "Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": "in/red+flower"}}}]
}


def basic(text: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


class TestNotifications:
    """How event notifications are taken in, and from whom."""

    @pytest.fixture
    def taken(self):
        return []

    @pytest.fixture
    def metrics(self):
        return Metrics()

    @pytest.fixture
    async def listening(self, world, taken, metrics):
        inbox = Inbox(SecretStr(TOKEN), taken.append)
        running = await serve(
            "127.0.0.1:0", snapshot=lambda: world.snapshot, metrics=metrics, complaints=list, inbox=inbox
        )
        yield running
        await running.close()

    @pytest.fixture
    async def notify(self, listening):
        """Posts a body; gives status, headers and text."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:

            async def request(body, headers=BEARER, method="POST"):
                content = json.dumps(body) if isinstance(body, dict) else body
                url = f"http://{listening.address}/notify"
                async with session.request(method, url, data=content, headers=headers) as reply:
                    return reply.status, reply.headers, await reply.text()

            yield request

    def refused(self, metrics) -> float:
        samples = [sample for family in metrics.notifications.collect() for sample in family.samples]
        return sum(sample.value for sample in samples if sample.labels["outcome"] == "refused")

    async def test_notification_is_handed_on(self, notify, taken, metrics):
        """204 without a body, once it was handed on."""
        status, headers, text = await notify(EVENT)

        assert (status, text) == (204, "")
        assert headers["Cache-Control"] == "no-store"
        assert taken == [Notice((Change("b", "in/red flower"),))]
        assert self.refused(metrics) == 0

    @pytest.mark.parametrize("headers", [BEARER, {"Authorization": f"bearer  {TOKEN}"}, basic(f"sns:{TOKEN}")])
    async def test_token_is_a_bearer_token_or_a_password(self, notify, taken, headers):
        """MinIO sends the one, SNS knows only user:password@host."""
        assert (await notify(EVENT, headers))[0] == 204
        assert len(taken) == 1

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Authorization": ""},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer wrong"},
            {"Authorization": f"Bearer {TOKEN}x"},
            {"Authorization": f"Bearer {TOKEN[:-1]}"},
            {"Authorization": "Bearer \u00e9"},
            {"Authorization": TOKEN},
            {"Authorization": f"Digest {TOKEN}"},
            {"Authorization": "Basic !"},
            basic(f"{TOKEN}:"),
            basic(TOKEN),
            {"X-Token": TOKEN},
        ],
        ids=str,
    )
    @pytest.mark.fault("F11")
    async def test_without_the_token_nothing_is_taken(self, notify, taken, metrics, headers):
        """401, whatever else the request says; counted, and the token is not in the answer."""
        status, answered, text = await notify(EVENT, headers)

        assert (status, answered["WWW-Authenticate"]) == (401, 'Bearer, Basic realm="replicator"')
        assert text == "the token is missing or wrong\n"
        assert (taken, self.refused(metrics)) == ([], 1)

    @pytest.mark.fault("F11")
    async def test_body_of_a_stranger_is_not_read(self, listening):
        """The answer is there before the first byte of the body."""
        head = b"POST /notify HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
        async with connected(listening.address) as (reader, writer):
            writer.write(head)

            assert await status_of(reader) == b"401"

    @pytest.mark.parametrize("body", [b"", b"garbage", b"\xff", b"{}", b"[" * 50_000, b'{"Records": 1}'])
    async def test_garbage_is_refused_with_one_sentence(self, notify, taken, metrics, body):
        """400, and the server goes on."""
        status, _, text = await notify(body)

        assert status == 400
        assert text.startswith("the body ")
        assert text.count("\n") == 1
        assert (taken, self.refused(metrics)) == ([], 1)
        assert (await notify(EVENT))[0] == 204

    async def test_body_has_a_bound(self, notify, taken, metrics):
        """Up to 1 MiB; more is 413."""
        fits = json.dumps(EVENT).encode().ljust(2**20)

        assert (await notify(io.BytesIO(fits)))[0] == 204
        assert (await notify(io.BytesIO(fits + b" ")))[0] == 413
        assert (len(taken), self.refused(metrics)) == (1, 1)

    @pytest.mark.fault("F12")
    async def test_packed_body_is_not_unpacked(self, notify, taken):
        """No store packs them, and a small body could become a large one."""
        packed = gzip.compress(json.dumps(EVENT).encode())

        assert (await notify(packed, BEARER | {"Content-Encoding": "gzip"}))[0] == 400
        assert taken == []

    async def test_body_that_is_cut_is_refused(self, listening, taken, metrics, monkeypatch, caplog):
        """A sender that goes away in the middle is no fault of ours, and leaves no traceback."""
        is_waited_for = threading.Event()

        def let_in(*_):
            is_waited_for.set()
            return True

        monkeypatch.setattr("replicator.observe.pages._is_sender", let_in)
        async with connected(listening.address) as (_, writer):
            writer.write(b"POST /notify HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
            assert await asyncio.to_thread(is_waited_for.wait, 5)
        async with asyncio.timeout(5):
            while not self.refused(metrics):
                await asyncio.sleep(0.005)

        assert taken == []
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]

    async def test_slow_body_is_given_up(self, listening, monkeypatch, metrics):
        """Who has the token and sends nothing more does not hold a connection for ever."""
        monkeypatch.setattr("replicator.observe.pages._NOTICE_TIMEOUT_S", 0.1)
        head = f"POST /notify HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 9\r\n\r\n{{"
        async with connected(listening.address) as (reader, writer):
            writer.write(head.encode())

            assert await status_of(reader) == b"408"
        assert self.refused(metrics) == 1

    @pytest.mark.fault("F13")
    async def test_subscription_is_logged_and_not_followed(self, notify, taken, caplog):
        """A person reads what to open; no request of ours leaves because of a request."""
        asked = []

        async def reply(reader, writer):
            asked.append(await reader.readline())
            writer.close()

        async with await asyncio.start_server(reply, "127.0.0.1", 0) as other:
            url = f"https://127.0.0.1:{other.sockets[0].getsockname()[1]}/confirm"
            with caplog.at_level(logging.WARNING):
                status, _, _ = await notify({"Type": "SubscriptionConfirmation", "SubscribeURL": url})

        assert status == 204
        assert asked == []
        (record,) = [record for record in caplog.records if record.name == "replicator.http"]
        assert url in str(record.__dict__)
        assert taken == [Notice(is_subscription=True, confirm_url=url)]

    @pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
    async def test_only_post_is_taken(self, notify, taken, method):
        """405 with or without the token."""
        status, headers, _ = await notify(b"", method=method)

        assert (status, headers["Allow"]) == (405, "POST")
        assert taken == []

    @pytest.mark.fault("F11")
    async def test_switched_off_there_is_no_such_path(self, ask):
        """Without the setting the server has no ear at all."""
        assert (await ask("/notify", "POST"))[0] == 404
