"""Files that move while they are looked at, read or sent: what reaches the bucket is a version that was.

The whole engine with a real S3 server. Each case ends with the fault gone and both sides equal.
"""

import mmap
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from replicator.stores.files import openfile
from replicator.stores.files.beneath import fingerprint_of
from replicator.stores.files.export import Export
from tests.waiting import eventually

pytestmark = pytest.mark.slow
MIB = 2**20
PART = {"part_size_bytes": 5 * MIB}
SIZE = 11 * MIB


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def truncate(path: Path) -> None:
    os.truncate(path, 6 * MIB)


def remove(path: Path) -> None:
    path.unlink()


def between_parts(store, deed) -> list[int]:
    """Let the deed be done once, after the first part of the next upload has left; the list tells that it was."""
    put_part, put_parts = store.put_part, store.put_parts
    done: list[int] = []

    def one_part(key, upload_id, number, body, *, md5):
        etag = put_part(key, upload_id, number, body, md5=md5)
        if not done:
            done.append(number)
            deed()
        return etag

    def stream(key, parts, **more):
        def watched():
            for number, part in enumerate(parts):
                if number == 1 and not done:
                    done.append(number)
                    deed()
                yield part

        return put_parts(key, watched(), **more)

    store.put_part, store.put_parts = one_part, stream
    return done


@pytest.mark.fault("A1", "A2")
@pytest.mark.parametrize("deed", [append, truncate])
@pytest.mark.parametrize("resume_after_s", [0, 3600], ids=["recorded parts", "stream"])
async def test_file_that_changes_between_two_parts(device, witness, deed, resume_after_s):
    """A large file that grows or shrinks after its first part: no object of it is seen but the whole new version."""
    path = device.write("out/f", os.urandom(SIZE))
    path.rename(device.home / "f")
    device.outbox.mkdir(exist_ok=True)
    versioning = {"Status": "Enabled"}
    witness.client.put_bucket_versioning(Bucket=witness.bucket, VersioningConfiguration=versioning)
    async with device.running(device.egress(), **PART, resume_after_s=resume_after_s) as running:
        await running.in_step()
        store = next(iter(running.engine.patrols.values())).lane.objects
        done = between_parts(store, lambda: deed(path))
        (device.home / "f").rename(path)
        await eventually(lambda: done)
        await running.in_step()

        assert running.retries("source-changed") >= 1
    versions = witness.client.list_object_versions(Bucket=witness.bucket)["Versions"]
    assert [witness.body_of("sent/f", one["VersionId"]) for one in versions] == [path.read_bytes()]
    assert "Uploads" not in witness.client.list_multipart_uploads(Bucket=witness.bucket)


@pytest.mark.fault("A22")
@pytest.mark.parametrize("resume_after_s", [0, 3600], ids=["recorded parts", "stream"])
async def test_file_that_vanishes_between_two_parts(device, witness, resume_after_s):
    """A large file that is removed after its first part: no object, no upload left, nothing fails."""
    path = device.write("out/f", os.urandom(SIZE))
    device.write("out/other")
    async with device.running(device.egress(), **PART, resume_after_s=resume_after_s, watcher="off") as running:
        await running.in_step()
        store = next(iter(running.engine.patrols.values())).lane.objects
        done = between_parts(store, lambda: remove(path))
        path.write_bytes(os.urandom(SIZE))
        await eventually(lambda: done)
        device.write("out/late")
        await running.in_step()

        assert not running.view().failing
        assert running.retries("source-changed") <= 2
    assert await witness.keys() == ["sent/f", "sent/late", "sent/other"]
    assert "Uploads" not in witness.client.list_multipart_uploads(Bucket=witness.bucket)


@pytest.mark.fault("A22")
async def test_files_that_vanish_between_their_event_and_their_open(device, witness, monkeypatch):
    """Hundreds of files that are gone, or other ones, when they are opened: no error, no retry, no request for them."""
    real = Export.open_if_there
    lost: list[str] = []

    def lose(self, relpath):
        path = Path(self.root, self.subdir, relpath)
        if relpath.startswith("gone"):
            path.unlink(missing_ok=True)
            lost.append(relpath)
        elif relpath.startswith("swapped") and relpath not in lost:
            lost.append(relpath)
            other = device.home / relpath
            other.write_bytes(b"new version")
            other.rename(path)
        return real(self, relpath)

    monkeypatch.setattr(Export, "open_if_there", lose)
    device.outbox.mkdir()
    async with device.running(device.egress()) as running:
        await running.watching()
        for number in range(200):
            device.write(f"out/gone{number}")
            device.write(f"out/swapped{number}", b"old version")
        await eventually(lambda: len(set(lost)) == 400)
        await running.in_step()

        assert running.count("failed") == 0
        assert running.retries("source-changed") <= 200
        assert not running.view().failing
    assert await witness.keys() == sorted(f"sent/swapped{number}" for number in range(200))
    assert await witness.get("sent/swapped7") == b"new version"


@pytest.mark.fault("A4")
async def test_mapped_file_that_is_never_closed(device, witness):
    """What a program writes through a mapping that it keeps makes no event: the sweep finds each msync."""
    path = device.write("out/f", bytes(8192))
    async with device.running(device.egress(open_files="snapshot"), open_file_ceiling_s=0) as running:
        await running.in_step()
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 8192) as mapping:
            for content in (b"a" * 8192, b"b" * 8192):
                mapping[:] = content
                mapping.flush()

                await eventually(lambda content=content: holds(witness, "sent/f", content))


async def holds(witness, key: str, content: bytes) -> bool:
    return key in await witness.keys(key) and await witness.get(key) == content


@pytest.mark.fault("A5")
async def test_files_and_trees_that_are_renamed_into_place(device, witness):
    """Editors' renames, hard-link renames and moved trees: final names only, each once, and no old key is removed."""
    device.write("out/tree/deep/f", b"in the tree")
    device.write("out/linked.tmp", b"linked")
    async with device.running(device.egress(exclude=("*.tmp",)), sweep_interval_s=3600) as running:
        await running.watching()
        await eventually(lambda: running.view().state == "in-step")
        for number in range(100):
            device.write("out/saved.tmp", b"%d" % number).rename(device.outbox / "saved")
        os.link(device.outbox / "linked.tmp", device.outbox / "linked")
        (device.outbox / "linked.tmp").unlink()
        (device.outbox / "tree").rename(device.outbox / "moved")
        expected = ["sent/linked", "sent/moved/deep/f", "sent/saved", "sent/tree/deep/f"]

        async def is_there():
            return await witness.keys() == expected and await witness.get("sent/saved") == b"99"

        await eventually(is_there)
        await eventually(lambda: running.view().state == "in-step")

        assert running.count("copied") <= 4 + 99
        assert running.requests().keys() <= {"put_object", "list_objects_v2"}


@pytest.mark.fault("A18")
@pytest.mark.parametrize("is_freeing", [False, True], ids=["keeping", "freeing"])
async def test_nearly_all_files_vanish_at_once(device, witness, is_freeing):
    """95 of 100 files removed at once: no object goes, and of the files that stayed only what was asked to go."""
    for number in range(100):
        device.write(f"out/{number // 10}/{number}", b"%d" % number)
    everything = {path for path in device.outbox.rglob("*") if path.is_file()}
    kept = {device.outbox / f"{number // 10}/{number}" for number in range(0, 100, 20)}
    await device.sync(device.egress())
    if is_freeing:  # before it can free all of them
        for path in everything - kept:
            path.unlink()
    async with device.running(device.egress(delete_after_upload=is_freeing)) as running:
        await running.in_step()
        for path in everything - kept:
            path.unlink(missing_ok=True)
        await eventually(lambda: running.view().journal_rows == (0 if is_freeing else len(kept)))
        await running.in_step()
        await running.in_step()

        assert "delete_object" not in running.requests()
        assert not running.view().failing
        assert {path for path in device.outbox.rglob("*") if path.is_file()} == (set() if is_freeing else kept)
    assert len(await witness.keys("sent/")) == 100


@pytest.mark.fault("A18")
async def test_whole_tree_vanishes_and_comes_back(device, witness):
    """The whole source removed and restored from a backup: stands still meanwhile, then compares and sends nothing."""
    for number in range(50):
        device.write(f"out/{number % 5}/{number}", bytes(70_000))
    async with device.running(device.egress()) as running:
        await running.in_step()
        shutil.copytree(device.outbox, device.home / "backup")
        shutil.rmtree(device.outbox)
        await eventually(lambda: running.view().state == "blocked")
        assert "missing" in running.view().reason or "empty" in running.view().reason
        before = running.requests()

        shutil.copytree(device.home / "backup", device.outbox)
        await running.in_step()

        assert running.requests().get("put_object") == before.get("put_object")
        assert "delete_object" not in running.requests()
        assert running.view().journal_rows == 50
    assert len(await witness.keys("sent/")) == 50


@pytest.mark.fault("A3")
async def test_rewrite_within_one_tick_of_the_clock_is_not_missed(device, witness, monkeypatch):
    """Two versions of one size and one stamp: the file is not read before the next change has another stamp."""
    is_ticking = True
    device.outbox.mkdir()
    # All that the engine sees of a version's time is one tick of a coarse clock.
    monkeypatch.setattr(
        openfile, "fingerprint_of", lambda found: replace(fingerprint_of(found), mtime_ns=1, ctime_ns=1)
    )
    monkeypatch.setattr(openfile.OpenFile, "tick_left_s", lambda _: 0.01 if is_ticking else 0.0)
    async with device.running(device.egress()) as running:
        await running.watching()
        path = device.write("out/f", b"first!")
        await eventually(lambda: running.retries("source-changed"))
        assert await witness.keys("sent/") == []
        path.write_bytes(b"second")
        is_ticking = False

        await eventually(lambda: running.view().journal_rows)

    assert await witness.get("sent/f") == b"second"
