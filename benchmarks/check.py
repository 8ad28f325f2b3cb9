"""Is the stub honest? Random bodies go in, come out the same, and every ETag is what S3 says it has to be.

    python benchmarks/check.py

Benchmarks run this first and measure nothing on a server that fails it. It speaks HTTP by itself, so that no client
library can hide a fault, and computes what is right in another language than the server's.
Source: S3 API reference (ListObjectsV2, multipart ETags, conditional requests, aws-chunked).
"""

import hashlib
import http.client
import os
import ssl
import tempfile
import urllib.parse
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

from stand import BUCKET, Endpoint, Stand

SIZES = (0, 1, 4096, 2**20 + 7)
PART_BYTES = 5 * 2**20
ODD_KEY = "odd/a b+%2F?#&<é>//./x"


class Client:
    """One connection to the stub. Answers are (status, headers in lower case, body)."""

    def __init__(self, endpoint: Endpoint) -> None:
        host, _, port = endpoint.address.rpartition(":")
        self._connection = http.client.HTTPConnection(host, int(port))
        if endpoint.scheme == "https":
            trust = ssl.create_default_context(cafile=endpoint.ca)
            self._connection = http.client.HTTPSConnection(host, int(port), context=trust)

    def ask(
        self, method: str, key: str = "", body: bytes = b"", headers: Mapping[str, str] | None = None, **query: object
    ) -> tuple[int, dict[str, str], bytes]:
        parameters = urllib.parse.urlencode({name.replace("_", "-"): value for name, value in query.items()})
        path = f"/{BUCKET}/{urllib.parse.quote(key)}?{parameters}".rstrip("?")
        self._connection.request(method, path, body, dict(headers or {}))
        answer = self._connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()

    def close(self) -> None:
        self._connection.close()


def hold(claim: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise SystemExit(f"the stub is not honest: {claim}: {found!r:.200} instead of {wanted!r:.200}")


def etag_of(body: bytes) -> str:
    return f'"{hashlib.md5(body).hexdigest()}"'


def texts(document: bytes, tag: str) -> list[str]:
    return [each.text or "" for each in ET.fromstring(document).iter() if each.tag.rpartition("}")[2] == tag]


def check_objects(client: Client) -> None:
    for key, body in [(f"size/{size}", os.urandom(size)) for size in SIZES] + [(ODD_KEY, b"odd")]:
        status, headers, _ = client.ask("PUT", key, body, {"x-amz-meta-mtime": "1.5"})
        hold("PUT", (status, headers["etag"]), (200, etag_of(body)))
        status, headers, found = client.ask("GET", key)
        hold("GET gives the bytes", (status, found, headers["x-amz-meta-mtime"]), (200, body, "1.5"))
        status, headers, _ = client.ask("HEAD", key)
        hold("HEAD", (status, headers["content-length"], headers["etag"]), (200, str(len(body)), etag_of(body)))
    first = client.ask("GET", f"size/{SIZES[-1]}")[2]
    for text, wanted in (("5-9", first[5:10]), ("100-", first[100:]), ("-3", first[-3:]), ("9-99999999", first[9:])):
        status, _, found = client.ask("GET", f"size/{SIZES[-1]}", headers={"Range": f"bytes={text}"})
        hold(f"range {text}", (status, found), (206, wanted))
    hold("range beyond the end", client.ask("GET", "size/1", headers={"Range": "bytes=1-"})[0], 416)
    hold("If-Match of another", client.ask("GET", "size/1", headers={"If-Match": '"0"'})[0], 412)
    hold(
        "If-Match of this",
        client.ask("GET", "size/1", headers={"If-Match": client.ask("HEAD", "size/1")[1]["etag"]})[0],
        200,
    )
    hold("create over an object", client.ask("PUT", "size/1", b"x", {"If-None-Match": "*"})[0], 412)
    hold("wrong Content-MD5", client.ask("PUT", "md5", b"x", {"Content-MD5": "1B2M2Y8AsgTpgAmY7PhCfg=="})[0], 400)
    hold("it left nothing", client.ask("GET", "md5")[0], 404)


def check_chunked(client: Client) -> None:
    body = os.urandom(100_000)
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[:65536], body[65536:]))
    headers = {"x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "x-amz-decoded-content-length": "100000"}
    status, answer, _ = client.ask("PUT", "chunked", framed + b"0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n", headers)
    hold("aws-chunked PUT", (status, answer.get("etag")), (200, etag_of(body)))
    hold("its bytes", client.ask("GET", "chunked")[2], body)
    for cut in (framed[:-10], framed[:-2], framed):
        hold("aws-chunked without its end", client.ask("PUT", "cut", cut, headers)[0], 400)


def check_multipart(client: Client, stand: Stand) -> None:
    bodies = [os.urandom(PART_BYTES), os.urandom(PART_BYTES), os.urandom(77)]
    upload = texts(client.ask("POST", "parts", uploads="")[2], "UploadId")[0]
    hold("listed", texts(client.ask("GET", uploads="", prefix="par")[2], "UploadId"), [upload])
    before = stand.stats()["parts_repeated"]
    for number, body in enumerate([*bodies, bodies[0]]):
        status, headers, _ = client.ask("PUT", "parts", body, partNumber=number % 3 + 1, uploadId=upload)
        hold("part", (status, headers["etag"]), (200, etag_of(body)))
    hold("a part sent twice is counted", stand.stats()["parts_repeated"] - before, 1)
    hold("not visible before", client.ask("GET", "parts")[0], 404)
    listed = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{etag_of(body)}</ETag></Part>"
        for number, body in enumerate(bodies, start=1)
    )
    order = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
    etag = hashlib.md5(b"".join(hashlib.md5(body).digest() for body in bodies)).hexdigest() + "-3"
    status, _, answer = client.ask("POST", "parts", order, uploadId=upload)
    hold("complete", (status, texts(answer, "ETag")), (200, [f'"{etag}"']))
    hold("its bytes", client.ask("GET", "parts")[2], b"".join(bodies))
    span = f"bytes={PART_BYTES - 3}-{2 * PART_BYTES + 2}"
    found = client.ask("GET", "parts", headers={"Range": span})[2]
    hold("a range over all parts", found, b"".join(bodies)[PART_BYTES - 3 : 2 * PART_BYTES + 3])
    hold("complete twice", client.ask("POST", "parts", order, uploadId=upload)[0], 404)
    upload = texts(client.ask("POST", "gone", uploads="")[2], "UploadId")[0]
    hold("abort", client.ask("DELETE", "gone", uploadId=upload)[0], 204)
    hold("part after abort", client.ask("PUT", "gone", b"x", partNumber=1, uploadId=upload)[0], 404)


def check_listing(client: Client) -> None:
    keys = sorted(["l/a.b", "l/a/b", "l/a/c", "l/b", "l/ä", *(f"l/z/{number:04}" for number in range(1500))])
    for key in keys:
        client.ask("PUT", key, b"1")
    found, pages, query = [], 0, {}
    while True:
        page = client.ask("GET", list_type=2, prefix="l/", encoding_type="url", **query)[2]
        found += map(urllib.parse.unquote, texts(page, "Key"))
        pages += 1
        if texts(page, "IsTruncated") == ["false"]:
            break
        query = {"continuation_token": texts(page, "NextContinuationToken")[0]}
    hold("all keys in byte order", (found, pages), (sorted(keys, key=str.encode), 2))
    page = client.ask("GET", list_type=2, prefix="l/", delimiter="/")[2]
    hold("delimiter: prefixes", texts(page, "Prefix")[1:], ["l/a/", "l/z/"])
    hold("delimiter: keys", texts(page, "Key"), ["l/a.b", "l/b", "l/ä"])
    page = client.ask("GET", list_type=2, prefix="l/z/", start_after="l/z/1498")[2]
    hold("start-after", texts(page, "Key"), ["l/z/1499"])
    names = "".join(f"<Object><Key>{key}</Key></Object>" for key in keys)
    client.ask("POST", body=f"<Delete>{names}</Delete>".encode(), delete="")
    hold("DeleteObjects", texts(client.ask("GET", list_type=2, prefix="l/")[2], "Key"), [])
    hold("DELETE of nothing", client.ask("DELETE", "l/a.b")[0], 204)


def check_levers(client: Client, stand: Stand) -> None:
    stand.reset()
    stand.fault(probability=1)
    hold("503 on order", client.ask("PUT", "late", b"x")[0], 503)
    stand.fault()
    hold("and no longer", client.ask("PUT", "late", b"x")[0], 200)
    stats = stand.stats()
    hold("counted", (stats["requests"], stats["refused"]), ({"PutObject": 2}, {"PutObject": 1}))
    stand.fill("filled/", count=101, size=10)
    filled = [key for key in stand.objects() if key.startswith("filled/")]
    hold("filled", (min(filled), max(filled), len(filled)), ("filled/000/000000", "filled/001/000100", 101))
    body = client.ask("GET", filled[0])[2]
    hold("MD5 of what is held", stand.objects()[filled[0]]["md5"], hashlib.md5(body).hexdigest())
    stand.empty()
    hold("empty", stand.objects(), {})


def check(stand: Stand) -> None:
    """Hold the stub to S3's word, by HTTP and by HTTPS; ends the program when it does not keep it."""
    for endpoint in (stand.http, stand.https):
        client = Client(endpoint)
        check_objects(client)
        check_chunked(client)
        check_multipart(client, stand)
        check_listing(client)
        check_levers(client, stand)
        client.close()
    stand.reset()


def main() -> None:
    with tempfile.TemporaryDirectory() as home, Stand(Path(home)) as stand:
        check(stand)
    print("the stub is honest")


if __name__ == "__main__":
    main()
