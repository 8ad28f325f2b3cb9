"""Keys that anybody may have put into the bucket: the harmless are files, the others are told, none leads out."""

import asyncio
import contextlib
import dataclasses
import logging
import sqlite3
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicator.model import OWN_DIR
from replicator.observe import logs
from tests.device import Device
from tests.semantics.memory_s3 import MemoryS3

HARMLESS = [
    "plain",
    "%2e%2e/x",
    "%2E%2E%2Fx",
    "．．/x",
    "a\\..\\b",
    "..a",
    "a..",
    "...",
    " ",
    "new\nline",
    "\x1b[31mred\x1b[0m",
    "bell\x07",
    "tab\there",
    "\u202etxt.exe",
    "-rf",
    "~",
    "*",
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned",
    "x'; DROP TABLE rows; --",
    'x" OR "1"="1',
    "Case",
    "case",
    "caf\u00e9",
    "cafe\u0301",
    "x" * 255,
    "/".join(["d" * 200] * 5)[: 1024 - len("incoming/")],
    "deep/" * 100 + "f",
]
UNSAFE = [
    "..",
    "../x",
    "../../../../tmp/x",
    "a/../../x",
    "a/..",
    "./dot",
    "mid/./x",
    "/etc/passwd",
    "//x",
    "a//b",
    "nul\0x",
    "x" * 256,
    "y/" + "x" * 300,
    "\u00e9" * 128,
]
LONG = "/".join(["e" * 200] * 6)[: 1025 - len("incoming/")]
"""Of 1,025 bytes with its prefix, which S3 itself refuses: a store that has it gives it away as any other."""


@pytest.fixture
def memory(stub_s3, reply) -> MemoryS3:
    return MemoryS3(stub_s3, reply)


@pytest.fixture
def device(tmp_path, stub_s3) -> Device:
    (tmp_path / "canary").write_bytes(b"untouched")
    return Device(tmp_path, stub_s3.storage())


def everything(home: Path) -> dict[str, bytes]:
    """All files beneath a device's home but those of the state directory, by their path."""
    found = {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if not name.startswith("state/")}


@pytest.mark.fault("F1", "F2", "F14", "B24")
async def test_each_key_is_a_file_or_is_told(device, memory):
    """I6: each harmless key is a file of exactly its name, each other one is counted, and nothing else appears."""
    content = {key: f"of {number}".encode() for number, key in enumerate([*HARMLESS, LONG])}
    memory.objects |= {f"incoming/{key}": body for key, body in content.items()}
    memory.objects |= {f"incoming/{key}": b"hostile" for key in UNSAFE}
    memory.objects |= {"incoming/folder/": b"", "incoming-beside/x": b"not ours"}

    snapshot = await device.sync(device.ingress())

    (view,) = snapshot.targets
    expected = {f"export/in/{key}": body for key, body in content.items()} | {"canary": b"untouched"}
    assert everything(device.home) == expected
    assert view.skipped_by_reason == {"unsafe-name": len(UNSAFE)}
    assert not view.failing_by_reason
    assert view.journal_rows == len(content)
    with contextlib.closing(sqlite3.connect(next((device.home / "state").glob("*.db")))) as journal:
        assert journal.execute("PRAGMA integrity_check").fetchone() == ("ok",)

    for key in UNSAFE:
        del memory.objects[f"incoming/{key}"]
    (view,) = (await device.sync(device.ingress())).targets
    assert (view.state, view.skipped_by_reason) == ("in-step", {})


@pytest.mark.fault("F1", "F2")
async def test_own_names_and_names_within_each_other_harm_nobody(device, memory):
    """I6: at the top of an export our own directory is out of reach, and of a key and one beneath it one is told."""
    memory.objects |= {
        f"incoming/{OWN_DIR}/tmp/x": b"hostile",
        f"incoming/{OWN_DIR}": b"hostile",
        f"incoming/below/{OWN_DIR}": b"theirs",
        "incoming/a": b"file",
        "incoming/a/b": b"beneath",
        "incoming/good": b"good",
    }

    (view,) = (await device.sync(device.ingress(subdir=""))).targets

    there = everything(device.home)
    there.pop("export/a", None)
    there.pop("export/a/b", None)
    assert there == {"canary": b"untouched", "export/good": b"good", f"export/below/{OWN_DIR}": b"theirs"}
    told = view.skipped_by_reason | view.failing_by_reason
    assert told.pop("unsafe-name") == 2
    assert sum(told.values()) == 1
    assert view.journal_rows == 3


@pytest.mark.fault("F7")
async def test_metadata_gives_a_file_no_mode_and_no_owner(tmp_path, storage, witness):
    """I2: whatever mode, owner or flag an object's metadata tell, the file is a plain one of ours."""
    device = Device(tmp_path, storage)
    hostile = {
        "mode": "104777",
        "permissions": "4777",
        "file-permissions": "4777",
        "uid": "0",
        "gid": "0",
        "owner": "root",
        "xattr-security.capability": "AQAAAgAgAAAAAAAAAAAAAAAAAAA=",
        "s3cmd-attrs": "uid:0/gid:0/mode:35309",
        "mtime": "1.5",
    }
    await witness.put("incoming/f", b"x", Metadata=hostile)
    await witness.put("incoming/plain", b"x")

    await device.sync(device.ingress())

    hostile_file, plain = (device.inbox / "f").stat(), (device.inbox / "plain").stat()
    assert stat.S_IMODE(hostile_file.st_mode) == stat.S_IMODE(plain.st_mode)
    assert stat.S_IMODE(hostile_file.st_mode) & ~0o644 == 0
    assert (hostile_file.st_uid, hostile_file.st_gid) == (plain.st_uid, plain.st_gid)


@pytest.mark.slow
@pytest.mark.fault("F10")
async def test_thousand_hostile_names_add_no_series_and_break_no_line(device, memory, until, tmp_path):
    """B5: names never become labels, and each record of the log is one printable line, whatever files are called."""
    log_file = tmp_path / "log"

    def series(running) -> set[str]:
        running.engine.metrics.publish(running.supervisor.snapshot())
        lines = running.engine.metrics.render().decode().splitlines()
        return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}

    async def held(running, count: int) -> None:
        await until(lambda: running.view("ingress").journal_rows == count)
        await running.swept()

    with log_file.open("w") as stream:
        logs.configure(level="debug", format="text", stream=stream)
        try:
            memory.objects = {"incoming/first": b"x", "incoming/../first": b"x"}
            async with device.running(device.ingress()) as running:
                await held(running, 1)
                before = series(running)
                for number in range(900):
                    if number < 100:
                        memory.objects[f"incoming/\x1b[2J{number}\nERROR forged line\x07\u202e"] = b"x"
                    memory.objects[f'incoming/..{number}/../"}} 1\nforged_total{number} 1'] = b"x"
                await held(running, 101)
                after = series(running)
                assert running.view("ingress").skipped_by_reason == {"unsafe-name": 901}
        finally:
            logs.configure(level="info", format="text")
            logging.getLogger("replicator").handlers.clear()

    assert after == before
    lines = log_file.read_text().split("\n")
    assert len(lines) > 100
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("ERROR forged") for line in lines)


PIECES = st.one_of(
    st.sampled_from(["..", ".", "", "/", "//", "\\", "%2e%2e", "%2f", "\0", "．．", OWN_DIR]),
    st.sampled_from(["a", "b", "tmp", "x" * 255, "\n"]),
    st.text(st.characters(codec="utf-8"), max_size=6),
)
KEYS = st.lists(PIECES, min_size=1, max_size=5).map("/".join).filter(lambda key: 0 < len(key.encode()) <= 900)


def is_harmless(key: str) -> bool:
    """By the kernel's rules, written down once more: it names a file beneath a directory, and no other way."""
    names = key.split("/")
    return "\0" not in key and all(name not in {"", ".", ".."} and len(name.encode()) <= 255 for name in names)


@pytest.mark.slow
@pytest.mark.fault("F1", "F2")
def test_no_keys_ever_lead_outside(stub_s3, reply, is_long):
    """I6: whatever a bucket holds, each key is a file of its name or told with a reason; all else stays as it was."""
    bucket = MemoryS3(stub_s3, reply)

    @settings(
        max_examples=500 if is_long else 12,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=not is_long,
    )
    @given(st.sets(KEYS, max_size=30))
    def hold(keys: set[str]) -> None:
        bucket.objects = {f"incoming/{key}": key.encode() for key in keys}
        with tempfile.TemporaryDirectory() as name:
            device = Device(Path(name), stub_s3.storage())
            (device.home / "canary").write_bytes(b"untouched")
            (view,) = asyncio.run(device.sync(dataclasses.replace(device.ingress()))).targets
            files = everything(device.home)
        assert files.pop("canary") == b"untouched"
        files = {path.removeprefix("export/in/"): body for path, body in files.items()}
        wanted = {key for key in keys if is_harmless(key)}
        assert all(body == path.encode() for path, body in files.items())
        assert files.keys() <= wanted
        alone = {key for key in wanted if not any(other.startswith(f"{key}/") for other in wanted)}
        assert files.keys() >= {key for key in alone if not any(key.startswith(f"{other}/") for other in wanted)}
        told = view.skipped_by_reason.get("unsafe-name", 0)
        assert told == sum(not is_harmless(key) and not key.endswith("/") for key in keys)
        assert len(files) + sum(view.skipped_by_reason.values()) + sum(view.failing_by_reason.values()) == sum(
            not key.endswith("/") for key in keys
        )

    hold()
