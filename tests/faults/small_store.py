"""An S3 store of a few requests, in memory, that deviates in ways that a test names. For `StubS3.default`.

Knows what replicator and its doctor ask for, in path style. Never: signatures, several buckets, versions.
"""

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, unquote
from xml.sax.saxutils import escape

NO_BODY = hashlib.sha256(b"").hexdigest()


@dataclass
class Stored:
    body: bytes
    etag: str
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass
class Begun:
    key: str
    metadata: dict[str, str]
    parts: dict[int, Stored] = field(default_factory=dict)


Answer = tuple[int, dict[str, str], bytes]


class Failure(Exception):
    """An S3 error."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.answer: Answer = (status, {}, f"<Error><Code>{code}</Code></Error>".encode())


class SmallStore:
    """`lies` are words that its methods ask for; `refuse` may raise Failure for any request before it is served."""

    def __init__(self, reply: Callable[..., Any], *lies: str) -> None:
        self.objects: dict[str, Stored] = {}
        self.uploads: dict[str, Begun] = {}
        self.lies = set(lies)
        self.refuse: Callable[[Any, str, dict[str, str]], None] = lambda request, key, query: None
        self._reply = reply
        self._count = 0

    def __call__(self, request: Any) -> Any:
        path, _, text = request.target.partition("?")
        key = unquote(path.removeprefix("/b").removeprefix("/"), errors="surrogateescape")
        query = dict(parse_qsl(text, keep_blank_values=True))
        try:
            self.refuse(request, key, query)
            status, headers, body = self._served(request, key, query)
        except Failure as failure:
            status, headers, body = failure.answer
        return self._reply(status, {"x-amz-request-id": "1"} | headers, body)

    def _served(self, request: Any, key: str, query: dict[str, str]) -> Answer:
        if not key:
            return self._uploads(query) if "uploads" in query else self._listing(query)
        key = self._named(key)
        match request.method:
            case "PUT":
                return self._part(request, query) if "uploadId" in query else self._put(request, key)
            case "POST":
                return self._complete(request, query) if "uploadId" in query else self._begin(request, key)
            case "DELETE":
                return self._abort(query) if "uploadId" in query else self._delete(key)
        return self._parts(query) if "uploadId" in query else self._get(request, key)

    def _named(self, key: str) -> str:
        if "one-case" in self.lies:
            key = key.lower()
        if "no-control-characters" in self.lies and re.search(r"[\x00-\x1f\x7f]", key):
            raise Failure(400, "InvalidObjectName")
        if len(key.encode("utf-8", "surrogateescape")) > 1024:
            raise Failure(400, "KeyTooLongError")
        return key

    def _etag(self, body: bytes) -> str:
        self._count += 1
        if "opaque" in self.lies:
            return f"opaque-etag-number-{self._count}"
        return hashlib.md5(body, usedforsecurity=False).hexdigest()

    def _checked(self, request: Any) -> bytes:
        body: bytes = request.body
        names = set(request.headers)
        if "no-new-checksums" in self.lies and any(
            name.startswith("x-amz-checksum-") or name in ("x-amz-sdk-checksum-algorithm", "x-amz-trailer")
            for name in names
        ):
            raise Failure(501, "NotImplemented")
        if "checks-nothing" in self.lies:
            return body
        md5 = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        if request.headers.get("content-md5", md5) != md5:
            raise Failure(400, "BadDigest")
        sha256 = hashlib.sha256(body).hexdigest()
        if request.headers.get("x-amz-content-sha256", sha256) not in (sha256, "UNSIGNED-PAYLOAD"):
            raise Failure(400, "XAmzContentSHA256Mismatch")
        return body

    def _metadata(self, request: Any) -> dict[str, str]:
        if "loses-metadata" in self.lies:
            return {}
        return {name: text for name, text in request.headers.items() if name.startswith("x-amz-meta-")}

    def _put(self, request: Any, key: str) -> Answer:
        if "no-write" in self.lies:
            raise Failure(403, "AccessDenied")
        body = self._checked(request)
        if not body and "no-empty-objects" in self.lies:
            raise Failure(400, "MissingRequestBodyError")
        there = self.objects.get(key)
        if "ignores-conditions" not in self.lies:
            wanted = request.headers.get("if-match", "").strip('"')
            if (request.headers.get("if-none-match") and there) or (wanted and (not there or there.etag != wanted)):
                raise Failure(412, "PreconditionFailed")
        self.objects[key] = Stored(body, self._etag(body), self._metadata(request))
        return 200, {"ETag": f'"{self.objects[key].etag}"'}, b""

    def _get(self, request: Any, key: str) -> Answer:
        found = self.objects.get(key)
        if found is None:
            raise Failure(*((403, "AccessDenied") if "hides-missing" in self.lies else (404, "NoSuchKey")))
        wanted = request.headers.get("if-match", "").strip('"')
        if wanted and wanted != found.etag and "ignores-conditions" not in self.lies:
            raise Failure(412, "PreconditionFailed")
        etag = f"{found.etag}-gzip" if "weakens-etags" in self.lies and request.method == "GET" else found.etag
        headers = {
            "ETag": f'"{etag}"',
            "Last-Modified": "Fri, 02 Jan 2026 03:04:05 GMT",
            **found.metadata,
        }
        body, status = found.body, 200
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        if span and "ignores-ranges" not in self.lies:
            first, last = int(span[1]), min(int(span[2] or len(body)), len(body) - 1)
            if first >= len(body):
                raise Failure(416, "InvalidRange")
            told = last + 1 if "wrong-content-range" in self.lies else last
            headers["Content-Range"] = f"bytes {first}-{told}/{len(found.body)}"
            body, status = body[first : last + 1], 206
        return status, headers | {"Content-Length": str(len(body))}, body

    def _delete(self, key: str) -> Answer:
        if "no-delete" in self.lies:
            raise Failure(403, "AccessDenied")
        self.objects.pop(key, None)
        return 204, {}, b""

    def _begin(self, request: Any, key: str) -> Answer:
        self._count += 1
        upload_id = f"upload-{self._count}"
        self.uploads[upload_id] = Begun(key, self._metadata(request))
        text = f"<InitiateMultipartUploadResult><UploadId>{upload_id}</UploadId></InitiateMultipartUploadResult>"
        return 200, {}, text.encode()

    def _of(self, query: dict[str, str]) -> Begun:
        if query["uploadId"] not in self.uploads:
            raise Failure(*((500, "InternalError") if "fails-unknown-uploads" in self.lies else (404, "NoSuchUpload")))
        return self.uploads[query["uploadId"]]

    def _part(self, request: Any, query: dict[str, str]) -> Answer:
        upload, body = self._of(query), self._checked(request)
        stored = Stored(body, self._etag(body))
        upload.parts[int(query["partNumber"])] = stored
        return 200, {"ETag": f'"{stored.etag}"'}, b""

    def _parts(self, query: dict[str, str]) -> Answer:
        numbers = [n for n in sorted(self._of(query).parts) if n > int(query.get("part-number-marker", "0"))]
        page = numbers if "no-pages" in self.lies else numbers[: int(query.get("max-parts", "1000"))]
        cut = len(page) < len(numbers)
        entries = "".join(f"<Part><PartNumber>{number}</PartNumber></Part>" for number in page)
        marker = f"<NextPartNumberMarker>{page[-1]}</NextPartNumberMarker>" if cut else ""
        text = f"<ListPartsResult><IsTruncated>{str(cut).lower()}</IsTruncated>{marker}{entries}</ListPartsResult>"
        return 200, {}, text.encode()

    def _complete(self, request: Any, query: dict[str, str]) -> Answer:
        upload = self._of(query)
        sent = request.body.decode().replace("&quot;", '"')
        asked = [
            (int(number), etag.strip('"'))
            for entry in re.findall(r"<Part>(.*?)</Part>", sent, re.DOTALL)
            for number in re.findall(r"<PartNumber>(\d+)</PartNumber>", entry)
            for etag in re.findall(r"<ETag>(.*?)</ETag>", entry)
        ]
        if "takes-any-completion" not in self.lies:
            if any(number not in upload.parts or upload.parts[number].etag != etag for number, etag in asked):
                raise Failure(400, "InvalidPart")
            if [number for number, _ in asked] != sorted(number for number, _ in asked):
                raise Failure(400, "InvalidPartOrder")
        bodies = [upload.parts[number].body for number, _ in asked]
        if "small-parts" not in self.lies and any(len(body) < 5 * 2**20 for body in bodies[:-1]):
            raise Failure(400, "EntityTooSmall")
        digests = b"".join(hashlib.md5(body, usedforsecurity=False).digest() for body in bodies)
        composite = f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(bodies)}"
        etag = self._etag(b"") if "opaque" in self.lies else composite
        del self.uploads[query["uploadId"]]
        self.objects[upload.key] = Stored(b"".join(bodies), etag, upload.metadata)
        text = f"<CompleteMultipartUploadResult><ETag>&quot;{etag}&quot;</ETag></CompleteMultipartUploadResult>"
        return 200, {}, text.encode()

    def _abort(self, query: dict[str, str]) -> Answer:
        if "no-abort" in self.lies:
            raise Failure(403, "AccessDenied")
        if self.uploads.pop(query["uploadId"], None) is None:
            raise Failure(404, "NoSuchUpload")
        return 204, {}, b""

    def _uploads(self, query: dict[str, str]) -> Answer:
        entries = "".join(
            f"<Upload><Key>{quote(upload.key)}</Key><UploadId>{upload_id}</UploadId></Upload>"
            for upload_id, upload in self.uploads.items()
            if upload.key.startswith(query.get("prefix", ""))
        )
        told = "<EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>"
        return 200, {}, f"<ListMultipartUploadsResult>{told}{entries}</ListMultipartUploadsResult>".encode()

    def _listing(self, query: dict[str, str]) -> Answer:
        token, start = query.get("continuation-token"), query.get("start-after", "")
        keys = sorted(key for key in self.objects if key.startswith(query.get("prefix", "")))
        if "utf-16-order" in self.lies:
            keys.sort(key=lambda key: key.encode("utf-16-be"))
        if "forgets-one" in self.lies:
            keys = keys[1:]
        if token:
            keys = keys[keys.index(token) + 1 :]
        elif "no-start" not in self.lies:
            keys = [key for key in keys if key > start]
        page = keys if "no-pages" in self.lies else keys[: int(query.get("max-keys", "1000"))]
        is_encoded = "plain-keys" not in self.lies
        entries = "".join(
            f"<Contents><Key>{quote(key) if is_encoded else escape(key)}</Key>"
            "<LastModified>2026-01-02T03:04:05.000Z</LastModified>"
            f"<ETag>&quot;{self.objects[key].etag}&quot;</ETag><Size>{len(self.objects[key].body)}</Size></Contents>"
            for key in page
        )
        cut = len(page) < len(keys)
        if "never-says-more" in self.lies:
            cut = False
        told = "<EncodingType>url</EncodingType>" if is_encoded else ""
        told += f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if cut else ""
        text = f"<ListBucketResult><IsTruncated>{str(cut).lower()}</IsTruncated>{told}{entries}</ListBucketResult>"
        return 200, {"Content-Type": "application/xml"}, text.encode()
