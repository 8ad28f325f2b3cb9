"""One browser for the tests of a file, and a server whose status a test changes."""

import dataclasses
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, Request

from replicator.observe.explanation import Explanation, PlaceView
from replicator.observe.http import Server, serve
from replicator.observe.metrics import Metrics
from replicator.observe.status import Snapshot
from tests.browser import chromium
from tests.page.states import IN_STEP, NOW_TS


@dataclass
class Gateway:
    """A server on a port of its own, which it keeps when it is started again."""

    snapshot: Snapshot = IN_STEP
    address: str = "127.0.0.1:0"
    looks: int = 0
    places: tuple[PlaceView, ...] = ()
    """What is known of any file."""
    server: Server | None = None

    async def start(self) -> None:
        self.server = await serve(
            self.address, snapshot=self._look, metrics=Metrics(), complaints=list, explain=self._explain
        )
        self.address = self.server.address

    async def stop(self) -> None:
        if self.server:
            await self.server.close()
            self.server = None

    def change(self, **changes) -> None:
        self.snapshot = dataclasses.replace(self.snapshot, **changes)

    @property
    def url(self) -> str:
        return f"http://{self.address}/"

    def _explain(self, asked: str) -> Callable[[], Explanation]:
        return lambda: Explanation(asked, NOW_TS, self.places)

    def _look(self) -> Snapshot:
        self.looks += 1
        return self.snapshot


@dataclass
class Visit:
    """A page that somebody has opened, and what the browser had to say about it."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    async def open(self, url: str) -> None:
        await self.page.goto(url)
        await self.page.get_by_text("Live", exact=True).wait_for()

    async def answer(self) -> str:
        return await self.page.locator("#answer").inner_text()

    async def shows(self, text: str, within: str = "body") -> None:
        """Wait until it does."""
        await self.page.locator(within).filter(has_text=text).wait_for()


def visit_of(page: Page) -> Visit:
    visit = Visit(page)
    page.on("console", lambda message: visit.complaints.append(message.text))
    page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    page.on("request", lambda request: visit.asked.append(_url_of(request)))
    return visit


def _url_of(request: Request) -> str:
    return request.url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as one:
        yield one


@pytest_asyncio.fixture(loop_scope="module")
async def gateway() -> AsyncIterator[Gateway]:
    one = Gateway()
    await one.start()
    yield one
    await one.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    one = await browser.new_context(viewport={"width": 880, "height": 900}, reduced_motion="reduce")
    one.set_default_timeout(15_000)
    yield one
    await one.close()


@pytest_asyncio.fixture(loop_scope="module")
async def visit(context: BrowserContext) -> Visit:
    return visit_of(await context.new_page())


@pytest.fixture
def anew():
    """`visit_of`, for tests that open a page of their own."""
    return visit_of
