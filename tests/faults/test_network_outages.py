"""Endpoints that are away or ask for less: few requests meanwhile, nothing lost, and everything soon afterwards."""

import asyncio
import dataclasses
import os
import threading
import time

import pytest

from tests.device import Device
from tests.faults import wire
from tests.faults.proxy import Proxy
from tests.faults.sides import both_equal, put_off, sweep, told
from tests.waiting import eventually

pytestmark = pytest.mark.slow


@pytest.mark.fault("B1")
@pytest.mark.parametrize("away", ["refused", "unknown name"])
async def test_endpoint_that_is_away_is_asked_seldom_and_everything_is_kept(
    tmp_path, storage, s3_server, witness, unused_tcp_port, away
):
    """However many files wait, a request a pause; not ready, with the reason; then all of them arrive by themselves."""
    host = "127.0.0.1" if away == "refused" else "no-such-host.invalid"
    device = Device(tmp_path, dataclasses.replace(storage, endpoint=f"http://{host}:{unused_tcp_port}"))
    for number in range(100):
        device.write(f"out/f{number}", b"content")
    async with device.running(device.egress(), ready_max_age_s="1") as running:
        await eventually(lambda: running.view().state == "blocked" and running.view().pending_files == 100)
        await eventually(lambda: running.view().oldest_pending_s > 1.5)
        assert not running.supervisor.snapshot().is_ready
        assert running.view().reason
        assert running.view().fix
        assert ("connection" if away == "refused" else "dns") in told(running)
        before, since = sum(running.requests().values()), time.monotonic()
        await asyncio.sleep(1.5)
        # A probe after each pause, and a listing with each sweep, as long as nothing is known of the bucket.
        rate = (sum(running.requests().values()) - before) / (time.monotonic() - since)
        assert rate < 12
        if away == "refused":
            proxy = Proxy(s3_server.endpoint, port=unused_tcp_port)
            try:
                await running.in_step()
            finally:
                proxy.stop()
            assert running.supervisor.snapshot().is_ready
    if away == "refused":
        await both_equal(device, witness)


@pytest.mark.fault("B6")
@pytest.mark.parametrize("kind", ["503", "429"])
async def test_burst_of_refusals_costs_few_requests_and_heals_at_once(far_device, proxy, witness, kind):
    """The store asks for less: fewer at a time and a probe a pause; the first good answer releases all that waited."""
    error = wire.error(503, "SlowDown") if kind == "503" else wire.status(429)
    far_device.write("out/first")
    async with far_device.running(far_device.egress(), retry_max_s=2) as running:
        await running.in_step()
        gate = running.engine.gate(far_device.egress())
        before = gate.concurrency.limit
        rule = proxy.on("", error, times=None)
        for number in range(150):
            far_device.write(f"out/f{number}", b"content")
        await eventually(lambda: gate.failures >= 4)
        refused = rule.hits
        assert refused <= 2 * before + 8
        assert gate.concurrency.limit <= before // 2
        assert put_off(running).keys() == {"throttled"}
        assert running.view().state == "blocked"
        proxy.calm()
        await eventually(lambda: gate.error is None)
        # What failed meanwhile would have waited for seconds on its own account.
        await eventually(lambda: running.view().pending_files <= 1, within_s=10)
        await running.in_step()

        assert gate.concurrency.limit > before // 2
    await both_equal(far_device, witness)


@pytest.mark.fault("B6")
async def test_store_that_says_when_to_come_back_is_not_asked_before(far_device, proxy, witness):
    """Retry-After of a listing holds for the whole endpoint."""
    await witness.put("incoming/f", b"content")
    far_device.write("out/f")
    async with far_device.running(far_device.egress(), far_device.ingress()) as running:
        await running.in_step()
        rule = proxy.on("list", wire.status(503, Retry_After="3"))
        await eventually(lambda: rule.hits)
        count = len(proxy.calls)
        far_device.write("out/g")
        await witness.put("incoming/g", b"content")
        await running.in_step()

        assert proxy.calls[count].at_s - proxy.calls[count - 1].at_s >= 2.9
        assert "503" in told(running)
    await both_equal(far_device, witness)


@pytest.mark.fault("B25")
@pytest.mark.parametrize("kind", ["severed", "half-open"])
async def test_partition_that_heals_is_drained_in_order_of_age(far_device, proxy, witness, kind):
    """One job a path however often it changes; afterwards the oldest change goes first, and each file once."""
    end = threading.Event()
    far_device.write("out/first")
    async with far_device.running(
        far_device.egress(), transfers=1, read_timeout_s=0.3, min_rate_bytes_s=2**20, watcher="off"
    ) as running:
        await running.in_step()
        proxy.on("", wire.refused() if kind == "severed" else wire.silent(end), times=None)
        proxy.sever()
        for _ in range(3):
            for number in range(30):
                far_device.write(f"out/f{number:02}", os.urandom(1000))
            await sweep(running)
        await eventually(lambda: running.engine.gate(far_device.egress()).failures >= 3)
        assert (running.view().state, running.view().pending_files) == ("blocked", 30)
        assert len(running.engine.queue) == 30
        count = len(proxy.calls)
        proxy.calm()
        end.set()
        await running.in_step()

        assert put_off(running)["unavailable"] >= 3
    after = [call.key for call in proxy.calls[count:] if call.operation == "put"]
    # The three that closed the gate wait for a moment on their own account.
    on_time = [key for key in after if key > "sent/f02"]
    assert on_time == sorted(on_time)
    assert len(on_time) == 27
    await both_equal(far_device, witness)


@pytest.mark.fault("G5")
async def test_small_files_overtake_a_huge_one_on_a_slow_link(far_device, proxy, witness):
    """On a link that the huge file fills for seconds, the small ones are there long before it, both ways."""
    huge = os.urandom(11 * 2**20)
    await witness.put("incoming/huge", huge)
    far_device.write("out/huge", huge)
    slow = {"part_size_bytes": 5 * 2**20, "min_rate_bytes_s": 0}
    proxy.bytes_s = 4 * 2**20
    async with far_device.running(far_device.egress(), far_device.ingress(), **slow) as running:
        await eventually(lambda: all(running.view(way).in_flight for way in ("egress", "ingress")))
        for number in range(20):
            far_device.write(f"out/small{number}", b"content")
            await witness.put(f"incoming/small{number}", b"content")
        names = {f"sent/small{number}" for number in range(20)}
        await eventually(lambda: names <= {call.key for call in proxy.seen("put")})
        await eventually(lambda: len(list(far_device.inbox.glob("small*"))) == 20)
        assert not proxy.seen("complete")
        assert not (far_device.inbox / "huge").exists()
        proxy.bytes_s = 0
        await running.in_step()
    await both_equal(far_device, witness)


@pytest.mark.fault("G5")
async def test_noisy_target_does_not_starve_a_quiet_one(far_device, proxy, witness):
    """Hundreds of files of a target are in line before the only file of another: it waits for a turn only."""
    far_device.write("quiet/first")
    far_device.write("out/first")
    quiet = far_device.egress("quiet", "quiet/")
    async with far_device.running(far_device.egress(), quiet) as running:
        await running.in_step()
        proxy.delay_s = 0.15
        for number in range(300):
            far_device.write(f"out/f{number}", b"content")
        await eventually(lambda: len(proxy.seen("put", key="sent/*")) > 10)
        far_device.write("quiet/f", b"content")
        await eventually(lambda: proxy.seen("put", key="quiet/f"))
        assert len(proxy.seen("put", key="sent/*")) < 250
        proxy.delay_s = 0
        await running.in_step()
    assert await witness.get("quiet/f") == b"content"
    for key in ("quiet/first", "quiet/f"):
        await witness.delete(key)
    await both_equal(far_device, witness)
