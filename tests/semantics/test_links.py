"""What a workload may plant in its export: links of every kind, and a racer that swaps them in. None leads outside."""

import asyncio
import hashlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from replicator.detect import patrol as patrol_module
from tests.semantics.memory_s3 import MemoryS3

SECRET = b"secret-of-the-host"
FILES = 12

RACER = """
import ctypes, os, sys, threading
pairs = [tuple(map(os.fsencode, sys.argv[n : n + 2])) for n in range(1, len(sys.argv), 2)]
swap = ctypes.CDLL(None, use_errno=True).renameat2
is_over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), is_over.set()), daemon=True).start()
print("ready", flush=True)
swaps = 0
while not is_over.is_set():
    for one, other in pairs:
        assert swap(-100, one, -100, other, 2) == 0, ctypes.get_errno()
        swaps += 1
if os.path.islink(pairs[0][0]):
    for one, other in pairs:
        swap(-100, one, -100, other, 2)
print(swaps, flush=True)
"""
"""Exchanges the names of each pair (RENAME_EXCHANGE) until its standard input ends, then puts them back."""


def tree(top: Path) -> str:
    """Every name, kind, mode, time and content beneath `top`, as one digest."""
    digest = hashlib.sha256()
    for path in sorted((top, *top.rglob("*"))):
        seen = path.lstat()
        digest.update(f"{path} {seen.st_mode} {seen.st_mtime_ns} {seen.st_nlink} {seen.st_size}".encode())
        digest.update(path.read_bytes() if path.is_file() and not path.is_symlink() else b"")
    return digest.hexdigest()


@pytest.fixture
def outside(device) -> Path:
    """What the workload has no business with: files named like those of the export."""
    top = device.home / "outside"
    top.mkdir()
    for number in range(FILES):
        (top / f"f{number}").write_bytes(SECRET)
    return top


@pytest.mark.fault("F5", "A19", "A23", "F3")
async def test_planted_links_and_special_files_are_left_out_one_by_one(device, outside, witness):
    """E1: links to secrets, by the leaf or a parent, hard links and special files are counted; the good file goes."""
    device.write("out/good", b"good")
    out = device.outbox
    (out / "leaf").symlink_to(outside / "f0")
    (out / "environ").symlink_to("/proc/self/environ")
    (out / "parent").symlink_to(outside)
    (out / "proc").symlink_to("/proc/self")
    (out / "loop").symlink_to("loop")
    os.link(outside / "f1", out / "hard")
    os.mkfifo(out / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(out / "socket"))
    before = tree(outside)

    snapshot = await device.sync(device.egress())

    assert await witness.keys() == ["sent/good"]
    assert snapshot.targets[0].skipped_by_reason == {"symlink": 5, "hard-linked": 1, "special": 2}
    assert tree(outside) == before

    for path in out.iterdir():
        if path.name != "good":
            path.unlink()
    snapshot = await device.sync(device.egress())
    assert snapshot.targets[0].state == "in-step"
    assert snapshot.targets[0].skipped_by_reason == {}


@pytest.mark.fault("F8", "F3")
async def test_conflict_copy_goes_through_no_planted_link(device, outside, witness):
    """I4: a link in the place of an edited file's directory, later gone again, takes no version and no copy outside."""
    await witness.put("incoming/d/f0", b"first")
    await device.sync(device.ingress())
    (device.inbox / "d/f0").write_bytes(b"edited here")
    await witness.put("incoming/d/f0", b"second")
    (device.inbox / "d").rename(device.inbox / "away")
    (device.inbox / "d").symlink_to(outside)
    before = tree(outside)

    snapshot = await device.sync(device.ingress())
    assert snapshot.targets[0].skipped_by_reason == {"symlink": 1}
    assert tree(outside) == before

    (device.inbox / "d").unlink()
    (device.inbox / "away").rename(device.inbox / "d")
    snapshot = await device.sync(device.ingress())

    assert snapshot.targets[0].state == "in-step"
    assert tree(outside) == before
    assert (device.inbox / "d/f0").read_bytes() == b"second"
    (copy,) = (device.inbox / "d").glob("f0.sync-conflict-*")
    assert copy.read_bytes() == b"edited here"


@pytest.mark.fault("F6")
@pytest.mark.parametrize("planted", ["own", "own/tmp"])
async def test_planted_temporary_directory_takes_nothing_outside(device, outside, witness, planted):
    """I6: a link in the place of our own directory stops the fetch with a reason, and it goes on once that is gone."""
    await witness.put("incoming/f", b"content")
    path = device.export / planted.replace("own", ".replicator")
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(outside)
    before = tree(outside)

    snapshot = await device.sync(device.ingress())

    assert tree(outside) == before
    assert sum(snapshot.targets[0].failing_by_reason.values()) == 1
    path.unlink()
    snapshot = await device.sync(device.ingress())
    assert snapshot.targets[0].state == "in-step"
    assert (device.inbox / "f").read_bytes() == b"content"


class Racer:
    """A process of the workload that exchanges directories with links as fast as the kernel lets it."""

    def __init__(self, *pairs: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-ISc", RACER, *map(str, pairs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def stop(self) -> int:
        """How often it swapped; the directories have their own names again."""
        out, _ = self._process.communicate("", timeout=60)
        assert self._process.returncode == 0
        return int(out)


@pytest.mark.slow
@pytest.mark.fault("F4", "F3", "F5")
async def test_directory_swapped_with_a_link_never_leads_outside(
    device, outside, stub_s3, reply, until, monkeypatch, is_long, record_property
):
    """I6: while a racer swaps directories of both sides with links to the outside, no byte leaves or enters there."""
    monkeypatch.setattr(patrol_module, "_SOONEST_S", 0.05)
    bucket = MemoryS3(stub_s3, reply)
    device.storage = stub_s3.storage()
    pairs = []
    for top in (device.outbox, device.inbox):
        (top / "raced").mkdir(parents=True)
        (top / "decoy").symlink_to(outside)
        pairs += [top / "raced", top / "decoy"]
    sending = os.open(device.outbox / "raced", os.O_RDONLY)
    before, version, floor = tree(outside), 0, 100_000 if is_long else 5_000
    async with device.running(device.egress(), device.ingress(), retry_max_s=1) as running:

        def is_enough() -> bool:
            """Whether so much has moved, either way, that the race proves something."""
            return min(bucket.puts.total(), running.count("copied") - bucket.puts.total()) > FILES

        racer = Racer(*pairs)
        try:
            ends_s, has_moved = time.monotonic() + (30 if is_long else 4), False
            while time.monotonic() < ends_s or (not has_moved and time.monotonic() < ends_s + 60):
                version += 1
                for number in range(FILES):
                    content = f"{number} {version}".encode()
                    with open(os.open(f"f{number}", os.O_CREAT | os.O_TRUNC | os.O_WRONLY, dir_fd=sending), "wb") as f:
                        f.write(content)
                    bucket.objects[f"incoming/raced/f{number}"] = content
                for patrol in running.engine.patrols.values():
                    patrol.hurry()
                await asyncio.sleep(0.05)
                # Once is enough: a body is in the bucket before it counts as copied, so the difference may fall again.
                has_moved = has_moved or is_enough()
        finally:
            swaps = racer.stop()
            os.close(sending)
        assert tree(outside) == before
        assert SECRET not in bucket.bodies
        assert swaps >= floor
        assert has_moved

        for path in pairs[1::2]:
            path.unlink()
        expected = {f"f{number}": f"{number} {version}".encode() for number in range(FILES)}

        def is_equal() -> bool:
            there = {name: bucket.objects.get(f"sent/raced/{name}") for name in expected}
            here = {path.name: path.read_bytes() for path in (device.inbox / "raced").iterdir()}
            return there == expected and here.items() >= expected.items()

        await until(is_equal)
    assert tree(outside) == before
    assert SECRET not in bucket.bodies
    record_property("cases", swaps)
