"""Clocks that jump and clocks that disagree: what differs is told by versions, and when to look by a steady clock.

The whole engine with a real S3 server; the wall clock is the test's own, as every module of ours sees it.
"""

import time

import pytest

from replicator.observe.status import verdict
from tests.device import eventually

pytestmark = pytest.mark.slow
DAY_S = 86400.0


@pytest.fixture
def shift(monkeypatch):
    """Sets how many seconds the wall clock of this process is off."""
    off_s = [0.0]
    real, real_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: real() + off_s[0])
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + int(off_s[0] * 10**9))
    return lambda seconds: off_s.__setitem__(0, seconds)


@pytest.mark.fault("H1")
@pytest.mark.parametrize(
    "jump_s",
    [3650 * DAY_S, -time.time()],
    ids=["ten years on", "1970"],
)
async def test_wall_clock_jumps(device, witness, shift, jump_s):
    """The clock is set anew while all is in step: nothing is sent or fetched for it, and sweeps keep their pace."""
    for number in range(20):
        device.write(f"out/{number}", b"x")
        await witness.put(f"incoming/{number}", b"y")
    async with device.running(device.egress(), device.ingress(), data_budget="1GB/1d") as running:
        await running.in_step()
        before, sweeps = running.requests(), running.sweeps("egress")

        shift(jump_s)
        await eventually(lambda: running.sweeps("egress") >= sweeps + 3)

        after = running.requests()
        del before["list_objects_v2"], after["list_objects_v2"]
        assert after == before
        assert running.supervisor.snapshot().is_ready, running.supervisor.snapshot().not_ready
        assert verdict(running.supervisor.snapshot()).startswith("in step")
        assert running.sweeps("egress") <= sweeps + 4

        device.write("out/late", b"late")
        await witness.put("incoming/late", b"late")
        await eventually((device.inbox / "late").exists)
        await eventually(lambda: running.view().journal_rows == 21)
        shift(0)
        sweeps = running.sweeps("egress")
        await eventually(lambda: running.sweeps("egress") >= sweeps + 2)
        assert running.requests()["put_object"] == 21
        assert running.count("conflict") == running.count("failed") == 0
    assert len(await witness.keys("sent/")) == 21


@pytest.mark.fault("H1")
async def test_sweeps_that_cease_after_the_clock_was_set_back_are_noticed(device, shift):
    """How long ago the last sweep was is no question to the wall clock."""
    device.write("out/f")
    async with device.running(device.egress()) as running:
        await running.in_step()
        patrol = next(iter(running.engine.patrols.values()))
        shift(-DAY_S)

        assert running.supervisor.snapshot().is_ready
        patrol.swept_s -= 500
        assert "the last sweep ended 8 min ago" in str(running.supervisor.snapshot().not_ready)
