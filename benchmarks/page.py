"""How soon the page for people is seen: first contentful paint, beside a page of one line from the same server.

    python benchmarks/page.py [--runs 10]

Every figure is the first page of a browser that was started for it, and then a second page of the same browser, with
nothing cached in either: what the page of one line takes is the browser's own part. Needs /usr/bin/chromium.
"""

import argparse
import asyncio
import statistics
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from playwright.async_api import Browser

from replicator.observe.http import serve, serve_pages
from replicator.observe.metrics import Metrics
from replicator.observe.request import Answer
from tests.browser import chromium
from tests.page.states import BUSY

_LINE = Answer(200, b"<!doctype html><title>one line</title><p>one line", "text/html; charset=utf-8")
_PAINT = "performance.getEntriesByName('first-contentful-paint')"


async def paint_ms(browser: Browser, url: str) -> float:
    """From the request to the first text, in a profile without a cache."""
    context = await browser.new_context(viewport={"width": 880, "height": 900})
    try:
        page = await context.new_page()
        await page.goto(url, wait_until="commit")
        while (painted_ms := await page.evaluate(f"{_PAINT}[0]?.startTime")) is None:
            await asyncio.sleep(0.05)  # the page's policy lets nothing wait within it
        return float(painted_ms)
    finally:
        await context.close()


async def measure(runs: int) -> None:
    page = await serve("127.0.0.1:0", snapshot=lambda: BUSY, metrics=Metrics(), complaints=list, explain=None)
    line = await serve_pages("127.0.0.1:0", {"/": lambda: _LINE})
    urls = {"the page": f"http://{page.address}/", "one line": f"http://{line.address}/"}
    figures = defaultdict(list)
    try:
        for _ in range(runs):
            for name, url in urls.items():
                async with chromium() as browser:
                    figures[name, "first"].append(await paint_ms(browser, url))
                    figures[name, "second"].append(await paint_ms(browser, url))
    finally:
        await page.close()
        await line.close()
    for (name, which), found in sorted(figures.items(), reverse=True):
        print(
            f"{name}, {which} page of a browser: {statistics.median(found):.0f} ms (median), "
            f"{min(found):.0f} to {max(found):.0f}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10)
    asyncio.run(measure(parser.parse_args().runs))
