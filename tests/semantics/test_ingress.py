"""Ingress promises: `<bucket>/<source>/` -> `/export/<target>`."""

import asyncio
import dataclasses
import hashlib
import os
import shutil
import threading
import time

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


@pytest.mark.fault("B3")
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


@pytest.mark.fault("B3")
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


@pytest.mark.fault("B11")
async def test_i2_bytes_that_do_not_fit_the_etag_are_fetched_again(device, witness, until):
    """I2: flipped bytes of the right length are not published."""
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
        await witness.put("incoming/f", b"right")  # after the first look, which could be over before the lie stands
        await until((device.inbox / "f").exists)

    assert lies
    assert (device.inbox / "f").read_bytes() == b"right"


@pytest.mark.fault("C3")
async def test_i2_crash_between_rename_and_row_costs_no_download(device, witness):
    """I2: what a kill left between the publishing rename and the row is recognised by its intent, not fetched again."""
    await witness.put("incoming/f", b"arrived")
    await device.sync(device.ingress())
    journal = Journal.open(str(device.home / "state"))
    number = journal.target(device.ingress().identity)
    (row,) = journal.rows(number)
    journal.forget(number, "f")
    journal.intend(number, [dataclasses.replace(row, fingerprint=dataclasses.replace(row.fingerprint, ctime_ns=0))])
    journal.close()

    async with device.running(device.ingress()) as running:
        await running.in_step()

        assert "get_object" not in running.requests()
        assert running.count("adopted") == 0
        assert running.view("ingress").journal_rows == 1


@pytest.mark.fault("B13")
async def test_i3_object_removed_from_the_bucket_leaves_the_file(device, witness, until):
    """I3: the file stays; only the journal forgets, after two listings and a HEAD agree."""
    await witness.put("incoming/f", b"keep me")
    async with device.running(device.ingress()) as running:
        await running.in_step()
        await witness.delete("incoming/f")
        await until(lambda: running.view("ingress").journal_rows == 0)

    assert (device.inbox / "f").read_bytes() == b"keep me"


@pytest.mark.fault("B14")
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


@pytest.mark.fault("F15")
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


@pytest.mark.fault("F15")
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


@pytest.mark.fault("A9", "F15")
async def test_i5_free_space_floor_is_kept(device, witness, until):
    """I5: nothing is fetched that would leave less than the floor free, and nothing was written for it."""
    free = shutil.disk_usage(device.export).free
    await witness.put("incoming/f", b"x" * 1000)
    async with device.running(device.ingress(), free_space_floor_bytes=free + 10 * 2**30) as running:
        await until(lambda: running.view("ingress").failing_by_reason == {"disk-full": 1})

        assert running.requests().get("get_object") is None
    assert not (device.inbox / "f").exists()


@pytest.mark.parametrize("key", ["../escape", "a/../../escape", "./dot", "a//b", "/abs", "x" * 300])
@pytest.mark.fault("F1")
async def test_i6_no_key_leads_outside_the_target_directory(device, witness, until, key):
    """I6: a hostile key is listed and left alone, its neighbours arrive, and nothing appears outside."""
    await witness.put(f"incoming/{key}", b"hostile")
    await witness.put("incoming/good", b"good")

    snapshot = await device.sync(device.ingress())

    assert snapshot.targets[0].skipped_by_reason == {"unsafe-name": 1}
    found = sorted(str(path.relative_to(device.home)) for path in device.home.rglob("*") if path.is_file())
    assert [name for name in found if not name.startswith("state/")] == ["export/in/good"]


@pytest.mark.parametrize("link", ["in", "in/sub", "in/sub/f"])
@pytest.mark.fault("F3")
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


@pytest.mark.fault("F2")
async def test_i6_key_and_key_beneath_it_never_harm_each_other(device, witness, until):
    """I6: `a` and `a/b` cannot both be files; one arrives, the other is listed, nothing else is disturbed."""
    await witness.put("incoming/a", b"file")
    await witness.put("incoming/a/b", b"beneath")
    await witness.put("incoming/c", b"other")
    async with device.running(device.ingress()) as running:
        await until(lambda: running.view("ingress").journal_rows == 2)
        await running.swept()  # which meets the one that failed, too: it is told once

        view = running.view("ingress")
        assert sum(view.failing_by_reason.values()) + sum(view.skipped_by_reason.values()) == 1
    assert (device.inbox / "c").read_bytes() == b"other"


def _lists(running) -> float:
    return running.requests().get("list_objects_v2", 0)


def _polls(running) -> float:
    return running.sweeps("ingress")


async def test_i1_unchanged_marker_spares_every_listing(device, witness, until):
    """I1: while the marker is the one that the last listing saw, a poll is one HEAD and no LIST."""
    await witness.put("incoming/f", b"x")
    await witness.put("incoming/_manifest", b"version 1")
    async with device.running(device.ingress(ingress_marker="_manifest")) as running:
        await running.in_step()
        await running.swept()  # the directory came to be after the first look, so that the second one lists too
        lists, polls, heads = _lists(running), _polls(running), running.requests()["head_object"]
        await witness.put("incoming/late", b"not announced")
        await until(lambda: _polls(running) >= polls + 3)

        assert _lists(running) == lists
        assert running.requests()["head_object"] - heads == _polls(running) - polls
        assert running.view("ingress").state == "in-step"
    assert sorted(path.name for path in device.inbox.iterdir()) == ["_manifest", "f"]


async def test_i1_renewed_marker_brings_everything_within_one_poll(device, witness, until):
    """I1: objects written before the marker arrive once it has another version, and the marker is a file like them."""
    await witness.put("incoming/_manifest", b"version 1")
    async with device.running(device.ingress(ingress_marker="_manifest")) as running:
        await running.in_step()
        await running.swept()
        await witness.put("incoming/a", b"a")
        await witness.put("incoming/sub/b", b"b")
        await witness.put("incoming/_manifest", b"version 2")
        await until(lambda: running.view("ingress").journal_rows == 3)
        await running.in_step()
        lists = _lists(running)
        await running.swept()

        assert _lists(running) == lists
    assert (device.inbox / "sub/b").read_bytes() == b"b"
    assert (device.inbox / "_manifest").read_bytes() == b"version 2"


async def test_i1_unchanged_marker_is_audited(device, witness, until):
    """I1: what the marker's writer did not announce arrives with the next audit."""
    await witness.put("incoming/_manifest", b"version 1")
    target = device.ingress(ingress_marker="_manifest", ingress_audit_s=2.0)
    async with device.running(target) as running:
        await running.in_step()
        await witness.put("incoming/late", b"not announced")

        await until((device.inbox / "late").exists)


async def test_i1_without_its_marker_every_poll_lists(device, witness, until):
    """I1: a marker that is not there, or was taken away, hides nothing."""
    await witness.put("incoming/_manifest", b"version 1")
    async with device.running(device.ingress(ingress_marker="_manifest")) as running:
        await running.in_step()
        await running.swept()
        await witness.delete("incoming/_manifest")
        await witness.put("incoming/late", b"not announced")

        await until((device.inbox / "late").exists)


async def test_i3_emptied_directory_is_filled_again_though_the_marker_is_unchanged(device, witness, until):
    """I3: a marker speaks for the bucket only: another directory under the name gets its files."""
    await witness.put("incoming/_manifest", b"version 1")
    await witness.put("incoming/f", b"x")
    async with device.running(device.ingress(ingress_marker="_manifest")) as running:
        await running.in_step()
        await running.swept()
        device.inbox.rename(device.home / "elsewhere")
        device.inbox.mkdir()

        await until((device.inbox / "f").exists)


TOKEN = "a-token-of-a-test"


def _notification(bucket: str, key: str, event: str = "ObjectCreated:Put") -> dict:
    """As AWS words it."""
    return {"Records": [{"eventName": event, "s3": {"bucket": {"name": bucket}, "object": {"key": key}}}]}


async def _notify(port: int, body: dict, token: str = TOKEN) -> int:
    import aiohttp

    headers = {"Authorization": f"Bearer {token}"}
    url = f"http://127.0.0.1:{port}/notify"
    async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as reply:
        return reply.status


@pytest.fixture
def listening(device, unused_tcp_port):
    """Settings with which notifications are taken, and polls are rare."""
    return {
        "http_listen": f"127.0.0.1:{unused_tcp_port}",
        "notifications": "true",
        "notifications_token": TOKEN,
        "sweep_interval_s": "600",
    }


async def test_i1_announced_object_arrives_long_before_the_poll(device, witness, until, listening, unused_tcp_port):
    """I1: a notification leads to one HEAD and the file; no listing is asked for."""
    async with device.running(device.ingress(), **listening) as running:
        await until(lambda: _polls(running) == 1)
        await witness.put("incoming/sub/red flower", b"new")

        assert await _notify(unused_tcp_port, _notification(witness.bucket, "incoming/sub/red+flower")) == 204

        await until((device.inbox / "sub/red flower").exists)
        assert running.requests()["head_object"] == 1
        assert _lists(running) == 1
    assert (device.inbox / "sub/red flower").read_bytes() == b"new"


async def test_i1_notification_is_never_believed(device, witness, until, listening, unused_tcp_port):
    """I1: a removal that did not happen, an object that is not there and another bucket change nothing."""
    await witness.put("incoming/f", b"kept")
    async with device.running(device.ingress(), **listening) as running:
        await until(lambda: running.view("ingress").journal_rows == 1)
        for body in (
            _notification(witness.bucket, "incoming/f", "ObjectRemoved:Delete"),
            _notification(witness.bucket, "incoming/never-was"),
        ):
            assert await _notify(unused_tcp_port, body) == 204
        assert await _notify(unused_tcp_port, _notification("another", "incoming/f")) == 204
        assert await _notify(unused_tcp_port, _notification(witness.bucket, "elsewhere/f")) == 204
        await until(lambda: running.requests().get("head_object") == 2 and not len(running.engine.queue))

        assert running.view("ingress").journal_rows == 1
        assert running.requests()["head_object"] == 2
    assert (device.inbox / "f").read_bytes() == b"kept"


async def test_i1_notification_without_the_token_leads_to_no_request(
    device, witness, until, listening, unused_tcp_port
):
    """I1: whoever does not have the token cannot make replicator ask for anything."""
    await witness.put("incoming/f", b"x")
    async with device.running(device.ingress(), **listening) as running:
        await until(lambda: running.view("ingress").journal_rows == 1)
        before = running.requests()

        assert await _notify(unused_tcp_port, _notification(witness.bucket, "incoming/f"), token="wrong") == 401
        assert running.requests() == before


async def test_i3_announced_removal_forgets_the_row_and_leaves_the_file(
    device, witness, until, listening, unused_tcp_port
):
    """I3: a removal that was announced, and that a HEAD confirms, ends as two listings would."""
    await witness.put("incoming/f", b"stays")
    async with device.running(device.ingress(), **listening) as running:
        await until(lambda: running.view("ingress").journal_rows == 1)
        await witness.delete("incoming/f")
        body = _notification(witness.bucket, "incoming/f", "ObjectRemoved:Delete")
        assert await _notify(unused_tcp_port, body) == 204

        await until(lambda: running.view("ingress").journal_rows == 0)
    assert (device.inbox / "f").read_bytes() == b"stays"


async def test_i1_flood_of_notifications_is_left_to_the_next_listing(
    device, witness, until, listening, unused_tcp_port
):
    """I1: more changes than one body may tell lead to no request of their own, but no marker hides them either."""
    await witness.put("incoming/_manifest", b"version 1")
    target = device.ingress(ingress_marker="_manifest")
    async with device.running(target, **(listening | {"sweep_interval_s": "1"})) as running:
        await running.in_step()
        await running.swept()
        await witness.put("incoming/late", b"announced among many")
        body = {"Records": _notification(witness.bucket, "incoming/late")["Records"] * 1001}
        assert await _notify(unused_tcp_port, body) == 204

        await until((device.inbox / "late").exists)
        assert running.requests()["get_object"] == 2


def _generations(device, **options):
    """An ingress target that publishes whole sets, as the configuration would build it."""
    return device.ingress("in/.incoming", ingress_marker="_set", ingress_publish="generation", **options)


def _sums(**files: bytes) -> bytes:
    """A manifest as md5sum writes it."""
    return b"".join(hashlib.md5(body).hexdigest().encode() + f"  {name}\n".encode() for name, body in files.items())


async def _put_set(witness, **files: bytes) -> None:
    """The files of a set, and its manifest last."""
    for name, body in files.items():
        await witness.put(f"incoming/{name}", body)
    await witness.put("incoming/_set", _sums(**files))


def _seen(device) -> dict[str, bytes]:
    """What a reader of `current` sees, which is one generation: the link is read once."""
    try:
        top = device.inbox / os.readlink(device.inbox / "current")
    except FileNotFoundError:
        return {}
    return {path.relative_to(top).as_posix(): path.read_bytes() for path in top.rglob("*") if path.is_file()}


@pytest.mark.slow
async def test_i2_readers_of_generations_never_see_a_mixed_set(device, witness, until):
    """I2: while sets follow each other, a reader that reads the link once sees all files of one set, and no other."""
    names = [f"part{number}" for number in range(5)]
    mixed: list[dict[str, bytes]] = []
    seen: set[bytes] = set()
    is_over = threading.Event()

    def read():
        while not is_over.is_set():
            bodies = {name: body for name, body in _seen(device).items() if name != "_set"}
            if bodies and (sorted(bodies) != names or len(set(bodies.values())) != 1):
                mixed.append(bodies)
            seen.update(bodies.values())

    async with device.running(_generations(device)):
        reader = threading.Thread(target=read)
        reader.start()
        try:
            for body in (b"1", b"2", b"3", b"4"):
                await _put_set(witness, **dict.fromkeys(names, body))
                await until(lambda body=body: body in seen)
        finally:
            is_over.set()
            reader.join()

        assert mixed == []
        await until(lambda: len(list((device.inbox / ".generations").iterdir())) == 2)
        assert not [path for path in device.inbox.rglob("*") if "sync-conflict" in path.name]


async def test_i2_set_that_lacks_a_file_stays_out_of_sight_until_it_is_whole(device, witness, until):
    """I2: the state says what is waited for; readers keep the old set; the file that comes late completes the new."""
    await _put_set(witness, model=b"1", labels=b"1")
    async with device.running(_generations(device, ingress_audit_s=1.0)) as running:
        await until(lambda: _seen(device).get("model") == b"1")
        await witness.put("incoming/model", b"2")
        await witness.put("incoming/_set", _sums(model=b"2", labels=b"1", extra=b"2"))
        await until(lambda: "'extra'" in running.view("ingress").reason)

        assert running.view("ingress").state == "behind"
        assert running.view("ingress").generation.waits == running.view("ingress").reason
        assert running.view("ingress").path == str(device.inbox / "current")
        assert (device.inbox / ".incoming/model").read_bytes() == b"2"
        assert _seen(device)["model"] == b"1"
        await witness.put("incoming/extra", b"2")
        await until(lambda: _seen(device).get("extra") == b"2")
        await running.in_step()

        assert running.view("ingress").generation.id == os.readlink(device.inbox / "current").rpartition("/")[2]
        assert b"replicator_generation_timestamp_seconds{" in _metrics(running)


def _metrics(running) -> bytes:
    running.engine.metrics.publish(running.supervisor.snapshot())
    return running.engine.metrics.render()


async def test_i2_names_alone_make_a_set_only_with_a_manifest_that_is_newer(device, witness, until):
    """I2: a file that was overwritten after the manifest belongs to the next set, which that one has to announce."""
    await witness.put("incoming/a", b"1")
    await witness.put("incoming/b", b"1")
    await witness.put("incoming/_set", b"# version 1\na\nb\n")
    async with device.running(_generations(device, ingress_audit_s=1.0)) as running:
        await until(lambda: _seen(device).get("a") == b"1")
        written = (await witness.head("incoming/_set"))["LastModified"].timestamp()
        await until(lambda: time.time() > written + 1)  # it has whole seconds
        await witness.put("incoming/a", b"2")
        await until(lambda: "'a' is newer" in running.view("ingress").reason)
        assert _seen(device)["a"] == b"1"

        await witness.put("incoming/b", b"2")
        await witness.put("incoming/_set", b"# version 1\na\nb\n")
        await until(lambda: _seen(device).get("a") == b"2")

    assert _seen(device)["b"] == b"2"


async def test_i2_one_pass_publishes_and_says_what_it_could_not(device, witness):
    """I2: `sync` ends with the set in force; one whose link is in somebody's way ends blocked, with the next step."""
    await _put_set(witness, **{"sub/model": b"1"})
    snapshot = await device.sync(_generations(device))
    assert snapshot.targets[0].state == "in-step"
    assert _seen(device)["sub/model"] == b"1"
    (device.inbox / "current").unlink()
    device.write("in/current/mine")

    snapshot = await device.sync(_generations(device))

    assert snapshot.targets[0].state == "blocked"
    assert "'current' is not a link of replicator's" in snapshot.targets[0].reason
    assert (device.inbox / "current/mine").read_bytes() == b"content"
