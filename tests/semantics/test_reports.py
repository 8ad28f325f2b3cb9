"""Promises about what the control plane is told."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from replicator.errors import ConfigError
from replicator.explain import explain
from replicator.observe.explanation import PlaceView
from replicator.observe.standing import Stand
from tests.device import Device, Running, Scripted
from tests.faults.proxy import Proxy
from tests.faults.wire import Fault, error, refused, status


class Told(Scripted):
    """A source that listens, and looks into the bucket when all is said to be there."""

    def __init__(self, *targets) -> None:
        super().__init__(*targets)
        self.heartbeat_s = 3600.0
        self.in_bucket: Callable[[], Awaitable[list[str]]] | None = None
        self.keys: list[str] = []

    async def tell(self, report) -> None:
        if report.is_drained and self.in_bucket:
            self.keys = await self.in_bucket()
        await super().tell(report)


async def test_b9_drained_is_told_once_all_is_in_the_bucket(device, witness, until):
    """B9: when it is told, what was written before the disconnect is in the bucket, though no event told of it."""
    device.outbox.mkdir()
    source = Told(device.egress())
    source.in_bucket = lambda: witness.keys("sent/")
    async with device.running(source=source, watcher="off", sweep_interval_s=3600) as running:
        await until(lambda: running.view().state == "in-step")
        for number in range(20):
            device.write(f"out/{number:02}")
        source.offer()
        await until(lambda: source.told[-1].is_drained)

        (standing,) = source.told[-1].standings
        assert (standing.state, standing.pending_files) == (Stand.SYNCED, 0)
        assert standing.last_upload_ts
        assert len(source.keys) == 20
        assert len(list(device.outbox.iterdir())) == 20


async def test_b9_what_could_not_be_sent_in_time_is_told_and_sent_later(far_device, proxy, witness, until):
    """B9: a bucket that lets nobody in: what is left, and no proof; open again after the drain time: all, proven."""
    device = far_device
    device.write("out/f")
    source = Told(device.egress(), device.ingress())
    source.in_bucket = lambda: witness.keys("sent/")
    proxy.on("", error(403, "AccessDenied"), times=None)
    async with device.running(source=source, drain_timeout_s=0.2) as running:
        await until(lambda: running.view().state == "blocked")
        report = await told_of_departure(source, running, until)
        assert (report.is_drained, report.pending_files, report.state) == (False, 1, Stand.BLOCKED)

        device.write("out/late")
        proxy.calm()
        await until(lambda: source.told[-1].is_drained)

        assert source.keys == ["sent/f", "sent/late"]
        assert not running.supervisor.snapshot().targets


async def test_b9_directory_that_is_gone_proves_nothing(device, until):
    """B9: files that cannot be looked at are not called sent, though nothing is known to wait."""
    device.write("out/f")
    source = Told(device.egress())
    async with device.running(source=source) as running:
        await running.in_step()
        device.outbox.rename(device.export / "away")
        report = await told_of_departure(source, running, until)
        assert (report.is_drained, report.standings[0].reason) == (False, "source-missing")

        (device.export / "away").rename(device.outbox)
        await until(lambda: source.told[-1].is_drained)


async def test_b9_file_that_is_being_written_is_waited_for(device, witness, until):
    """B9: its last version is not there yet, so it is not called sent; its writer closes it, and it is."""
    source = Told(device.egress())
    source.in_bucket = lambda: witness.keys("sent/")
    with device.write("out/f").open("ab") as writer:
        async with device.running(source=source, drain_timeout_s=0.2) as running:
            await until(lambda: running.view().pending_files)
            report = await told_of_departure(source, running, until)
            assert (report.is_drained, report.pending_files) == (False, 1)

            writer.close()
            await until(lambda: source.told[-1].is_drained)
            assert source.keys == ["sent/f"]


async def test_b9_device_that_is_wanted_again_in_the_middle_goes_on_as_ever(far_device, proxy, witness, until):
    """B9: another configuration ends the departure, and the same target is watched again."""
    device = far_device
    device.write("out/f")
    source = Told(device.egress())
    proxy.on("", error(403, "AccessDenied"), times=None)
    async with device.running(source=source, drain_timeout_s=0.2) as running:
        await until(lambda: running.view().state == "blocked")
        source.offer()
        await until(lambda: "departure" in running.supervisor._tasks)
        source.offer(device.egress())
        await until(lambda: "patrol w/egress/sent" in running.supervisor._tasks)
        proxy.calm()
        await until(lambda: witness.keys("sent/f"))
        device.write("out/g")
        await until(lambda: witness.keys("sent/g"))

        assert "departure" not in running.supervisor._tasks
        assert not any(report.is_drained for report in source.told)


async def test_b6_signal_while_a_device_goes_on_sending_ends_it_all(far_device, proxy, until):
    """B6: a stop in the middle of a departure drains for its time and ends, and nothing is called drained."""
    device = far_device
    device.write("out/f")
    source = Told(device.egress(), device.ingress())
    proxy.on("", error(403, "AccessDenied"), times=None)
    async with device.running(source=source, drain_timeout_s=0.2) as running:
        await until(lambda: running.view().state == "blocked")
        await told_of_departure(source, running, until)
        running.supervisor.stop()
        await until(running.task.done)

    assert not any(report.is_drained for report in source.told)
    assert source.told[-1].pending_files == 1


async def told_of_departure(source, running, until):
    """Disconnect; what is told once the drain time is over, and the device goes on."""
    source.told.clear()
    source.offer()
    await until(lambda: "departure" in running.supervisor._tasks and source.told)
    return source.told[-1]


async def test_b9_device_that_is_back_starts_anew(device, witness, until):
    """B9: after drained, a new registration replicates, and is not drained."""
    device.write("out/f")
    source = Told(device.egress())
    async with device.running(source=source) as running:
        await running.in_step()
        source.offer()
        await until(lambda: source.told[-1].is_drained)
        device.write("out/g")
        source.offer(device.egress())
        await until(lambda: not source.told[-1].is_drained)

        await until(lambda: witness.keys("sent/g"))


async def test_b9_control_plane_that_is_away_stops_no_data(device, witness, until):
    """B9: reports that fail are counted; files arrive, and the process ends in time."""

    class Away(Told):
        async def tell(self, report) -> None:
            raise ConfigError(where="https://edge", problem="cannot be told", fix="Wait")

    async with device.running(source=Away(device.egress())):
        device.write("out/f")
        await until(lambda: witness.keys("sent/f"))


async def test_b9_process_that_ends_tells_how_it_left_things(device, until):
    """B9: after the drain of SIGTERM one more report is told, and it is no proof that the device has left."""
    device.outbox.mkdir()
    source = Told(device.egress())
    async with device.running(source=source, watcher="off", sweep_interval_s=3600) as running:
        await until(lambda: running.view().state == "in-step" and source.told)
        device.write("out/f")
        before = len(source.told)

    assert len(source.told) == before + 1
    report = source.told[-1]
    assert (report.is_drained, report.pending_files, report.state) == (False, 0, Stand.SYNCED)
    assert report.last_upload_ts


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """A change of state is told at once."""
    monkeypatch.setattr("replicator.heartbeat._SOONEST", 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("resume_after_s", [0, 3600], ids=["recorded parts", "stream"])
async def test_throughput_of_the_status_is_what_moved(device, witness, resume_after_s):
    """Small files, parts, streams, ranges: each way the status sums up to the bytes that were counted."""
    large, small = 12 * 2**20, 1000
    device.write("out/small", b"s" * small)
    device.write("out/large", b"l" * large)
    await witness.put("incoming/small", b"s" * small)
    await witness.put("incoming/large", b"l" * 2 * large)
    async with device.running(
        device.egress(), device.ingress(), part_size_bytes=5 * 2**20, resume_after_s=resume_after_s
    ) as running:
        await running.in_step()
        seen = running.supervisor.snapshot().throughput

    assert sum(seen.up) == pytest.approx(large + small, abs=60)
    assert sum(seen.down) == pytest.approx(2 * large + small, abs=60)


async def test_limits_of_the_device_are_told_where_they_hold(device):
    """The quota stands in the status of ingress, and not of egress, which it does not bind; the floor once for all."""
    targets = device.egress(quota_bytes=7), device.ingress(quota_bytes=7)
    async with device.running(*targets, free_space_floor_bytes=5) as running:
        views = running.view("egress"), running.view("ingress")
        snapshot = running.supervisor.snapshot()

    assert [view.quota_bytes for view in views] == [0, 7]
    assert snapshot.free_space_floor_bytes == 5


@contextlib.asynccontextmanager
async def one_file_waits(device: Device, proxy: Proxy, fault: Fault) -> AsyncIterator[Running]:
    """A device that was in step, and a file that was written once every request met the fault."""
    device.write("out/before")
    async with device.running(device.egress()) as running:
        await running.in_step()
        proxy.on("", fault, times=None)
        device.write("out/f")
        yield running


def place_of(running: Running, device: Device) -> PlaceView:
    (place,) = explain(running.engine, str(device.export / "out/f"))().places
    return place


@pytest.mark.fault("B17")
async def test_b5_one_file_is_enough_to_tell_that_the_key_is_refused(far_device, proxy, until):
    """B5: nothing else waits, and still the target says that it is blocked, why, and what to do."""
    async with one_file_waits(far_device, proxy, error(403, "InvalidAccessKeyId")) as running:
        await until(lambda: running.view().state == "blocked")

        view = running.view()
        assert (view.cause, view.pending_files, view.failing) == ("access-denied", 1, ())
        assert "does not know this access key" in view.reason
        assert "Check the access key" in view.fix
        assert "asked again" in place_of(running, far_device).summary


@pytest.mark.fault("B1")
async def test_b5_one_file_is_enough_to_tell_that_the_endpoint_is_away(far_device, proxy, until):
    """B5: a connection that is cut once is no outage; three times in a row is one."""
    async with one_file_waits(far_device, proxy, refused()) as running:
        await until(lambda: running.view().state == "blocked")
        assert place_of(running, far_device).job.attempts >= 3
        assert running.view().cause == "unavailable"
        proxy.calm()
        await until(lambda: running.view().state == "in-step")


async def test_b5_file_that_alone_is_refused_blocks_nothing(far_device, proxy, until):
    """B5: the key is known, and the bucket's policy may well be about this one name."""
    device = far_device
    proxy.on("put", error(403, "AccessDenied"), key="sent/bad", times=None)
    device.write("out/bad")
    async with device.running(device.egress()) as running:
        await until(lambda: running.view().failing)

        assert running.view().state == "failing"
        assert [file.relpath for file in running.view().failing] == ["bad"]


async def test_b5_file_that_alone_gets_no_answer_blocks_nothing(far_device, proxy, until):
    """B5: what others pass is the file's own trouble."""
    device = far_device
    proxy.on("put", refused(), key="sent/bad", times=None)
    device.outbox.mkdir()
    async with device.running(device.egress()) as running:
        await running.in_step()
        device.write("out/bad")
        await until(lambda: running.view().state == "blocked")
        device.write("out/good")
        await until(lambda: running.view().journal_rows == 1)
        await until(lambda: running.view().state == "failing")

        assert [file.relpath for file in running.view().failing] == ["bad"]


async def test_b5_object_that_the_store_cannot_read_blocks_nothing(far_device, proxy, witness, until):
    """B5: the endpoint still answers listings, so it is not away, however often the one object fails."""
    device = far_device
    await witness.put("incoming/bad", b"words")
    proxy.on("get", status(500), key="incoming/bad", times=None)
    async with device.running(device.ingress()) as running:
        await until(lambda: any(file.attempts >= 3 for file in running.view("ingress").failing))

        assert running.view("ingress").state == "failing"
