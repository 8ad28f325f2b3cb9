"""Pages of a process that is not a replicator: the same door, other answers."""

import asyncio
import urllib.error
import urllib.request

import pytest

from replicator.observe.http import serve_pages
from replicator.observe.operator_metrics import OUTCOMES, OperatorMetrics
from replicator.observe.request import Answer


def fetch(address: str, path: str, method: str = "GET") -> tuple[int, str]:
    request = urllib.request.Request(f"http://{address}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.fixture
async def address():
    door = await serve_pages("127.0.0.1:0", {"/healthz": lambda: Answer(200, b"alive\n")})
    yield door.address
    await door.close()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/healthz", 200), ("HEAD", "/healthz", 200), ("GET", "/status", 404), ("POST", "/healthz", 405)],
)
async def test_only_what_is_there_is_answered_and_only_read(address, method, path, status):
    """Each page by its path; nothing is written, and nothing else is there."""
    code, body = await asyncio.to_thread(fetch, address, path, method)

    assert code == status
    assert (body == "alive\n") == (status == 200 and method == "GET")


def test_counters_of_the_operator_begin_at_nought():
    """`increase()` does not see a series that begins at 1, so each outcome is there before its first time."""
    exposed = OperatorMetrics().render().decode()

    assert [f'replicator_operator_looks_total{{outcome="{word}"}} 0.0' in exposed for word in OUTCOMES] == [True] * 5
    assert "_created" not in exposed
