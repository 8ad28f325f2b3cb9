"""The HTTP door over a real socket."""

import asyncio
import dataclasses
import json
import socket

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from replicator.errors import ConfigError, Unavailable
from replicator.observe.http import fetch_status, serve
from replicator.observe.metrics import Metrics
from replicator.observe.status import MovingFile, State, from_json, verdict

PATHS = ("/", "/healthz", "/metrics", "/readyz", "/status")


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

    assert answer.startswith(b"HTTP/1.0 200 ")


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


async def test_page_shows_the_verdict_escaped(ask, world, snapshot, view):
    """A file name in a reason cannot become markup, and the page has no script."""
    world.snapshot = snapshot(
        view("<script>alert(1)</script>&\"'", state=State.BLOCKED, reason="<img src=x>"), version="<b>"
    )

    status, headers, body = await ask("/")

    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;&#x27;" in body
    assert not any(tag in body for tag in ("<script", "<img", "<b>"))
    assert verdict(world.snapshot).startswith("not safe")
    assert all(f'href="{path}"' in body for path in PATHS[1:])


@pytest.mark.parametrize("path", [*PATHS, "/nowhere", "/../etc/passwd", "/debug/pprof", "/static/x", "/%00"])
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
async def test_other_methods_are_refused(ask, path, method):
    """Read-only: 405, and it says what is allowed."""
    status, headers, _ = await ask(path, method)

    assert status == 405
    assert headers["Allow"] == "GET,HEAD"


async def test_requests_leave_no_access_log(ask, caplog):
    """A probe every few seconds must not fill the log."""
    with caplog.at_level(0):
        await ask("/healthz")

    assert not [record for record in caplog.records if record.name.startswith("aiohttp.access")]


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
         "::1:9477", "[::1]", "[]:1", "http://127.0.0.1:9477", "user@host:1", "a b:1", "a\nb:1", "127.0.0.1:\u0661"],
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

    async def test_malformed_address_is_a_configuration_error(self):
        """An empty setting means that there is no server to ask."""
        with pytest.raises(ConfigError, match="http_listen"):
            await fetch_status("")
