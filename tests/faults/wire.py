"""What passes the fault proxy, and what may go wrong with it.

A fault is a callable of the call and of `forward`, which has the server answer it. It returns the Answer for the
client, or None for a connection reset. So whether the server has seen the request is the fault's to decide.
"""

import contextlib
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol


@dataclass(frozen=True)
class Call:
    """One request of the client."""

    operation: str
    """put, get, head, list, delete, create, part, complete, abort, parts, uploads or other."""
    method: str
    bucket: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case."""
    target: str
    """Path and query as they came."""
    digest: str = ""
    """MD5 of the body, in hex."""
    length: int = 0
    body: bytes = field(default=b"", repr=False)
    """Empty in the proxy's record."""
    at_s: float = 0.0
    """By the monotonic clock."""


@dataclass
class Fate:
    """What became of a call. Times by the monotonic clock."""

    call: Call
    fault: str = ""
    """The kind that chance drew, or 'rule'; '' for none."""
    done_s: list[float] = field(default_factory=list)
    """When the server had done as it was asked: never, once, or again on a new connection."""
    told: str = ""
    """What the client got: a status, or 'reset'; '' while it waits, or when it had gone."""

    def __str__(self) -> str:
        done = ", ".join(f"{at_s:.3f}" for at_s in self.done_s) or "never"
        return (
            f"{self.call.at_s:.3f} {self.call.operation} {self.call.digest} fault {self.fault or 'none'}, "
            f"done by the server {done}, client told {self.told or 'nothing'}"
        )


@dataclass(frozen=True)
class Answer:
    """What the client gets. Content-Length is that of `body`, unless the headers name another."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_at: int | None = None
    """The connection is reset after so many bytes of the body."""
    stall_s: float = 0.0
    """Wait so long, or until the proxy stops, once the first half of the body is out."""
    drip_bytes_s: float = 0.0


Forward = Callable[[], Answer]


class Fault(Protocol):
    def __call__(self, call: Call, forward: Forward, /) -> Answer | None: ...


def passed() -> Fault:
    """No fault: the server's own answer."""
    return lambda _call, forward: forward()


def status(code: int, body: bytes = b"", **headers: str) -> Fault:
    """An answer that is not the server's; it never sees the request. `Retry_After="1"` is a header."""
    return lambda _call, _forward: Answer(code, {name.replace("_", "-"): text for name, text in headers.items()}, body)


def error(code: int, name: str, message: str = "made by the test") -> Fault:
    """An error as S3 tells it."""
    body = f"<?xml version='1.0'?><Error><Code>{name}</Code><Message>{message}</Message></Error>"
    return status(code, body.encode(), Content_Type="application/xml")


def refused() -> Fault:
    """Reset instead of an answer; the server never sees the request."""
    return lambda _call, _forward: None


def lost() -> Fault:
    """The server does as it was asked, and the client never hears of it."""

    def fault(_call: Call, forward: Forward) -> None:
        forward()

    return fault


def late(when: threading.Event | float) -> Fault:
    """A reset at once, and the server does as it was asked at the event, or so many seconds later; nobody hears of it.

    So does a proxy that has read a request to its end before its client went away, or a link that holds one back.
    """

    def fault(_call: Call, forward: Forward) -> None:
        threading.Thread(target=deliver, args=(forward,), name="late request", daemon=True).start()

    def deliver(forward: Forward) -> None:
        if isinstance(when, threading.Event):
            when.wait(60)
        else:
            time.sleep(when)
        with contextlib.suppress(OSError):  # the server may have been stopped meanwhile
            forward()

    return fault


def changed(change: Callable[[Answer], Answer]) -> Fault:
    """The server's answer, changed on its way."""
    return lambda _call, forward: change(forward())


def cut(at: int) -> Fault:
    """The answer's body ends in a reset after `at` bytes."""
    return changed(lambda answer: replace(answer, cut_at=at))


def short(to: int) -> Fault:
    """A body of `to` bytes that claims to be whole."""
    return changed(lambda answer: replace(answer, body=answer.body[:to]))


def flipped(at: int) -> Fault:
    """One byte of the body is another, and its length is right."""

    def flip(answer: Answer) -> Answer:
        body = bytearray(answer.body)
        if body:
            body[at % len(body)] ^= 0xFF
        return replace(answer, body=bytes(body))

    return changed(flip)


def etag(value: str | None) -> Fault:
    """Another ETag in the answer's headers, or none."""

    def change(answer: Answer) -> Answer:
        headers = {name: text for name, text in answer.headers.items() if name.lower() != "etag"}
        return replace(answer, headers=headers if value is None else headers | {"ETag": f'"{value}"'})

    return changed(change)


def stalled(for_s: float = 3600) -> Fault:
    """Half of the body, and then nothing."""
    return changed(lambda answer: replace(answer, stall_s=for_s))


def dripped(bytes_s: float) -> Fault:
    return changed(lambda answer: replace(answer, drip_bytes_s=bytes_s))


def silent(end: threading.Event) -> Fault:
    """No answer at all until `end`, and then a reset; the server never sees the request."""

    def fault(_call: Call, _forward: Forward) -> None:
        end.wait(60)

    return fault


def replaced(old: str, new: str) -> Fault:
    """Another text in the answer's body, wherever the pattern fits."""
    pattern = re.compile(old.encode(), re.DOTALL)
    return changed(lambda answer: replace(answer, body=pattern.sub(new.encode(), answer.body)))


def paged(keys: int) -> Fault:
    """A listing in pages of so many keys: those that the server told when the first page was asked for."""
    told: dict[str, bytes] = {}

    def fault(call: Call, forward: Forward) -> Answer:
        begin = int(call.query.get("continuation-token", 0))
        if not begin:
            told["whole"] = forward().body
        entries = re.findall(rb"<Contents>.*?</Contents>", told["whole"], re.DOTALL)
        return page(b"".join(entries[begin : begin + keys]), begin + keys if begin + keys < len(entries) else None)

    return fault


def page(entries: bytes, token: object = None) -> Answer:
    """A page of a listing; `token` leads to the next."""
    end = f"<IsTruncated>{str(token is not None).lower()}</IsTruncated>"
    if token is not None:
        end += f"<NextContinuationToken>{token}</NextContinuationToken>"
    space = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
    body = b"<?xml version='1.0'?><ListBucketResult %s>%s%s</ListBucketResult>" % (
        space.encode(),
        end.encode(),
        entries,
    )
    return Answer(200, {"Content-Type": "application/xml"}, body)


def entry(key: str, *, size: int = 7, etag: str = "9a0364b9e99bb480dd25e1f0284c8555") -> bytes:
    """An object as a listing tells it."""
    return (
        f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f"<ETag>&quot;{etag}&quot;</ETag><Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
    ).encode()


def redirect(to: str, code: int = 307) -> Fault:
    """Elsewhere, with the same path."""
    return lambda call, _forward: Answer(code, {"Location": to.rstrip("/") + call.target})


def first(deed: Callable[[Call], object]) -> Fault:
    """Something happens before the server sees the request."""

    def fault(call: Call, forward: Forward) -> Answer:
        deed(call)
        return forward()

    return fault


def then(deed: Callable[[Call], object]) -> Fault:
    """Something happens before the client sees the answer."""

    def fault(call: Call, forward: Forward) -> Answer:
        answer = forward()
        deed(call)
        return answer

    return fault
