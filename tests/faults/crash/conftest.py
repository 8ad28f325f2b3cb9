"""A device whose `replicator` can be killed at any of its changes to files, and what must be true then and after."""

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import pytest

from replicator.model import OWN_DIR
from tests.faults.crash import tracer
from tests.faults.crash.tracer import Call, Plan

CANNOT = 77
_CODE = "from tests.faults.crash.zygote import main; main()"


@dataclass
class Ended:
    """A run of `replicator` that is over."""

    code: int
    calls: list[Call]
    log: str

    @property
    def changes(self) -> list[Call]:
        return [call for call in self.calls if call.is_change]

    @property
    def was_killed(self) -> bool:
        return self.code == -signal.SIGKILL


class Zygote:
    """Forks `replicator` processes that have everything imported."""

    def __init__(self) -> None:
        self._process = self._start()

    def _start(self) -> subprocess.Popen:
        top = str(Path(__file__).parents[3])
        process = subprocess.Popen(
            [sys.executable, "-c", _CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=top,
            env={**os.environ, "PYTHONPATH": top},
        )
        assert process.stdout.readline() == "ready\n"
        return process

    def stop(self) -> None:
        """Its child, if there is one, ends with it."""
        with self._process as process:
            process.kill()

    @property
    def memory_bytes(self) -> int:
        """Address space that is in use before anything runs."""
        return int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")

    def run(self, arguments: tuple[str, ...], home: Path, environment: dict, plan: Plan | None, limits: dict) -> Ended:
        log = home.parent / "log"
        request: dict[str, object] = {
            "arguments": arguments,
            "home": str(home),
            "environment": environment,
            "limits": limits,
        }
        request |= {"log": str(log), "plan": asdict(plan) if plan else None}
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline())
        except BaseException:  # a run that hangs fails its test, and no other
            self.stop()
            self._process = self._start()
            raise
        text = log.read_text(encoding="utf-8", errors="replace")
        if plan and answer["code"] == CANNOT:
            pytest.skip(f"this machine does not let a child be traced: {text.strip().splitlines()[-1]}")
        return Ended(answer["code"], [Call(*call) for call in answer["calls"]], text)


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    if tracer.CANNOT:
        pytest.skip(tracer.CANNOT)
    one = Zygote()
    yield one
    one.stop()


@dataclass
class Row:
    """A row of the journal, read without our code."""

    relpath: str
    size: int
    mtime_ns: int
    ino: int
    etag: str


@dataclass
class Stage:
    """One device with an export, a state directory, and a prefix of the bucket that nobody else uses."""

    home: Path
    prefix: str
    witness: object
    zygote: Zygote
    environment: dict[str, str]
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def export(self) -> Path:
        return self.home / "export"

    @property
    def out(self) -> Path:
        return self.export / "out"

    @property
    def inbox(self) -> Path:
        return self.export / "in"

    def run(self, plan: Plan | None = None, limits: dict[str, int] | None = None, **more: str) -> Ended:
        """`replicator sync`, to its end."""
        return self.zygote.run(("sync",), self.home, self.environment | more, plan, limits or {})

    def write(self, relpath: str, body: bytes) -> Path:
        path = self.export / relpath
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        return path

    @property
    def _client(self):
        return self.witness.client  # type: ignore[attr-defined]

    @property
    def _bucket(self) -> str:
        return cast("str", self.witness.bucket)  # type: ignore[attr-defined]

    def put(self, name: str, body: bytes, **more) -> None:
        """An object of somebody else, named below this stage's prefix."""
        self._client.put_object(Bucket=self._bucket, Key=self.prefix + name, Body=body, **more)

    def objects(self) -> dict[str, bytes]:
        """What was sent, by relpath."""
        found = self._client.list_objects_v2(Bucket=self._bucket, Prefix=f"{self.prefix}sent/").get("Contents", ())
        keys = [entry["Key"] for entry in found]
        return {
            key.removeprefix(f"{self.prefix}sent/"): self._client.get_object(Bucket=self._bucket, Key=key)[
                "Body"
            ].read()
            for key in keys
        }

    def etags(self, side: str) -> dict[str, str]:
        """ETags of objects below `sent` or `incoming`, by relpath."""
        found = self._client.list_objects_v2(Bucket=self._bucket, Prefix=f"{self.prefix}{side}/").get("Contents", ())
        return {entry["Key"].removeprefix(f"{self.prefix}{side}/"): entry["ETag"].strip('"') for entry in found}

    def versions(self) -> Counter[str]:
        """How often each was sent."""
        found = self._client.list_object_versions(Bucket=self._bucket, Prefix=f"{self.prefix}sent/")
        return Counter(entry["Key"].removeprefix(f"{self.prefix}sent/") for entry in found.get("Versions", ()))

    def open_uploads(self) -> list[str]:
        found = self._client.list_multipart_uploads(Bucket=self._bucket).get("Uploads", ())
        return [upload["Key"] for upload in found if upload["Key"].startswith(self.prefix)]

    def files(self, top: str = "in") -> dict[str, bytes]:
        """Every file below a directory of the export by its relpath there."""
        base = self.export / top
        return {str(path.relative_to(base)): path.read_bytes() for path in base.rglob("*") if path.is_file()}

    def inodes(self) -> dict[str, int]:
        return {str(path.relative_to(self.inbox)): path.lstat().st_ino for path in self.inbox.rglob("*")}

    def temps(self) -> list[str]:
        return [str(path) for path in (self.export / OWN_DIR / "tmp").glob("*")]

    @contextlib.contextmanager
    def journal(self) -> Iterator[sqlite3.Connection]:
        """The journal as it lies there, from a copy, so that looking changes nothing. It has to be sound."""
        copy = self.home / f"copy-{next(self.numbers)}"
        copy.mkdir()
        for name in ("journal.db", "journal.db-wal"):  # the shared memory is made anew, as after a power cut
            if (self.home / "state" / name).exists():
                shutil.copy(self.home / "state" / name, copy)
        with contextlib.closing(sqlite3.connect(copy / "journal.db")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            yield connection

    def rows(self, direction: str) -> dict[str, Row]:
        with self.journal() as journal:
            if not journal.execute("SELECT 1 FROM sqlite_schema WHERE name = 'rows'").fetchall():
                return {}
            found = journal.execute(
                "SELECT identity, relpath, size, mtime_ns, ino, etag FROM rows JOIN targets ON id = target"
            ).fetchall()
        rows = [
            Row(os.fsdecode(relpath), size, mtime_ns, ino, etag.decode())
            for identity, relpath, size, mtime_ns, ino, etag in found
            if identity.split(b"\n")[1].decode() == direction and b"\ngeneration\n" not in identity
        ]
        return {row.relpath: row for row in rows}

    def assert_rows_are_true(self, incoming: str = "in") -> None:
        """Each row of the present version tells of an object and of a file that are there, and hold the same."""
        sent, fetched = self.etags("sent"), self.etags("incoming")
        assert {row.relpath: row.etag for row in self.rows("egress").values()}.items() <= sent.items()
        for row in self.rows("ingress").values():
            if row.etag == fetched[row.relpath]:
                path = self.export / incoming / row.relpath
                found = path.stat()
                assert (found.st_size, found.st_mtime_ns, found.st_ino) == (row.size, row.mtime_ns, row.ino), row
                assert hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == row.etag


@pytest.fixture
def make_stage(tmp_path, witness, storage, zygote) -> Callable[[], Stage]:
    """Stages in one bucket that keeps every version, each with a prefix of its own."""
    witness.client.put_bucket_versioning(Bucket=witness.bucket, VersioningConfiguration={"Status": "Enabled"})
    endpoint = urlsplit(storage.endpoint)
    numbers = itertools.count(1)

    def make() -> Stage:
        name = f"stage{next(numbers)}"
        home = tmp_path / name
        (home / "export/out").mkdir(parents=True)
        environment = {
            "PATH": os.environ["PATH"],
            "REPLICATOR_EXPORT_DIR": str(home / "export"),
            "REPLICATOR_STATE_DIR": str(home / "state"),
            "REPLICATOR_FREE_SPACE_FLOOR_BYTES": "0",
            "REPLICATOR_TRANSFERS": "2",
            "REPLICATOR_EGRESS": f"out={name}/sent",
            "REPLICATOR_INGRESS": f"{name}/incoming=in",
            "REPLICATOR_S3_SCHEME": endpoint.scheme,
            "OBC_BUCKET_HOST": endpoint.hostname or "",
            "OBC_BUCKET_PORT": str(endpoint.port),
            "OBC_BUCKET_NAME": storage.bucket,
            "OBC_BUCKET_REGION": storage.region,
            "OBC_AWS_ACCESS_KEY_ID": storage.access_key_id.get_secret_value(),
            "OBC_AWS_SECRET_ACCESS_KEY": storage.secret_access_key.get_secret_value(),
        }
        return Stage(home, f"{name}/", witness, zygote, environment)

    return make


@pytest.fixture
def stage(make_stage) -> Stage:
    return make_stage()
