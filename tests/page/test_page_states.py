"""What people see in each state, in a real browser: words, colours, access, and what the browser is asked to fetch."""

import dataclasses

import pytest
from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped]

from replicator.model import Direction
from replicator.observe import words
from replicator.observe.explanation import PlaceView, Verdict
from replicator.observe.status import FailingFile, MovingFile, SkippedFile, State, verdict
from tests.browser import needs_chromium
from tests.page.states import BLOCKED, BUSY, FAILING, IN_STEP, LAGGING, STATES, device, stats

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow, needs_chromium]

PAGE_BYTES = 60 * 1024

LONG = "averylongnamewithoutaplacetobreak" * 5
EVERYTHING = dataclasses.replace(
    BUSY,
    targets=(
        dataclasses.replace(FAILING.targets[0], id="failing/egress/a"),
        dataclasses.replace(BLOCKED.targets[0], id="blocked/egress/b"),
        dataclasses.replace(LAGGING.targets[0], id="lagging/egress/c", state=State.STARTING),
        *BUSY.targets,
        IN_STEP.targets[0],
    ),
    config=FAILING.config,
    link=dataclasses.replace(LAGGING.link, budget_relief_ts=BUSY.now_ts + 600),
    is_draining=True,
)
"""Every section with all that it can show."""


# For each state its answer, and words by the section in which somebody looks for them.
SHOWN = {
    "in-step": (
        "Yes",
        {
            "#places": [
                "12 of 12 directories watched, proven",
                "412 MiB of 1 GiB quota",
                "512 MiB stay free",
                "readers see 2027-01-14, published 2 h 1 min ago",
                "s3://device-7/models/",
            ],
            "#settings": ["generation 1, applied 3 d 4 h ago", "REPLICATOR_INGRESS", "Ready", "yes"],
        },
    ),
    "busy": (
        "Not yet",
        {
            "#moving": ["2027-01-15/weights.bin", "88 MiB of 208 MiB"],
            "#settings": ["at most 2 MiB/s; one transfer achieves 1.9 MiB/s", "no cap; one transfer"],
        },
    ),
    "lagging": (
        "Not yet",
        {
            "#targets": ["2 h 33 min", "1432 files (3.2 GiB)"],
            "#attention": [
                "events are incomplete",
                "fs.inotify.max_user_watches",
                "Sweeps go on.",
                "detector/ingress/models is behind",
                "1 of 15 files is missing",
            ],
            "#settings": ["4.1 GiB of 5 GiB used", "no: os-stats/egress/statistics: the oldest of 1432"],
        },
    ),
    "failing": (
        "No",
        {
            "#attention": [
                "2 files fail",
                "reports/summary.pdf",
                "PutObject is not allowed",
                "in 8 s",
                "A newer configuration was refused",
                "'../secrets' leaves the export directory",
            ],
            "#notes": ["1 file will be looked at again", "2 files left out (1 excluded, 1 symlink)"],
        },
    ),
    "blocked": (
        "No",
        {"#attention": ["os-stats/egress/statistics is blocked", "connection refused", "Check endpoint"]},
    ),
}


@pytest.mark.parametrize("name", STATES)
async def test_answer_comes_first_and_reasons_where_they_are_looked_for(gateway, visit, name):
    """In each state: whether the data is safe, the sentence of the terminal, each target, and every reason."""
    gateway.snapshot = STATES[name]
    answer, sections = SHOWN[name]

    await visit.open(gateway.url)

    assert await visit.answer() == answer
    assert await visit.page.locator("#verdict").text_content() == verdict(STATES[name])
    assert await visit.page.title() == f"{answer} - replicator {gateway.address}"
    states = await visit.page.locator("#targets .state").all_inner_texts()
    assert sorted(states) == sorted(view.state.value for view in STATES[name].targets)
    for section, texts in sections.items():
        told = await visit.page.locator(section).inner_text()
        assert [text for text in texts if text not in told] == []


async def test_what_is_not_there_takes_no_room(gateway, visit):
    """With nothing in the way and nothing moving, neither section is shown, to eyes or to a screen reader."""
    gateway.snapshot = IN_STEP

    await visit.open(gateway.url)

    assert [await visit.page.locator(name).is_visible() for name in ("#attention", "#moving", "#notes")] == [False] * 3


async def test_worst_target_comes_first(gateway, visit):
    """With many targets, nobody has to look for the one that needs a person."""
    gateway.snapshot = device(
        stats(id="a", state=State.IN_STEP),
        stats(id="b", state=State.BEHIND, pending_files=1),
        stats(id="c", state=State.BLOCKED, reason="no bucket"),
        stats(id="d", state=State.FAILING, failing_by_reason={"refused": 1}),
    )

    await visit.open(gateway.url)

    assert await visit.page.locator("#targets tbody th").all_inner_texts() == ["c", "d", "b", "a"]


async def test_chart_says_in_words_what_it_draws(gateway, visit):
    """Bars up and down, one for each span with bytes, and the same figures as text and as the picture's name."""
    gateway.snapshot = BUSY

    await visit.open(gateway.url)

    chart = visit.page.get_by_role("img")
    spans = BUSY.throughput
    assert await chart.locator(".up").count() == sum(map(bool, spans.up))
    assert await chart.locator(".down").count() == sum(map(bool, spans.down))
    name = await chart.get_attribute("aria-label")
    assert f"{words.size(sum(spans.up))} in all; down: " in name
    assert name.split("; ") == await visit.page.locator("figcaption .way").all_inner_texts()


async def test_numbers_read_as_in_the_terminal(gateway, visit):
    """Sizes and ages are worded by the page exactly as the command line words them."""
    await visit.open(gateway.url)
    sizes = [0, 1, 1023, 1024, 1500, 10_188, 10_300, 2**20 - 1, 2**20, 1.26 * 2**30, 9.96 * 2**30, 2**50, 2**60]
    ages = [0, 0.9, 1, 59.9, 60, 3599, 3600, 3660, 86399, 86400, 90000, 10**7]

    told = await visit.page.evaluate("([sizes, ages]) => [sizes.map(size), ages.map(age)]", [sizes, ages])

    assert told == [[words.size(number) for number in sizes], [words.age(seconds) for seconds in ages]]


async def test_hostile_names_are_text(gateway, visit):
    """Names of files, targets and reasons that are markup stay what they are: no element, no script, no request."""
    evil = "<img src=//192.0.2.1/x onerror=alert(1)><script>document.title='owned'</script>"
    gateway.snapshot = device(
        stats(
            id=evil,
            path=evil,
            state=State.BLOCKED,
            reason=evil,
            fix=evil,
            in_flight=(MovingFile(evil, 2, 1),),
            failing=(FailingFile(evil, evil, evil, 1, 1, 1),),
            failing_by_reason={evil: 1},
            skipped=(SkippedFile(evil, evil), SkippedFile("line\nbreak\u202e", "x")),
            skipped_by_reason={evil: 2},
        ),
        version=evil,
    )

    await visit.open(gateway.url)

    assert await visit.page.locator("main img, main script").count() == 0
    assert await visit.page.locator("#targets tbody th").inner_text() == evil
    assert "line\\x0abreak\\u202e" in await visit.page.locator("#notes").inner_text()
    assert "owned" not in (await visit.page.title())
    assert visit.complaints == []
    assert all(url.startswith(gateway.url) for url in visit.asked)


@pytest.mark.parametrize(("scheme", "width"), [("light", 880), ("dark", 360)])
async def test_everybody_can_use_it(gateway, browser, anew, scheme, width):
    """axe finds nothing, by day on a desk or by night on a phone: contrast, names, landmarks, tables, regions."""
    gateway.snapshot = EVERYTHING
    viewport = {"width": width, "height": 900}
    visit = anew(await browser.new_page(viewport=viewport, color_scheme=scheme, reduced_motion="reduce"))
    await visit.open(gateway.url)

    found = (await Axe().run(visit.page)).response["violations"]

    await visit.page.close()
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
    assert visit.complaints == []


async def test_nothing_runs_out_of_a_narrow_screen(gateway, visit):
    """A phone scrolls down, never sideways, whatever the names are."""
    gateway.snapshot = EVERYTHING
    gateway.change(
        targets=(*EVERYTHING.targets, stats(id=f"{LONG}/egress/{LONG}", path=f"/{LONG}", url=LONG, origin=LONG))
    )
    await visit.page.set_viewport_size({"width": 320, "height": 640})

    await visit.open(gateway.url)

    assert await visit.page.evaluate("document.documentElement.scrollWidth") <= 320


async def test_tables_are_tables_for_a_screen_reader_on_a_phone(gateway, visit):
    """Laid out one below the other, cells keep their roles and say which column they are of."""
    gateway.snapshot = FAILING
    await visit.page.set_viewport_size({"width": 360, "height": 740})

    await visit.open(gateway.url)

    row = visit.page.get_by_role("row").filter(has_text="reports/summary.pdf")
    assert await row.locator("[role=cell]").count() == 4  # a browser may take them for plain blocks otherwise
    assert await row.locator("[role=rowheader]").inner_text() == "reports/summary.pdf"
    assert await row.locator("[role=cell]").nth(1).get_attribute("data-label") == "Attempts"


async def test_keyboard_reaches_all_there_is_to_reach(gateway, visit):
    """Field, button and links take the focus in the order of the page, visibly; nothing else holds it."""
    await visit.open(gateway.url)
    reached = []
    for _ in range(6):
        await visit.page.keyboard.press("Tab")
        reached.append(
            await visit.page.evaluate("document.activeElement.getAttribute('href') ?? document.activeElement.nodeName")
        )

    assert reached == ["INPUT", "BUTTON", "status", "metrics", "readyz", "healthz"]
    outline = await visit.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    tabbable = "a, button, input, select, textarea, summary, [tabindex='0']"
    assert await visit.page.locator(tabbable).count() == len(reached)


async def test_one_file_is_asked_about(gateway, visit):
    """By keyboard alone: what the command line says of a file, with the next step, and the focus on the answer."""
    evil = "<img src=x>"
    plain = PlaceView("os-stats/egress/a", Direction.EGRESS, f"/export/{evil}", "s3://b/x")
    gateway.places = (
        dataclasses.replace(plain, verdict=Verdict.FAILING, summary="403 AccessDenied", fix="Check the access key"),
        dataclasses.replace(plain, verdict=Verdict.LEFT_OUT, summary=f"left out by rule: {evil}"),
    )
    await visit.open(gateway.url)

    await visit.page.get_by_label("Path on the device, or key in the bucket").fill("a b&c")
    await visit.page.keyboard.press("Enter")
    await visit.shows("403 AccessDenied", "#find")

    told = await visit.page.locator("#find ul").inner_text()
    assert [line for line in told.splitlines() if line] == [
        "os-stats/egress/a: failing",
        "403 AccessDenied",
        "Check the access key",
        f"/export/{evil}, s3://b/x",
        "os-stats/egress/a: left-out",
        f"left out by rule: {evil}",
        f"/export/{evil}, s3://b/x",
    ]
    assert f"{gateway.url}explain?path=a%20b%26c" in visit.asked
    assert await visit.page.evaluate("document.activeElement.parentNode.id") == "find"
    assert visit.complaints == []


async def test_question_without_an_answer_is_told(gateway, visit):
    """Nothing known, a refusal, a server that is gone: a sentence each, and the next question can be asked."""
    gateway.places = ()
    await visit.open(gateway.url)

    async def ask(text: str) -> None:
        await visit.page.locator("#asked").fill(text)
        await visit.page.get_by_role("button", name="Ask").click()

    await ask("a")
    await visit.shows("Not known here: no target takes such a path or key.", "#find")
    await ask("\u4e2d" * 1300)
    await visit.shows("No answer: the query is longer than 4096 bytes", "#find")
    await gateway.stop()
    await ask("a")
    await visit.shows("No answer: the replicator cannot be reached.", "#find")


async def test_only_the_answer_is_read_out_by_itself(gateway, visit):
    """A screen reader hears when the answer changes, and is not told of every second."""
    gateway.snapshot = BLOCKED

    await visit.open(gateway.url)

    assert await visit.page.locator("[aria-live], [role=alert], [role=status]").evaluate_all(
        "all => all.map((one) => one.id)"
    ) == ["answer"]


@pytest.mark.parametrize("is_scripted", [True, False], ids=["script", "no script"])
async def test_words_are_there_before_any_script(gateway, browser, anew, is_scripted):
    """The first HTML says it all in short; without a script it stays, and the page is loaded anew by itself."""
    gateway.snapshot = BLOCKED
    context = await browser.new_context(java_script_enabled=is_scripted)
    if is_scripted:
        await context.route("**/page.js", lambda route: route.abort())
    visit = anew(await context.new_page())

    await visit.page.goto(gateway.url)

    assert await visit.answer() == "No"
    told = await visit.page.locator("main").inner_text()
    assert "connection refused. Check endpoint" in told
    assert ("loaded anew every 10 seconds" in told) is not is_scripted
    await context.close()


async def test_page_is_light(gateway, visit):
    """All that is fetched to see the page is this server's and below 60 KiB."""
    sizes = {}

    async def weigh(response) -> None:
        if not response.url.endswith("/events"):
            sizes[response.url] = len(await response.body())

    visit.page.on("response", weigh)

    await visit.open(gateway.url)

    assert {url.removeprefix(gateway.url) for url in sizes} >= {"", "page.js"}
    assert sum(sizes.values()) < PAGE_BYTES
    assert all(url.startswith(gateway.url) for url in visit.asked)
    assert visit.complaints == []
