"""Listings that are cut, lie or have no end: nothing is forgotten or deleted for what one of them does not show."""

import asyncio
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from replicator.detect import patrol
from tests.faults import wire
from tests.faults.sides import both_equal, files_in, put_off, sweep, told
from tests.waiting import eventually

pytestmark = pytest.mark.slow

CONTENT = {"ETag": '"9a0364b9e99bb480dd25e1f0284c8555"', "Last_Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
"""Headers of the object that `wire.entry` tells of."""

LIES = {
    "cut": wire.changed(lambda answer: replace(answer, body=answer.body[: len(answer.body) // 2])),
    "reset": wire.cut(200),
    "no token": wire.replaced("<IsTruncated>false", "<IsTruncated>true"),
    "same token": lambda _call, forward: wire.page(forward().body[:0], "again"),
    "no end told": wire.replaced("<IsTruncated>.*?</IsTruncated>", ""),
    "out of order": wire.replaced("(<Contents>.*?</Contents>)(<Contents>.*?</Contents>)", r"\2\1"),
    "told twice": wire.replaced("(<Contents>.*?</Contents>)", r"\1\1"),
    "other prefix": wire.replaced("<Key>incoming/", "<Key>elsewhere/"),
    "no etag": wire.replaced("<ETag>.*?</ETag>", ""),
    "page": wire.status(200, b"<html><body>Sign in</body></html>", Content_Type="text/html"),
    "empty": wire.status(200),
    "500": wire.error(500, "InternalError"),
}
"""Answers that prove themselves wrong."""

SHORT = {
    "nothing": lambda _call, _forward: wire.page(b""),
    "first page": lambda call, forward: replace(
        wire.paged(2)(call, forward) or wire.Answer(),
        body=re.sub(
            rb"<IsTruncated>.*</NextContinuationToken>",
            b"<IsTruncated>false</IsTruncated>",
            (wire.paged(2)(call, forward) or wire.Answer()).body,
        ),
    ),
    "a gap": wire.replaced("<Contents><Key>incoming/f2<.*?</Contents>", ""),
}
"""Answers that nobody can tell from a true one."""


@pytest.mark.fault("B14", "B7")
async def test_listing_that_cannot_be_true_changes_nothing(far_device, proxy, witness):
    """Each is an error that the status tells; rows and files stay, and the first good listing brings what is new."""
    for number in range(5):
        await witness.put(f"incoming/f{number}", b"content")
    async with far_device.running(far_device.ingress(), sweep_interval_s=3600) as running:
        await eventually(lambda: running.view("ingress").journal_rows == 5)
        for number, fault in enumerate(LIES.values()):
            rule = proxy.on("list", fault, times=None)
            await witness.put(f"incoming/new{number:02}", b"new")
            for _ in range(3):
                await sweep(running)
            assert rule.hits >= 1
            view = running.view("ingress")
            assert (view.state, view.journal_rows) == ("blocked", 5 + number)
            assert view.reason
            proxy.calm()
            await eventually(lambda: _is_swept(running))
            await eventually(lambda number=number: running.view("ingress").journal_rows == 6 + number)

        assert running.count("forgotten") == 0
        assert {"unparsable", "connection", "InternalError"} <= told(running)
    await both_equal(far_device, witness)


async def _is_swept(running) -> bool:
    await sweep(running)
    return all(patrol.error is None for patrol in running.engine.patrols.values())


@pytest.mark.fault("B14", "B16")
@pytest.mark.parametrize("kind", SHORT)
async def test_listing_that_is_short_forgets_nothing(far_device, proxy, witness, kind):
    """However often a listing leaves objects out, a HEAD finds them: rows and files stay, nothing is fetched again."""
    for number in range(5):
        await witness.put(f"incoming/f{number}", b"content")
    async with far_device.running(far_device.ingress(), sweep_interval_s=3600) as running:
        await eventually(lambda: running.view("ingress").journal_rows == 5)
        rule = proxy.on("list", SHORT[kind], times=None)
        for _ in range(4):
            await sweep(running)
            await eventually(lambda: running.view("ingress").pending_files == 0)
        assert rule.hits == 4
        assert (running.view("ingress").journal_rows, running.count("forgotten")) == (5, 0)
        assert proxy.seen("head")
        proxy.calm()
        await witness.put("incoming/new", b"new")
        await sweep(running)
        await eventually(lambda: running.view("ingress").journal_rows == 6)

    assert len(proxy.seen("get")) == 6
    await both_equal(far_device, witness)


@pytest.mark.fault("B15")
@pytest.mark.parametrize(("count", "size"), [(40, 1), (1001, 1000)])
async def test_listing_in_any_pages_is_whole(far_device, proxy, witness, count, size):
    """Pages of one key, and a second page with a single one: every object arrives, and none is asked for twice."""
    proxy.on("list", wire.paged(size), times=None)
    content = b"content"
    if count > 100:  # fetched from the proxy: the server takes long to be filled
        proxy.calm()
        pages = [b"".join(wire.entry(f"incoming/f{number:04}") for number in part) for part in _parts(count, size)]
        proxy.on("list", _synthesised(pages), times=None)
        proxy.on("get", wire.status(200, content, **CONTENT), times=None)
    else:
        for number in range(count):
            await witness.put(f"incoming/f{number:04}", content)
    async with far_device.running(far_device.ingress()) as running:
        await running.in_step()
        await running.in_step()

        assert running.view("ingress").journal_rows == count
        assert put_off(running) == {}
    assert len(proxy.seen("get")) == count
    assert len(list(far_device.inbox.iterdir())) == count


def _parts(count: int, size: int) -> list[range]:
    return [range(begin, min(begin + size, count)) for begin in range(0, count, size)]


def _synthesised(pages: list[bytes]) -> wire.Fault:
    def fault(call: wire.Call, _forward: wire.Forward) -> wire.Answer:
        number = int(call.query.get("continuation-token", 0))
        return wire.page(pages[number], number + 1 if number + 1 < len(pages) else None)

    return fault


@pytest.mark.fault("B15")
@pytest.mark.timeout(600)
async def test_memory_is_flat_over_a_huge_listing(far_device, proxy, is_long):
    """However many keys there are, a sweep holds a page of them, and the queue as many jobs as it is meant to."""
    pages = 1000 if is_long else 50
    seen: list[int] = []

    def fault(call: wire.Call, _forward: wire.Forward) -> wire.Answer:
        number = int(call.query.get("continuation-token", 0))
        seen.append(_resident_bytes())
        keys = (f"incoming/{number:05}/{key:04}" for key in range(1000))
        return wire.page(b"".join(map(wire.entry, keys)), number + 1 if number + 1 < pages else None)

    proxy.on("list", fault, times=None)
    async with far_device.running(far_device.ingress(include=("nothing/*",)), sweep_interval_s=3600) as running:
        await eventually(lambda: running.sweeps("ingress") == 1, within_s=580)

        assert running.engine.patrols.popitem()[1].report.files == 1000 * pages
    assert len(seen) == pages
    assert max(seen) - seen[9] < 16 * 2**20


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.fault("B15", "B25")
async def test_queue_is_bounded_while_nothing_can_be_fetched(far_device, proxy, monkeypatch):
    """A listing waits for the queue, and the queue for the store; then everything goes on by itself."""
    monkeypatch.setattr(patrol, "_FULL_JOBS", 100)
    keys = [[f"incoming/{page:02}/{key:04}" for key in range(50)] for page in range(10)]
    proxy.on("list", _synthesised([b"".join(map(wire.entry, page)) for page in keys]), times=None)
    proxy.on("head", wire.status(200, b"", **CONTENT, Content_Length="7"), times=None)
    refusal = proxy.on("get", wire.error(503, "SlowDown"), times=1000)
    proxy.on("get", wire.status(200, b"content", **CONTENT), times=None)
    async with far_device.running(far_device.ingress(), sweep_interval_s=3600) as running:
        await eventually(lambda: running.view("ingress").pending_files == 150)
        await eventually(lambda: running.engine.gate(far_device.ingress()).failures >= 3)
        assert (len(running.engine.queue), running.sweeps("ingress")) == (150, 0)
        assert running.view("ingress").state == "blocked"
        assert refusal.hits < 100
        refusal.times = 0
        await eventually(lambda: running.sweeps("ingress") == 1)
        await eventually(lambda: running.view("ingress").journal_rows == 500)
    assert len(files_in(far_device.inbox)) == 500


MISPLACED = {
    "bucket": wire.error(404, "NoSuchBucket"),
    "region": wire.error(400, "AuthorizationHeaderMalformed"),
}
SAID = {"bucket": "there is no such bucket", "region": "the bucket lives in another region"}


@pytest.mark.fault("B16")
@pytest.mark.parametrize("kind", MISPLACED)
async def test_bucket_that_is_elsewhere_is_told_once_and_asked_seldom(far_device, proxy, witness, kind):
    """One state with the next step, a request a pause however many files wait, and nothing is taken for deleted."""
    for number in range(20):
        await witness.put(f"incoming/f{number}", b"content")
        far_device.write(f"out/f{number}", b"content")
    both = (far_device.egress(), far_device.ingress())
    async with far_device.running(*both) as running:
        await running.in_step()
        proxy.on("", MISPLACED[kind], times=None)
        for number in range(40):
            far_device.write(f"out/new{number}", b"new")
        await eventually(lambda: {running.view(d).state for d in ("egress", "ingress")} == {"blocked"})
        before = len(proxy.calls)
        await asyncio.sleep(1.5)
        assert len(proxy.calls) - before <= 20
        views = [running.view(direction) for direction in ("egress", "ingress")]
        assert [view.journal_rows for view in views] == [20, 20]
        assert all(SAID[kind] in view.reason and view.fix for view in views)
        assert (views[0].pending_files, views[0].failing) == (40, ())
        proxy.calm()
        await running.in_step()

        assert running.count("forgotten") == 0
    await both_equal(far_device, witness)
