"""Signals that come at a bad moment: what is under way is finished or left, and the next start has all of it."""

import asyncio
import re
import signal
import time

import pytest

pytestmark = pytest.mark.slow


def asked(metrics: str) -> float:
    """Requests to the store so far."""
    return sum(map(float, re.findall(r"^replicator_s3_requests_total\{.*\} (\S+)$", metrics, re.MULTILINE)))


@pytest.mark.fault("C5")
async def test_drain_whose_time_is_over_ends_the_process(replicator, witness, until):
    """One SIGTERM, an endpoint that never answers: exit code 0 after the drain's time, and nothing is lost by it."""
    out = replicator.home / "export/out"
    out.mkdir()
    (out / "f").write_bytes(b"content")

    async def be_deaf(reader, writer):
        connected.set()
        await over.wait()
        writer.close()

    connected, over = asyncio.Event(), asyncio.Event()
    server = await asyncio.start_server(be_deaf, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    words = {"OBC_BUCKET_HOST": "127.0.0.1", "OBC_BUCKET_PORT": str(port), "REPLICATOR_READ_TIMEOUT_S": "300"}
    async with replicator.running(REPLICATOR_DRAIN_TIMEOUT_S="1", REPLICATOR_INGRESS="", **words) as service:
        await until(connected.is_set)
        began_s = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        await service.process.wait()

    assert service.process.returncode == 0
    assert time.monotonic() - began_s >= 1
    assert any("drained" in line for line in service.log)
    over.set()
    server.close()
    await server.wait_closed()
    assert (await replicator("sync")).code == 0
    assert await witness.get("sent/f") == b"content"


@pytest.mark.fault("C10")
async def test_suspended_process_wakes_without_a_storm(replicator, witness, until):
    """Stopped for longer than its read timeout and its polls: it looks once, asks for little, and is in step again."""
    out = replicator.home / "export/out"
    out.mkdir()
    for number in range(20):
        (out / f"before{number}").write_bytes(b"before")
    async with replicator.running(REPLICATOR_READ_TIMEOUT_S="1") as service:
        await until(lambda: witness.keys("sent/"))
        service.process.send_signal(signal.SIGSTOP)
        for number in range(20):
            (out / f"meanwhile{number}").write_bytes(b"meanwhile")
        await witness.put("incoming/x", b"fetched")
        await asyncio.sleep(3)  # three polls and sweeps, and the read timeout: the length of the sleep is the fault
        service.process.send_signal(signal.SIGCONT)
        await until((replicator.home / "export/in/x").exists)
        await until(service.is_in_step)
        requests = asked((await service.get("/metrics"))[1])
        assert (await service.get("/healthz"))[0] == 200

    assert service.process.returncode == 0
    assert len(await witness.keys("sent/")) == 40
    assert 41 <= requests < 41 + 20, "a request a file, and a few looks"
