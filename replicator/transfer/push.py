"""File -> object: bytes that one settled version of the file had, whole or not at all.

Owns: the close gate, reading with a running checksum, the second look at the file, PUT or multipart. Never: retries,
decisions, journal writes. A small file is read whole before the request begins, so its object cannot be torn; a large
one is published (CompleteMultipartUpload) only after the file was found unchanged, else the upload is aborted.
"""

import asyncio
import base64
import contextlib
import hashlib
import time

from replicator.checksum import checksum_of, composite_etag, part_size_of, written
from replicator.errors import ObjectMissing, RemoteChanged, SourceChanged, TransferError, Unavailable
from replicator.model import Fingerprint, Row
from replicator.stores.files import OpenFile
from replicator.stores.lane import Lane
from replicator.transfer.content import MD5_KEY, MTIME_KEY, PART_SIZE_KEY, Content, part_size_for
from replicator.transfer.outcome import Means

PARTS_IN_FLIGHT = 4


async def push(
    lane: Lane, relpath: str, key: str, *, known: Content | None, waited_s: float, means: Means
) -> tuple[Row, bool]:
    """Bring the file's present content to `key`; the new row, and whether anything had to be sent.

    `known` is what the object is known to hold: equal content is adopted and nothing is sent.
    `waited_s` is how long the path has been waiting for its writer.
    Raises SourceChanged while the file is being written or when it moved during the read, Unavailable when the
    transfer is slower than the minimum rate.
    """
    file = await asyncio.to_thread(lane.export.open, relpath)
    with file:
        await asyncio.to_thread(_check_settled, lane, file, waited_s, means)
        if known and await asyncio.to_thread(_checksum_like, file, known.checksum) == known.checksum:
            return Row(relpath, file.fingerprint, known.etag, known.checksum, is_verified=True), False
        size = file.fingerprint.size
        room = means.budget.hold(size) if size <= means.part_size_bytes else contextlib.nullcontext()
        async with room:  # waited for outside the deadline: a queue for memory is no slow link
            try:
                async with asyncio.timeout(means.deadline_s(size)):
                    send = _push_whole if size <= means.part_size_bytes else _push_parts
                    return await send(lane, relpath, key, file, means), True
            except TimeoutError as exc:
                raise Unavailable(f"sending {relpath!r} was slower than {means.min_rate_bytes_s} bytes/s") from exc


def _check_settled(lane: Lane, file: OpenFile, waited_s: float, means: Means) -> None:
    """The close gate: raises SourceChanged while somebody may still be writing the file."""
    has_writer = file.has_writer()
    if has_writer is False:
        return
    if has_writer and not (lane.target.options.open_files == "snapshot" and waited_s > means.open_file_ceiling_s):
        raise SourceChanged("a program has it open for writing; it is sent once that closes it")
    if has_writer:
        return  # a file that never closes ships as it is, provided that it holds still while it is read
    # The kernel does not tell: the file must at least have been quiet.
    age_s = time.time() - max(file.fingerprint.mtime_ns, file.fingerprint.ctime_ns) / 1e9
    if 0 <= age_s < means.quiet_s:
        wait_s = means.quiet_s - age_s
        raise SourceChanged("it was written a moment ago; it is sent once it is quiet", retry_after_s=wait_s)


async def _push_whole(lane: Lane, relpath: str, key: str, file: OpenFile, _: Means) -> Row:
    body, digest = await asyncio.to_thread(_read_whole, file)
    metadata = {MTIME_KEY: _seconds(file.fingerprint), MD5_KEY: base64.b64encode(digest).decode()}
    etag = await lane.objects.put(key, body, md5=digest, metadata=metadata)
    return _row(relpath, file.fingerprint, etag, digest.hex(), part_size=0)


def _read_whole(file: OpenFile) -> tuple[bytes, bytes]:
    body = file.read()
    if not file.is_unchanged():
        raise SourceChanged("it changed while it was read; it is read again")
    return body, hashlib.md5(body, usedforsecurity=False).digest()


def _checksum_like(file: OpenFile, known: str) -> str:
    """The file's checksum in the form of `known`; '' when the file moved meanwhile."""
    checksum = checksum_of(file.blocks(), part_size_bytes=part_size_of(known))
    return checksum if file.is_unchanged() else ""


async def _push_parts(lane: Lane, relpath: str, key: str, file: OpenFile, means: Means) -> Row:
    size = file.fingerprint.size
    part_size = part_size_for(size, means.part_size_bytes)
    metadata = {MTIME_KEY: _seconds(file.fingerprint), PART_SIZE_KEY: str(part_size)}
    upload_id = await lane.objects.create_upload(key, metadata=metadata)
    try:
        parts = await _send_parts(lane, key, upload_id, file=file, part_size=part_size, means=means)
        if not await asyncio.to_thread(file.is_unchanged):
            raise SourceChanged("it changed while it was sent; nothing was published, it is sent again")
        etag = await lane.objects.complete_upload(key, upload_id, [part for part, _ in parts])
    except ObjectMissing as exc:
        raise RemoteChanged("the upload vanished from the store before it was complete; it is sent again") from exc
    except BaseException:
        # Also on cancellation: parts that nobody will complete cost money until a lifecycle rule finds them.
        await asyncio.shield(_abort(lane, key, upload_id))
        raise
    return _row(relpath, file.fingerprint, etag, composite_etag([digest for _, digest in parts]), part_size=part_size)


def _row(relpath: str, fingerprint: Fingerprint, etag: str, expected: str, *, part_size: int) -> Row:
    """An ETag other than expected is opaque (KMS encryption): stored, but not proven by the store."""
    checksum = written(expected, part_size_bytes=part_size)
    return Row(relpath, fingerprint, etag, checksum, is_verified=etag == expected)


async def _send_parts(
    lane: Lane, key: str, upload_id: str, *, file: OpenFile, part_size: int, means: Means
) -> list[tuple[str, bytes]]:
    """Send every part, a few at a time; (ETag, MD5 digest) of each in order."""
    slots = asyncio.Semaphore(PARTS_IN_FLIGHT)

    async def send(number: int) -> tuple[str, bytes]:
        async with slots, means.budget.hold(part_size):
            body, digest = await asyncio.to_thread(_read_part, file, (number - 1) * part_size, part_size)
            return await lane.objects.put_part(key, upload_id, number, body, md5=digest), digest

    count = -(-file.fingerprint.size // part_size)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(send(number)) for number in range(1, count + 1)]
    except* TransferError as errors:
        raise _first(errors) from errors
    return [task.result() for task in tasks]


def _first(errors: BaseExceptionGroup[TransferError]) -> TransferError:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, TransferError)  # noqa: S101 - what except* selected
    return error


def _read_part(file: OpenFile, offset: int, size: int) -> tuple[bytes, bytes]:
    body = file.read_at(offset, min(size, file.fingerprint.size - offset))
    return body, hashlib.md5(body, usedforsecurity=False).digest()


async def _abort(lane: Lane, key: str, upload_id: str) -> None:
    with contextlib.suppress(TransferError):  # the endpoint is away; a lifecycle rule of the bucket is the backstop
        await lane.objects.abort_upload(key, upload_id)


def _seconds(fingerprint: Fingerprint) -> str:
    return f"{fingerprint.mtime_ns // 10**9}.{fingerprint.mtime_ns % 10**9:09d}"
