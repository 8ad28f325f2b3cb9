"""The model of one device and one bucket: what the workload and others did, and what therefore has to hold.

Owns: the deeds of the workload and of other writers, with every complete content they ever made; the invariants that
hold after every step. What has to hold once all is calm is `calm`.
"""

import os
import shutil
import stat
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from replicator.errors import KeyUnsafe
from replicator.model import Prefix
from replicator.reconcile.keys import key_of
from tests.model.bucket import Bucket
from tests.model.process import COMING, ECHO, IN, OUT, PART, RANGED, SENT, SMALL


class _Long(str):
    """Told in few letters where a story is told."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{self[0]!r} * {len(self)}"


NAMES = (
    "a",
    "b",
    "d/a",
    "d/b",
    "d/e/c",
    "a/x",
    "caf\u00e9",
    "cafe\u0301",
    "x#?%+\\ ",
    "l\ne",
    "w\udcff",
    _Long("n" * 255),
)
HOSTILE = ("../evil", "/abs", "a//b", "./x", "x/../y", "d/", _Long("n" * 256), "z\0", ".replicator/tmp/x", "d/e/")
SIZES = (0, 1, 17, SMALL - 1, SMALL, SMALL + 1, PART - 1, PART, PART + 1, 2 * PART, RANGED, 4 * PART + 5)
CONTENTS = tuple((number, size) for number in range(3) for size in SIZES)


def content(number: int, size: int) -> bytes:
    return (f"{number}/{size}:".encode() * (size // 3 + 1))[:size]


class World:
    """Deeds are no-ops where they make no sense, so that any story can be told."""

    def __init__(self, home: Path, bucket: Bucket, *, frees: bool) -> None:
        self.home = home
        self.export = home / "export"
        self.bucket = bucket
        self.frees = frees
        self.is_mounted = True
        self.is_strange = False
        """Whether the directory was exchanged, or the journal lost."""
        self.history: dict[str, set[bytes]] = defaultdict(set)
        """Every complete content that the workload ever left at a path, the mapped directory included."""
        self.known: dict[str, bytes] = {}
        """The workload's files in the egress directory as they were last left; freed ones too."""
        self.edits: dict[str, bytes] = {}
        """What the workload last left in the ingress directory, and did not take away itself."""
        self.objects: dict[str, set[bytes]] = defaultdict(set)
        """Every content that a key ever had."""
        self.open: dict[str, int] = {}
        self._seen = 0
        for name in (OUT, IN):
            (self.export / name).mkdir(parents=True)
        self._outside = home / "outside"
        self._outside.mkdir()
        (self._outside / "canary").write_bytes(b"canary")
        bucket.store("neighbour/canary", b"canary")
        bucket.store("sent2/canary", b"canary")
        self.look()

    # Deeds of the workload

    def path(self, tree: str, name: str) -> Path:
        return self.export / tree / name

    def write(self, tree: str, name: str, body: bytes, *, how: str = "write") -> bool:
        """Leave a complete content there, in one of the ways that programs have."""
        path = self.path(tree, name)
        if not self.is_mounted or f"{tree}/{name}" in self.open or not self._room_for(path):
            return False
        if how in ("append", "truncate", "same-mtime", "touch") and not path.is_file():
            return False
        before = path.read_bytes() if path.is_file() else b""
        if how == "append":
            body = before + body[:100]
        elif how == "truncate":
            body = before[: len(before) // 2]
        elif how == "touch":
            body = before
        if how == "replace":
            fresh = self.home / "fresh"
            fresh.write_bytes(body)
            fresh.replace(path)
        elif how == "same-mtime":
            found = path.stat()
            path.write_bytes(body)
            os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
        elif how == "touch":
            os.utime(path)
        else:
            path.write_bytes(body)
        self._left(tree, name, body)
        return True

    def _leads_outside(self, path: Path) -> bool:
        return any(parent.is_symlink() for parent in path.parents if parent.is_relative_to(self.export))

    def _room_for(self, path: Path) -> bool:
        if self._leads_outside(path):
            return False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            found = path.lstat()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return stat.S_ISREG(found.st_mode) and found.st_nlink == 1  # nothing is written into what lies outside

    def _left(self, tree: str, name: str, body: bytes) -> None:
        path = f"{tree}/{name}"
        self.history[path].add(body)
        (self.known if tree == OUT else self.edits)[path] = body

    def hold(self, tree: str, name: str, body: bytes) -> bool:
        """Begin to write a file, and keep it open."""
        path = self.path(tree, name)
        if not self.is_mounted or f"{tree}/{name}" in self.open or not self._room_for(path):
            return False
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.write(fd, b"unfinished" + body)
        self.open[f"{tree}/{name}"] = fd
        (self.known if tree == OUT else self.edits).pop(f"{tree}/{name}", None)
        return True

    def let_go(self) -> bool:
        """Close what is open: complete by that."""
        was_open = list(self.open)
        for path in was_open:
            self._close(path)
        return bool(was_open)

    def _close(self, path: str) -> None:
        fd = self.open.pop(path)
        found = os.fstat(fd)
        os.close(fd)
        tree = path.partition("/")[0]
        for name, at in plain_files(self.export / tree):  # it may have been put aside meanwhile
            if os.path.samestat(found, at.stat()):
                self._left(tree, name, at.read_bytes())

    def delete(self, tree: str, name: str) -> bool:
        """Remove a file or a whole directory."""
        path = self.path(tree, name)
        if not self.is_mounted or self._leads_outside(path) or not os.path.lexists(path):
            return False
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
        self._gone(f"{tree}/{name}")
        return True

    def _gone(self, path: str) -> None:
        for record in (self.known, self.edits):
            for known in [one for one in record if one == path or one.startswith(path + "/")]:
                del record[known]
        for known in [one for one in self.open if one == path or one.startswith(path + "/")]:
            self._close(known)

    def rename(self, tree: str, name: str, other: str) -> bool:
        """Of a file or a directory, over a file if there is one."""
        here, there = self.path(tree, name), self.path(tree, other)
        if not self.is_mounted or self.open or self._leads_outside(here) or self._leads_outside(there):
            return False
        if not os.path.lexists(here) or f"{other}/".startswith(f"{name}/"):
            return False
        try:
            there.parent.mkdir(parents=True, exist_ok=True)
            here.rename(there)
        except OSError:
            return False
        self._gone(f"{tree}/{name}")
        self._gone(f"{tree}/{other}")
        self._found_at(there)
        return True

    def _found_at(self, top: Path) -> None:
        """Whatever is there now, and not behind a link, was left there by the workload."""
        if top.is_symlink():
            return
        for path in [at for _, at in plain_files(top)] if top.is_dir() else [top]:
            if path.is_file():
                tree, _, name = os.fspath(path.relative_to(self.export)).partition("/")
                self._left(tree, name, path.read_bytes())

    def swap(self, tree: str, name: str, kind: str) -> bool:
        """Put something in the place that is no plain file."""
        path = self.path(tree, name)
        if not self.is_mounted or self._leads_outside(path) or f"{tree}/{name}" in self.open:
            return False
        self.delete(tree, name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            match kind:
                case "symlink":
                    path.symlink_to(self._outside / "canary")
                case "symlinked-directory":
                    path.symlink_to(self._outside)
                case "fifo":
                    os.mkfifo(path)
                case "hard-link":
                    os.link(self._outside / "canary", path)
                    self.history[f"{tree}/{name}"].add(b"canary")
                case _:
                    path.mkdir()
        except OSError:
            return False
        return True

    # Deeds of the environment

    def unmount(self, *, leaves_a_directory: bool) -> bool:
        """Take the export away, with an empty directory in its place or with nothing."""
        if not self.is_mounted or self.open:
            return False
        self.export.rename(self.home / "away")
        if leaves_a_directory:
            self.export.mkdir()
            self.is_strange = True
        self.is_mounted = False
        return True

    def mount(self) -> bool:
        if self.is_mounted:
            return False
        shutil.rmtree(self.export, ignore_errors=True)
        (self.home / "away").rename(self.export)
        self.is_mounted = True
        return True

    def replace_root(self) -> bool:
        """The same files in another directory, as after a restored backup."""
        if not self.is_mounted or self.open:
            return False
        copy = self.home / "copy"
        shutil.copytree(self.export, copy, symlinks=True, ignore=self._leave_out)
        shutil.rmtree(self.export)
        copy.rename(self.export)
        self.is_strange = True
        for tree in (OUT, IN):
            self._found_at(self.export / tree)
        return True

    @staticmethod
    def _leave_out(directory: str, names: list[str]) -> list[str]:
        paths = [(name, os.path.join(directory, name)) for name in names]
        is_plain = {name: os.path.isfile(path) or os.path.isdir(path) for name, path in paths}
        return [name for name, path in paths if name == ".replicator" or os.path.islink(path) or not is_plain[name]]

    # Deeds of other writers of the bucket

    def put(self, key: str, body: bytes) -> bool:
        self.bucket.store(key, body, metadata={"mtime": "1700000000.5"} if len(body) % 2 else {})
        self.look()
        return True

    def remove(self, key: str) -> bool:
        if key not in self.bucket.objects:
            return False
        self.bucket.remove(key)
        return True

    # What holds after every step

    def look(self) -> None:
        """What became visible in the bucket since the last look was whole, ours, and where it belongs."""
        written, self._seen = self.bucket.written[self._seen :], len(self.bucket.written)
        for version in written:
            self.objects[version.key].add(version.body)
            if version.writer:
                tree = {SENT: OUT, ECHO: IN}.get(version.key[: version.key.find("/") + 1])
                assert tree, f"{version.key!r} is none of ours to write"
                path = f"{tree}/{version.key.partition('/')[2]}"
                assert self.has_made(path, version.body), f"{path!r} never was what its object is"
        assert not [key for key, writer in self.bucket.removed if writer], "an object was deleted"

    def has_made(self, path: str, body: bytes) -> bool:
        """Whether the workload left that content there, or where a conflict copy of that name comes from."""
        original = path.partition(".sync-conflict-")[0]
        is_copy = original != path
        # What ingress wrote passes for the workload's own in another directory, once the journal was lost, and when
        # its object is gone.
        key = COMING + original.removeprefix(IN + "/")
        fetched = [bodies for one, bodies in self.objects.items() if one == key or (is_copy and one.startswith(key))]
        is_forgotten = self.is_strange or any(one.startswith(key) for one, _ in self.bucket.removed)
        if is_forgotten and path.startswith(IN + "/") and any(body in bodies for bodies in fetched):
            return True
        # The name of a copy is cut where it would become too long.
        return any(
            body in bodies
            for one, bodies in self.history.items()
            if one == path or (is_copy and one.startswith(original))
        )

    def check(self) -> None:
        """After a step of the engine."""
        self.look()
        assert [path.name for path in self._outside.iterdir()] == ["canary"]
        assert (self._outside / "canary").read_bytes() == b"canary"
        if not self.is_mounted:
            return
        for path, body in list(self.known.items()):
            if (self.export / path).is_file():
                assert (self.export / path).read_bytes() == body, f"{path!r} was changed"
                continue
            assert self.frees, f"{path!r} was removed"
            assert body in self.objects[SENT + path.partition("/")[2]], f"{path!r} was removed and is not stored"
            del self.known[path]
        unfinished = {os.fstat(fd).st_ino for fd in self.open.values()}
        for name, place in plain_files(self.export / IN):
            if place.stat().st_ino not in unfinished:
                self._check_arrived(name, place.read_bytes())

    def _check_arrived(self, name: str, body: bytes) -> None:
        original = name.partition(".sync-conflict-")[0]
        made = self.has_made(f"{IN}/{name}", body)
        fetched = any(body in bodies for key, bodies in self.objects.items() if key.startswith(COMING + original))
        assert made or fetched, f"{name!r} holds bytes that neither side ever had"


def plain_files(top: Path) -> Iterator[tuple[str, Path]]:
    """Relpath and path of every plain file beneath, through no link."""
    for directory, names, files in os.walk(top):
        names.sort()
        for name in sorted(files):
            path = Path(directory) / name
            if stat.S_ISREG(path.lstat().st_mode):
                yield os.fspath(path.relative_to(top)), path


def eligible(top: Path, prefix: str) -> Iterator[tuple[str, bytes]]:
    """Key and content of every file that egress has to carry."""
    for relpath, path in plain_files(top):
        try:
            key = key_of(Prefix(prefix), relpath)
        except KeyUnsafe:
            continue
        if path.stat().st_nlink == 1:
            yield key, path.read_bytes()


Deed = Callable[..., bool]
