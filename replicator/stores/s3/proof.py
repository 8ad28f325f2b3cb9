"""Whether a store checks what it is sent: the proof of an upload whose ETag proves nothing.

Every upload carries a checksum: through obstore the signed SHA-256 of the body, through s3fs Content-MD5. A store that
checks it took no other bytes, or it would not have said yes. Some look at neither. So one part of an upload that is
never completed is sent with the checksum of other bytes, then with its own: who checks refuses the one and takes the
other. Nothing of it is ever visible.
Source: S3 API, "Checking object integrity" (BadDigest); Signature Version 4 (XAmzContentSHA256Mismatch).
"""

import contextlib
import hashlib
import threading
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from replicator.errors import IntegrityFailed, ObjectMissing, Retryable, TransferError
from replicator.stores.s3.direct import Asked, Direct
from replicator.stores.s3.table import AnswerUnusable

if TYPE_CHECKING:
    from email.message import Message

SENT = b"sent to see whether it is checked"
OTHER = b"what its checksum is of"
_ENDINGS = 3


class Proof:
    """The answer of one store, asked for once. `is_refusing(key)` asks; it raises TransferError when it cannot tell."""

    def __init__(self, is_refusing: Callable[[str], bool]) -> None:
        self._is_refusing = is_refusing
        self._lock = threading.Lock()
        self._answer: bool | None = None

    def holds(self, key: str) -> bool:
        """Whether the store checks uploads. Not yet, while it cannot be asked; never, where it refuses the question."""
        with self._lock:
            if self._answer is None:
                try:
                    self._answer = self._is_refusing(key)
                except (Retryable, ObjectMissing):
                    return False
                except TransferError:
                    self._answer = False
            return self._answer


def is_refused(begin: Callable[[], str], send: Callable[[str, bytes], object], end: Callable[[str], object]) -> bool:
    """Whether a part fails for its checksum and nothing else, in an upload that `begin` opens and `end` throws away.

    `send` sends SENT as the upload's part, with the checksum of the bytes that it is given.
    """
    upload_id = begin()
    try:
        return not _is_taken(send, upload_id, OTHER) and _is_taken(send, upload_id, SENT)
    finally:
        _end(end, upload_id)


def _end(end: Callable[[str], object], upload_id: str) -> None:
    """More than once, for nobody else knows of this upload. What is left then costs the price of a few bytes."""
    for _ in range(_ENDINGS):
        with contextlib.suppress(TransferError):
            end(upload_id)
            return


def _is_taken(send: Callable[[str, bytes], object], upload_id: str, summed: bytes) -> bool:
    try:
        send(upload_id, summed)
    except IntegrityFailed:
        return False
    return True


def is_refusing_other_bytes(direct: Direct, key: str) -> bool:
    """Whether the store looks at the signed SHA-256 of a body."""
    with closing(direct.link()) as link:

        def begin() -> str:
            return link.ask(Asked("create_multipart_upload", "POST", key, {"uploads": ""}), _upload_id)

        def send(upload_id: str, summed: bytes) -> object:
            part = {"partNumber": "1", "uploadId": upload_id}
            return link.ask(Asked("upload_part", "PUT", key, part, SENT, hashlib.sha256(summed).hexdigest()), _etag)

        def end(upload_id: str) -> object:
            return link.ask(Asked("abort_multipart_upload", "DELETE", key, {"uploadId": upload_id}), _body)

        return is_refused(begin, send, end)


def _body(_: object, body: bytes) -> bytes:
    return body


def _etag(headers: "Message", _: object) -> str:
    if not headers["etag"]:
        raise AnswerUnusable("the answer has no ETag")
    return str(headers["etag"])


def _upload_id(_: object, body: bytes) -> str:
    try:
        # The answer declares no entities, and its length is bounded (network).
        upload_id = ET.fromstring(body).findtext("{*}UploadId")  # noqa: S314
    except ET.ParseError as exc:
        raise AnswerUnusable("the answer names no upload") from exc
    if not upload_id:
        raise AnswerUnusable("the answer names no upload")
    return upload_id
