"""The page in a browser, before a real `replicator run` and a real S3 server that goes away."""

import contextlib
from urllib.parse import urlsplit

import boto3
import pytest

from tests import moto_server
from tests.browser import chromium, needs_chromium

pytestmark = [pytest.mark.slow, needs_chromium]

FILES = 4
KIB_256 = 256 * 1024
WORDS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "BUCKET_NAME": "device"}


@pytest.fixture
def server():
    """An S3 server of the test's own: `endpoint`, and `kill`."""
    with contextlib.ExitStack() as running:
        endpoint = running.enter_context(moto_server.running())
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
            region_name="us-east-1",
        )
        client.create_bucket(Bucket="device")
        client.close()
        yield endpoint, running.close


async def test_files_are_seen_to_arrive_and_a_dead_server_to_block(bare, server, until, tmp_path):
    """On one open page: in step, files on their way, in step again; then the server dies, and it says so with a fix."""
    endpoint, kill = server
    bare.env |= {f"OBC_{name}": word for name, word in WORDS.items()} | {
        "OBC_BUCKET_HOST": urlsplit(endpoint).hostname or "",
        "OBC_BUCKET_PORT": str(urlsplit(endpoint).port),
        "OBC_BUCKET_REGION": "us-east-1",
        "REPLICATOR_S3_SCHEME": "http",
        "REPLICATOR_EGRESS": "out=sent",
        "REPLICATOR_SWEEP_INTERVAL_S": "1",
        "REPLICATOR_RETRY_MAX_S": "1",
        "REPLICATOR_BANDWIDTH": "256KiB/s",
    }
    out = tmp_path / "export/out"
    out.mkdir()
    async with bare.running() as service, chromium() as browser:
        page = await browser.new_page()
        page.set_default_timeout(30_000)
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))

        async def shows(text: str, within: str) -> None:
            await page.locator(within).filter(has_text=text).wait_for()

        await until(service.is_in_step)
        await page.goto(f"http://127.0.0.1:{service.port}/")
        await shows("Yes", "#answer")
        for number in range(FILES):
            (out / str(number)).write_bytes(bytes(KIB_256))
        await shows("Yes, but for the last seconds", "#answer")
        await shows("of 256 KiB", "#moving")
        await shows("4 files (1 MiB) in step", "#places")
        await shows("1 MiB in all", "#throughput")
        await page.locator("#asked").fill("out/0")
        await page.keyboard.press("Enter")
        await shows("workload/egress/sent: in-step", "#find")
        kill()
        for number in range(FILES):
            (out / f"late-{number}").write_bytes(b"late")
        await shows("No", "#answer")
        await shows("is blocked", "#attention")

        assert "nothing is lost" in await page.locator("#attention .fix").inner_text()
        assert complaints == []
