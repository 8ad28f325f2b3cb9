"""A workload and another party, both drawn from a seed: what they wrote is what the two sides have to hold in the end.

Both write whole contents and remember the digest of each, so a torn file or object is one whose digest nobody wrote.
"""

import contextlib
import hashlib
import os
import random
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

DIRECTORIES, NAMES, KEYS = 40, 50, 400
MIB = 2**20


def digest(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


class Workload:
    """Changes files beneath the directory of an egress target."""

    def __init__(self, top: Path, dice: random.Random) -> None:
        self.written: defaultdict[str, set[str]] = defaultdict(set)
        """relpath -> digests of every content that the file had when it was closed."""
        self.deeds = 0
        self._top, self._dice = top, dice
        self._menu: list[tuple[Callable[[], None], float]] = [
            (self._write, 70),
            (self._replace, 10),
            (self._append, 8),
            (self._remove, 5),
            (self._rename, 3),
            (self._deepen, 2),
            (self._touch, 1),
            (self._plant, 0.2),
            (self._write_large, 0.1),
        ]
        self._deeds, self._weights = zip(*self._menu, strict=True)

    def act(self) -> None:
        """One change; a full disk or a missing directory costs this one."""
        with contextlib.suppress(OSError):
            self._dice.choices(self._deeds, self._weights)[0]()
            self.deeds += 1

    def burst(self, files: int) -> None:
        """So many files in a new directory at once."""
        for number in range(files):
            with contextlib.suppress(OSError):
                self._put(f"burst/b{number}", b"burst")

    def clear_burst(self) -> None:
        shutil.rmtree(self._top / "burst", ignore_errors=True)

    def put_odd(self) -> None:
        """A new version of a name that only one of the two engines carries."""
        with contextlib.suppress(OSError):
            self._put("odd\tname", self._dice.randbytes(100))

    def _any(self) -> str:
        return f"d{self._dice.randrange(DIRECTORIES)}/f {self._dice.randrange(NAMES)}+ü"

    def _content(self, most: int = 8192) -> bytes:
        return self._dice.randbytes(self._dice.choice((0, 1, self._dice.randrange(most))))

    def _put(self, relpath: str, content: bytes, *, flags: str = "wb") -> None:
        """Write in two strokes; what was there before may be all that remains when the disk is full."""
        path = self._top / relpath
        path.parent.mkdir(parents=True, exist_ok=True)
        if flags == "wb":
            self.written[relpath].add(digest(content))
        try:
            with path.open(flags) as file:
                file.write(content[: len(content) // 2])
                file.flush()
                file.write(content[len(content) // 2 :])
        finally:
            self._note(relpath)

    def _note(self, relpath: str) -> None:
        with contextlib.suppress(OSError):
            self.written[relpath].add(digest((self._top / relpath).read_bytes()))

    def _write(self) -> None:
        self._put(self._any(), self._content())

    def _write_large(self) -> None:
        self._put(f"large/{self._dice.randrange(4)}", self._dice.randbytes(self._dice.randrange(MIB, 12 * MIB)))

    def _append(self) -> None:
        relpath = self._any()
        if (self._top / relpath).is_file() and (self._top / relpath).stat().st_size < 64 * 1024:
            self._put(relpath, self._content(256), flags="ab")

    def _replace(self) -> None:
        relpath, content = self._any(), self._content()
        temp = self._top.parent / "replacement"
        temp.write_bytes(content)
        self.written[relpath].add(digest(content))
        (self._top / relpath).parent.mkdir(parents=True, exist_ok=True)
        temp.replace(self._top / relpath)

    def _remove(self) -> None:
        (self._top / self._any()).unlink(missing_ok=True)

    def _rename(self) -> None:
        old, new = self._any(), self._any()
        if (self._top / old).is_file() and (self._top / new).parent.is_dir():
            self.written[new].add(digest((self._top / old).read_bytes()))
            (self._top / old).rename(self._top / new)

    def _deepen(self) -> None:
        self._put(f"deep{self._dice.randrange(20)}/" + "a/b/c/d/e/" + self._any(), self._content(100))

    def _touch(self) -> None:
        path = self._top / self._any()
        if path.is_file():
            os.utime(path, ns=(0, self._dice.randrange(2**60)))

    def _plant(self) -> None:
        """What is never sent: a link out of the tree, a FIFO."""
        place = self._top / f"d{self._dice.randrange(DIRECTORIES)}"
        place.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (place / "link").symlink_to("/etc/passwd")
        with contextlib.suppress(FileExistsError):
            os.mkfifo(place / "fifo")


class OtherParty:
    """Writes objects beneath the prefix of an ingress target, and edits a fetched file now and then."""

    def __init__(self, client: Any, bucket: str, inbox: Path, dice: random.Random) -> None:
        self.written: defaultdict[str, set[str]] = defaultdict(set)
        """relpath -> digests of every content that its object, or an edit, had."""
        self.objects: dict[str, str] = {}
        """relpath -> digest of the object as it is."""
        self.edits: dict[str, str] = {}
        """relpath -> digest of the last edit."""
        self.deeds = 0
        self._client, self._bucket, self._inbox, self._dice = client, bucket, inbox, dice

    def act(self) -> None:
        key = f"k{self._dice.randrange(20)}/o {self._dice.randrange(KEYS // 20)}"
        kind = self._dice.random()
        if kind < 0.9:
            self._put(key)
        elif kind < 0.95:
            self._client.delete_object(Bucket=self._bucket, Key=f"incoming/{key}")
            self.objects.pop(key, None)
        elif kind < 0.99:
            with contextlib.suppress(OSError):
                (self._inbox / key).unlink(missing_ok=True)
            self.edits.pop(key, None)  # the edit may have been what went
        else:
            self._edit(key)
        self.deeds += 1

    def _put(self, key: str) -> None:
        content = self._dice.randbytes(self._dice.randrange(4096))
        self.written[key].add(digest(content))
        self._client.put_object(Bucket=self._bucket, Key=f"incoming/{key}", Body=content)
        self.objects[key] = digest(content)

    def _edit(self, key: str) -> None:
        """Replaces a fetched file that was not edited before, so that its conflict copies stay few."""
        path = self._inbox / key
        if key in self.edits or not path.is_file():
            return
        content = b"edited " + self._dice.randbytes(100)
        temp = self._inbox.parent / "edit"
        self.written[key].add(digest(content))
        with contextlib.suppress(OSError):
            temp.write_bytes(content)
            temp.replace(path)
            self.edits[key] = digest(content)
