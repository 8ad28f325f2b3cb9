"""The page while it is open: what changes by itself, what it costs, and what it says when nobody answers."""

import asyncio
import dataclasses

import pytest

from replicator.observe.listener import MAX_STREAMS
from replicator.observe.status import State
from tests.browser import needs_chromium
from tests.page.states import BLOCKED, BUSY, IN_STEP, device, models, stats
from tests.waiting import eventually

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow, needs_chromium]


async def test_page_follows_the_status_without_a_reload(gateway, visit):
    """From in step over busy to blocked and back: answer, targets and progress, on the page that was opened once."""
    await visit.open(gateway.url)
    assert await visit.answer() == "Yes"

    gateway.snapshot = BUSY
    await visit.shows("Not yet", "#answer")
    await visit.shows("88 MiB of 208 MiB", "#moving")
    gateway.snapshot = BLOCKED
    await visit.shows("No", "#answer")
    await visit.shows("connection refused", "#attention")
    gateway.snapshot = IN_STEP
    await visit.shows("Yes", "#answer")

    assert await visit.page.locator("#attention").is_hidden()
    assert [url for url in visit.asked if url == gateway.url] == [gateway.url]
    assert visit.complaints == []


async def test_answer_does_not_flicker(gateway, visit):
    """A workload that writes all the time: the answer is said once, and is all good after a while of calm."""
    writing = stats(state=State.BEHIND, pending_files=1, oldest_pending_s=0.5)
    await visit.page.clock.install()
    await visit.open(gateway.url)
    gateway.snapshot = device(writing, models())
    await visit.shows("Yes, but for the last seconds", "#answer")

    gateway.snapshot = IN_STEP
    await visit.shows("In step: 2 targets", "#verdict")
    assert await visit.answer() == "Yes, but for the last seconds"
    await visit.page.clock.run_for(11_000)

    await visit.page.wait_for_function("document.getElementById('answer').textContent === 'Yes'")


async def test_ages_go_on_while_the_server_is_silent(gateway, visit):
    """What waits is seen to wait longer, though nothing is told twice."""
    gateway.snapshot = BUSY
    gateway.change(targets=(stats(), models(last_success_ts=BUSY.now_ts - 60)))
    await visit.open(gateway.url)
    row = visit.page.locator("#targets tbody tr").filter(has_text="os-stats").locator("td").last
    before = await row.inner_text()

    await visit.page.wait_for_function(
        "([row, text]) => row.innerText !== text", arg=[await row.element_handle(), before]
    )


async def test_selection_and_focus_survive_an_event(gateway, visit):
    """Somebody who reads, copies or tabs is not interrupted: only what changed is touched."""
    gateway.snapshot = BLOCKED
    await visit.open(gateway.url)
    row = visit.page.locator("#targets tbody tr").first
    await visit.page.get_by_role("link", name="metrics").focus()
    await row.evaluate("row => { row.mark = 1; getSelection().selectAllChildren(row.cells[0]); }")
    selected = await visit.page.evaluate("getSelection().toString()")

    gateway.change(targets=(dataclasses.replace(BLOCKED.targets[0], pending_files=28), BLOCKED.targets[1]))
    await visit.shows("28 files", "#targets")

    assert await row.evaluate("row => row.mark") == 1
    assert await visit.page.evaluate("getSelection().toString()") == selected != ""
    assert await visit.page.evaluate("document.activeElement.textContent") == "metrics"


async def test_page_says_when_it_is_old_and_comes_back(gateway, visit):
    """With the server gone the answer is no longer given as one of now; once it is there again all is live."""
    await visit.open(gateway.url)
    await gateway.stop()

    await visit.shows("what you see may be old", "#connection")
    assert (await visit.answer()).startswith("Yes, at ")
    assert (await visit.page.title()).startswith("Not connected")
    assert await visit.page.locator("#safety").get_attribute("class") == "old"
    gateway.snapshot = BLOCKED
    await gateway.start()
    await visit.page.get_by_text("Live", exact=True).wait_for()

    assert await visit.answer() == "No"
    assert await visit.page.locator("#safety").get_attribute("class") == "bad"


async def test_answer_that_came_with_the_page_gets_old_too(gateway, visit):
    """Where events do not come through, what was loaded is not taken for the present."""
    await visit.page.route("**/events", lambda route: route.abort())
    await visit.page.goto(gateway.url)

    await visit.shows("what you see may be old", "#connection")
    assert (await visit.answer()).startswith("Yes, at ")


async def test_server_that_falls_silent_is_noticed(gateway, context, anew):
    """A connection that died without a word: after a while without a sign of life the page says that it is old."""
    visit = anew(await context.new_page())
    await visit.page.clock.install()
    await visit.page.goto(gateway.url)
    await visit.shows("Live", "#connection")
    await context.set_offline(offline=True)  # what is open stays open, what is new fails

    await visit.page.evaluate("source.close()")  # nothing is heard any more, and no error is told
    await visit.page.clock.run_for(20_000)

    await visit.shows("what you see may be old", "#connection")


async def test_page_that_nobody_looks_at_costs_nothing(gateway, visit):
    """A tab in the background gives its stream back, and nothing is computed for it; in front again it is live."""
    await visit.open(gateway.url)
    hide = "is => { Object.defineProperty(document, 'hidden', { value: is, configurable: true });"
    hide += "document.dispatchEvent(new Event('visibilitychange')); }"

    await visit.page.evaluate(hide, arg=True)
    await eventually(lambda: not gateway.server._listener._streams)
    looks = gateway.looks
    gateway.snapshot = BLOCKED
    await asyncio.sleep(1.5)  # a stream would have looked by then
    assert gateway.looks == looks
    await visit.page.evaluate(hide, arg=False)
    await visit.shows("No", "#answer")


async def test_page_beyond_the_last_stream_is_kept_up_to_date_all_the_same(gateway, visit):
    """Whoever gets no stream asks again and again: slower, and never without an answer."""
    host, port = gateway.address.split(":")
    taken = [await asyncio.open_connection(host, port) for _ in range(MAX_STREAMS)]
    for reader, writer in taken:
        writer.write(b"GET /events HTTP/1.1\r\n\r\n")
        await reader.readuntil(b"\n\n")
    await visit.page.goto(gateway.url)
    await visit.shows("12 of 12 directories watched", "#places")

    gateway.snapshot = BLOCKED
    await visit.shows("No", "#answer")

    assert await visit.page.locator("#connection.old").count() == 0
    for _, writer in taken:
        writer.close()
