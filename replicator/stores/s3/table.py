"""What an S3 failure means: one table from a word to our error, what happened, and the next step.

The word is the store's own error code, the HTTP status where it sent none, or a word for the kind of exception where
there was no answer. Nothing that the server wrote is repeated but a code of plain letters. Words that count requests
by outcome come from the same table, so the set is closed. Every engine's errors go through here, so they read alike.
Source: S3 API, "Error responses"; codes that Ceph RGW sends on its own (QuotaExceeded, errors without Message).
"""

import http.client
import re
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from replicator.errors import (
    AccessDenied,
    BucketMissing,
    CredentialsRefused,
    IntegrityFailed,
    KeyUnsafe,
    ObjectMissing,
    Refused,
    RemoteChanged,
    Throttled,
    TransferError,
    Unanswered,
    Unavailable,
)

OnRequest = Callable[[str, str, float], None]
"""Hears of every request: S3's name in snake case, the status, code or kind of failure, and the seconds it took."""


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
_EXPIRED = Verdict(CredentialsRefused, "the credentials have expired or were revoked", "renew the credentials")
_ELSEWHERE = Verdict(AccessDenied, "the bucket lives in another region or at another endpoint", _REGION)
_NO_BUCKET = Verdict(BucketMissing, "there is no such bucket at this endpoint", _BUCKET)
_NOWHERE = Verdict(
    Unavailable,
    "the endpoint knows no such address",
    "rename the file if it alone fails, else check the bucket's name and the endpoint",
)
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
    "InvalidAccessKeyId": Verdict(CredentialsRefused, "the store does not know this access key", _CREDENTIALS),
    "SignatureDoesNotMatch": Verdict(AccessDenied, "the secret does not belong to the access key", _CREDENTIALS),
    "ExpiredToken": _EXPIRED,
    "InvalidToken": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestTimeTooSkewed": Verdict(
        CredentialsRefused, "the device's clock is off by more than the store accepts", "set the clock (NTP)"
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
    "certificate": Verdict(Unanswered, "the endpoint's certificate is not trusted", _CERTIFICATE),
    "tls": Verdict(Unanswered, "no TLS connection", "check the endpoint, s3_scheme and the PEM text in tls.crt"),
    "timeout": Verdict(Unanswered, "no answer in time", _WAIT),
    "dns": Verdict(Unanswered, "the endpoint's name cannot be resolved", "check the endpoint's name and the DNS"),
    "proxy": Verdict(Unanswered, "the proxy does not let us through", "check HTTPS_PROXY and NO_PROXY"),
    "connection": Verdict(Unanswered, "no connection, or it was cut", _ADDRESS),
    "unparsable": Verdict(Unavailable, "the answer is not one of S3", "check that the endpoint is an S3 store"),
    "request": Verdict(Refused, "no S3 request can be made of this", "check the bucket's name and the region"),
    "unencodable": Verdict(KeyUnsafe, "the name is not UTF-8, which S3 asks for", _RENAME),
}


class AnswerUnusable(ValueError):
    """The store answered, but not what S3 answers. Its text is ours and says what is wrong."""


WORDS: tuple[tuple[str, tuple[type[BaseException], ...]], ...] = (
    ("unencodable", (UnicodeEncodeError,)),
    ("certificate", (ssl.SSLCertVerificationError,)),
    ("tls", (ssl.SSLError,)),
    ("timeout", (TimeoutError,)),
    ("dns", (socket.gaierror,)),
    ("proxy", ()),
    ("unparsable", (AnswerUnusable,)),
    ("connection", (OSError, http.client.IncompleteRead)),
    ("request", ()),
)
"""What exceptions of the standard library mean. The first row that any of a chain belongs to wins."""

_READS = frozenset({"head_object", "get_object", "delete_object"})
"""Where a 404 without a code is about the object. Without a key it is the bucket, or no S3 store at all. Where a key is
written it may be either: one name that a gateway cannot route must not pass for a missing bucket."""

_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,64})</Code>")


def ignore(operation: str, code: str, seconds: float) -> None:
    """The default of `on_request`: nobody counts."""


def word_of(*, status: int, code: str) -> str:
    """The word of an answer: its code when the table knows it, else its status."""
    return code if code in TABLE else str(status)


def kind_of(
    chain: Iterable[BaseException], more: Mapping[str, tuple[type[BaseException], ...]] = MappingProxyType({})
) -> str:
    """The word of exceptions without an answer; `more` holds types of other libraries. Causes tell most."""
    wrapped = tuple(chain)
    for word, types in WORDS:
        if any(isinstance(one, types + more.get(word, ())) for one in wrapped):
            return word
    return "unparsable"


def code_in(text: str) -> str:
    """The S3 error code in an error document, '' when there is none."""
    found = _CODE.search(text)
    return found[1] if found else ""


def wait_of(text: str) -> float | None:
    """Seconds of Retry-After; its date form is left out, for the device's clock may be off (RFC 9110, 10.2.3)."""
    return float(text) if re.fullmatch(r"\d{1,6}", text, re.ASCII) else None


def failure(
    word: str, *, operation: str, bucket: str, key: str | None, detail: str = "", wait_s: float | None = None
) -> TransferError:
    """Our error for a word. `detail` is ours or the TLS library's text, never the server's."""
    verdict = TABLE.get(word) or TABLE.get(f"{word[0]}xx") or _FAULT
    if word == "404" and operation not in _READS:
        verdict = _NO_BUCKET if key is None else _NOWHERE
    message = say(operation, bucket, key, f"{detail or verdict.what} ({word}); {verdict.step}")
    if verdict.error is Throttled or (word in {"503", "ServiceUnavailable"} and wait_s is not None):
        return Throttled(message, retry_after_s=wait_s)
    return verdict.error(message)


def detail_of(chain: Iterable[BaseException]) -> str:
    """What happened in more detail than the table has."""
    for one in chain:
        if isinstance(one, AnswerUnusable):
            return str(one)
        if reason := getattr(one, "verify_message", ""):
            return f"{TABLE['certificate'].what}: {reason}"
    return ""


def named(operation: str, bucket: str, key: str) -> str:
    """`key`, when a request may carry it. Raises KeyUnsafe."""
    if not key:  # it would address the bucket itself, and DELETE remove it
        raise KeyUnsafe(say(operation, bucket, key, "the key is empty; name an object"))
    try:
        key.encode()
    except UnicodeEncodeError as exc:
        raise failure("unencodable", operation=operation, bucket=bucket, key=key) from exc
    return key


def say(operation: str, bucket: str, key: str | None, text: str) -> str:
    """The one form of this room's messages; control characters and lone surrogates of a key are escaped."""
    place = bucket if key is None else f"{bucket}/{key}"
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in place)
    return f"{operation} {shown}: {text}"
