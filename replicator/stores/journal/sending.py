"""What is being sent at this moment, on record for the process after this one.

Owns: the file `sending` beside the database, with a slot for each request under way. A slot is written before the
request and emptied after its answer, without a sync: it outlives the process, not a power cut, and costs microseconds
where a row would cost a commit. What cannot be written is not on record, and no failure. Never: what follows from it.
"""

import contextlib
import os
import struct
import threading
from collections.abc import Iterator

_HEAD = struct.Struct("<QHH")
"""The target's number, which is never 0; bytes of the relpath; bytes of the checksum."""
_SLOT_BYTES = 2048
"""More than a key of 1,024 bytes and a checksum need; never across two pages, so a slot is written whole or not."""
_EMPTY = bytes(_HEAD.size)
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class Sending:
    """The slots of this process. Safe from any thread."""

    def __init__(self, path: str) -> None:
        """Raises OSError when the file cannot be had. `left` is what a former process did not hear the end of."""
        self._path = path
        self._fd = os.open(path, _FLAGS, 0o600)
        self._lock = threading.Lock()
        self._used = 0
        self._free: list[int] = []
        self.left = list(_slots(self._fd))
        """(target, relpath, checksum) each."""

    def clear(self) -> None:
        """Forget what was left, once it is on record elsewhere. No slot is in use yet."""
        os.ftruncate(self._fd, 0)

    @contextlib.contextmanager
    def on_record(self, target: int, relpath: str, checksum: str) -> Iterator[None]:
        """Around a request: what is found in the file should this process end inside."""
        name, text = os.fsencode(relpath), os.fsencode(checksum)
        with self._lock:
            if not self._free:
                self._free.append(self._used)
                self._used += 1
            slot = self._free.pop()
            self._write(slot, _HEAD.pack(target, len(name), len(text)) + name + text)
        try:
            yield
        finally:
            with self._lock:
                self._write(slot, _EMPTY)
                self._free.append(slot)

    def _write(self, slot: int, content: bytes) -> None:
        with contextlib.suppress(OSError):  # no room, or closed: a thread may outlive the journal
            os.pwrite(self._fd, content[:_SLOT_BYTES], slot * _SLOT_BYTES)

    def close(self) -> None:
        """Leave what is under way, if anything is: nobody will hear of its end."""
        with self._lock:
            if len(self._free) == self._used:
                with contextlib.suppress(OSError):
                    os.unlink(self._path)
            os.close(self._fd)
            self._fd = -1


def _slots(fd: int) -> Iterator[tuple[int, str, str]]:
    for offset in range(0, os.fstat(fd).st_size, _SLOT_BYTES):
        slot = os.pread(fd, _SLOT_BYTES, offset)
        if len(slot) < _HEAD.size:
            return
        target, name_bytes, text_bytes = _HEAD.unpack_from(slot)
        name_end = _HEAD.size + name_bytes
        name, text = slot[_HEAD.size : name_end], slot[name_end : name_end + text_bytes]
        # A power cut may leave anything.
        if 0 < target < 2**63 and name_bytes and b"\0" not in name and len(text) == text_bytes:
            yield target, os.fsdecode(name), os.fsdecode(text)
