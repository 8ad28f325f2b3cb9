"""The last good configuration on disk, for a device that starts while nobody can be asked.

Owns: that it is written whole or not at all, and readable for nobody else: it holds the bucket's credentials. Never:
what is in it. Losing it costs a start without the network, so a full disk is no fault.
"""

import contextlib
import os
from pathlib import Path


def keep(path: Path, text: str) -> None:
    """Have `text` there, for the process's own user alone."""
    temp = path.with_suffix(".tmp")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temp.replace(path)


def forget(path: Path) -> None:
    """Have nothing there, nor anything half-written. Raises OSError."""
    for one in (path, path.with_suffix(".tmp")):
        one.unlink(missing_ok=True)
