"""What the exceptions of obstore mean, in the words of `s3_table`.

obstore gives nothing but text: what a request was answered stands in a dump of its own state at the end of a message.
So this is the one place where an error is read out of text, by patterns that no key and no server can forge: a dump
begins after the last of its headings, each of its fields has its own line, and text of others is quoted in one.
"""

import re

from obstore.exceptions import BaseError

from replicator.errors import TransferError
from replicator.stores.s3.fast_client import NOWHERE
from replicator.stores.s3.table import code_in, detail_of, failure, word_of

FOREIGN: tuple[type[Exception], ...] = (BaseError, OSError, ValueError, TypeError, LookupError)
"""What a call may raise. Some of obstore's errors are the builtin ones (FileNotFoundError, ValueError)."""

_DUMP = "\n\nDebug source:\n"
_STATUS = re.compile(r"^ +status: (\d{3}),$", re.MULTILINE)
_BODY = re.compile(r'^ +(?:body: )?"(.*)",$', re.MULTILINE)
_KINDS = (
    ("range", re.compile(r"^ +source: NotPartial,$", re.MULTILINE)),
    ("3xx", re.compile(rf"^ +{re.escape(NOWHERE)},$", re.MULTILINE)),
    ("certificate", re.compile(r"^ +error: InvalidCertificate\($", re.MULTILINE)),
    ("timeout", re.compile(r"^ +kind: Timeout,$", re.MULTILINE)),
    ("dns", re.compile(r'^ +"dns error",$', re.MULTILINE)),
    ("connection", re.compile(r"^ +ConnectError\($", re.MULTILINE)),
    ("tls", re.compile(r"^ +kind: Connect,$", re.MULTILINE)),
    ("connection", re.compile(r"^ +inner: Http\($|^ +source: HttpError \{$", re.MULTILINE)),
)
"""The first that fits wins. TLS is what is left of connecting once name and address have been reached."""

UNFIT = frozenset({"certificate", "tls", "range"})
"""Where s3fs may do better. OpenSSL takes any certificate of a chain as its anchor, and says more about a refusal;
who gets more of an object than was asked for can still read what was. None of these sends anything twice."""


def word_for(exc: BaseException) -> str:
    """The outcome in one word out of a closed set."""
    dump = str(exc).rpartition(_DUMP)[2] if isinstance(exc, (BaseError, OSError)) else ""
    if status := _STATUS.search(dump):
        body = _BODY.search(dump, status.end())
        code = code_in(body[1]) if body else ""
        # Completing an upload may answer 200 and fail after all.
        return word_of(status=500 if status[1] == "200" else int(status[1]), code=code)
    return next((word for word, pattern in _KINDS if pattern.search(dump)), "unparsable")


def translate(exc: BaseException, *, operation: str, bucket: str, key: str | None) -> TransferError:
    """Our error for a foreign one, ready to be raised `from` it. Holds no secret and no text of the server's."""
    return failure(word_for(exc), operation=operation, bucket=bucket, key=key, detail=detail_of([exc]))
