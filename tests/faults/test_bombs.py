"""Answers that are meant to fill the memory of whoever reads them: each is an error, and costs next to none."""

import contextlib
import gzip
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from urllib.parse import parse_qs

import pytest

GIB = 2**30
BOUND_BYTES = 32 * 2**20

CHILD = """
import hashlib, json, resource, sys
from pydantic import SecretStr
from replicator.errors import TransferError
from replicator.model import Storage
from replicator.stores.s3.engine import open_store
from replicator.stores.s3.network import Limits

engine, endpoint, *bombs = sys.argv[1:]
limits = Limits(connections=4, connect_timeout_s=5, read_timeout_s=20, min_rate_bytes_s=4096, part_size_bytes=5 * 2**20)
storage = Storage(endpoint, "b", "us-east-1", SecretStr("AKID"), SecretStr("SECRET"))
store = open_store(engine, storage, limits)
body = b"x" * 1000
asks = {
    "list": lambda: list(store.list(key)),
    "uploads": lambda: store.list_uploads(key),
    "put": lambda: store.put(key, body, md5=hashlib.md5(body).digest(), metadata={}),
    "head": lambda: store.head(key),
    "get": lambda: [len(block) for block in store.get(key, etag="e", offset=0, size=1000).blocks],
}

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

told = {}
for one in ["warm:" + ask for ask in asks] + bombs:
    key, ask = one.split(":")
    before = peak()
    try:
        asks[ask]()
        end = "no error"
    except TransferError as error:
        end = type(error).__name__
    told[one] = [end, peak() - before]
print(json.dumps(told))
"""

LAUGHS = (
    b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(10))
    + b"]><ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>&k;</Key></Contents></ListBucketResult>"
)
ENTRY = (
    b"<Contents><Key>k</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>"
    b"<ETag>&quot;e&quot;</ETag><Size>0</Size></Contents>"
)
EMPTY = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"


def packed() -> bytes:
    """A gibibyte of blanks, as gzip: about one mebibyte. Made of one, for gzip members may follow each other."""
    return gzip.compress(b" " * 2**24, 9) * (GIB // 2**24)


class Bombs(http.server.BaseHTTPRequestHandler):
    """Answers with the bomb that the server holds; `warm` is a good answer."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.close_connection = True
        if length := int(self.headers.get("content-length", 0)):
            self.rfile.read(length)
        # The bucket itself is asked for listings: the bomb is the name of their prefix then.
        path, _, query = self.path.partition("?")
        bomb = path.removeprefix("/b").strip("/") or parse_qs(query).get("prefix", ["warm"])[0]
        with contextlib.suppress(OSError):  # they left, which is the point
            self._explode(bomb)

    do_PUT = do_HEAD = do_GET  # noqa: N815

    def _explode(self, bomb: str) -> None:
        gzipped = self.packed if bomb == "gzip" else b""  # type: ignore[attr-defined]
        status = 500 if bomb == "error" else 200
        self.send_response(status)
        self.send_header("ETag", '"e"')
        self.send_header("Connection", "close")
        self.send_header("Last-Modified", "Fri, 02 Jan 2026 03:04:05 GMT")
        if gzipped:
            self.send_header("Content-Encoding", "gzip")
        whole = {"warm": EMPTY, "laughs": LAUGHS, "gzip": gzipped}.get(bomb)
        self.send_header("Content-Length", str(GIB if whole is None else len(whole)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if whole is not None:
            self.wfile.write(whole)
            return
        self.wfile.write(b"<ListBucketResult>" if bomb == "listing" else b"<Error><Code>")
        block = ENTRY * (2**16 // len(ENTRY))
        for _ in range(GIB // len(block)):
            self.wfile.write(block)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def bombs() -> Iterator[http.server.ThreadingHTTPServer]:
    Bombs.packed = packed()  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bombs) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


ALIKE = ("laughs:list", "laughs:uploads", "gzip:list", "listing:list", "listing:uploads", "error:list")
# obstore reads an error document whole, as its module says: of a put, that is asked of s3fs alone.
ASKED = {"s3fs": (*ALIKE, "error:put"), "obstore": ALIKE}


@pytest.mark.slow
@pytest.mark.fault("F12")
@pytest.mark.parametrize("engine", ["s3fs", "obstore"])
def test_bomb_costs_no_memory(bombs, engine):
    """A listing or an error of a gibibyte, packed or not, and entities within entities: an error, of under 32 MiB."""
    endpoint = f"http://127.0.0.1:{bombs.server_port}"
    done = subprocess.run(
        [sys.executable, "-c", CHILD, engine, endpoint, *ASKED[engine], "gzip:get"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told.pop("warm:list")[0] == told.pop("warm:put")[0] == "no error"
    assert {one: told[one][0] for one in ASKED[engine]} == dict.fromkeys(ASKED[engine], "Unavailable")
    grown = {one: growth for one, (_, growth) in told.items() if not one.startswith("warm")}
    assert max(grown.values()) < BOUND_BYTES, grown
