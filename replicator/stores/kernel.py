"""What this machine's kernel allows, as far as it tells: numbers from /proc, None where there are none."""

from pathlib import Path


def watch_limit() -> int | None:
    """How many inotify watches one user may hold; containers share it with their host's user."""
    try:
        return int(Path("/proc/sys/fs/inotify/max_user_watches").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
