"""Whom the command speaks to: the configured host and port, and nobody else, whatever the environment suggests."""

import asyncio
import re
import shutil
import sys
from urllib.parse import urlsplit

import pytest

CONNECT = re.compile(r"connect\(\d+, (\{.*?\})")
FOREIGN = {
    "AWS_EC2_METADATA_DISABLED": "false",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:9/credentials",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_PROFILE": "nobody",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "/etc/hostname",
    "AWS_ROLE_ARN": "arn:aws:iam::1:role/x",
}


async def contacts(command, *arguments: str, **words: str) -> tuple[int, set[str]]:
    """The exit code, and each address that any thread tried to connect to, as strace shows it."""
    trace = command.home / "trace"
    process = await asyncio.create_subprocess_exec(
        "strace", "-f", "-qq", "-e", "trace=connect", "-o", str(trace), sys.executable, "-m", "replicator", *arguments,
        env=command.environment(**words), cwd=command.home,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    code = await process.wait()
    return code, set(CONNECT.findall(trace.read_text()))


@pytest.mark.slow
@pytest.mark.fault("F13")
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("s3_engine", ["auto", "s3fs"])
async def test_only_the_endpoint_is_spoken_to(replicator, storage, witness, s3_engine):
    """B5: a whole pass connects to the endpoint alone; no metadata service, no profile's or variable's endpoint."""
    out = replicator.home / "export/out"
    out.mkdir()
    (out / "f").write_bytes(b"content")
    await witness.put("incoming/f", b"content")
    words = FOREIGN | {"REPLICATOR_S3_ENGINE": s3_engine}

    code, found = await contacts(replicator, "sync", **words)

    place = urlsplit(storage.endpoint)
    assert code == 0
    assert await witness.get("sent/f") == b"content"
    assert {one for one in found if "AF_INET" in one} == {
        f'{{sa_family=AF_INET, sin_port=htons({place.port}), sin_addr=inet_addr("{place.hostname}")}}'
    }


@pytest.mark.slow
@pytest.mark.fault("F13")
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("OBC_AWS_SECRET_ACCESS_KEY", ""),
        ("OBC_BUCKET_HOST", "169.254.169.254"),
    ],
)
async def test_without_a_fit_bucket_nobody_is_asked(replicator, word, text):
    """B7: missing credentials are not looked for elsewhere, and an endpoint that is none is refused: no connection."""
    code, found = await contacts(replicator, "sync", **FOREIGN | {word: text})

    assert code == 2
    assert {one for one in found if "AF_INET" in one} == set()
