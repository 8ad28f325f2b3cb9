"""What an S3 failure means: one table from a code word to our error, what happened, and the next step.

The word is the store's own error code, the HTTP status where it sent none, or a word for the kind of exception where
there was no answer. Nothing looks at message text, and nothing that the server wrote is repeated but a code of plain
letters. Words that count requests by outcome come from the same table, so the set is closed.
Source: S3 API, "Error responses"; codes that Ceph RGW sends on its own (QuotaExceeded, errors without Message).
"""

import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import botocore.exceptions as boto
from botocore.parsers import ResponseParserError

from replicator.errors import (
    AccessDenied,
    BucketMissing,
    IntegrityFailed,
    KeyUnsafe,
    ObjectMissing,
    Refused,
    RemoteChanged,
    Throttled,
    TransferError,
    Unavailable,
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row: the error to raise, what happened, and the safe next step."""

    error: type[TransferError]
    what: str
    step: str


_CREDENTIALS = "check the access key, its secret and what the bucket's policy allows"
_ADDRESS = "check the endpoint and its port, and the network"
_REGION = "set the bucket's region (BUCKET_REGION) and its own endpoint; redirects are not followed"
_BUCKET = "check the bucket's name and the endpoint; nothing is created or deleted"
_WAIT = "it is tried again"
_RESTART = "the transfer starts over"
_RENAME = "rename the file or the object"
_STORE = "see the store's own log for the reason"
_CERTIFICATE = "check the endpoint's certificate, and put the authority that signed it into tls.crt"

_DENIED = Verdict(AccessDenied, "the store refuses these credentials", _CREDENTIALS)
_EXPIRED = Verdict(AccessDenied, "the credentials have expired or were revoked", "renew the credentials")
_ELSEWHERE = Verdict(AccessDenied, "the bucket lives in another region or at another endpoint", _REGION)
_NO_BUCKET = Verdict(BucketMissing, "there is no such bucket at this endpoint", _BUCKET)
_NO_OBJECT = Verdict(ObjectMissing, "there is no such object", "it may have been removed; the next listing shows it")
_NO_UPLOAD = Verdict(ObjectMissing, "the store does not know this upload", _RESTART)
_CHANGED = Verdict(RemoteChanged, "the object is no longer the version that was looked at", _WAIT)
_DAMAGED = Verdict(IntegrityFailed, "the store received other bytes than were sent", _RESTART)
_SLOWER = Verdict(Throttled, "the store asks for fewer requests", "it is tried again, slower")
_FAULT = Verdict(Unavailable, "the store failed", _WAIT)
_REFUSED = Verdict(Refused, "the store refuses this request", _STORE)

TABLE: dict[str, Verdict] = {
    # Who we are
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _DENIED,
    "InvalidAccessKeyId": Verdict(AccessDenied, "the store does not know this access key", _CREDENTIALS),
    "SignatureDoesNotMatch": Verdict(AccessDenied, "the secret does not belong to the access key", _CREDENTIALS),
    "ExpiredToken": _EXPIRED,
    "InvalidToken": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestTimeTooSkewed": Verdict(
        AccessDenied, "the device's clock is off by more than the store accepts", "set the clock (NTP)"
    ),
    "RequestExpired": Verdict(AccessDenied, "the device's clock is off, or the link is very slow", "set the clock"),
    "401": _DENIED,
    "403": _DENIED,
    # Where the bucket is
    "NoSuchBucket": _NO_BUCKET,
    "InvalidBucketName": _NO_BUCKET,
    "AuthorizationHeaderMalformed": _ELSEWHERE,
    "IllegalLocationConstraintException": _ELSEWHERE,
    "InvalidRegion": _ELSEWHERE,
    "PermanentRedirect": _ELSEWHERE,
    "TemporaryRedirect": _ELSEWHERE,
    "3xx": Verdict(AccessDenied, "the endpoint redirects to another address", _REGION),
    # Which object
    "NoSuchKey": _NO_OBJECT,
    "NoSuchVersion": _NO_OBJECT,
    "NoSuchUpload": _NO_UPLOAD,
    "404": _NO_OBJECT,
    "PreconditionFailed": _CHANGED,
    "412": _CHANGED,
    "InvalidRange": _CHANGED,
    "416": _CHANGED,
    "InvalidObjectState": Verdict(Refused, "the object is archived", "restore it from the archive"),
    "KeyTooLongError": Verdict(KeyUnsafe, "the key is longer than the store accepts", _RENAME),
    # What was sent
    "BadDigest": _DAMAGED,
    "InvalidPart": _DAMAGED,
    "InvalidPartOrder": _DAMAGED,
    "XAmzContentSHA256Mismatch": _DAMAGED,
    "IncompleteBody": Verdict(Unavailable, "the body did not arrive whole", _WAIT),
    "EntityTooLarge": Verdict(Refused, "the object is larger than the store accepts", "split the file or exclude it"),
    "EntityTooSmall": Verdict(Refused, "a part is smaller than the store accepts", "raise part_size_bytes"),
    "InvalidArgument": _REFUSED,
    "QuotaExceeded": Verdict(Refused, "the bucket's quota is used up", "remove objects or raise the quota"),
    # How much
    "BandwidthLimitExceeded": _SLOWER,
    "RequestLimitExceeded": _SLOWER,
    "SlowDown": _SLOWER,
    "Throttling": _SLOWER,
    "ThrottlingException": _SLOWER,
    "TooManyRequests": _SLOWER,
    "429": _SLOWER,
    # Not now
    "ConditionalRequestConflict": _FAULT,
    "InternalError": _FAULT,
    "OperationAborted": _FAULT,
    "RequestTimeout": _FAULT,
    "ServiceUnavailable": Verdict(Unavailable, "the store is not available", _WAIT),
    "408": _FAULT,
    "5xx": _FAULT,
    # Never
    "NotImplemented": Verdict(Refused, "the store does not support this request", "use another store"),
    "501": Verdict(Refused, "the store does not support this request", "use another store"),
    "4xx": _REFUSED,
    # No answer at all
    "certificate": Verdict(Unavailable, "the endpoint's certificate is not trusted", _CERTIFICATE),
    "tls": Verdict(Unavailable, "no TLS connection", "check the endpoint, s3_scheme and the PEM text in tls.crt"),
    "timeout": Verdict(Unavailable, "no answer in time", _WAIT),
    "dns": Verdict(Unavailable, "the endpoint's name cannot be resolved", "check the endpoint's name and the DNS"),
    "proxy": Verdict(Unavailable, "the proxy does not let us through", "check HTTPS_PROXY and NO_PROXY"),
    "connection": Verdict(Unavailable, "no connection, or it was cut", _ADDRESS),
    "unparsable": Verdict(Unavailable, "the answer is not one of S3", "check that the endpoint is an S3 store"),
    "request": Verdict(Refused, "no S3 request can be made of this", "check the bucket's name and the region"),
    "unencodable": Verdict(KeyUnsafe, "the name is not UTF-8, which S3 asks for", _RENAME),
}


class AnswerUnusable(ValueError):
    """The store answered, but not what S3 answers. Its text is ours and says what is wrong."""


_WORDS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((UnicodeEncodeError,), "unencodable"),
    ((ssl.SSLCertVerificationError,), "certificate"),
    ((ssl.SSLError, boto.SSLError, aiohttp.ClientSSLError), "tls"),
    ((TimeoutError, boto.ConnectTimeoutError, boto.ReadTimeoutError), "timeout"),
    ((socket.gaierror,), "dns"),
    ((boto.ProxyConnectionError, boto.InvalidProxiesConfigError), "proxy"),
    ((AnswerUnusable, ResponseParserError), "unparsable"),
    ((boto.HTTPClientError, boto.IncompleteReadError, aiohttp.ClientError, OSError), "connection"),
    ((boto.BotoCoreError,), "request"),
)
"""The first row that any exception of the chain belongs to wins: causes are more telling than their wrappers."""

FOREIGN: tuple[type[Exception], ...] = (
    boto.BotoCoreError,
    boto.ClientError,
    aiohttp.ClientError,
    OSError,
    # What the parsers of the libraries raise on answers that nobody foresaw.
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
)
"""What a call may raise; all of it is translated, and cancellation is not among it."""

_READS = frozenset({"head_object", "get_object", "delete_object"})
"""Where a 404 without a code is about the object; anywhere else it is the bucket, or no S3 store at all."""


def word_for(exc: BaseException) -> str:
    """The outcome in one word out of a closed set: an S3 code or kind of TABLE, else the HTTP status."""
    answer = _answer_of(exc)
    if answer is None:
        chain = tuple(_chain(exc))
        return next((word for types, word in _WORDS if any(isinstance(one, types) for one in chain)), "unparsable")
    code, status = _code_of(answer), _status_of(answer)
    return code if code in TABLE else str(status)


def translate(exc: BaseException, *, operation: str, bucket: str, key: str | None) -> TransferError:
    """Our error for a foreign one, ready to be raised `from` it. Holds no secret and no text of the server's."""
    word = word_for(exc)
    verdict = TABLE.get(word) or TABLE.get(f"{word[0]}xx") or _FAULT
    if word == "404" and operation not in _READS:
        verdict = _NO_BUCKET
    what = _what(exc) or verdict.what
    message = say(operation, bucket, key, f"{what} ({word}); {verdict.step}")
    wait_s = _retry_after_s(exc)
    if verdict.error is Throttled or (word in {"503", "ServiceUnavailable"} and wait_s is not None):
        return Throttled(message, retry_after_s=wait_s)
    return verdict.error(message)


def say(operation: str, bucket: str, key: str | None, text: str) -> str:
    """The one form of this room's messages; control characters and lone surrogates of a key are escaped."""
    place = bucket if key is None else f"{bucket}/{key}"
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in place)
    return f"{operation} {shown}: {text}"


def _what(exc: BaseException) -> str:
    """What happened in more detail than the table has, from texts that are ours or OpenSSL's, never the server's."""
    for one in _chain(exc):
        if isinstance(one, AnswerUnusable):
            return str(one)
        if reason := getattr(one, "verify_message", ""):
            return f"{TABLE['certificate'].what}: {reason}"
    return ""


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """`exc` and what it wraps: each library keeps the inner exception in another place."""
    seen: list[BaseException] = [exc]
    for outer in seen:
        yield outer
        wrapped = getattr(outer, "kwargs", None)
        inner = [outer.__cause__, getattr(outer, "certificate_error", None), getattr(outer, "os_error", None)]
        inner.append(wrapped.get("error") if isinstance(wrapped, dict) else None)
        seen.extend(one for one in inner if isinstance(one, BaseException) and one not in seen)


def _answer_of(exc: BaseException) -> dict[str, Any] | None:
    """The store's parsed answer, if there was one."""
    for one in _chain(exc):
        if isinstance(one, boto.ClientError):
            answer: dict[str, Any] = one.response
            return answer
    return None


def _code_of(answer: dict[str, Any]) -> str:
    return str(answer.get("Error", {}).get("Code", ""))


def _status_of(answer: dict[str, Any]) -> int:
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _retry_after_s(exc: BaseException) -> float | None:
    """Seconds of Retry-After; its date form is left out, for the device's clock may be off (RFC 9110, 10.2.3)."""
    headers = (_answer_of(exc) or {}).get("ResponseMetadata", {}).get("HTTPHeaders", {})
    text = str(headers.get("retry-after", ""))
    return float(text) if re.fullmatch(r"\d{1,6}", text, re.ASCII) else None
