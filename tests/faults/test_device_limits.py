"""What the device does not give: room, inodes, permission, a writable export, its volume.

The whole engine in a child of its own namespaces or rights, with a real S3 server. Each case ends with the fault gone
and both sides equal.
"""

import asyncio
import os
import resource

import pytest

from replicator.stores.files.export import Export
from tests.device import Device
from tests.faults.mounting import bind, mount_memory, unmount
from tests.waiting import eventually

KIB = 1024
pytestmark = pytest.mark.slow
OLD, NEW = b"old" * 100 * KIB, b"new" * 100 * KIB


@pytest.fixture(autouse=True)
def _engine_that_survives_a_fork(monkeypatch):
    """The threads of the other one, where an earlier test has used it, are not there in a child."""
    effective = Device.effective
    monkeypatch.setattr(Device, "effective", lambda self, **more: effective(self, s3_engine="s3fs", **more))


def inside(run, play) -> None:
    """Let a coroutine function run to its end in the child that `run` makes."""
    run(lambda: asyncio.run(play()))


def temporaries(device: Device) -> list[str]:
    return [name for _, _, names in os.walk(device.export / ".replicator/tmp") for name in names]


@pytest.mark.fault("A9")
@pytest.mark.parametrize("lack", ["room", "inodes"])
def test_device_is_full(device, witness, in_namespaces, monkeypatch, lack):
    """No room for a new version: the old file stays whole, nothing is left half written, and no request is wasted."""
    monkeypatch.setattr(Export, "free_bytes", lambda _: None)  # or nothing would be tried

    async def play() -> None:
        mount_memory(device.export, "size=1m,nr_inodes=40")
        await witness.put("incoming/f", OLD)
        async with device.running(device.ingress(), device.egress()) as running:
            await eventually((device.inbox / "f").exists)
            await running.in_step()
            ballast = device.export / "ballast"
            if lack == "inodes":
                ballast.mkdir()
                fill_inodes(ballast)
            else:
                ballast.write_bytes(bytes(500 * KIB))
            before = running.requests().get("get_object", 0)
            await witness.put("incoming/f", NEW)
            await eventually(lambda: any(file.attempts >= 4 for file in running.view("ingress").failing))

            (failing,) = running.view("ingress").failing
            assert (failing.relpath, failing.reason) == ("f", "disk-full")
            assert running.view("ingress").blocked_bytes == len(NEW)
            assert (device.inbox / "f").read_bytes() == OLD
            await eventually(lambda: not temporaries(device))  # none but that of an attempt under way
            assert running.requests().get("get_object", 0) - before <= failing.attempts + 1

            for path in [ballast, *(ballast.iterdir() if ballast.is_dir() else ())][::-1]:
                path.rmdir() if path.is_dir() else path.unlink()
            await running.in_step()
            assert (device.inbox / "f").read_bytes() == NEW
            assert not running.view("ingress").failing

    inside(in_namespaces, play)


def fill_inodes(directory) -> None:
    try:
        for number in range(1000):
            (directory / str(number)).touch()
    except OSError:
        return


@pytest.mark.fault("A10")
def test_journal_has_no_room(device, witness, in_namespaces):
    """The state directory fills up: what cannot be recorded counts as not done, no file is sent again and again."""

    async def play() -> None:
        state = device.home / "state"
        state.mkdir()
        mount_memory(state, "size=12m")
        device.write("out/first")
        async with device.running(device.egress()) as running:
            await running.in_step()
            fill(state / "ballast")
            for number in range(200):
                device.write(f"out/{number:03}" + "x" * 200)
            await eventually(lambda: running.view().state == "blocked")
            assert running.view().journal_rows < 201
            sent = running.requests()["put_object"]
            await running.swept()
            assert "state directory is" in running.view().fix
            assert running.retries("disk-full") >= 1
            assert running.requests()["put_object"] <= sent + 20

            (state / "ballast").unlink()
            await running.in_step()
            assert running.view().journal_rows == 201
        assert len(await witness.keys("sent/")) == 201

    inside(in_namespaces, play)


def fill(path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue


@pytest.mark.fault("A11")
def test_files_may_not_be_that_large(device, witness, in_namespaces):
    """A process limit on file size: the object is listed as not fitting, no torn file; it comes once the limit goes."""

    async def play() -> None:
        await witness.put("incoming/large", bytes(6 * KIB * KIB))
        await witness.put("incoming/small", b"x")
        resource.setrlimit(resource.RLIMIT_FSIZE, (5 * KIB * KIB, resource.RLIM_INFINITY))
        async with device.running(device.ingress()) as running:
            await eventually(lambda: running.view("ingress").failing)
            await eventually((device.inbox / "small").exists)
            assert [(file.relpath, file.reason) for file in running.view("ingress").failing] == [("large", "disk-full")]
            assert not (device.inbox / "large").exists()

            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            await running.in_step()
            assert (device.inbox / "large").stat().st_size == 6 * KIB * KIB

    inside(in_namespaces, play)


@pytest.mark.fault("A15")
def test_files_and_directories_without_permission(scene, storage, witness, as_nobody):
    """What this user may not read is named and counted, everything else is sent, and it follows once it may be read."""
    device = Device(scene.home / "device", storage)
    device.write("out/plain")
    device.write("out/shut/f").parent.chmod(0)
    device.write("out/closed").chmod(0)
    scene.give_to_nobody()

    async def play() -> None:
        async with device.running(device.egress()) as running:
            await eventually(lambda: running.view().failing)
            device.write("out/late")
            await eventually(lambda: running.view().journal_rows == 2)
            await running.swept()

            assert [file.relpath for file in running.view().failing] == ["closed"]
            assert "permission" in running.view().failing[0].message
            assert running.view().skipped_by_reason == {"unreadable": 1}
            running.engine.metrics.publish(running.supervisor.snapshot())
            assert 'reason="unreadable"' in running.engine.metrics.render().decode()

            (device.outbox / "closed").chmod(0o644)
            (device.outbox / "shut").chmod(0o755)
            await running.in_step()
            assert not running.view().failing
        assert await witness.keys() == ["sent/closed", "sent/late", "sent/plain", "sent/shut/f"]

    inside(as_nobody, play)


@pytest.mark.fault("A16")
def test_export_that_is_read_only(device, witness, in_namespaces):
    """On a read-only export egress goes on as ever; ingress names what to do, and goes on once it may write."""

    async def play() -> None:
        device.write("out/f")
        device.inbox.mkdir()
        store = device.home / "store"
        device.export.rename(store)
        device.export.mkdir()
        bind(store, device.export, is_read_only=True)
        await witness.put("incoming/g", b"x")
        async with device.running(device.egress(), device.ingress()) as running:
            await eventually(lambda: running.view("ingress").failing)
            (store / "out/late").write_bytes(b"late")
            await eventually(lambda: running.view().journal_rows == 2)

            (failing,) = running.view("ingress").failing
            assert "Mount the export read-write" in failing.message
            await eventually(lambda: running.view("egress").state == "in-step")

            unmount(device.export)
            bind(store, device.export)
            await running.in_step()
            assert (device.inbox / "g").read_bytes() == b"x"
        assert await witness.keys("sent/") == ["sent/f", "sent/late"]

    inside(in_namespaces, play)


@pytest.mark.fault("A17")
def test_volume_of_the_source_is_unmounted(device, witness, in_namespaces):
    """The volume goes, and an empty one comes: not ready, nothing deleted or forgotten; back, nothing is sent."""

    async def play() -> None:
        volume = device.home / "volume"
        for number in range(30):
            (volume / f"{number % 3}").mkdir(parents=True, exist_ok=True)
            (volume / f"{number % 3}/{number}").write_bytes(b"%d" % number)
        device.outbox.mkdir()
        bind(volume, device.outbox)
        device.write("other/g")
        async with device.running(device.egress(), device.egress("other", "other/")) as running:
            await running.in_step()
            before = running.requests()
            unmount(device.outbox)
            await eventually(lambda: running.view().state == "blocked")
            mount_memory(device.outbox, "size=1m")
            await running.swept()
            await running.swept()

            assert "empty" in running.view().reason
            assert "Nothing is forgotten or deleted" in running.view().fix
            assert not running.supervisor.snapshot().is_ready
            assert running.view().journal_rows == 30
            assert running.requests() == before

            unmount(device.outbox)
            bind(volume, device.outbox)
            await running.in_step()
            assert running.requests() == before
            assert running.supervisor.snapshot().is_ready
        assert len(await witness.keys("sent/")) == 30

    inside(in_namespaces, play)
