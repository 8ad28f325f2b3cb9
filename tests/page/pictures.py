"""The pictures of the page in the documentation: `python -m tests.page.pictures DIRECTORY`.

Each state, light and dark, as a real browser shows it.
"""

import asyncio
import functools
import sys
from pathlib import Path
from typing import Literal

from playwright.async_api import Browser

from replicator.observe.http import serve
from replicator.observe.metrics import Metrics
from replicator.observe.status import Snapshot
from tests.browser import CHROMIUM, chromium
from tests.page.palette import with_palette
from tests.page.states import STATES

WIDTH, HEIGHT = 880, 900
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


async def take_all(directory: Path) -> None:
    async with chromium() as browser:
        for name, snapshot in STATES.items():
            server = await serve(
                "127.0.0.1:0", snapshot=functools.partial(_same, snapshot), metrics=Metrics(), complaints=list
            )
            for scheme in SCHEMES:
                png = with_palette(await take(browser, server.address, scheme))
                path = directory / f"page-{name}-{scheme}.png"
                path.write_bytes(png)
                print(f"{path}: {len(png)} bytes")
            await server.close()


async def take(browser: Browser, address: str, scheme: Literal["light", "dark"]) -> bytes:
    """What somebody sees who opens the page, but for its address, which is another one each time."""
    page = await browser.new_page(
        viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme, reduced_motion="reduce"
    )
    await page.goto(f"http://{address}/")
    await page.get_by_text("Live", exact=True).wait_for()
    await page.evaluate("document.getElementById('host').textContent = 'device-7'")
    png = await page.screenshot()
    await page.close()
    return png


def _same(snapshot: Snapshot) -> Snapshot:
    return snapshot


if __name__ == "__main__":
    if not Path(CHROMIUM).exists():
        sys.exit(f"{CHROMIUM} is missing: install chromium")
    asyncio.run(take_all(Path(sys.argv[1])))
