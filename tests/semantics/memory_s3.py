"""As much of S3 as replication asks for, in memory: keys that no other test server takes, and refusals at will."""

import hashlib
from collections import Counter
from urllib.parse import parse_qs, quote, unquote


class MemoryS3:
    """Answers on behalf of a stub: puts, heads, gets and listings of any key, for access keys that it knows."""

    def __init__(self, stub, reply, *, known: set[str] | None = None) -> None:
        self._reply = reply
        self.known = known
        """Access keys; None are all."""
        self.objects: dict[str, bytes] = {}
        self.asked: Counter[str] = Counter()
        """Requests by access key."""
        self.bodies: list[bytes] = []
        """All that was ever put."""
        self.puts: Counter[str] = Counter()
        """Puts that went well, by key of the object."""
        self.delay_s = 0.0
        stub.default = self

    def __call__(self, request):
        name = self.key_of(request)
        self.asked[name] += 1
        if self.known is not None and name not in self.known:
            body = b"<Error><Code>InvalidAccessKeyId</Code></Error>"
            return self._reply(403, {"Content-Type": "application/xml"}, body, delay_s=self.delay_s)
        path, _, query = request.target.partition("?")
        key = unquote(path).removeprefix("/b").removeprefix("/") if path != "/b" else ""
        if request.method == "PUT":
            self.bodies.append(request.body)
            self.puts[key] += 1
            self.objects[key] = request.body
            return self._reply(headers={"ETag": f'"{_md5(request.body)}"'}, delay_s=self.delay_s)
        if not key:
            return self._page(parse_qs(query).get("prefix", [""])[0])
        if key not in self.objects:
            return self._reply(404)
        body = self.objects[key]
        fields = {"ETag": f'"{_md5(body)}"', "Last-Modified": "Fri, 02 Jan 2026 03:04:05 GMT"}
        if request.method == "HEAD":
            return self._reply(headers=fields | {"Content-Length": str(len(body))})
        return self._reply(headers=fields, body=body)

    @staticmethod
    def key_of(request) -> str:
        return str(request.headers["authorization"].partition("Credential=")[2].partition("/")[0])

    def _page(self, prefix: str):
        entries = "".join(
            f"<Contents><Key>{quote(key)}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>"
            f"<ETag>&quot;{_md5(body)}&quot;</ETag><Size>{len(body)}</Size></Contents>"
            for key, body in sorted(self.objects.items(), key=lambda item: item[0].encode())
            if key.startswith(prefix)
        )
        form = "<EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>"
        body = f"<ListBucketResult>{form}{entries}</ListBucketResult>"
        return self._reply(200, {"Content-Type": "application/xml"}, body.encode())


def _md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()
