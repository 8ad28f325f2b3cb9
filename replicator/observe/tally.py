"""How far long work has come: counted by whoever works, on any thread, and read by whoever shows it."""

import threading


class Tally:
    """Files and bytes that are done, and of how many; None while that is not known."""

    def __init__(self) -> None:
        self.files = self.size_bytes = 0
        self.all_files: int | None = None
        self.all_bytes: int | None = None
        self._lock = threading.Lock()

    def expect(self, *, files: int, size_bytes: int) -> None:
        """There are so many in all, as far as is known now."""
        self.all_files, self.all_bytes = files, size_bytes

    def add(self, *, files: int = 0, size_bytes: int = 0) -> None:
        """So many more are done. For several threads."""
        with self._lock:
            self.files += files
            self.size_bytes += size_bytes
