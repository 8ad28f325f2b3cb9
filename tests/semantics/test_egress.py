"""Egress promises: `/export/<source>` -> `<bucket>/<target>/`."""

import asyncio
import os
import shutil
import threading

import pytest

from replicator.errors import Unavailable
from replicator.model import Upload
from replicator.stores.files.export import Export
from replicator.stores.journal.journal import Journal
from tests.faults.wire import late


async def test_e1_settled_file_is_in_the_bucket_at_once_after_its_event(device, witness, until):
    """E1: a closed file is in the bucket, whole, under <target>/<relpath>, within the debounce time and a second."""
    device.outbox.mkdir()
    async with device.running(device.egress(), sweep_interval_s=3600) as running:
        await running.watching()
        device.write("out/a/b c.txt", b"hello")

        await until(lambda: witness.keys("sent/"), within_s=1.5)

        assert await witness.get("sent/a/b c.txt") == b"hello"


async def test_e1_settled_file_is_in_the_bucket_within_one_sweep_without_events(device, witness, until):
    """E1: with every event lost, the sweep alone brings the file into the bucket."""
    device.outbox.mkdir()
    async with device.running(device.egress(), watcher="off") as running:
        await running.in_step()
        device.write("out/quiet.txt", b"found by the sweep")

        await until(lambda: witness.keys("sent/"), within_s=3)

        assert await witness.get("sent/quiet.txt") == b"found by the sweep"


@pytest.mark.fault("A6", "A5")
async def test_e1_directories_made_faster_than_their_watches_are_scanned(device, witness, until):
    """E1: files in directories that are made or moved in as fast as the machine can are all sent without a sweep."""
    device.outbox.mkdir()
    async with device.running(device.egress(), sweep_interval_s=3600) as running:
        await running.watching()
        for number in range(40):
            device.write(f"out/d{number}/a/b/f")
        device.write("staging/tree/x/y/z")
        (device.export / "staging/tree").rename(device.outbox / "moved")
        expected = {f"sent/d{number}/a/b/f" for number in range(40)} | {"sent/moved/x/y/z"}

        async def all_there():
            return set(await witness.keys("sent/")) == expected

        await until(all_there)


@pytest.mark.fault("A21")
async def test_e1_every_name_that_s3_can_carry_is_carried(device, witness):
    """E1: spaces, percent signs, unicode in both forms, empty files: each keeps its exact name and bytes."""
    names = [
        "sp ace",
        "per%20cent%",
        "plus+",
        "hash#",
        "q?m",
        "é",
        "e\u0301",
        "😀",
        "back\\slash",
        "-rf",
        "~",
        "&<>\"'",
        " ",
    ]
    for name in names:
        device.write(f"out/{name}", name.encode())
    device.write("out/empty", b"")

    snapshot = await device.sync(device.egress())

    assert snapshot.targets[0].state == "in-step"
    assert sorted(await witness.keys("sent/")) == sorted(f"sent/{name}" for name in [*names, "empty"])
    for name in names:
        assert await witness.get(f"sent/{name}") == name.encode()
    assert await witness.get("sent/empty") == b""


@pytest.mark.fault("A20")
async def test_e1_file_above_the_part_size_arrives_whole(device, witness):
    """E1: a file of several parts, the last one short, is one object with the same bytes."""
    content = os.urandom(12 * 2**20 + 7)
    device.write("out/big.bin", content)

    await device.sync(device.egress(), part_size_bytes=5 * 2**20)

    assert await witness.get("sent/big.bin") == content
    assert (await witness.head("sent/big.bin"))["ETag"].strip('"').endswith("-3")


async def test_e1_open_file_is_sent_only_after_its_writer_closed_it(device, witness, until):
    """E1: what a program still holds open for writing is not read, however long it pauses."""
    device.outbox.mkdir()
    async with device.running(device.egress()) as running:
        await running.in_step()
        with (device.outbox / "slow.log").open("wb") as writer:
            writer.write(b"first half, ")
            writer.flush()
            await until(lambda: running.view().pending_files == 1)
            swept = running.view().last_sweep_ts
            await until(lambda: running.view().last_sweep_ts > swept + 0.5)
            assert await witness.keys("sent/") == []
            writer.write(b"second half")

        await until(lambda: witness.keys("sent/"))

        assert await witness.get("sent/slow.log") == b"first half, second half"


async def test_e2_touch_that_leaves_the_content_alone_sends_nothing(device, until):
    """E2: a new mtime with old content costs one read of the file, however many sweeps follow, and no request."""
    path = device.write("out/f")
    async with device.running(device.egress()) as running:
        await running.in_step()
        before = running.requests()

        os.utime(path, (1, 1))
        await until(lambda: running.count("adopted") == 1)
        await running.in_step()
        await running.in_step()

        assert running.requests() == before
        assert running.count("adopted") == 1


@pytest.mark.fault("A3", "H3")
async def test_e2_same_size_change_with_restored_mtime_is_sent(device, witness, until):
    """E2: size and mtime may lie; the kernel's change time does not."""
    path = device.write("out/f", b"version 1")
    async with device.running(device.egress()) as running:
        await running.in_step()
        times = os.stat(path)
        path.write_bytes(b"version 2")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

        async def is_new():
            return await witness.get("sent/f") == b"version 2"

        await until(is_new)


async def test_e3_files_removed_on_the_device_stay_in_the_storage(device, witness, until):
    """E3: a removed file's object stays; its row is forgotten, so that the journal does not grow for ever."""
    path = device.write("out/f")
    device.write("out/other")
    async with device.running(device.egress()) as running:
        await running.in_step()
        path.unlink()
        await until(lambda: running.view().journal_rows == 1)

    assert await witness.keys("sent/") == ["sent/f", "sent/other"]


@pytest.mark.fault("A1")
@pytest.mark.parametrize("resume_after_s", [0, 3600], ids=["recorded parts", "stream"])
async def test_e4_file_that_changes_while_it_is_sent_is_never_published_torn(device, witness, until, resume_after_s):
    """E4: no version that the bucket ever showed is a mix of two versions of the file, whatever way it is sent."""
    size = 26 * 2**20
    await asyncio.to_thread(
        witness.client.put_bucket_versioning, Bucket=witness.bucket, VersioningConfiguration={"Status": "Enabled"}
    )
    path = device.write("out/f", b"a" * size)
    async with device.running(device.egress(), part_size_bytes=5 * 2**20, resume_after_s=resume_after_s) as running:
        await running.in_step()
        store = next(iter(running.engine.patrols.values())).lane.objects
        put_part, put_parts = store.put_part, store.put_parts
        seen: list[int] = []

        def overwrite_then_put(key, upload_id, number, body, *, md5):
            if not seen:
                path.write_bytes(b"c" * size)
            seen.append(number)
            return put_part(key, upload_id, number, body, md5=md5)

        def overwrite_in_between(key, parts, **more):
            def changing():
                for number, part in enumerate(parts):
                    if number == 2 and not seen:
                        path.write_bytes(b"c" * size)
                        seen.append(number)
                    yield part

            return put_parts(key, changing(), **more)

        store.put_part, store.put_parts = overwrite_then_put, overwrite_in_between
        path.write_bytes(b"b" * size)
        await until(lambda: seen)
        await running.in_step()

    versions = await asyncio.to_thread(witness.client.list_object_versions, Bucket=witness.bucket, Prefix="sent/f")
    shown = set()
    for version in versions["Versions"]:
        body = await asyncio.to_thread(witness.body_of, "sent/f", version["VersionId"])
        shown.add(body[:1] if body == body[:1] * size else b"torn")
    assert shown <= {b"a", b"b", b"c"}
    assert await witness.get("sent/f") == b"c" * size


async def test_e5_restart_sends_nothing_that_was_confirmed(device, witness):
    """E5: a second start over the same state makes no request for files that did not change."""
    for number in range(20):
        device.write(f"out/f{number}")
    await device.sync(device.egress())

    async with device.running(device.egress()) as running:
        await running.in_step()

        assert running.requests() == {}


async def test_e5_sweep_that_overtakes_the_first_upload_sends_nothing_twice(device, until):
    """E5: a sweep that met the file before its first row makes it be looked at again, not sent again."""
    device.write("out/f")
    may_go = threading.Event()
    async with device.running(device.egress(), watcher="off") as running:
        store = next(iter(running.engine.patrols.values())).lane.objects
        put = store.put

        def hold(*args, **more):
            may_go.wait(20)
            return put(*args, **more)

        store.put = hold
        await until(lambda: running.sweeps("egress") >= 2)
        may_go.set()
        await running.in_step()

        assert running.requests()["put_object"] == 1


@pytest.mark.fault("B5")
@pytest.mark.parametrize(("size", "operation"), [(100_000, "put_object"), (11 * 2**20, "complete_multipart_upload")])
async def test_e5_lost_answer_sends_nothing_twice(device, witness, until, size, operation):
    """E5: an upload that arrived though its answer was lost is found again by a HEAD, not sent again."""
    device.outbox.mkdir()
    async with device.running(device.egress(), watcher="off", part_size_bytes=5 * 2**20, resume_after_s=0) as running:
        await running.in_step()
        store = next(iter(running.engine.patrols.values())).lane.objects
        name = "put" if operation == "put_object" else "complete_upload"
        real = getattr(store, name)
        lost: list[tuple] = []

        def lose_the_answer(*args, **kwargs):
            real(*args, **kwargs)
            lost.append(args)
            raise Unavailable("the connection was cut after the store had done its work")

        setattr(store, name, lose_the_answer)
        content = os.urandom(size)
        device.write("out/f", content)
        await until(lambda: lost)
        await running.in_step()

        assert running.requests()[operation] == 1
    assert await witness.get("sent/f") == content


@pytest.mark.fault("B2")
async def test_e5_interrupted_upload_goes_on_from_its_last_confirmed_part(device, witness, until):
    """E5: a large upload that was cut off, by a lost network and then by a restart, sends no confirmed part again."""
    content = os.urandom(26 * 2**20)
    device.write("out/f", content)
    settings = {"part_size_bytes": 5 * 2**20, "resume_after_s": 0, "drain_timeout_s": 0}
    sent: list[int] = []
    for allowed in (2, 4):
        async with device.running(device.egress(), **settings) as running:
            store = next(iter(running.engine.patrols.values())).lane.objects
            put_part, failed = store.put_part, list[int]()

            def fail_after(key, upload_id, number, body, *, md5, put_part=put_part, failed=failed, allowed=allowed):
                if len(sent) >= allowed:
                    failed.append(number)
                    raise Unavailable("the network is gone")
                etag = put_part(key, upload_id, number, body, md5=md5)
                sent.append(number)
                return etag

            store.put_part = fail_after
            await until(lambda failed=failed: failed)
            assert await witness.keys("sent/") == []

    async with device.running(device.egress(), **settings) as running:
        await running.in_step()

        assert running.requests()["upload_part"] == 6 - len(set(sent))
    assert len(sent) == len(set(sent))
    assert await witness.get("sent/f") == content
    assert "Uploads" not in witness.client.list_multipart_uploads(Bucket=witness.bucket)


@pytest.mark.fault("B26")
@pytest.mark.parametrize("change", ["changed", "removed"])
async def test_e5_own_stale_upload_is_aborted_and_others_are_left_alone(device, witness, until, change):
    """E5: parts of a version that is no more are thrown away; an upload of somebody else is none of our business."""
    path = device.write("out/f", os.urandom(11 * 2**20))
    settings = {"part_size_bytes": 5 * 2**20, "resume_after_s": 0, "drain_timeout_s": 0}
    foreign = witness.client.create_multipart_upload(Bucket=witness.bucket, Key="sent/foreign")["UploadId"]
    async with device.running(device.egress(), **settings) as running:
        store = next(iter(running.engine.patrols.values())).lane.objects
        cut: list[str] = []

        def cut_off(key, upload_id, number, body, *, md5):
            cut.append(upload_id)
            raise Unavailable("the network is gone")

        store.put_part = cut_off
        await until(lambda: cut)
    path.unlink()
    if change == "changed":
        device.write("out/f", b"small now")

    async with device.running(device.egress(), **settings) as running:
        await running.in_step()

    listed = witness.client.list_multipart_uploads(Bucket=witness.bucket)["Uploads"]
    assert [upload["UploadId"] for upload in listed] == [foreign]


@pytest.mark.fault("B26")
async def test_e5_stream_that_a_crash_cut_off_leaves_no_parts_behind(device, witness):
    """E5: what a kill left of a streamed upload, whose id nobody knows, is found by its key at the next start."""
    device.write("out/f", os.urandom(6 * 2**20))
    journal = Journal.open(str(device.home / "state"))
    number = journal.target(device.egress().identity)
    local = Export(str(device.export), "out").stat("f")
    journal.begin_upload(number, Upload("f", "", local.fingerprint, 5 * 2**20))
    journal.close()
    witness.client.create_multipart_upload(Bucket=witness.bucket, Key="sent/f")
    foreign = witness.client.create_multipart_upload(Bucket=witness.bucket, Key="sent/f2")["UploadId"]

    await device.sync(device.egress(), part_size_bytes=5 * 2**20)

    listed = witness.client.list_multipart_uploads(Bucket=witness.bucket)["Uploads"]
    assert [upload["UploadId"] for upload in listed] == [foreign]
    assert await witness.keys("sent/") == ["sent/f"]


@pytest.mark.parametrize("resume_after_s", [0, 3600])
async def test_e5_begin_that_comes_in_late_stores_nothing(far_device, proxy, witness, until, resume_after_s):
    """E5: an upload that was begun by a request nobody answered is empty: whoever does not know it sends it no part."""
    content, release = os.urandom(6 * 2**20), threading.Event()
    far_device.write("out/f", content)
    begin = proxy.on("create", late(release), times=1)
    words = {"part_size_bytes": 5 * 2**20, "resume_after_s": resume_after_s}
    async with far_device.running(far_device.egress(), **words) as running:
        await until(lambda: begin.hits)
        await running.in_step()
        release.set()

        def left() -> list[str]:
            listed = witness.client.list_multipart_uploads(Bucket=witness.bucket).get("Uploads", [])
            return [upload["UploadId"] for upload in listed]

        await until(left)

    (upload_id,) = left()
    parts = witness.client.list_parts(Bucket=witness.bucket, Key="sent/f", UploadId=upload_id)
    assert parts.get("Parts", []) == []
    assert await witness.get("sent/f") == content


@pytest.mark.fault("C6")
async def test_e5_lost_journal_costs_one_listing_and_no_upload(device, witness):
    """E5: with the journal gone, equal contents are adopted from one listing; nothing is sent again."""
    for number in range(20):
        device.write(f"out/f{number}")
    device.write("out/big", os.urandom(6 * 2**20))
    await device.sync(device.egress(), part_size_bytes=5 * 2**20)
    shutil.rmtree(device.home / "state")

    async with device.running(device.egress(), part_size_bytes=5 * 2**20) as running:
        await running.in_step()

        assert running.count("adopted") == 21
        assert set(running.requests()) == {"list_objects_v2", "head_object"}


@pytest.mark.fault("A17")
@pytest.mark.parametrize("loss", ["missing", "emptied"])
async def test_e6_lost_source_directory_stops_its_target_and_nothing_else(device, witness, until, loss):
    """E6: a missing or emptied source is never read as deletions: a clear state, every row kept, back by itself."""
    for number in range(5):
        device.write(f"out/f{number}")
    device.write("other/g")
    other = device.egress("other", "other/")
    async with device.running(device.egress(), other) as running:
        await running.in_step()
        away = device.export / "away"
        device.outbox.rename(away)
        if loss == "emptied":
            device.outbox.mkdir()
        await until(lambda: running.view().state == "blocked")
        swept = running.view().last_sweep_ts
        await until(lambda: running.view().last_sweep_ts > swept + 2)

        assert ("missing" if loss == "missing" else "empty") in running.view().reason
        assert running.view().fix
        assert running.view().journal_rows == 5
        assert "blocked" in " ".join(running.supervisor.snapshot().not_ready)
        device.write("other/h")
        await until(lambda: witness.keys("other/h"))
        before = running.requests()

        if loss == "emptied":
            device.outbox.rmdir()
        away.rename(device.outbox)
        await running.in_step()

        assert running.requests() == before
        assert running.view().journal_rows == 5


@pytest.mark.fault("A17")
async def test_e6_replaced_source_directory_is_watched_again(device, witness, until):
    """E6: another directory under the same name is noticed without a sweep's help, watched, and sent from."""
    device.write("out/old")
    async with device.running(device.egress(), sweep_interval_s=3600) as running:
        await running.watching()
        device.outbox.rename(device.export / "away")
        device.write("out/new")
        await until(lambda: witness.keys("sent/new"))
        await running.watching(sweeps=3)
        device.write("out/later")

        await until(lambda: witness.keys("sent/later"), within_s=3)

    assert await witness.keys("sent/") == ["sent/later", "sent/new", "sent/old"]


async def test_e6_source_that_does_not_exist_yet_is_no_fault(device, witness, until):
    """E6: a workload that has not made its directory yet is in step; its first file is found."""
    async with device.running(device.egress()) as running:
        await running.in_step()
        device.write("out/first")

        await until(lambda: witness.keys("sent/first"))


@pytest.mark.fault("A19", "A23", "F5")
async def test_special_files_are_left_out_and_named(device, witness, until):
    """Links, FIFOs and names without a key are never opened, never sent, and counted by reason."""
    device.write("secret", b"outside the source")
    device.write("out/plain")
    os.symlink(device.export / "secret", device.outbox / "link")
    os.symlink(device.export, device.outbox / "dirlink")
    os.mkfifo(device.outbox / "fifo")
    os.link(device.export / "secret", device.outbox / "hard")
    (os.fsencode(device.outbox) + b"/bad\xff").decode("utf-8", "surrogateescape")
    with open(os.fsencode(device.outbox) + b"/bad\xff", "wb") as file:
        file.write(b"x")
    async with device.running(device.egress()) as running:
        await running.in_step()
        os.symlink(device.export / "secret", device.outbox / "later")
        os.mkfifo(device.outbox / "fifo2")
        await until(lambda: sum(running.view().skipped_by_reason.values()) == 7)
        await asyncio.sleep(0)

        assert running.view().state == "in-step"
        assert running.view().skipped_by_reason == {"symlink": 3, "special": 2, "hard-linked": 1, "unsafe-name": 1}

    assert await witness.keys("") == ["sent/plain"]


async def test_e4_barrier_file_is_sent_once_all_beside_it_is_stored(device, witness, until):
    """E4: whoever finds the barrier in the bucket finds its whole directory; one that is written early waits."""
    device.write("out/run1/a", b"a")
    device.write("out/run1/deep/b", b"b")
    slow = open(device.write("out/run1/slow"), "wb")  # noqa: SIM115 - held open on purpose
    device.write("out/run1/_SUCCESS", b"")
    device.write("out/run2/_SUCCESS", b"")
    async with device.running(device.egress(egress_barrier="_SUCCESS")) as running:
        await until(lambda: {"sent/run1/a", "sent/run1/deep/b", "sent/run2/_SUCCESS"} <= set(witness._keys("")))
        await until(lambda: any(job.relpath == "run1/_SUCCESS" and job.error for job in running.engine.queue.jobs()))

        assert "sent/run1/_SUCCESS" not in await witness.keys()
        assert not running.view().failing

        slow.write(b"done")
        slow.close()
        await until(lambda: "sent/run1/_SUCCESS" in witness._keys(""))
        assert await witness.get("sent/run1/slow") == b"done"
