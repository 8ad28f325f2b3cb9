"""Canaries in the place of secrets: the real command, in good states and bad ones, shows them nowhere."""

import asyncio
import base64
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

KEY = "AKIACANARYCANARY1234"
SECRET = "canary/secret+value=0123456789"
TOKEN = "canary/session+token=0123456789"
NOTIFY = "canary-notification-token-0123456789"
PROXY = "canary-proxy-password"
CANARIES = (KEY, SECRET, TOKEN, NOTIFY, PROXY)
PAGES = ("/metrics", "/status", "/explain?path=out/f", "/readyz", "/healthz", "/", "/notify", "/nowhere")
ASKING = (
    ("status",), ("status", "--json"), ("explain", "out/f"),
)  # fmt: skip
ALONE = (
    ("settings",), ("settings", "--json"), ("targets",), ("targets", "--json"), ("doctor",), ("doctor", "--json"),
    ("verify",), ("sync",), ("sync", "--dry-run"),
)  # fmt: skip

BUG = """
import sys
from replicator.stores.s3 import fast, fast_bucket
from replicator.stores.s3.lister import Lister

def fail(self, *_, **__):
    raise RuntimeError("a bug that says " + secret)

secret = sys.argv.pop(1)
setattr(*{"put": (fast.FastStore, "put", fail), "open": (fast_bucket.FastBucket, "__init__", fail)}[sys.argv.pop(1)])
from replicator.cli import main
main()
"""
"""A replicator with a fault of its own, whose exception holds a secret as those of libraries may."""


def forms(secret: str) -> Iterator[bytes]:
    """A secret as it stands, quoted, and in base64 whatever stands before it."""
    yield secret.encode()
    yield quote(secret, safe="").encode()
    for shift in range(3):
        whole = base64.b64encode(b"x" * shift + secret.encode())
        yield whole[4 * (shift > 0) : -4]


def shown(text: bytes) -> list[str]:
    """The canaries that `text` holds in any form."""
    return [secret for secret in CANARIES if any(form in text for form in forms(secret))]


def kept(home: Path) -> bytes:
    """All that is on the device but what the workload wrote: the journal's files and our own directory."""
    files = [path for top in ("state", "export/.replicator") for path in (home / top).rglob("*") if path.is_file()]
    return b"".join(str(path).encode() + path.read_bytes() for path in files)


@pytest.fixture
def hidden(replicator):
    """The command with canaries for all its secrets, and a file on its way."""
    (replicator.home / "export/out").mkdir()
    (replicator.home / "export/out/f").write_bytes(b"content")
    replicator.env |= {
        "OBC_AWS_ACCESS_KEY_ID": KEY,
        "OBC_AWS_SECRET_ACCESS_KEY": SECRET,
        "OBC_AWS_SESSION_TOKEN": TOKEN,
        "REPLICATOR_NOTIFICATIONS": "yes",
        "REPLICATOR_NOTIFICATIONS_TOKEN": NOTIFY,
        "REPLICATOR_LOG_LEVEL": "debug",
        "REPLICATOR_DRAIN_TIMEOUT_S": "0",
        "PYTHONFAULTHANDLER": "1",
    }
    return replicator


@contextlib.contextmanager
def plain_server() -> Iterator[int]:
    """A port that answers whoever connects with what is not TLS."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with server.accept()[0] as connection:
                        connection.recv(1)
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


async def everything(command, until, is_there, *, words: dict[str, str], rest=ALONE) -> bytes:
    """All that people can see of a service once `is_there`, of the commands that ask it, and of those that do not."""
    async with command.running(**words) as service:

        async def is_reached():
            view = await service.target("egress")
            return view is not None and is_there(view)

        await until(is_reached)
        pages = await asyncio.gather(*map(service.get, PAGES))
        here = words | {"REPLICATOR_HTTP_LISTEN": f"127.0.0.1:{service.port}"}
        asked = await asyncio.gather(*(command(*arguments, **here) for arguments in ASKING))
    alone = [await command(*arguments, **words) for arguments in rest]
    told = [
        *(body for _, body in pages),
        *service.log,
        *(text for one in (*asked, *alone) for text in (one.out, one.err)),
    ]
    assert service.log
    assert all(one.code != 2 for one in (*asked, *alone)), "refused before it could tell anything"
    assert all(code for code, _ in pages)
    return "\n".join(told).encode()


def _is_worth_it(it: bool) -> None:
    """Each of these tests makes a dozen processes; some differ from others only where nothing is expected."""
    if not it:
        pytest.skip("with REPLICATOR_TEST_LONG=1 only")


def is_blocked(view) -> bool:
    return view["state"] == "blocked"


@pytest.mark.slow
@pytest.mark.fault("F9")
@pytest.mark.parametrize(("s3_engine", "layout"), [("auto", "text"), ("s3fs", "json")])
async def test_good_state_shows_no_secret(hidden, witness, until, layout, s3_engine, is_long):
    """B5: while all is well, no command, page, line or file has a secret."""
    _is_worth_it(is_long or s3_engine == "auto")
    words = {"REPLICATOR_LOG_FORMAT": layout, "REPLICATOR_S3_ENGINE": s3_engine}

    told = await everything(hidden, until, lambda view: view["state"] == "in-step", words=words)

    assert await witness.get("sent/f") == b"content"
    assert shown(told) == shown(kept(hidden.home)) == []


@pytest.mark.slow
@pytest.mark.fault("F9")
@pytest.mark.parametrize(("s3_engine", "layout"), [("auto", "json"), ("s3fs", "text")])
async def test_refusal_that_repeats_the_request_shows_no_secret(hidden, stub_s3, reply, until, s3_engine, layout):
    """B5: an endpoint that refuses, and repeats all that it was sent, teaches nobody a secret; nor is it told one."""

    def echo(request):
        body = f"<Error><Code>AccessDenied</Code><Message>{request.head} {TOKEN} {KEY}</Message></Error>"
        return reply(403, {"x-amz-request-id": TOKEN, "x-amz-id-2": KEY}, body.encode())

    stub_s3.default = echo
    words = {
        "OBC_BUCKET_PORT": str(stub_s3.port), "REPLICATOR_LOG_FORMAT": layout, "REPLICATOR_S3_ENGINE": s3_engine,
    }  # fmt: skip

    told = await everything(hidden, until, is_blocked, words=words, rest=(("doctor",), ("sync",)))

    assert b"access key ...1234" in told
    assert shown(told) == shown(kept(hidden.home)) == []
    sent = "".join(request.head for request in stub_s3.requests).encode()
    assert set(shown(sent)) == {KEY, TOKEN}


@pytest.mark.slow
@pytest.mark.fault("F9")
@pytest.mark.parametrize("fault", ["nobody", "no-tls", "no-bucket", "proxy"])
async def test_failing_endpoint_shows_no_secret(hidden, stub_s3, reply, until, fault, unused_tcp_port, is_long):
    """B5: nor does an endpoint that is away, speaks no TLS, has no such bucket, or a proxy that refuses us."""
    _is_worth_it(is_long or fault in {"nobody", "proxy"})
    stub_s3.default = lambda request: reply(407, body=request.head.encode())
    with plain_server() as port:
        words = {
            "nobody": {"OBC_BUCKET_PORT": str(unused_tcp_port)},
            "no-tls": {"OBC_BUCKET_PORT": str(port), "REPLICATOR_S3_SCHEME": "https"},
            "no-bucket": {"OBC_BUCKET_NAME": "there-is-no-such-bucket"},
            "proxy": {"HTTP_PROXY": f"http://user:{PROXY}@127.0.0.1:{stub_s3.port}", "OBC_BUCKET_HOST": "s3.invalid"},
        }[fault]

        told = await everything(hidden, until, is_blocked, words=words, rest=(("doctor",),))

    assert shown(told) == shown(kept(hidden.home)) == []


async def _with_bug(command, where: str, *arguments: str, **words: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", BUG, SECRET, where, *arguments,
        env=command.environment(**words), cwd=command.home,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.fault("F9")
@pytest.mark.parametrize("layout", ["json", "text"])
async def test_fault_of_ours_shows_no_secret(hidden, until, layout, unused_tcp_port, is_long):
    """B5: an exception of our own that holds a secret is masked in log, traceback, status, page and stack dump."""
    _is_worth_it(is_long or layout == "json")
    words = {"REPLICATOR_HTTP_LISTEN": f"127.0.0.1:{unused_tcp_port}", "REPLICATOR_LOG_FORMAT": layout}
    running = await _with_bug(hidden, "put", "run", **words)
    try:

        async def is_failing():
            return "a bug that says" in (await hidden("status", "--json", **words)).out

        await until(is_failing)
        asked = await asyncio.gather(*(hidden(*arguments, **words) for arguments in ASKING))
        os.kill(running.pid, signal.SIGABRT)
    finally:
        told, _ = await running.communicate()
    told += "".join(one.out + one.err for one in asked).encode()

    assert b"Fatal Python error: Aborted" in told
    assert b"a bug that says **********" in told
    assert shown(told) == shown(kept(hidden.home)) == []


@pytest.mark.fault("F9")
async def test_fault_that_ends_the_process_shows_no_secret(hidden):
    """B5: the last words of a process that a fault of ours ends are masked as well, and its exit code tells."""
    process = await _with_bug(hidden, "open", "sync")
    told, _ = await process.communicate()

    assert process.returncode == 1, told
    assert b"Traceback" in told
    assert b"a bug that says **********" in told
    assert shown(told) == []
