"""Clocks that jump and clocks that disagree: what differs is told by versions, and when to look by a steady clock.

The whole engine with a real S3 server; the wall clock is the test's own, as every module of ours sees it.
"""

import hashlib
import time

import pytest

from replicator.observe.status import verdict
from tests.device import Device
from tests.waiting import eventually

pytestmark = pytest.mark.slow
DAY_S = 86400.0


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


class Store:
    """One object, whose LastModified is whatever the store's clock says."""

    def __init__(self, reply) -> None:
        self.body, self.modified, self.gets, self.is_skewed = b"first", "2099-01-01T00:00:00.000Z", 0, False
        self._reply = reply

    def __call__(self, request):
        headers = {"Date": "Thu, 01 Jan 2099 00:00:00 GMT", "Content-Type": "application/xml"}
        if self.is_skewed:
            return self._reply(403, headers, b"<Error><Code>RequestTimeTooSkewed</Code></Error>")
        etag = hashlib.md5(self.body, usedforsecurity=False).hexdigest()
        if request.method == "PUT":
            etag = hashlib.md5(request.body, usedforsecurity=False).hexdigest()
            return self._reply(200, headers | {"ETag": f'"{etag}"'})
        if "list-type=2" in request.target:
            entry = (
                f"<Contents><Key>incoming/f</Key><LastModified>{self.modified}</LastModified>"
                f'<ETag>"{etag}"</ETag><Size>{len(self.body)}</Size></Contents>'
            )
            is_ingress = "incoming" in request.target
            return self._reply(
                200,
                headers,
                (
                    '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
                    f"<Name>b</Name><Prefix>{'incoming/' if is_ingress else 'sent/'}</Prefix><MaxKeys>1000</MaxKeys>"
                    f"<KeyCount>{int(is_ingress)}</KeyCount><IsTruncated>false</IsTruncated>"
                    f"{entry if is_ingress else ''}</ListBucketResult>"
                ).encode(),
            )
        self.gets += request.method == "GET"
        modified = {"ETag": f'"{etag}"', "Last-Modified": "Thu, 01 Jan 2099 00:00:00 GMT"}
        return self._reply(200, headers | modified, self.body)


@pytest.mark.fault("H2")
async def test_store_whose_clock_is_ahead(tmp_path, stub_s3, reply):
    """The ETag decides: another time is no new version, an older time no old one; a refusal for the clock names it."""
    store = stub_s3.default = Store(reply)
    device = Device(tmp_path, stub_s3.storage())
    device.write("out/f")
    async with device.running(device.egress(), device.ingress()) as running:
        await running.in_step()
        await running.in_step()
        assert store.gets == 1

        store.modified = "2001-01-01T00:00:00.000Z"
        await running.in_step()
        assert store.gets == 1
        store.body = b"other"
        await eventually(lambda: (device.inbox / "f").read_bytes() == b"other")
        await running.in_step()
        assert store.gets == 2

        store.is_skewed = True
        await eventually(lambda: running.view("ingress").state == "blocked")
        assert "clock is off" in running.view("ingress").reason
        assert "clock" in running.view("ingress").fix
        store.is_skewed = False
        await running.in_step()
        assert [request.method for request in stub_s3.requests].count("PUT") == 1
