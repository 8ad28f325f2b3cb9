"""Ingress promises: `<bucket>/<source>/` -> `/export/<target>`."""

import asyncio
import dataclasses
import os
import shutil

import pytest

from replicator.errors import Unavailable
from replicator.stores.journal.journal import Journal
from replicator.stores.objects import Download
from replicator.transfer.pull import RANGE_BYTES


async def test_i1_every_object_under_the_prefix_is_a_file_within_one_poll(device, witness, until):
    """I1: nested keys, spaces and unicode arrive with their bytes; directory markers stand for nothing."""
    async with device.running(device.ingress()) as running:
        await running.in_step()
        for key in ("a.txt", "sub/dir/b c.txt", "é", "empty"):
            await witness.put(f"incoming/{key}", key.encode() if key != "empty" else b"")
        await witness.put("incoming/", b"")
        await witness.put("incoming/marker/", b"")
        await witness.put("incoming2/neighbour", b"not ours")

        await until(lambda: running.view("ingress").journal_rows == 4, within_s=3)

    found = sorted(str(path.relative_to(device.inbox)) for path in device.inbox.rglob("*") if path.is_file())
    assert found == sorted(["a.txt", "sub/dir/b c.txt", "é", "empty"])
    assert (device.inbox / "sub/dir/b c.txt").read_bytes() == b"sub/dir/b c.txt"


async def test_i1_only_new_or_changed_objects_are_fetched(device, witness):
    """I1: a poll that finds nothing new is one listing and no download; a change is one download."""
    for number in range(5):
        await witness.put(f"incoming/{number}", b"x")
    async with device.running(device.ingress()) as running:
        await running.in_step()
        assert running.requests()["get_object"] == 5
        await running.in_step()
        assert running.requests()["get_object"] == 5
        await witness.put("incoming/3", b"y")
        await running.in_step()

        assert running.requests()["get_object"] == 6
        assert "head_object" not in running.requests()
    assert (device.inbox / "3").read_bytes() == b"y"


async def test_i1_large_object_arrives_whole(device, witness):
    """I1: an object of many blocks, uploaded in parts by somebody else, has the same bytes on the device."""
    content = os.urandom(20 * 2**20 + 5)
    await asyncio.to_thread(_multipart, witness, "incoming/big", content)

    snapshot = await device.sync(device.ingress())

    assert snapshot.targets[0].state == "in-step"
    assert (device.inbox / "big").read_bytes() == content


def _multipart(witness, key, content):
    import io

    from boto3.s3.transfer import TransferConfig

    witness.client.upload_fileobj(
        io.BytesIO(content), witness.bucket, key, Config=TransferConfig(multipart_threshold=2**20, use_threads=False)
    )


async def test_i2_reader_sees_the_old_version_or_the_new_one(device, witness, until):
    """I2: while versions follow each other, a reader that opens by name never sees a mix."""
    size = 3 * 2**20
    await witness.put("incoming/f", b"0" * size)
    mixed, seen = [], set()
    async with device.running(device.ingress()) as running:
        await running.in_step()

        def read():
            content = (device.inbox / "f").read_bytes()
            seen.add(content[:1])
            if len(content) != size or content != content[:1] * size:
                mixed.append(content[:1])

        for version in (b"1", b"2"):
            await witness.put("incoming/f", version * size)

            def is_there(version=version):
                read()
                return version in seen

            await until(is_there)

    assert mixed == []
    assert seen == {b"0", b"1", b"2"}


async def test_i2_cut_download_leaves_the_old_file(device, witness, until):
    """I2: a body that ends early is discarded; the file keeps its old bytes and no temporary file stays."""
    await witness.put("incoming/f", b"old")
    async with device.running(device.ingress()) as running:
        await running.in_step()
        store = next(iter(running.engine.patrols.values())).lane.objects
        whole_get, cuts = store.get, []

        def blocks(key):
            yield b"ne"
            cuts.append(key)
            raise Unavailable("the connection was cut")

        store.get = lambda key, *, etag: Download({}, blocks(key))
        await witness.put("incoming/f", b"new" * 1000)
        await until(lambda: cuts and running.view("ingress").failing_by_reason == {"unavailable": 1})
        assert (device.inbox / "f").read_bytes() == b"old"
        store.get = whole_get
        await running.in_step()

    assert (device.inbox / "f").read_bytes() == b"new" * 1000
    assert list((device.export / ".replicator/tmp").iterdir()) == []


async def test_i2_cut_download_of_a_large_object_goes_on_where_it_was(device, witness, until):
    """I2: ranges that arrived before a cut, also before a restart, are not asked for again; the file is whole."""
    content = os.urandom(3 * RANGE_BYTES + 5)
    await witness.put("incoming/f", content)
    async with device.running(device.ingress(), drain_timeout_s=0) as running:
        store = next(iter(running.engine.patrols.values())).lane.objects
        whole_get, cuts = store.get, []

        def cut_after_two(key, *, etag, offset=0, size=None):
            if offset >= 2 * RANGE_BYTES:
                cuts.append(offset)
                raise Unavailable("the connection was cut")
            return whole_get(key, etag=etag, offset=offset, size=size)

        store.get = cut_after_two
        await until(lambda: cuts and running.view("ingress").failing_by_reason == {"unavailable": 1})
        assert not (device.inbox / "f").exists()

    async with device.running(device.ingress()) as running:
        await running.in_step()

        assert running.requests()["get_object"] == 2
    assert (device.inbox / "f").read_bytes() == content
    assert list((device.export / ".replicator/tmp").iterdir()) == []


async def test_i2_file_has_the_time_of_its_source(device, witness):
    """I2: the mtime that a sender wrote beside the object, as rclone does too, is the file's."""
    await witness.put("incoming/f", b"dated", Metadata={"mtime": "1600000000.25"})

    await device.sync(device.ingress())

    assert (device.inbox / "f").stat().st_mtime_ns == 1_600_000_000_250_000_000


async def test_i2_bytes_that_do_not_fit_the_etag_are_fetched_again(device, witness, until):
    """I2: flipped bytes of the right length are not published."""
    await witness.put("incoming/f", b"right")
    async with device.running(device.ingress("in")) as running:
        store = next(iter(running.engine.patrols.values())).lane.objects
        whole_get = store.get
        lies: list[str] = []

        def lie_once(key, *, etag):
            if lies:
                return whole_get(key, etag=etag)
            lies.append(key)
            return Download({}, (block for block in [b"wrong"]))

        store.get = lie_once
        await running.in_step()

    assert lies
    assert (device.inbox / "f").read_bytes() == b"right"


async def test_i2_crash_between_rename_and_row_costs_no_download(device, witness):
    """I2: what a kill left between the publishing rename and the row is recognised by its intent, not fetched again."""
    await witness.put("incoming/f", b"arrived")
    await device.sync(device.ingress())
    journal = Journal.open(str(device.home / "state"))
    number = journal.target(device.ingress().identity)
    (row,) = journal.rows(number)
    journal.forget(number, "f")
    journal.intend(number, dataclasses.replace(row, fingerprint=dataclasses.replace(row.fingerprint, ctime_ns=0)))
    journal.close()

    async with device.running(device.ingress()) as running:
        await running.in_step()

        assert "get_object" not in running.requests()
        assert running.count("adopted") == 0
        assert running.view("ingress").journal_rows == 1


async def test_i3_object_removed_from_the_bucket_leaves_the_file(device, witness, until):
    """I3: the file stays; only the journal forgets, after two listings and a HEAD agree."""
    await witness.put("incoming/f", b"keep me")
    async with device.running(device.ingress()) as running:
        await running.in_step()
        await witness.delete("incoming/f")
        await until(lambda: running.view("ingress").journal_rows == 0)

    assert (device.inbox / "f").read_bytes() == b"keep me"


async def test_i3_one_short_listing_proves_nothing(device, witness):
    """I3: an object that one listing leaves out is neither asked for nor forgotten; the next listing has it again."""
    await witness.put("incoming/f", b"keep me")
    async with device.running(device.ingress()) as running:
        await running.in_step()
        store = next(iter(running.engine.patrols.values())).lane.objects
        whole_list = store.list
        shorts: list[str] = []

        def short_once(prefix):
            if not shorts:
                shorts.append(prefix)
                return
            yield from whole_list(prefix)

        store.list = short_once
        await running.swept()
        await running.swept()

        assert shorts
        assert "head_object" not in running.requests()
        assert running.view("ingress").journal_rows == 1


@pytest.mark.parametrize("restore", [True, False])
async def test_i3_file_removed_on_the_device_comes_back_only_when_asked(device, witness, until, restore):
    """I3: restore_deleted decides; either way a changed object is fetched."""
    await witness.put("incoming/f", b"v1")
    async with device.running(device.ingress(restore_deleted=restore)) as running:
        await running.in_step()
        (device.inbox / "f").unlink()
        await running.in_step()
        assert (device.inbox / "f").exists() is restore

        await witness.put("incoming/f", b"v2")
        await until(lambda: (device.inbox / "f").exists() and (device.inbox / "f").read_bytes() == b"v2")


async def test_i4_local_edit_stands_until_the_object_changes_and_is_then_kept_beside_it(device, witness, until):
    """I4: the edited file survives as a conflict copy, with its bytes; the object's new version takes the name."""
    await witness.put("incoming/f.txt", b"v1")
    async with device.running(device.ingress()) as running:
        await running.in_step()
        (device.inbox / "f.txt").write_bytes(b"my edit")
        await running.in_step()
        assert (device.inbox / "f.txt").read_bytes() == b"my edit"

        await witness.put("incoming/f.txt", b"v2")
        await until(lambda: (device.inbox / "f.txt").read_bytes() == b"v2")
        await running.in_step()

    (copy,) = device.inbox.glob("f.txt.sync-conflict-*")
    assert copy.read_bytes() == b"my edit"


async def test_i4_equal_edit_is_no_conflict(device, witness, until):
    """I4: when both sides came to the same bytes, the file is adopted and nothing is fetched or copied."""
    await witness.put("incoming/f", b"v1")
    async with device.running(device.ingress()) as running:
        await running.in_step()
        (device.inbox / "f").write_bytes(b"v2")
        await witness.put("incoming/f", b"v2")
        await until(lambda: running.count("adopted") == 1)

        assert running.requests()["get_object"] == 1
    assert [path.name for path in device.inbox.iterdir()] == ["f"]


async def test_i4_file_that_was_there_before_is_kept(device, witness):
    """I4: a file that ingress never wrote is not replaced without a copy either."""
    device.write("in/f", b"made by the workload")
    await witness.put("incoming/f", b"from the bucket")

    await device.sync(device.ingress())

    assert (device.inbox / "f").read_bytes() == b"from the bucket"
    (copy,) = device.inbox.glob("f.sync-conflict-*")
    assert copy.read_bytes() == b"made by the workload"


async def test_i5_quota_blocks_what_does_not_fit_and_lets_the_rest_go_on(device, witness, until):
    """I5: the target never holds more than its quota; what does not fit is listed as blocked."""
    await witness.put("incoming/small", b"x" * 100)
    await witness.put("incoming/too-big", b"x" * 5000)
    async with device.running(device.ingress(quota_bytes=1000)) as running:
        await until(lambda: running.view("ingress").journal_rows == 1)
        await until(lambda: running.view("ingress").blocked_bytes == 5000)

        assert running.view("ingress").failing_by_reason == {"disk-full": 1}
        assert "quota" in running.view("ingress").failing[0].message
    assert [path.name for path in device.inbox.iterdir()] == ["small"]


async def test_i5_quota_holds_while_many_downloads_are_under_way(device, witness, until):
    """I5: what is on its way counts too: thirty objects at once do not pass a quota that five of them fill."""
    for number in range(30):
        await witness.put(f"incoming/{number}", b"x" * 100_000)
    async with device.running(device.ingress(quota_bytes=500_000)) as running:
        await until(lambda: running.view("ingress").journal_bytes == 500_000)
        await until(lambda: running.view("ingress").failing_by_reason == {"disk-full": 25})
        await running.swept()

        assert running.view("ingress").journal_bytes == 500_000
    assert len(list(device.inbox.iterdir())) == 5


async def test_i5_free_space_floor_is_kept(device, witness, until):
    """I5: nothing is fetched that would leave less than the floor free, and nothing was written for it."""
    free = shutil.disk_usage(device.export).free
    await witness.put("incoming/f", b"x" * 1000)
    async with device.running(device.ingress(), free_space_floor_bytes=free + 10 * 2**30) as running:
        await until(lambda: running.view("ingress").failing_by_reason == {"disk-full": 1})

        assert running.requests().get("get_object") is None
    assert not (device.inbox / "f").exists()


@pytest.mark.parametrize("key", ["../escape", "a/../../escape", "./dot", "a//b", "/abs", "x" * 300])
async def test_i6_no_key_leads_outside_the_target_directory(device, witness, until, key):
    """I6: a hostile key is listed and left alone, its neighbours arrive, and nothing appears outside."""
    await witness.put(f"incoming/{key}", b"hostile")
    await witness.put("incoming/good", b"good")

    snapshot = await device.sync(device.ingress())

    assert snapshot.targets[0].skipped_by_reason == {"unsafe-name": 1}
    found = sorted(str(path.relative_to(device.home)) for path in device.home.rglob("*") if path.is_file())
    assert [name for name in found if not name.startswith("state/")] == ["export/in/good"]


@pytest.mark.parametrize("link", ["in", "in/sub", "in/sub/f"])
async def test_i6_no_planted_link_leads_outside_the_target_directory(device, witness, link):
    """I6: a link planted by the workload, at the leaf, in the middle or as the target itself, is not followed."""
    outside = device.home / "outside"
    (outside / "sub").mkdir(parents=True)
    (outside / "sub/f").write_bytes(b"precious")
    path = device.export / link
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(outside if link == "in" else outside / link.removeprefix("in/"))
    await witness.put("incoming/sub/f", b"hostile")

    await device.sync(device.ingress())

    assert (outside / "sub/f").read_bytes() == b"precious"
    assert sorted(p.name for p in outside.rglob("*")) == ["f", "sub"]


async def test_i6_key_and_key_beneath_it_never_harm_each_other(device, witness, until):
    """I6: `a` and `a/b` cannot both be files; one arrives, the other is listed, nothing else is disturbed."""
    await witness.put("incoming/a", b"file")
    await witness.put("incoming/a/b", b"beneath")
    await witness.put("incoming/c", b"other")
    async with device.running(device.ingress()) as running:
        await until(lambda: running.view("ingress").journal_rows == 2)

        view = running.view("ingress")
        assert sum(view.failing_by_reason.values()) + sum(view.skipped_by_reason.values()) == 1
    assert (device.inbox / "c").read_bytes() == b"other"
