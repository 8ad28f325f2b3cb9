"""What the exceptions of s3fs, botocore and aiohttp mean, in the words of `s3_table`.

Nothing looks at message text: a parsed answer has its code and status, an exception its type.
"""

from collections.abc import Iterator
from typing import Any

import aiohttp
import botocore.exceptions as boto
from botocore.parsers import ResponseParserError

from replicator.errors import TransferError
from replicator.stores.s3.table import detail_of, failure, kind_of, wait_of, word_of

_MORE: dict[str, tuple[type[BaseException], ...]] = {
    "tls": (boto.SSLError, aiohttp.ClientSSLError),
    "timeout": (boto.ConnectTimeoutError, boto.ReadTimeoutError),
    "proxy": (boto.ProxyConnectionError, boto.InvalidProxiesConfigError),
    "unparsable": (ResponseParserError,),
    "connection": (boto.HTTPClientError, boto.IncompleteReadError, aiohttp.ClientError),
    "request": (boto.BotoCoreError,),
}
"""What stands beside the exceptions of the standard library."""

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


def word_for(exc: BaseException) -> str:
    """The outcome in one word out of a closed set: an S3 code or kind of the table, else the HTTP status."""
    answer = _answer_of(exc)
    if answer is not None:
        status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        return word_of(status=status, code=str(answer.get("Error", {}).get("Code", "")))
    return kind_of(_chain(exc), _MORE)


def translate(exc: BaseException, *, operation: str, bucket: str, key: str | None) -> TransferError:
    """Our error for a foreign one, ready to be raised `from` it. Holds no secret and no text of the server's."""
    headers = (_answer_of(exc) or {}).get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return failure(
        word_for(exc),
        operation=operation,
        bucket=bucket,
        key=key,
        detail=detail_of(_chain(exc)),
        wait_s=wait_of(str(headers.get("retry-after", ""))),
    )


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
